/* A turn: submit, reap, run, and what else has become due. */
#include "reactor/reactor_state.h"

#include <limits.h>

#define IDLE_TASKS_NS 100000

/* A turn's budget. */
#define CALLS_PER_TURN	    512
#define MESSAGES_PER_TURN   256
#define IDLE_TASKS_PER_TURN 256

/* ---- reap ---- */

static void
take_event(struct reactor *reactor, const struct io_event *event)
{
	struct slot *slot = slot_find(&reactor->slots, (uint64_t)(uintptr_t)event->data);
	struct op *op;

	if (slot == NULL) {
		COUNT(reactor, events_stale, 1);
		return;
	}
	op = slot->op;
	op_give_slot(reactor, op, slot);
	if (op == NULL) {
		COUNT(reactor, events_stale, 1);
		return;
	}
	CHECK(op->state == OP_STATE_SUBMITTED);
	if (!op_asked_nowait(op) || !submit_otherwise(reactor, op, (long)event->res))
		op_ready(reactor, op, (long)event->res);
}
void
turn_take_events(struct reactor *reactor, const struct io_event *events, long count)
{
	if (count <= 0)
		return; /* nothing, or -EINTR */
	for (long i = 0; i < count; i++)
		take_event(reactor, &events[i]);
	COUNT(reactor, events, (uint64_t)count);
	reactor->retry_ns = 0;
}

/* Returns whether there were events: also one that is dropped gives a slot back, which may be waited for. */
static bool
reap(struct reactor *reactor)
{
	uint64_t before = reactor->counters.events;
	struct io_event events[EVENTS_PER_TAKE];
	long count;

	do {
		if (reactor->ring != NULL)
			count = ring_take(reactor->ring, events, EVENTS_PER_TAKE);
		else
			count = kernel_sleep(reactor->context, events, EVENTS_PER_TAKE, 0);
		turn_take_events(reactor, events, count);
	} while (count == EVENTS_PER_TAKE);
	return reactor->counters.events != before;
}

/* ---- run ---- */

/* Call done of OP.  Returns its priority. */
static enum priority
run_one(struct reactor *reactor, struct op *op)
{
	enum priority priority = op->priority;

	if (priority == PRIORITY_LATENCY) {
		reactor->latency_ops--;
		reactor->latency_done_ns = kernel_clock_ns();
	}
	op->state = OP_STATE_IDLE;
	COUNT(reactor, ops_done[priority], 1);
	op->done(op, op->result);
	return priority;
}

/* Take up to COUNT calls of what BUDGET and reactor_wait leave.  Returns how many. */
static unsigned
take_calls(struct reactor *reactor, unsigned count, unsigned *budget)
{
	if (count > *budget)
		count = *budget;
	if (count > reactor->calls_left)
		count = reactor->calls_left;
	*budget -= count;
	reactor->calls_left -= count;
	return count;
}

/* Call done of what is ready now, within the turn's budget; what becomes ready meanwhile waits for the next turn, unless it is
 * of a higher class, or a receive or send of the latency class: so an answer does not wait for what a turn begins with. */
static bool
run_ready(struct reactor *reactor)
{
	unsigned budget = CALLS_PER_TURN, left;
	bool latency_ran = false;
	struct op *op;

	if (run_queue_count(&reactor->ready) == 0)
		return false;
	left = take_calls(reactor, run_queue_count(&reactor->ready), &budget);
	while (left > 0 && (op = run_queue_take(&reactor->ready)) != NULL) {
		left--;
		if (run_one(reactor, op) == PRIORITY_LATENCY) {
			latency_ran = true;
			left += take_calls(reactor, submit_latency_sockets(reactor), &budget);
		} else if (latency_ran || (reactor->latency_ops > 0 && ring_has_events(reactor))) {
			break;
		}
	}
	reactor->calls_left += left;
	if (run_queue_count(&reactor->ready) > 0)
		COUNT(reactor, turns_cut, 1);
	return true;
}

/* Run those of TASKS that are there now, at most COUNT_MAX. */
static bool
run_tasks(struct reactor *reactor, struct list_node *tasks, unsigned count_max)
{
	struct list_node now, *node;

	if (list_empty(tasks))
		return false;
	list_init(&now);
	list_move_all(&now, tasks);
	while (count_max-- > 0 && (node = list_take_first(&now)) != NULL) {
		struct task *task = container_of(node, struct task, node);

		COUNT(reactor, tasks, 1);
		task->run(task);
	}
	if (!list_empty(&now)) {
		list_move_all(&now, tasks);
		list_move_all(tasks, &now);
	}
	return true;
}

/* BUSY: this turn had something else to do. */
static bool
run_idle_tasks(struct reactor *reactor, bool busy)
{
	uint64_t now_ns;

	if (list_empty(&reactor->idle_tasks))
		return false;
	if (busy) {
		now_ns = kernel_clock_ns();
		if (reactor->idle_tasks_ns == 0)
			reactor->idle_tasks_ns = now_ns + IDLE_TASKS_NS;
		if (now_ns < reactor->idle_tasks_ns)
			return false;
	}
	reactor->idle_tasks_ns = 0;
	return run_tasks(reactor, &reactor->idle_tasks, IDLE_TASKS_PER_TURN);
}

static bool
run_timers(struct reactor *reactor)
{
	uint64_t now_ns;
	unsigned fired;

	if (reactor->timers_next_ns == TIMER_NO_DEADLINE)
		return false;
	now_ns = kernel_clock_ns();
	if (now_ns < reactor->timers_next_ns)
		return false;
	fired = timer_wheel_advance(&reactor->timers, now_ns);
	reactor->timers_next_ns = timer_wheel_next_ns(&reactor->timers);
	COUNT(reactor, timers, fired);
	return fired > 0;
}

static bool
run_messages(struct reactor *reactor)
{
	unsigned messages = inbox_deliver(&reactor->inbox, MESSAGES_PER_TURN);

	COUNT(reactor, messages, messages);
	return messages > 0;
}

bool
turn_take(struct reactor *reactor)
{
	bool busy;

	COUNT(reactor, turns, 1);
	/* What has come for the latency class does not wait for what the lower ones submit. */
	busy = reactor->latency_ops > 0 && ring_has_events(reactor) && reap(reactor);
	busy |= submit_waiting(reactor);
	busy |= reap(reactor);
	busy |= run_ready(reactor);
	busy |= run_messages(reactor);
	busy |= run_timers(reactor);
	busy |= run_tasks(reactor, &reactor->tasks, UINT_MAX);
	busy |= run_idle_tasks(reactor, busy);
	return busy;
}

bool
reactor_turn(struct reactor *reactor)
{
	reactor->calls_left = UINT_MAX;
	return turn_take(reactor);
}
