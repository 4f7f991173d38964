/* What is done, and by whom: by callbacks, by other threads, and by one that only watches. */
#include "tests/sim/sim_run.h"

#include <inttypes.h>

#define STOP_NS_MAX 20000

void
acts_one(void)
{
	struct sim_timer *sim_timer = &run.timers[kernel_sim_below(TIMERS)];
	struct sim_task *sim_task = &run.tasks[kernel_sim_below(TASKS)];
	uint64_t choice = kernel_sim_below(run.stream_count > 0 ? 128 : 86);

	if (run.over)
		return;
	if (choice < 26)
		ops_start_some(&run.disk, 1);
	else if (choice < 38)
		ops_start_some(&run.polls, 1);
	else if (choice == 38 && kernel_sim_below(16) == 0)
		ops_start_some(&run.disk, OBJECTS_MAX);
	else if (choice == 39 && kernel_sim_below(16) == 0)
		ops_start_some(&run.polls, OBJECTS_MAX);
	else if (choice < 44)
		polls_cancel(&run.polls.ops[kernel_sim_below(run.polls.count)]);
	else if (choice < 49)
		tasks_defer(sim_task);
	else if (choice < 50)
		(task_cancel(&sim_task->task), sim_task->deferred = false);
	else if (choice < 55)
		timers_start(sim_timer);
	else if (choice < 57)
		timers_stop(sim_timer);
	else if (choice < 60)
		messages_send(false);
	else if (choice < 64)
		ops_complete_one(choice < 62 ? &run.disk : &run.polls);
	else if (choice < 78)
		ops_start_some(&run.sockets, 1);
	else if (choice == 78 && kernel_sim_below(16) == 0)
		ops_start_some(&run.sockets, OBJECTS_MAX);
	else if (choice < 83)
		polls_abandon(&run.polls.ops[kernel_sim_below(run.polls.count)]);
	else if (choice < 85)
		messages_notify();
	else if (choice >= 120)
		parked_act();
	else if (choice >= 86)
		streams_act();
	else if (kernel_sim_below(4) == 0)
		messages_wake();
}

void
acts_stop(void *context)
{
	(void)context;
	if (run.stopped)
		return;
	run.stopped = true;
	run.stop_turn = run.counters->turns;
	run.stop_slept_ns = kernel_sim_slept_ns();
	reactor_stop(run.reactor);
}

void
acts_pump(void *context)
{
	unsigned count = 1 + (unsigned)kernel_sim_below(3);

	if (run.stopped && run.running)
		count = 0; /* nothing else may wake it */
	if (run.over && !run.running)
		return;
	/* Never two kinds at a time: each must wake the reactor by itself. */
	switch (count > 0 ? kernel_sim_below(4) : 3) {
	case 0:
		messages_notify();
		break;
	case 1:
		messages_wake();
		break;
	default:
		while (count-- > 0)
			messages_send(true);
	}
	/* Soon: while the reactor is busy with the messages, or on its way to sleep. */
	if (run.stopper == STOPPER_THREAD && run.running && run.done >= run.stop_from)
		kernel_sim_at(kernel_sim_below(STOP_NS_MAX), acts_stop, NULL);
	kernel_sim_at(kernel_sim_below(run.pump_ns), acts_pump, context);
}

bool
acts_drained(void)
{
	for (unsigned i = 0; i < TASKS; i++)
		if (run.tasks[i].deferred)
			return false;
	for (unsigned i = 0; i < NOTICES; i++)
		if (run.notices[i].pending != 0)
			return false;
	return run.disk.idle_count == run.disk.count && run.polls.idle_count == run.polls.count &&
	       run.sockets.idle_count == run.sockets.count && run.idle_message_count == MESSAGES &&
	       run.stale_to_come == 0;
}

static void
check_ages(const struct objects *objects)
{
	for (unsigned i = 0; i < objects->count; i++) {
		const struct sim_op *sim_op = &objects->ops[i];
		uint64_t age_ns = kernel_sim_now_ns() - sim_op->submitted_ns;

		if (sim_op->stage != STAGE_IDLE && age_ns > objects->age_ns_max)
			kernel_sim_fail("%s operation %u is in stage %d and %" PRIu64
					" ns old: lost or starved",
					objects == &run.disk	? "disk"
					: objects == &run.polls ? "poll"
								: "socket",
					i, sim_op->stage, age_ns);
	}
}

void
acts_watch(void *context)
{
	check_ages(&run.disk);
	check_ages(&run.polls);
	check_ages(&run.sockets);
	streams_check();
	parked_check();
	for (unsigned i = 0; i < TIMERS; i++) {
		const struct sim_timer *sim_timer = &run.timers[i];

		if (run.running && sim_timer->running &&
		    sim_timer->latest_ns < kernel_sim_now_ns() &&
		    kernel_sim_now_ns() - sim_timer->latest_ns > run.disk.age_ns_max)
			kernel_sim_fail("a timer never fires");
	}
	for (unsigned i = 0; i < MESSAGES; i++)
		SIM_CHECK(!run.running || !run.messages[i].posted ||
			  kernel_sim_slept_ns() - run.messages[i].posted_slept_ns < 20 * MS);
	if (run.stopper == STOPPER_DRAINED && run.started >= run.ops_max)
		run.over = true;
	if (run.over && run.running && acts_drained()) {
		messages_send(true);
		kernel_sim_at(kernel_sim_below(STOP_NS_MAX), acts_stop, NULL);
	}
	kernel_sim_at(WATCH_NS, acts_watch, context);
}
