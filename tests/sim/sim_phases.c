/* The phases of a run: turns one by one, waits, reactor_run, turns until nothing is left; and what must hold at the end. */
#include "tests/sim/sim_run.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>

#define SETTLE_NS    (8 * MS)
#define DRAIN_NS_MAX (20000 * MS)

void
phases_create(void)
{
	int error;

	while ((error = reactor_create(&run.sizes, &run.reactor)) != 0)
		SIM_CHECK(error == -EOPNOTSUPP);
	run.counters = reactor_counters(run.reactor);
	SIM_CHECK(reactor_slots(run.reactor, OP_KIND_SOCKET) == SOCKET_SLOTS);
	turns_on_time();
	if (run.stream_count == 0)
		return;
	streams_start(run.stream_count);
	parked_start();
}

static void
turn(void)
{
	uint64_t slept_ns = kernel_sim_slept_ns();
	bool busy;

	turns_on_time();
	busy = reactor_turn(run.reactor);
	turns_on_time();
	SIM_CHECK(kernel_sim_slept_ns() == slept_ns);
	if (!busy || kernel_sim_below(8) == 0)
		kernel_sim_idle(kernel_sim_below(200000));
}

void
phases_take_turns(void)
{
	while (run.done < run.turns_until) {
		if (kernel_sim_below(4) == 0)
			acts_one();
		turn();
	}
}

static void
wake(void *context)
{
	(void)context;
	if (run.waiting)
		messages_wake();
}

/* A wait ends for what it says, and in time. */
static void
wait_once(void)
{
	unsigned min = (unsigned)kernel_sim_below(kernel_sim_below(2) == 0 ? 2 : 30);
	unsigned max = 1 + (unsigned)kernel_sim_below(kernel_sim_below(2) == 0 ? 4 : 60), count;
	uint64_t timeout_ns = kernel_sim_below(4) == 0 ? 0 : kernel_sim_below(3 * MS);
	uint64_t until_ns = kernel_sim_now_ns() + timeout_ns, awake_ns = turns_awake_ns();
	uint64_t calls = run.called[0] + run.called[1] + run.called[2];

	/* At any moment of it: on its way to sleep, asleep, at its end. */
	if (kernel_sim_below(4) == 0)
		kernel_sim_at(kernel_sim_below(kernel_sim_below(2) == 0 ? 5000 : timeout_ns), wake,
			      NULL);
	run.waits++;
	count = reactor_wait(run.reactor, min, max, timeout_ns);
	SIM_CHECK(count <= max);
	calls = run.called[0] + run.called[1] + run.called[2] - calls;
	SIM_CHECK(run.stream_count > 0 ? count >= calls : count == calls);
	if (count >= smaller(min, max))
		return;
	if (kernel_sim_now_ns() < until_ns) {
		SIM_CHECK(run.wake_maybe);
		run.wake_maybe = false;
	} else {
		SIM_CHECK(kernel_sim_now_ns() - until_ns <=
			  WAKE_NS_MAX + turns_awake_ns() - awake_ns);
	}
	run.wake_sure = false;
}

void
phases_take_waits(void)
{
	run.waiting = true;
	while (run.done < run.waits_until) {
		if (kernel_sim_below(4) == 0)
			acts_one();
		wait_once();
		kernel_sim_busy();
		turns_on_time();
	}
	run.waiting = false;
	run.loose_until_turn = run.counters->turns + 4;
	run.due = 0;
}

void
phases_run_until_stopped(void)
{
	run.running = true;
	reactor_run(run.reactor);
	run.running = false;
	SIM_CHECK(run.stopped);
	/* A turn that began just before the acts_stop, and no sleep. */
	SIM_CHECK(run.counters->turns - run.stop_turn <= 1);
	SIM_CHECK(kernel_sim_slept_ns() - run.stop_slept_ns <=
		  WAKE_NS_MAX + (run.config.manner.no_slot == 0 ? 0 : 5 * MS));
}

/* Each is to go on, whatever the others say. */
static bool
all_finish(void)
{
	bool acts = acts_drained(), streams = streams_finish(), parked = parked_finish();

	return acts && streams && parked;
}

void
phases_drain(void)
{
	uint64_t until_ns;

	while (run.started < run.ops_max) {
		if (kernel_sim_below(4) == 0)
			acts_one();
		turn();
	}
	run.over = true;
	until_ns = kernel_sim_now_ns() + DRAIN_NS_MAX;
	for (unsigned i = 0; i < TIMERS; i++)
		timers_stop(&run.timers[i]);
	while (!all_finish()) {
		polls_cancel_dead();
		for (unsigned i = 0; i < SOCKETS && run.stale_to_come > 0; i++) {
			run.connections[i].reset = true;
			kernel_sim_peer_reset(run.connections[i].fd);
		}
		turn();
		SIM_CHECK(kernel_sim_now_ns() < until_ns);
	}
}

/* ---- at the end ---- */

static unsigned
submit_all(struct objects *objects, unsigned slots)
{
	unsigned count = objects->idle_count;

	while (objects->idle_count > 0) {
		struct sim_op *sim_op = ops_take_idle(objects);

		sim_op->op.priority = PRIORITY_NORMAL;
		sim_op->dead = objects == &run.polls;
		sim_op->fd = sim_op->dead ? run.dead_fds[0] : run.file_fds[0];
		if (sim_op->dead)
			op_poll(&sim_op->op, sim_op->fd, POLLIN);
		else
			op_read(&sim_op->op, sim_op->fd, sim_op->buffer, 1, 0);
		ops_submit(sim_op);
	}
	count = smaller(count, slots);
	return run.sizes.waiting_max == 0 ? count : smaller(count, run.sizes.waiting_max);
}

