/* Timers and tasks: neither early nor late. */
#include "tests/sim/sim_run.h"

#include <inttypes.h>

void
timers_on_expired(struct timer *timer)
{
	struct sim_timer *sim_timer = container_of(timer, struct sim_timer, timer);
	uint64_t now_ns = kernel_sim_now_ns(), late_ns;

	turns_enter(PLACE_CALLBACK);
	SIM_CHECK(sim_timer->running && !timer_running(timer));
	SIM_CHECK(now_ns >= sim_timer->earliest_ns);
	/* It was due in the turn before this one at the earliest; beyond that time and the ticks' length only a
	 * sleep may have been late. */
	late_ns = now_ns > sim_timer->latest_ns ? now_ns - sim_timer->latest_ns : 0;
	if (late_ns > TIMER_TICK_NS + KERNEL_SIM_LATE_NS + turns_awake_ns() - run.awake_before_ns)
		kernel_sim_fail("a timer is %" PRIu64 " ns late", late_ns);
	sim_timer->running = false;
	run.fired++;
	turns_leave();
}

static uint64_t
random_delay_ns(void)
{
	switch (kernel_sim_below(8)) {
	case 0:
		return 0;
	case 1:
		return kernel_sim_below(TIMER_TICK_NS);
	case 2:
		return kernel_sim_below(10000 * MS);
	default:
		return kernel_sim_below(5 * MS);
	}
}

void
timers_start(struct sim_timer *sim_timer)
{
	uint64_t delay_ns = random_delay_ns();

	sim_timer->earliest_ns = kernel_sim_now_ns() + delay_ns;
	sim_timer->latest_ns = UINT64_MAX; /* known when the call returns; others may look before */
	sim_timer->running = true;
	reactor_timer_start(run.reactor, &sim_timer->timer, delay_ns);
	sim_timer->latest_ns = kernel_sim_now_ns() + delay_ns;
}

void
timers_stop(struct sim_timer *sim_timer)
{
	reactor_timer_stop(run.reactor, &sim_timer->timer);
	sim_timer->running = false;
}

void
tasks_on_run(struct task *task)
{
	struct sim_task *sim_task = container_of(task, struct sim_task, task);

	turns_enter(PLACE_TASK);
	SIM_CHECK(sim_task->deferred);
	SIM_CHECK(run.turn >= sim_task->turn && run.turn <= sim_task->turn_last);
	sim_task->deferred = false;
	run.ran++;
	turns_leave();
}

void
tasks_defer(struct sim_task *sim_task)
{
	bool in_callback = run.place == PLACE_CALLBACK;

	if (!sim_task->deferred) {
		sim_task->deferred = true;
		sim_task->turn =
			run.counters->turns + (in_callback || run.place == PLACE_STREAM ? 0 : 1);
		sim_task->turn_last = run.counters->turns + (in_callback ? 0 : 1);
	}
	run.calling = true;
	reactor_defer(run.reactor, &sim_task->task);
	run.calling = false;
}
