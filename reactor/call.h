/* Calls that can block (open, fallocate, a buffered write), made by helper threads so that a core never waits.
 * One pool serves all cores.  A call is owned and embedded by its submitter, which finds what to do, and leaves the
 * result, in the structure around it; nothing is allocated for it.  `done` runs on the submitter's core. */
#ifndef REACTOR_CALL_H
#define REACTOR_CALL_H

#include "reactor/key_order.h"
#include "reactor/list.h"
#include "reactor/reactor.h"

#define CALL_THREADS_LIMIT 1024 /* of one pool */

struct call_pool;
struct near_helper;

/* Whose calls may not take all threads: a device that does not answer keeps those that it has.  Where the calls of one share that have
 * a thread are more than a CALL_SHARE_DIVISORth of the threads that are left, the next waits until one of them, or enough of others, have ended; the first never does.
 * So the more have such shares, the less the next gets.  Belongs to whoever submits; used under the pool's lock. */
#define CALL_SHARE_DIVISOR 64u

struct call_share {
	/* Private. */
	unsigned running;	  /* or about to */
	struct list_node waiting; /* struct call, by node */
	struct list_node short_node;
};

struct call {
	/* Runs on a helper thread; may block. */
	void (*run)(struct call *call);
	/* Runs once on the submitter's core, after run has returned or after call_cancel; CALL is free then. */
	void (*done)(struct call *call);
	int status; /* in done: 0, or -ECANCELED if it never ran */
	/* Private. */
	bool keyed;
	bool waiting; /* for its key, for its share or for a thread; under the pool's lock */
	uint64_t submit_ns;
	struct reactor *reactor;
	struct call_share *share; /* or NULL */
	int cpu;		  /* where it is best run; -1: anywhere */
	struct near_helper *near; /* that is to run it, or does; NULL: any */
	bool ready;
	struct list_node node;
	struct key_entry key_entry;
	struct message message;
};

/* Since the pool was created, but for the last two. */
struct call_counters {
	uint64_t submitted;
	uint64_t completed; /* run has returned */
	uint64_t cancelled;
	uint64_t threads_started;
	uint64_t wait_max_ns; /* the longest from submission until run; of calls that were run */
	uint64_t threads;
	uint64_t waiting; /* submitted and not begun */
};

/* Create a pool of at most THREADS_MAX helper threads (1 to CALL_THREADS_LIMIT), none of which runs yet.
 * Returns 0, -EINVAL (bounds, no pool) or -ENOMEM; then *pool is unchanged. */
int call_pool_create(unsigned threads_max, struct call_pool **pool) MUST_USE;

/* Wait for the threads to end.  No call may be waiting or running.  A helper whose call is done may still be waking
 * the reactor: destroy the pool before the reactors that used it. */
void call_pool_destroy(struct call_pool *pool);

/* Have CALL run soon, in order of submission as far as there are threads.  CALL belongs to the pool until its done,
 * which runs on REACTOR, never before this returns.  Only on REACTOR's core; blocks only for a short lock.
 * Never fails: where the system gives no thread at all, the call runs here and blocks the core. */
void call_submit(struct call_pool *pool, struct reactor *reactor, struct call *call);

/* Prepare SHARE, which stays there as long as a call of it is not done. */
void call_share_init(struct call_share *share);

/* As call_submit, but CALL runs after all calls with the same KEY, of any core, that were submitted before have ended
 * (or were cancelled); those of one core that ran are done in that order too.  Other calls are not held up, and no
 * thread is.  KEY 0 is none.  Where there is no thread, a core that runs a call of KEY here also runs those that other
 * cores submitted behind it meanwhile.  SHARE, of this pool alone, or NULL: what CALL's thread counts against; in its
 * turn by KEY it waits there behind those that came before. */
void call_submit_keyed(struct call_pool *pool, struct reactor *reactor, struct call *call,
		       uintptr_t key, struct call_share *share);

/* As call_submit_keyed, for a CALL that takes some microseconds, from a core that has nothing else to do meanwhile: if nothing else was
 * submitted so from this CPU and is not done, it runs here.  To wake a helper on another CPU, and that to wake the core, takes longer. */
void call_submit_near(struct call_pool *pool, struct reactor *reactor, struct call *call,
		      uintptr_t key, struct call_share *share);

/* Cancel CALL, which was submitted, if it has not begun.  Only on the core that submitted it; blocks as call_submit.
 * Returns true if run will not be called; done still comes, with -ECANCELED, never before this returns.
 * Returns false if it runs, has ended or was cancelled before: nothing changes, and done comes as it would have. */
bool call_cancel(struct call_pool *pool, struct call *call);

/* Whether POOL has no more than half of its threads.  Any thread, without a lock: as it was lately. */
bool call_pool_half_free(const struct call_pool *pool);

/* Copy the counters of POOL to *COUNTERS.  Any thread, without a lock: each is some recent value, so that they need
 * not add up while there are calls. */
void call_pool_counters(const struct call_pool *pool, struct call_counters *counters);

#endif