void
phases_check_slots(void)
{
	const struct kernel_sim_manner good = {
		.disk_ns_min = 2 * MS,
		.disk_ns_max = 3 * MS,
		.poll_ns_max = 3 * MS,
	};
	uint64_t until_ns = kernel_sim_now_ns() + SETTLE_NS;
	unsigned disk, polls;

	kernel_sim_set_manner(&good);
	/* Until a refusal is forgotten, and what it held back is with the kernel. */
	while (kernel_sim_now_ns() < until_ns)
		turn();
	kernel_sim_set_ready(run.dead_fds[0], 0);
	SIM_CHECK(kernel_sim_slots_used(KERNEL_SIM_KIND_DISK) == 0);
	SIM_CHECK(kernel_sim_slots_used(KERNEL_SIM_KIND_POLL) == 0);
	SIM_CHECK(kernel_sim_slots_used(KERNEL_SIM_KIND_SOCKET) == 0);
	SIM_CHECK(kernel_sim_slots_used(KERNEL_SIM_KIND_OWN) == 1);
	SIM_CHECK(reactor_free_slots(run.reactor, OP_KIND_DISK) == run.disk.slots);
	SIM_CHECK(reactor_free_slots(run.reactor, OP_KIND_POLL) == run.polls.slots);
	SIM_CHECK(reactor_free_slots(run.reactor, OP_KIND_SOCKET) == run.sockets.slots);
	disk = submit_all(&run.disk, run.sizes.disk_slots);
	polls = submit_all(&run.polls, run.sizes.poll_slots);
	(void)reactor_turn(run.reactor);
	SIM_CHECK(kernel_sim_slots_used(KERNEL_SIM_KIND_DISK) == disk);
	SIM_CHECK(kernel_sim_slots_used(KERNEL_SIM_KIND_POLL) == polls);
	phases_drain();
}

/* What the model knows to the last one. */
static void
check_model_counters(void)
{
	SIM_CHECK(run.counters->ops_abandoned == run.abandoned);
	SIM_CHECK(run.counters->events_stale == run.stale + kernel_sim_counters()->echoes);
	SIM_CHECK(run.counters->ops_direct == run.direct);
	SIM_CHECK(run.counters->ops_done[PRIORITY_LATENCY] == run.called[PRIORITY_LATENCY]);
	SIM_CHECK(run.counters->ops_done[PRIORITY_BACKGROUND] == run.called[PRIORITY_BACKGROUND]);
}

void
phases_check_counters(void)
{
	const struct kernel_sim_counters *kernel = kernel_sim_counters();

	kernel_sim_idle(1); /* the kernel looks at the ring once more */
	SIM_CHECK(run.started == run.done);
	SIM_CHECK(run.counters->events == kernel->drained);
	SIM_CHECK(run.counters->ops_submitted == kernel->taken);
	SIM_CHECK(run.sent == run.delivered && run.notified == run.noticed);
	SIM_CHECK(run.counters->messages == run.delivered + run.noticed);
	SIM_CHECK(run.counters->ops_direct == kernel->direct);
	if (run.stream_count == 0)
		check_model_counters();
	SIM_CHECK(kernel->submit_calls - kernel->no_slot <= kernel->taken + kernel->refused);
}

void
phases_report(double seconds)
{
	const struct kernel_sim_counters *kernel = kernel_sim_counters();

	printf("%u + %u slots for %u + %u + %u operations, classes %u:%u:%u, spin %u us, %s: "
	       "%" PRIu64 " done in %" PRIu64 " ms (%.2f s), %" PRIu64 " turns (%" PRIu64
	       " cut); %" PRIu64 " submits (%" PRIu64 " short, %" PRIu64 " without a slot, %" PRIu64
	       " refused), %" PRIu64 " sleeps, %" PRIu64 " wake-ups, %" PRIu64
	       " times round the ring, %" PRIu64 " cancels (%" PRIu64 " late), %" PRIu64
	       " yields; ",
	       run.sizes.disk_slots, run.sizes.poll_slots, run.disk.count, run.polls.count,
	       run.sockets.count, run.weights[PRIORITY_LATENCY], run.weights[PRIORITY_NORMAL],
	       run.weights[PRIORITY_BACKGROUND], run.sizes.poll_us,
	       run.config.ring_unknown ? "ring unknown" : "ring known", run.done,
	       kernel_sim_now_ns() / MS, seconds, run.counters->turns, run.counters->turns_cut,
	       kernel->submit_calls, kernel->short_submits, kernel->no_slot, kernel->refused,
	       kernel->sleeps, kernel->wakeups, kernel->wraps, kernel->cancels,
	       kernel->cancels_late, kernel->yields);
	streams_report();
	printf("%" PRIu64 " bytes received, %" PRIu64 " sent, %" PRIu64
	       " transfers without io_submit; %" PRIu64 " abandoned, %" PRIu64
	       " stale events; %" PRIu64 " messages, %" PRIu64 " notices, %" PRIu64
	       " waits, %" PRIu64 " wakes, %" PRIu64 " timers, %" PRIu64 " tasks; trace %016" PRIx64
	       "\n",
	       kernel->received, kernel->sent, run.direct, run.abandoned, run.stale, run.delivered,
	       run.noticed, run.waits, run.wakes, run.fired, run.ran, kernel_sim_trace());
}
