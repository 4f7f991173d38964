/* The reactor: one thread, one Linux AIO context, and everything the thread waits for in that one ring.
 *
 * A turn: submit all queued operations with one io_submit; take all completions from the mapped ring; call their
 * `done`; deliver messages of other threads; fire timers; run deferred tasks.  When there was nothing to do: spin for
 * a while that adapts to what it brings, then sleep in the kernel until an event, a message or a timer.
 *
 * A turn has a budget, so that all of its parts come round; within it each priority class has its share (run_queue.h).  While
 * operations of the latency class are about, a turn that has called one of a lower class ends as soon as there is something for
 * the higher one: to submit, or to take from the ring.  Messages, timers and tasks have no class, and timers and tasks no budget: all that
 * are due run in the turn, so they are to be short.
 *
 * Unless a function says otherwise, only the reactor's own thread may call it. */
#ifndef REACTOR_REACTOR_H
#define REACTOR_REACTOR_H

#include "reactor/check.h"
#include "reactor/inbox.h"
#include "reactor/notice.h"
#include "reactor/op.h"
#include "reactor/timer.h"
#include <stdint.h>

struct call_pool;
struct reactor;

/* 0 in any field but the first two means the default. */
struct reactor_config {
	/* Reads, writes and syncs with the kernel at one time; more wait here. */
	unsigned disk_slots;
	unsigned poll_slots; /* polls armed at one time; more wait here */
	/* Spin at most this long before sleeping, and not at all while eight disk operations and more are with the kernel; 0: sleep at once. */
	unsigned poll_us;
	unsigned waiting_max; /* operations of one kind that wait here; default: no limit */
	/* With fewer sockets to receive from or send to than this, each is a system call of its own; with as many, all are
	 * part of the turn's io_submit.  Default: always the former, which costs less where measured (Linux 6.18). */
	unsigned socket_batch_min;
	unsigned shares[PRIORITY_COUNT]; /* calls of done per round: see run_queue.h */
	/* Submit what would block (op_nowait); must outlive the reactor's run, and be destroyed before the reactor. */
	struct call_pool *calls;
};

/* Counted since creation; written by the reactor's thread only, each at once.  Other threads read them with
 * reactor_read_counters. */
struct reactor_counters {
	uint64_t turns;
	uint64_t turns_cut; /* ended early: a budget was used up, or something urgent came */
	uint64_t submit_calls;
	uint64_t ops_submitted;
	uint64_t ops_refused; /* by io_submit: done got the error */
	uint64_t ops_direct;  /* receives and sends by a system call of their own */
	uint64_t ops_abandoned;
	uint64_t ops_helped; /* submitted by a helper thread */
	uint64_t ops_done[PRIORITY_COUNT];
	uint64_t no_slot; /* io_submit calls that found none */
	uint64_t events;
	uint64_t events_stale; /* for what was abandoned, or never asked for */
	uint64_t rest_ns;      /* between turns, with nothing to do: spinning or asleep */
	uint64_t sleeps;
	uint64_t spins;
	uint64_t yields;
	uint64_t messages;
	uint64_t timers;
	uint64_t tasks;
};

/* Something to run at the end of the current turn; embedded by its owner. */
struct task {
	void (*run)(struct task *task);
	struct list_node node; /* private */
};

/* Create a reactor.  It takes disk_slots + poll_slots + REACTOR_OWN_SLOTS of the host's fs.aio-max-nr; if there are not that
 * many it makes do with half of both, a quarter and so on, but at least REACTOR_SLOTS_MIN (or what was asked for): see
 * reactor_slots.
 * Any thread; the one that calls reactor_run first owns the reactor from then on.
 * *reactor is the caller's until reactor_destroy.
 * Returns 0, or a negative errno; then *reactor is unchanged.
 * Errors: -EAGAIN fs.aio-max-nr is too small; -EINVAL an argument is NULL, no slots asked for, or more than REACTOR_SLOTS_MAX of a
 * kind; -EOPNOTSUPP the kernel has no
 * IOCB_CMD_POLL (Linux 4.18 has it); -ENOMEM; -EMFILE no file descriptor for the wake-up. */
