/* Calls that can block (open, fallocate, a buffered write), made by helper threads so that a core never waits.
 * One pool serves all cores.  A call is owned and embedded by its submitter; `done` runs on the submitter's core. */
#ifndef REACTOR_CALL_H
#define REACTOR_CALL_H

#include "reactor/list.h"
#include "reactor/reactor.h"

struct call_pool;

struct call {
	/* Runs on a helper thread; may block. */
	void (*run)(struct call *call);
	/* Runs on the submitter's core after run has returned; CALL is free then. */
	void (*done)(struct call *call);
	/* Private. */
	struct reactor *reactor;
	struct list_node node;
	struct message message;
};

/* Create a pool of at most THREADS_MAX helper threads (at least 1), none of which runs yet.
 * Returns 0, -EINVAL or -ENOMEM; then *pool is unchanged. */
int call_pool_create(unsigned threads_max, struct call_pool **pool) MUST_USE;

/* Wait for the threads to end.  No call may be waiting or running. */
void call_pool_destroy(struct call_pool *pool);

/* Have CALL run soon, in order of submission as far as there are threads.  CALL belongs to the pool until its done,
 * which runs on REACTOR, never before this returns.  Any core; blocks only for a short lock.
 * Never fails: where the system gives no thread at all, the call runs here and blocks the core. */
void call_submit(struct call_pool *pool, struct reactor *reactor, struct call *call);

#endif
