/* Helper threads: started when a call waits and none is idle, gone after IDLE_NS without work. */
#include "reactor/call.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define IDLE_NS	 200000000
#define NS_PER_S 1000000000

struct call_pool {
	pthread_mutex_t lock; /* for all below */
	pthread_cond_t work;
	pthread_cond_t thread_gone;
	struct list_node waiting;
	unsigned waiting_count;
	unsigned idle_count;
	unsigned thread_count;
	unsigned threads_max;
	bool stopping;
	cpu_set_t cpus; /* where helpers may run: not only on the core that starts them */
};

static void *helper_main(void *argument);

int
call_pool_create(unsigned threads_max, struct call_pool **result)
{
	struct call_pool *pool;
	pthread_condattr_t clock;

	if (threads_max == 0)
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
	list_init(&pool->waiting);
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
	CHECK(list_empty(&pool->waiting));
	pool->stopping = true;
	pthread_cond_broadcast(&pool->work);
	while (pool->thread_count > 0)
		pthread_cond_wait(&pool->thread_gone, &pool->lock);
	pthread_mutex_unlock(&pool->lock);
	pthread_cond_destroy(&pool->thread_gone);
	pthread_cond_destroy(&pool->work);
	pthread_mutex_destroy(&pool->lock);
	free(pool);
}

/* Start a helper, if the system has a thread for us.  Called with the lock held. */
static void
helper_start(struct call_pool *pool)
{
	pthread_attr_t attributes;
	pthread_t thread;

	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_attr_setaffinity_np(&attributes, sizeof(pool->cpus), &pool->cpus);
	if (pthread_create(&thread, &attributes, helper_main, pool) == 0)
		pool->thread_count++;
	pthread_attr_destroy(&attributes);
}

static void
call_deliver(struct message *message)
{
	struct call *call = container_of(message, struct call, message);

	call->done(call);
}

static void
call_run(struct call *call)
{
	call->run(call);
	call->message.deliver = call_deliver;
	reactor_send(call->reactor, &call->message);
}

void
call_submit(struct call_pool *pool, struct reactor *reactor, struct call *call)
{
	bool nobody;

	call->reactor = reactor;
	pthread_mutex_lock(&pool->lock);
	if (pool->waiting_count >= pool->idle_count && pool->thread_count < pool->threads_max)
		helper_start(pool);
	nobody = pool->thread_count == 0;
	if (!nobody) {
		list_append(&pool->waiting, &call->node);
		pool->waiting_count++;
		pthread_cond_signal(&pool->work);
	}
	pthread_mutex_unlock(&pool->lock);
	if (nobody)
		call_run(call); /* a core that waits is better than a call that never ends */
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
	while (list_empty(&pool->waiting) && !pool->stopping && error == 0)
		error = pthread_cond_timedwait(&pool->work, &pool->lock, &until);
	pool->idle_count--;
	return !list_empty(&pool->waiting);
}

static void *
helper_main(void *argument)
{
	struct call_pool *pool = argument;

	pthread_mutex_lock(&pool->lock);
	while (helper_wait(pool)) {
		struct list_node *node = list_take_first(&pool->waiting);
		struct call *call = container_of(node, struct call, node);

		pool->waiting_count--;
		pthread_mutex_unlock(&pool->lock);
		call_run(call);
		pthread_mutex_lock(&pool->lock);
	}
	pool->thread_count--;
	pthread_cond_signal(&pool->thread_gone);
	pthread_mutex_unlock(&pool->lock);
	return NULL;
}
