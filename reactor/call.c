/* Helper threads: started when a call is ready and none is idle, gone after IDLE_NS without work.
 * A call waits for its key (key_order.h) until all earlier ones of it have ended, and then for its share until that has room; then it is
 * ready, and in the list that the helpers take from.  While there is no thread nothing is ready: the core that submitted ran it at once.
 * A CPU has a near helper, too, bound to it, for one call at a time that asks for that. */
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

/* A near helper that waits so long for its CPU has a core that is busy after all: for so long it gets no more. */
#define NEAR_WAIT_NS_MAX ((uint64_t)200000)
#define NEAR_PAUSE_NS	 ((uint64_t)100000000)

/* All under the pool's lock. */
struct near_helper {
	struct call_pool *pool;
	int cpu;
	pthread_cond_t work;
	struct list_node ready; /* the call that it is to run; or empty */
	bool has_thread;
	bool busy;		/* it has a call, or runs one */
	uint64_t given_ns;	/* when it got that; 0: its thread has to begin, too */
	uint64_t not_before_ns; /* it is not to get another until then */
};

struct call_pool {
	pthread_mutex_t lock; /* for all below */
	pthread_cond_t work;
	pthread_cond_t thread_gone;
	struct list_node ready;
	struct key_order keys;
	struct list_node
		short_shares; /* struct call_share, by short_node: calls wait for its room, and it runs one or more */
	unsigned ready_count;
	unsigned running_count; /* calls, on helpers or on cores */
	unsigned idle_count;
	unsigned threads_max;
	struct near_helper *near[CPU_SETSIZE]; /* by CPU; owned; NULL: not asked for yet */
	unsigned near_threads;
	bool stopping;
	cpu_set_t cpus; /* where helpers may run: not only on the core that starts them */
	/* Written with relaxed atomics, with the lock held but for `completed`; read without it by
	 * call_pool_counters.  They order nothing. */
	struct call_counters counters;
};

static void *helper_main(void *argument);
static struct near_helper *near_take(struct call_pool *pool, int cpu);
static void near_destroy(struct near_helper *near);

static void
count(uint64_t *counter, int64_t change)
{
	__atomic_fetch_add(counter, (uint64_t)change, __ATOMIC_RELAXED);
}

/* For waiting with a limit. */
static void
work_init(pthread_cond_t *work)
{
	pthread_condattr_t clock;

	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_cond_init(work, &clock);
	pthread_condattr_destroy(&clock);
}

int
call_pool_create(unsigned threads_max, struct call_pool **result)
{
	struct call_pool *pool;

	if (result == NULL || threads_max == 0 || threads_max > CALL_THREADS_LIMIT)
		return -EINVAL;
	pool = calloc(1, sizeof(*pool));
	if (pool == NULL)
		return -ENOMEM;
	pthread_mutex_init(&pool->lock, NULL);
	work_init(&pool->work);
	pthread_cond_init(&pool->thread_gone, NULL);
	list_init(&pool->ready);
	key_order_init(&pool->keys);
	list_init(&pool->short_shares);
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
	for (unsigned i = 0; i < CPU_SETSIZE; i++) {
		if (pool->near[i] != NULL)
			pthread_cond_signal(&pool->near[i]->work);
	}
	while (pool->counters.threads > 0)
		pthread_cond_wait(&pool->thread_gone, &pool->lock);
	pthread_mutex_unlock(&pool->lock);
	for (unsigned i = 0; i < CPU_SETSIZE; i++)
		near_destroy(pool->near[i]);
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
	call->near = call->cpu < 0 ? NULL : near_take(pool, call->cpu);
	if (call->near != NULL) {
		list_append(&call->near->ready, &call->node);
		pthread_cond_signal(&call->near->work);
	} else {
		list_append(&pool->ready, &call->node);
		pool->ready_count++;
	}
}

static unsigned
threads_unused(const struct call_pool *pool)
{
	unsigned taken = pool->running_count + pool->ready_count;

	return taken < pool->threads_max ? pool->threads_max - taken : 0;
}

static bool
share_has_room(const struct call_pool *pool, const struct call_share *share)
{
	return share->running == 0 || share->running <= threads_unused(pool) / CALL_SHARE_DIVISOR;
}

/* What waits for SHARE's room has it, as far as it goes. */
static void
share_go_on(struct call_pool *pool, struct call_share *share)
{
	while (!list_empty(&share->waiting) && share_has_room(pool, share))
		call_make_ready(pool,
				container_of(list_take_first(&share->waiting), struct call, node));
	if (list_empty(&share->waiting))
		list_remove(&share->short_node);
}

/* A thread more is to be had: also for a share all of whose own calls hang. */
static void
short_shares_go_on(struct call_pool *pool)
{
	struct list_node *node, *after;

	list_for_each_safe(node, after, &pool->short_shares) {
		if (threads_unused(pool) < CALL_SHARE_DIVISOR)
			break; /* there is no room for the second of any */
		share_go_on(pool, container_of(node, struct call_share, short_node));
	}
}

