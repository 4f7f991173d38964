/* The model of the reactor's turns: what a turn must bring to the kernel and call, given what is known to wait; when the reactor may
 * rest; in which order and how soon done is called. */
#include "tests/sim/sim_run.h"

#include <limits.h>

#define LOWER_PER_TURN 4 /* of lower classes go to the kernel while the latency class is in use */
#define CALLS_PER_TURN 512
#define FEW_OBJECTS    400 /* all of them can be ready in one turn */
#define NO_SLOT_NS_MAX (KERNEL_SIM_NO_SLOT_NS + 200000)

uint64_t
turns_awake_ns(void)
{
	return kernel_sim_now_ns() - kernel_sim_slept_ns();
}

/* Whether there are operations that the model does not know, of any class. */
static bool
strangers(void)
{
	return run.stream_count > 0;
}

/* How many of what waits the kernel must be given now.  None after a refusal for want of slots. */
static unsigned
submittable(const struct objects *objects)
{
	const unsigned *queued = objects->queued;
	unsigned room, latency, lower, normal, background;

	if (kernel_sim_counters()->no_slot != run.no_slot ||
	    kernel_sim_now_ns() < run.no_slot_until_ns)
		return 0;
	room = objects->slots - kernel_sim_slots_used(objects->kind);
	latency = smaller(queued[PRIORITY_LATENCY], room);
	lower = smaller(room - latency, run.latency > 0 || strangers() ? LOWER_PER_TURN : UINT_MAX);
	normal = smaller(queued[PRIORITY_NORMAL], lower);
	background = objects->background_slots -
		     kernel_sim_slots_used_by(objects->kind, PRIORITY_BACKGROUND);
	background = smaller(smaller(queued[PRIORITY_BACKGROUND], lower - normal), background);
	return latency + normal + background;
}

static void
turn_ended(void)
{
	if (kernel_sim_counters()->no_slot != run.no_slot) {
		run.no_slot = kernel_sim_counters()->no_slot;
		run.no_slot_until_ns = kernel_sim_now_ns() + NO_SLOT_NS_MAX;
	} else {
		SIM_CHECK(run.disk.seen >= run.disk.expected);
		SIM_CHECK(run.polls.seen >= run.polls.expected || strangers());
		SIM_CHECK(run.sockets.seen >= run.sockets.expected || strangers());
	}
	/* A turn that is cut calls something, too; and only the latency class cuts one. */
	run.calls += (unsigned)(kernel_sim_counters()->cleared - run.cleared);
	if (!run.waiting && !strangers())
		SIM_CHECK(run.calls >= (run.latency_seen ? smaller(run.due, 1) : run.due));
}

static void
turn_began(struct objects *objects)
{
	objects->seen = 0;
	objects->lowest = PRIORITY_LATENCY;
	objects->expected = submittable(objects);
}

/* A wake makes the reactor take a turn; after the way from one CPU to the other. */
static void
check_wake(void)
{
	uint64_t slept_ns_max = WAKE_NS_MAX + (run.config.manner.no_slot == 0 ? 0 : 5 * MS);

	if (!run.wake_sure || run.counters->turns == run.wake_turn)
		return;
	SIM_CHECK(kernel_sim_slept_ns() - run.wake_slept_ns <= slept_ns_max);
	kernel_sim_busy();
	if (run.running)
		run.wake_sure = run.wake_maybe = false;
}

void
turns_on_time(void)
{
	if (run.counters == NULL || run.counters->turns == run.turn)
		return;
	turn_ended();
	check_wake();
	turn_began(&run.disk);
	turn_began(&run.polls);
	turn_began(&run.sockets);
	run.cleared = kernel_sim_counters()->cleared;
	run.latency_seen = run.latency > 0;
	run.due = run.calls = 0;
	for (unsigned i = 0; i < PRIORITY_COUNT; i++) {
		run.ready_start[i] = run.ready[i];
		run.due += run.ready[i];
		if (run.ready[i] == 0)
			run.passed_over[i] = 0;
	}
	run.due = smaller(run.due, CALLS_PER_TURN);
	run.awake_before_ns = run.counters->turns == run.turn + 1 ? run.awake_ns : turns_awake_ns();
	run.awake_ns = turns_awake_ns();
	run.turn = run.counters->turns;
}

