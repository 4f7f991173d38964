/* The model of the reactor's turns: what a turn must bring to the kernel and call, given what is known to wait; when the reactor may
 * rest; in which order and how soon done is called. */
#include "tests/sim/sim_run.h"

#include <limits.h>

#define LOWER_PER_TURN 4  /* of lower classes go to the kernel while the latency class is in use */
#define BUSY_NS	       MS /* behind a call of it, when there is but one in an io_submit */
#define BUSY_SLACK_NS  100000
#define HELD_MAX       16 /* turns in a row that may submit nothing of lower classes */
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

/* How many of what waits the kernel must be given now, and how many of them are *URGENT.  None after a refusal for want of slots. */
static unsigned
submittable(const struct objects *objects, unsigned *urgent)
{
	const unsigned *queued = objects->queued;
	unsigned room, latency, lower = UINT_MAX, normal, background;

	*urgent = 0;
	if (kernel_sim_counters()->no_slot != run.no_slot ||
	    kernel_sim_now_ns() < run.no_slot_until_ns)
		return 0;
	room = objects->slots - kernel_sim_slots_used(objects->kind);
	latency = smaller(queued[PRIORITY_LATENCY], room);
	if (run.latency > 0 || strangers())
		lower = LOWER_PER_TURN;
	/* An event may have come behind the first. */
	if (strangers() || turns_latency_busy(BUSY_NS + BUSY_SLACK_NS))
		lower = 1;
	lower = smaller(room - latency, lower);
	normal = smaller(queued[PRIORITY_NORMAL], lower);
	background = objects->background_slots -
		     kernel_sim_slots_used_by(objects->kind, PRIORITY_BACKGROUND);
	background = smaller(smaller(queued[PRIORITY_BACKGROUND], lower - normal), background);
	*urgent = latency;
	return latency + normal + background;
}

bool
turns_latency_busy(uint64_t ns)
{
	return run.latency > 0 && run.latency_done_ns > 0 &&
	       kernel_sim_now_ns() - run.latency_done_ns <= ns;
}

void
turns_check_batch(struct objects *objects, enum priority class)
{
	if (objects->batch != kernel_sim_counters()->submit_calls) {
		objects->batch = kernel_sim_counters()->submit_calls;
		objects->batch_lower = 0;
	}
	objects->batch_lower += class != PRIORITY_LATENCY;
	SIM_CHECK(objects->batch_lower <= 1 || !turns_latency_busy(BUSY_NS - BUSY_SLACK_NS));
}

/* What is called of the latency class holds up what lower classes submit, but not for ever. */
static void
check_seen(struct objects *objects)
{
	if (objects->seen >= objects->expected) {
		objects->held = 0;
		return;
	}
	SIM_CHECK(objects->seen >= objects->urgent && objects->may_hold);
	SIM_CHECK(++objects->held <= HELD_MAX);
}

static void
turn_ended(void)
{
	if (kernel_sim_counters()->no_slot != run.no_slot) {
		run.no_slot = kernel_sim_counters()->no_slot;
		run.no_slot_until_ns = kernel_sim_now_ns() + NO_SLOT_NS_MAX;
	} else {
		check_seen(&run.disk);
		if (!strangers()) {
			check_seen(&run.polls);
			check_seen(&run.sockets);
		}
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
	objects->expected = submittable(objects, &objects->urgent);
	objects->may_hold = run.latency > 0 || strangers();
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
	unsigned urgent;

	SIM_CHECK((run.running || run.waiting) && !run.stopped);
	turns_on_time();
	SIM_CHECK(submittable(&run.disk, &urgent) == 0);
	SIM_CHECK(submittable(&run.polls, &urgent) == 0);
	SIM_CHECK(submittable(&run.sockets, &urgent) == 0);
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
	/* Between two calls of a class with a share of one lie the rest of the first's round and what goes before the second in its own; and
	 * one more round, of which the reactor's own poll took the share. */
	for (unsigned i = 0; i < PRIORITY_COUNT; i++) {
		if (i != class && run.ready_start[i] > 0)
			SIM_CHECK(++run.passed_over[i] <= 3 * round || strangers());
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
