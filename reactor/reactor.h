/* The reactor: one thread, one Linux AIO context, and everything the thread waits for in that one ring.
 *
 * A turn: submit all queued operations with one io_submit; take all completions from the mapped ring; call their
 * `done`; deliver messages of other threads; fire timers; run deferred tasks.  When there was nothing to do: spin for
 * a while that adapts to what it brings, then sleep in the kernel until an event, a message or a timer.
 *
 * Unless a function says otherwise, only the reactor's own thread may call it. */
#ifndef REACTOR_REACTOR_H
#define REACTOR_REACTOR_H

#include "reactor/check.h"
#include "reactor/inbox.h"
#include "reactor/op.h"
#include "reactor/timer.h"
#include <stdint.h>

struct reactor;

struct reactor_config {
	unsigned
		disk_slots; /* reads, writes and syncs with the kernel at one time; more wait here */
	unsigned poll_slots; /* polls armed at one time; more wait here */
	unsigned poll_us;    /* spin at most this long before sleeping; 0: sleep at once */
};

/* Counted since creation; written by the reactor's thread only.  Other threads may read them: each is then some
 * recent value. */
struct reactor_counters {
	uint64_t turns;
	uint64_t submit_calls;
	uint64_t ops_submitted;
	uint64_t ops_refused; /* by io_submit: done got the error */
	uint64_t events;
	uint64_t sleeps;
	uint64_t messages;
};

/* Something to run at the end of the current turn; embedded by its owner. */
struct task {
	void (*run)(struct task *task);
	struct list_node node; /* private */
};

/* Create a reactor.  It takes disk_slots + poll_slots + 1 of the host's fs.aio-max-nr.
 * Any thread; the one that calls reactor_run first owns the reactor from then on.
 * *reactor is the caller's until reactor_destroy.
 * Returns 0, or a negative errno; then *reactor is unchanged.
 * Errors: -EAGAIN fs.aio-max-nr is too small; -EINVAL no slots asked for; -EOPNOTSUPP the kernel has no
 * IOCB_CMD_POLL (Linux 4.18 has it); -ENOMEM; -EMFILE no file descriptor for the wake-up. */
int reactor_create(const struct reactor_config *config, struct reactor **reactor) MUST_USE;

/* Any thread, after reactor_run has returned.  No disk operation may be with the kernel; polls are dropped, and so are
 * messages that were not delivered. */
void reactor_destroy(struct reactor *reactor);

/* Take turns until reactor_stop.  What is in flight then stays in flight. */
void reactor_run(struct reactor *reactor);

/* Make reactor_run return after its current turn.  Any thread. */
void reactor_stop(struct reactor *reactor);

/* One turn, without resting.  Returns whether there was anything to do. */
bool reactor_turn(struct reactor *reactor);

/* Queue OP, which is idle and prepared.  It goes to the kernel at the start of the next turn, or when a slot is
 * free; in order of submission within disk operations and within polls.  What the kernel refuses is told to done. */
void reactor_submit(struct reactor *reactor, struct op *op);

/* Finish OP, which is idle, without the kernel: done is called with RESULT in the next turn. */
void reactor_complete(struct reactor *reactor, struct op *op, long result);

/* Cancel a poll: done comes soon, with -ECANCELED or 0 or, if it was too late, the events.  Harmless if OP is idle.
 * Slow: not for the data path.  Reads and writes can't be cancelled. */
void reactor_cancel_poll(struct reactor *reactor, struct op *op);

/* Deliver MESSAGE on TARGET's thread; wakes it if it sleeps.  Any thread. */
void reactor_send(struct reactor *target, struct message *message);

/* Run TASK at the end of this turn.  Harmless if it is deferred already. */
void reactor_defer(struct reactor *reactor, struct task *task);

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

/* Counters of REACTOR.  Any thread. */
const struct reactor_counters *reactor_counters(const struct reactor *reactor);

#endif