int reactor_create(const struct reactor_config *config, struct reactor **reactor) MUST_USE;

#define REACTOR_SLOTS_MIN 16u
#define REACTOR_SLOTS_MAX \
	(1u << 20) /* twice this and the reactor's own are still what io_setup(2) takes */
/* Of the reactor's own: what is received and sent in one batch, the poll of the wake-up and of parkings. */
#define REACTOR_SOCKET_SLOTS   128u
#define REACTOR_RESERVED_SLOTS 8u
#define REACTOR_OWN_SLOTS      (REACTOR_SOCKET_SLOTS + REACTOR_RESERVED_SLOTS)

/* Any thread, after reactor_run has returned.  No disk operation may be with the kernel; what waits and polls are
 * dropped, and so are messages that were not delivered. */
void reactor_destroy(struct reactor *reactor);

/* Take turns until reactor_stop, which is for good: from then on this returns at once.  What is in flight then stays in flight.
 * Neither this, nor reactor_turn or reactor_wait, from within a callback of the reactor.  A thread that was not started by cores_start
 * (core.h) sleeps up to 50 us longer than asked for unless it says prctl(PR_SET_TIMERSLACK, 1). */
void reactor_run(struct reactor *reactor);

/* Make reactor_run return after its current turn.  Any thread. */
void reactor_stop(struct reactor *reactor);

/* One turn, without resting.  Returns whether there was anything to do. */
bool reactor_turn(struct reactor *reactor);

/* For those with a loop of their own: take turns, and rest between them, until MIN operations are done, TIMEOUT_NS have passed, or
 * reactor_wake or reactor_stop was called; the first turn is taken in any case.  At most MAX operations (at least 1) are done
 * in all: what is ready beyond that stays for the next call.  Messages, timers and tasks are served, but not counted.
 * Returns how many operations were done, with the polls of parkings and watches. */
unsigned reactor_wait(struct reactor *reactor, unsigned min, unsigned max, uint64_t timeout_ns);

/* End the reactor's rest, or its next one if it does not rest now: it takes a turn.  Any thread. */
void reactor_wake(struct reactor *reactor);

/* Queue OP, which is idle and prepared.  It goes to the kernel at the start of the next turn, or when a slot is
 * free; in order of submission within its kind (disk, socket, poll) and priority.  OP is the reactor's until done.
 * Returns 0, or a negative errno; then OP is unchanged and done is not called.
 * Errors: -EINVAL an argument is NULL, OP is not idle, not prepared (op.h), has no done or no valid priority; -ENOBUFS waiting_max
 * operations of its kind wait already.
 * What the kernel says of it is told to done; for a poll of something that can't be polled -EOPNOTSUPP. */
int reactor_submit(struct reactor *reactor, struct op *op) MUST_USE;

/* As reactor_submit, but done gets the error of that, too. */
void reactor_start(struct reactor *reactor, struct op *op);

/* As reactor_submit, however many wait already: for who has one operation of a kind at a time and no other way to go on.  OP must be
 * one that reactor_submit would take. */
void reactor_start_always(struct reactor *reactor, struct op *op);

/* Finish OP, which is idle, without the kernel: done is called with RESULT in the next turn. */
void reactor_complete(struct reactor *reactor, struct op *op, long result);

/* For streams: whether a receive or send may as well be made at once, by a system call of one's own, instead of being submitted.  Not
 * if they are to be batched (reactor_config.socket_batch_min), and not while something of the latency class waits. */
bool reactor_transfers_directly(const struct reactor *reactor) MUST_USE;

/* One was made so; it is over, and its owner is told from within a callback of the reactor: take one of the turn's calls for OP,
 * which is idle.  Returns false if it is to be submitted: there are no calls left, or its class has to wait for its share. */
