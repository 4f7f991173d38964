/* Helper threads: started when a call is ready and none is idle, gone after IDLE_NS without work.
 * A call waits for its key (key_order.h) until all earlier ones of it have ended, and then for its share until that has room; then it is
 * ready, and in the list that the helpers take from.  While there is no thread nothing is ready: the core that submitted ran it at once. */
#include "reactor/call.h"

#include "reactor/kernel.h"
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define IDLE_NS	 200000000
#define NS_PER_S 1000000000

struct call_pool {
	pthread_mutex_t lock; /* for all below */
	pthread_cond_t work;
	pthread_cond_t thread_gone;
	struct list_node ready;
	struct key_order keys;
	unsigned ready_count;
	unsigned running_count; /* calls, on helpers or on cores */
	unsigned idle_count;
	unsigned threads_max;
	bool stopping;
	cpu_set_t cpus; /* where helpers may run: not only on the core that starts them */
	/* Written with relaxed atomics, with the lock held but for `completed`; read without it by
	 * call_pool_counters.  They order nothing. */
	struct call_counters counters;
};

static void *helper_main(void *argument);

static void
count(uint64_t *counter, int64_t change)
{
	__atomic_fetch_add(counter, (uint64_t)change, __ATOMIC_RELAXED);
}

int
call_pool_create(unsigned threads_max, struct call_pool **result)
{
	struct call_pool *pool;
	pthread_condattr_t clock;

	if (result == NULL || threads_max == 0 || threads_max > CALL_THREADS_LIMIT)
		return -EINVAL;
	pool = calloc(1, sizeof(*pool));
	if (pool == NULL)
		return -ENOMEM;
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->work, &clock);
	pthread_cond_init(&pool->thread_gone, NULL);
	pthread_condattr_destroy(&clock);
	list_init(&pool->ready);
	key_order_init(&pool->keys);
	if (sched_getaffinity(0, sizeof(pool->cpus), &pool->cpus) != 0)
		memset(&pool->cpus, 0xff, sizeof(pool->cpus));
	pool->threads_max = threads_max;
	*result = pool;
	return 0;
}

void
call_pool_destroy(struct call_pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	CHECK(pool->counters.waiting == 0);
	pool->stopping = true;
	pthread_cond_broadcast(&pool->work);
	while (pool->counters.threads > 0)
		pthread_cond_wait(&pool->thread_gone, &pool->lock);
	pthread_mutex_unlock(&pool->lock);
	pthread_cond_destroy(&pool->thread_gone);
	pthread_cond_destroy(&pool->work);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}

/* ---- The life of a call.  All of these are called with the lock held. */

static void
call_make_ready(struct call_pool *pool, struct call *call)
{
	if (call->share != NULL)
		call->share->running++;
	call->ready = true;
	list_append(&pool->ready, &call->node);
	pool->ready_count++;
}

static bool
share_has_room(const struct call_pool *pool, const struct call_share *share)
{
	unsigned taken = pool->running_count + pool->ready_count;
	unsigned unused = taken < pool->threads_max ? pool->threads_max - taken : 0;

	return share->running == 0 || share->running <= unused / CALL_SHARE_DIVISOR;
}

/* It is CALL's turn by its key. */
static void
call_enter_share(struct call_pool *pool, struct call *call)
{
	struct call_share *share = call->share;

	if (share == NULL || (list_empty(&share->waiting) && share_has_room(pool, share)))
		call_make_ready(pool, call);
	else
		list_append(&share->waiting, &call->node);
}

/* A call that counted against SHARE, or NULL, does so no more. */
static void
call_leave_share(struct call_pool *pool, struct call_share *share)
{
	if (share == NULL)
		return;
	share->running--;
	while (!list_empty(&share->waiting) && share_has_room(pool, share))
		call_make_ready(pool,
				container_of(list_take_first(&share->waiting), struct call, node));
}