void
turns_on_sleep(void)
{
	SIM_CHECK((run.running || run.waiting) && !run.stopped);
	turns_on_time();
	SIM_CHECK(submittable(&run.disk) == 0);
	SIM_CHECK(submittable(&run.polls) == 0);
	SIM_CHECK(submittable(&run.sockets) == 0);
	SIM_CHECK(run.local == 0);
	for (unsigned i = 0; i < TASKS; i++)
		SIM_CHECK(!run.tasks[i].deferred);
	SIM_CHECK(run.idle_message_count == MESSAGES);
	for (unsigned i = 0; i < NOTICES; i++)
		SIM_CHECK(run.notices[i].pending == 0);
	SIM_CHECK(!run.wake_sure || (run.running && run.wake_turn < run.counters->turns));
}

void
turns_enter(enum place place)
{
	SIM_CHECK(!run.calling);
	SIM_CHECK(run.place == PLACE_OUTSIDE); /* callbacks don't nest */
	turns_on_time();
	kernel_sim_busy();
	run.place = place;
}

void
turns_leave(void)
{
	unsigned count = (unsigned)kernel_sim_below(run.eagerness);

	if (run.stopper == STOPPER_CALLBACK && run.running && !run.stopped &&
	    run.done >= run.stop_from)
		acts_stop(NULL);
	while (count-- > 0)
		acts_one();
	if (run.spends)
		kernel_sim_spend(kernel_sim_below(kernel_sim_below(256) == 0 ? 200000 : 2000));
	run.place = PLACE_OUTSIDE;
}

/* ---- order ---- */

void turns_check_shares(enum priority class)
{
	unsigned round = 2; /* the reactor's own poll */

	for (unsigned i = 0; i < PRIORITY_COUNT; i++)
		round += run.sizes.shares[i];
	run.passed_over[class] = 0;
	for (unsigned i = 0; i < PRIORITY_COUNT; i++) {
		if (i != class && run.ready_start[i] > 0)
			SIM_CHECK(++run.passed_over[i] <= 2 * round || strangers());
	}
	if (run.ready_start[class] > 0)
		run.ready_start[class]--;
	run.calls++;
	run.called[class]++;
}

/* How soon done must follow, where nothing goes first. */
static bool
prompt(const struct sim_op *sim_op)
{
	uint64_t turns = run.turn - sim_op->stage_turn;

	switch (sim_op->stage) {
	case STAGE_REFUSED:
		return turns == 0;
	case STAGE_LOCAL:
		/* A call that is not needed any more is another's. */
		return turns == 1 ||
		       (turns == 0 && (run.forgotten_turn == run.turn || strangers()));
	case STAGE_EVENT:
		return turns <= 1;
	default:
		kernel_sim_fail("done in stage %d: twice, or before its time", sim_op->stage);
	}
}

void
turns_check_prompt(const struct sim_op *sim_op)
{
	bool few = run.disk.count + run.polls.count + run.sockets.count <= FEW_OBJECTS;

	SIM_CHECK(prompt(sim_op) || run.mixed || !few || run.waiting ||
		  run.turn <= run.loose_until_turn);
	if (sim_op->stage == STAGE_EVENT) {
		uint64_t *last = &run.event_done[sim_op->op.priority];

		SIM_CHECK(sim_op->event_order > *last);
		*last = sim_op->event_order;
	}
	SIM_CHECK(kernel_sim_slept_ns() - sim_op->stage_slept_ns <= WAKE_NS_MAX);
}