void reactor_count_direct(struct reactor *reactor);
bool reactor_take_call(struct reactor *reactor, const struct op *op) MUST_USE;

/* Cancel a poll: done comes soon, with -ECANCELED or 0 or, if it was too late, the events.  Harmless if OP is idle.
 * Slow: not for the data path.  Reads and writes can't be cancelled. */
void reactor_cancel_poll(struct reactor *reactor, struct op *op);

/* Forget a poll, a receive or a send: OP is idle at once, what it points to is the caller's, and done is not called.  If it was with
 * the kernel, its slot stays taken until its event comes (for a poll: until the fd is ready or shut down); the event is dropped
 * then, whatever OP is used for meanwhile.  Bytes may or may not have been moved.  Harmless if OP is idle. */
void reactor_abandon(struct reactor *reactor, struct op *op);

/* Deliver MESSAGE on TARGET's thread; wakes it if it sleeps.  Any thread. */
void reactor_send(struct reactor *target, struct message *message);

/* Raise BITS (at least one) of NOTICE on TARGET's thread, to which it belongs: its deliver gets them, together with all that were raised
 * since the last time.  Wakes TARGET if it sleeps.  Any thread. */
void reactor_notify(struct reactor *target, struct notice *notice, uint32_t bits);

/* Run TASK at the end of this turn.  Harmless if it is deferred already. */
void reactor_defer(struct reactor *reactor, struct task *task);

/* Run TASK when there is nothing else to do, but soon in any case: while there is, a few hundred every 100 us.  Harmless if it is deferred already. */
void reactor_defer_idle(struct reactor *reactor, struct task *task);

static inline void
task_init(struct task *task, void (*run)(struct task *task))
{
	task->run = run;
	list_init(&task->node);
}

/* Forget a deferred task.  Harmless if it is not deferred. */
static inline void
task_cancel(struct task *task)
{
	list_remove(&task->node);
}

/* Start TIMER so that it fires DELAY_NS from now, or move it there; stop it. */
void reactor_timer_start(struct reactor *reactor, struct timer *timer, uint64_t delay_ns);
void reactor_timer_stop(struct reactor *reactor, struct timer *timer);

/* True while the reactor's thread sleeps in the kernel, with nothing to do.  Any thread; a moment's truth. */
bool reactor_sleeping(const struct reactor *reactor) MUST_USE;

/* Slots for operations of KIND, which may be fewer than were asked for; and how many of them are neither taken nor waited for. */
unsigned reactor_slots(const struct reactor *reactor, enum op_kind kind) MUST_USE;
unsigned reactor_free_slots(const struct reactor *reactor, enum op_kind kind) MUST_USE;

/* Of the latter, how many an operation of PRIORITY may have: of the background's there are fewer. */
unsigned reactor_free_slots_of(const struct reactor *reactor, enum op_kind kind,
			       enum priority priority) MUST_USE;

/* Take one of the REACTOR_RESERVED_SLOTS for oneself, for one poll by op_poll_reserved at a time, and give it back.  The reactor has one
 * of them; without taking one a poll may find that there is none, and fails with -ENOBUFS.
 * Returns 0, or -ENOBUFS: all are taken. */
int reactor_reserve(struct reactor *reactor) MUST_USE;
void reactor_unreserve(struct reactor *reactor);

/* How many turns the reactor has begun.  Any thread. */
uint64_t reactor_turns(const struct reactor *reactor) MUST_USE;

/* How many times the reactor had nothing to do. */
uint64_t reactor_rests(const struct reactor *reactor) MUST_USE;

/* Copy the counters of REACTOR.  Any thread; without locks: each is a recent value, but not all of the same moment. */
void reactor_read_counters(const struct reactor *reactor, struct reactor_counters *counters);

/* The counters themselves, for the reactor's own thread. */
const struct reactor_counters *reactor_counters(const struct reactor *reactor);

#endif