/* CALL waits no more: it begins or is cancelled. */
static void
call_end_wait(struct call_pool *pool, struct call *call)
{
	list_remove(&call->node);
	if (call->ready)
		pool->ready_count--;
	call->waiting = false;
	count(&pool->counters.waiting, -1);
}

/* The call that is ready longest, which begins now. */
static struct call *
call_take(struct call_pool *pool)
{
	struct call *call = container_of(pool->ready.next, struct call, node);
	uint64_t wait_ns = kernel_clock_ns() - call->submit_ns;

	call_end_wait(pool, call);
	if (wait_ns > pool->counters.wait_max_ns)
		__atomic_store_n(&pool->counters.wait_max_ns, wait_ns, __ATOMIC_RELAXED);
	return call;
}

/* Let the next of CALL's key go on, now that CALL has ended or is cancelled. */
static void
call_leave_key(struct call_pool *pool, struct call *call)
{
	struct key_entry *next = call->keyed ? key_order_leave(&call->key_entry) : NULL;

	if (next != NULL)
		call_enter_share(pool, container_of(next, struct call, key_entry));
}

static void
call_deliver(struct message *message)
{
	struct call *call = container_of(message, struct call, message);

	call->done(call);
}

/* Send CALL home; it is not the pool's any more. */
static void
call_finish(struct call *call, int status)
{
	call->status = status;
	call->message.deliver = call_deliver;
	reactor_send(call->reactor, &call->message);
}

/* Run the first that is ready.  Returns how many this has made ready.  Unlocks meanwhile.  A keyed call is sent home before the next of its key can begin, so
 * that they are done in order, and one of a share before that can be gone; others without the lock, which the reactor that wakes may want. */
static unsigned
call_perform(struct call_pool *pool)
{
	struct call *call = call_take(pool);
	bool bound = call->keyed || call->share != NULL;
	unsigned ready_before;

	pool->running_count++;
	pthread_mutex_unlock(&pool->lock);
	call->run(call);
	count(&pool->counters.completed, 1);
	if (!bound)
		call_finish(call, 0);
	pthread_mutex_lock(&pool->lock);
	pool->running_count--;
	ready_before = pool->ready_count;
	if (bound) {
		call_leave_share(pool, call->share);
		call_leave_key(pool, call);
		call_finish(call, 0);
	}
	return pool->ready_count - ready_before;
}

/* ---- Threads. */

static int
thread_start(struct call_pool *pool)
{
	pthread_attr_t attributes;
	pthread_t thread;
	int error;

	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setaffinity_np(&attributes, sizeof(pool->cpus), &pool->cpus);
	error = pthread_create(&thread, &attributes, helper_main, pool);
	pthread_attr_destroy(&attributes);
	return error;
}

/* Start a helper, if the system has a thread for us.  Called with the lock held. */
static void
helper_start(struct call_pool *pool)
{
	int error = thread_start(pool);

	/* None of these CPUs is the process's any more (cpuset(7)); the kernel has given its main thread others. */
	if (error == EINVAL && sched_getaffinity(getpid(), sizeof(pool->cpus), &pool->cpus) == 0)
		error = thread_start(pool);
	if (error != 0)
		return;
	count(&pool->counters.threads, 1);
	count(&pool->counters.threads_started, 1);
}

/* See to it that what has become ready is run: by a helper, or else here.  Called with the lock held. */
static void
helpers_engage(struct call_pool *pool)
{
	while (pool->ready_count > 0) {
		if (pool->ready_count > pool->idle_count &&
		    pool->counters.threads < pool->threads_max)
			helper_start(pool);
		if (pool->counters.threads > 0)
			break;
		(void)call_perform(
			pool); /* a core that waits is better than a call that never ends */
	}
	pthread_cond_signal(&pool->work);
}