/* It is CALL's turn by its key. */
static void
call_enter_share(struct call_pool *pool, struct call *call)
{
	struct call_share *share = call->share;

	if (share == NULL || (list_empty(&share->waiting) && share_has_room(pool, share))) {
		call_make_ready(pool, call);
		return;
	}
	if (list_empty(&share->waiting))
		list_append(&pool->short_shares, &share->short_node);
	list_append(&share->waiting, &call->node);
}

/* A call that counted against SHARE, or NULL, does so no more. */
static void
call_leave_share(struct call_pool *pool, struct call_share *share)
{
	if (share == NULL)
		return;
	share->running--;
	share_go_on(pool, share);
}

/* CALL waits no more: it begins or is cancelled. */
static void
call_end_wait(struct call_pool *pool, struct call *call)
{
	list_remove(&call->node);
	if (call->ready && call->near == NULL)
		pool->ready_count--;
	if (!call->ready && call->share != NULL && list_empty(&call->share->waiting))
		list_remove(&call->share->short_node);
	call->waiting = false;
	count(&pool->counters.waiting, -1);
}

/* The first call of READY, which begins now. */
static struct call *
call_take(struct call_pool *pool, struct list_node *ready)
{
	struct call *call = container_of(ready->next, struct call, node);
	uint64_t now_ns = kernel_clock_ns(), wait_ns = now_ns - call->submit_ns;

	call_end_wait(pool, call);
	if (call->near != NULL && call->near->given_ns != 0 &&
	    now_ns - call->near->given_ns > NEAR_WAIT_NS_MAX)
		call->near->not_before_ns = now_ns + NEAR_PAUSE_NS;
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

/* Run the first of READY.  Returns how many this has made ready for any helper.  Unlocks meanwhile.  A keyed call is sent home before the next of its key can begin, so
 * that they are done in order, and one of a share before that can be gone; others without the lock, which the reactor that wakes may want. */
static unsigned
call_perform(struct call_pool *pool, struct list_node *ready)
{
	struct call *call = call_take(pool, ready);
	struct near_helper *near = call->near;
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
	if (near != NULL)
		near->busy = false;
	ready_before = pool->ready_count;
	if (bound) {
		call_leave_share(pool, call->share);
		call_leave_key(pool, call);
		call_finish(call, 0);
	}
	short_shares_go_on(pool);
	return pool->ready_count - ready_before;
}

/* ---- Threads. */

/* One more thread of POOL, on CPUS, that runs ENTRY.  Returns 0 or an error of pthread_create(3).  Called with the lock held. */
static int
thread_start(struct call_pool *pool, const cpu_set_t *cpus, void *(*entry)(void *argument),
	     void *argument)
{
	pthread_attr_t attributes;
	pthread_t thread;
	int error;

	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setaffinity_np(&attributes, sizeof(*cpus), cpus);
	error = pthread_create(&thread, &attributes, entry, argument);
	pthread_attr_destroy(&attributes);
	if (error != 0)
		return error;
	count(&pool->counters.threads, 1);
	count(&pool->counters.threads_started, 1);
	return 0;
}

/* The calling thread ends.  Called with the lock held. */
static void
thread_gone(struct call_pool *pool)
{
	count(&pool->counters.threads, -1);
	pthread_cond_signal(&pool->thread_gone);
}

/* Start a helper, if the system has a thread for us.  Called with the lock held. */
static void
helper_start(struct call_pool *pool)
{
	/* None of these CPUs is the process's any more (cpuset(7)); the kernel has given its main thread others. */
	if (thread_start(pool, &pool->cpus, helper_main, pool) == EINVAL &&
	    sched_getaffinity(getpid(), sizeof(pool->cpus), &pool->cpus) == 0)
		(void)thread_start(pool, &pool->cpus, helper_main, pool);
}

/* See to it that what has become ready is run: by a helper, or else here.  Called with the lock held. */
static void
helpers_engage(struct call_pool *pool)
{
	while (pool->ready_count > 0) {
		if (pool->ready_count > pool->idle_count &&
		    pool->counters.threads < pool->threads_max)
			helper_start(pool);
		if (pool->counters.threads > pool->near_threads)
			break;
		/* A core that waits is better than a call that never ends. */
		(void)call_perform(pool, &pool->ready);
	}
	if (pool->ready_count > 0)
		pthread_cond_signal(&pool->work);
}

/* Wait until WORK says that there is something in READY.  Returns false when it is time to leave.  Called with the lock held. */
static bool
wait_for_work(struct call_pool *pool, pthread_cond_t *work, const struct list_node *ready)
{
	struct timespec until;
	int error = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += IDLE_NS;
	until.tv_sec += until.tv_nsec / NS_PER_S;
	until.tv_nsec %= NS_PER_S;
	while (list_empty(ready) && !pool->stopping && error == 0)
		error = pthread_cond_timedwait(work, &pool->lock, &until);
	return !list_empty(ready);
}

static bool
helper_wait(struct call_pool *pool)
{
	bool found;

	pool->idle_count++;
	found = wait_for_work(pool, &pool->work, &pool->ready);
	pool->idle_count--;
	return found;
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
		for (unsigned made = call_perform(pool, &pool->ready); made > 1; made--)
			helpers_engage(pool);
	}
	thread_gone(pool);
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

/* ---- Near helpers.  All of these are called with the lock held, but for near_destroy. */

static void *
near_main(void *argument)
{
	struct near_helper *near = argument;
	struct call_pool *pool = near->pool;

	(void)pthread_setname_np(pthread_self(), "call near");
	pthread_mutex_lock(&pool->lock);
	while (wait_for_work(pool, &near->work, &near->ready)) {
		for (unsigned made = call_perform(pool, &near->ready); made > 0; made--)
			helpers_engage(pool);
	}
	near->has_thread = false;
	pool->near_threads--;
	thread_gone(pool);
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}

/* Returns whether NEAR has a thread now. */
static bool
near_start(struct near_helper *near)
{
	struct call_pool *pool = near->pool;
	cpu_set_t cpu;

	CPU_ZERO(&cpu);
	CPU_SET((unsigned)near->cpu, &cpu);
	/* Half of the threads are for others. */
	if (pool->near_threads >= pool->threads_max / 2 ||
	    pool->counters.threads >= pool->threads_max ||
	    thread_start(pool, &cpu, near_main, near) != 0)
		return false;
	pool->near_threads++;
	near->has_thread = true;
	return true;
}

/* The near helper of CPU, without a thread yet; or NULL. */
static struct near_helper *
near_create(struct call_pool *pool, int cpu)
{
	struct near_helper *near = calloc(1, sizeof(*near));

	if (near == NULL)
		return NULL;
	near->pool = pool;
	near->cpu = cpu;
	work_init(&near->work);
	list_init(&near->ready);
	pool->near[cpu] = near;
	return near;
}

static void
near_destroy(struct near_helper *near)
{
	if (near == NULL)
		return;
	pthread_cond_destroy(&near->work);
	free(near);
}

/* The near helper of CPU, which is to run a call now; or NULL: it has one, or can't be had. */
static struct near_helper *
near_take(struct call_pool *pool, int cpu)
{
	struct near_helper *near = pool->near[cpu];
	uint64_t now_ns = kernel_clock_ns();

	if (near == NULL)
		near = near_create(pool, cpu);
	if (near == NULL || near->busy || now_ns < near->not_before_ns)
		return NULL;
	near->given_ns = near->has_thread ? now_ns : 0;
	if (!near->has_thread && !near_start(near))
		return NULL;
	near->busy = true;
	return near;
}

/* ---- Submitting and cancelling. */

static void
call_init(struct call *call, struct reactor *reactor, int cpu, uintptr_t key,
	  struct call_share *share)
{
	call->reactor = reactor;
	call->cpu = cpu;
	call->near = NULL;
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
	list_init(&share->short_node);
}

void
call_submit(struct call_pool *pool, struct reactor *reactor, struct call *call)
{
	call_submit_keyed(pool, reactor, call, 0, NULL);
}

static void
submit(struct call_pool *pool, struct call *call, uintptr_t key)
{
	pthread_mutex_lock(&pool->lock);
	count(&pool->counters.submitted, 1);
	count(&pool->counters.waiting, 1);
	if (key == 0 || key_order_enter(&pool->keys, &call->key_entry, key)) {
		call_enter_share(pool, call);
		helpers_engage(pool);
	}
	pthread_mutex_unlock(&pool->lock);
}

void
call_submit_keyed(struct call_pool *pool, struct reactor *reactor, struct call *call, uintptr_t key,
		  struct call_share *share)
{
	call_init(call, reactor, -1, key, share);
	submit(pool, call, key);
}

void
call_submit_near(struct call_pool *pool, struct reactor *reactor, struct call *call, uintptr_t key,
		 struct call_share *share)
{
	int cpu = sched_getcpu();

	call_init(call, reactor, cpu < CPU_SETSIZE ? cpu : -1, key, share);
	submit(pool, call, key);
}

bool
call_cancel(struct call_pool *pool, struct call *call)
{
	unsigned ready_before;
	bool waited, awaited;

	pthread_mutex_lock(&pool->lock);
	waited = call->waiting;
	if (waited) {
		awaited = call->ready && call->near == NULL;
		call_end_wait(pool, call);
		ready_before = pool->ready_count;
		if (call->near != NULL)
			call->near->busy = false;
		if (call->ready)
			call_leave_share(pool, call->share);
		call_leave_key(pool, call);
		short_shares_go_on(pool);
		/* Whoever was to take CALL takes the first of those, if there was anybody. */
		for (unsigned made = pool->ready_count - ready_before; made > awaited; made--)
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