/* Wait for work.  Returns false when it is time to leave.  Called with the lock held. */
static bool
helper_wait(struct call_pool *pool)
{
	struct timespec until;
	int error = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += IDLE_NS;
	until.tv_sec += until.tv_nsec / NS_PER_S;
	until.tv_nsec %= NS_PER_S;
	pool->idle_count++;
	while (list_empty(&pool->ready) && !pool->stopping && error == 0)
		error = pthread_cond_timedwait(&pool->work, &pool->lock, &until);
	pool->idle_count--;
	return !list_empty(&pool->ready);
}

static void *
helper_main(void *argument)
{
	struct call_pool *pool = argument;

	/* Else it would have the name of the core that started it. */
	(void)pthread_setname_np(pthread_self(), "call");
	pthread_mutex_lock(&pool->lock);
	while (helper_wait(pool)) {
		/* The first of what this makes ready needs no other helper: this one goes on. */
		for (unsigned made = call_perform(pool); made > 1; made--)
			helpers_engage(pool);
	}
	count(&pool->counters.threads, -1);
	pthread_cond_signal(&pool->thread_gone);
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

/* ---- Submitting and cancelling. */

static void
call_init(struct call *call, struct reactor *reactor, uintptr_t key, struct call_share *share)
{
	call->reactor = reactor;
	call->keyed = key != 0;
	call->share = share;
	call->ready = false;
	call->waiting = true;
	call->submit_ns = kernel_clock_ns();
	list_init(&call->node);
}

void
call_share_init(struct call_share *share)
{
	share->running = 0;
	list_init(&share->waiting);
}

void
call_submit(struct call_pool *pool, struct reactor *reactor, struct call *call)
{
	call_submit_keyed(pool, reactor, call, 0, NULL);
}

void
call_submit_keyed(struct call_pool *pool, struct reactor *reactor, struct call *call, uintptr_t key,
		  struct call_share *share)
{
	call_init(call, reactor, key, share);
	pthread_mutex_lock(&pool->lock);
	count(&pool->counters.submitted, 1);
	count(&pool->counters.waiting, 1);
	if (key == 0 || key_order_enter(&pool->keys, &call->key_entry, key)) {
		call_enter_share(pool, call);
		helpers_engage(pool);
	}
	pthread_mutex_unlock(&pool->lock);
}

bool
call_cancel(struct call_pool *pool, struct call *call)
{
	unsigned ready_before;
	bool waited;

	pthread_mutex_lock(&pool->lock);
	waited = call->waiting;
	if (waited) {
		call_end_wait(pool, call);
		ready_before = pool->ready_count;
		if (call->ready)
			call_leave_share(pool, call->share);
		call_leave_key(pool, call);
		/* Whoever was to take CALL takes the first of those, if there was anybody. */
		for (unsigned made = pool->ready_count - ready_before; made > call->ready; made--)
			helpers_engage(pool);
		count(&pool->counters.cancelled, 1);
		call_finish(call, -ECANCELED);
	}
	pthread_mutex_unlock(&pool->lock);
	return waited;
}

bool
call_pool_half_free(const struct call_pool *pool)
{
	return __atomic_load_n(&pool->counters.threads, __ATOMIC_RELAXED) <= pool->threads_max / 2;
}

void
call_pool_counters(const struct call_pool *pool, struct call_counters *counters)
{
	const struct call_counters *from = &pool->counters;

	counters->submitted = __atomic_load_n(&from->submitted, __ATOMIC_RELAXED);
	counters->completed = __atomic_load_n(&from->completed, __ATOMIC_RELAXED);
	counters->cancelled = __atomic_load_n(&from->cancelled, __ATOMIC_RELAXED);
	counters->threads_started = __atomic_load_n(&from->threads_started, __ATOMIC_RELAXED);
	counters->wait_max_ns = __atomic_load_n(&from->wait_max_ns, __ATOMIC_RELAXED);
	counters->threads = __atomic_load_n(&from->threads, __ATOMIC_RELAXED);
	counters->waiting = __atomic_load_n(&from->waiting, __ATOMIC_RELAXED);
}
