/* reactor/call.h, from several reactors at one time: random keys, random cancels, some near.  Each call is done once on its own
 * thread, cancelled ones never ran, and those of a key run one at a time, in order.
 * Prints its seed; SEED=n repeats what each thread decides, though not how the threads meet. */
#include "reactor/call.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/unit/seed.h"

#define SUBMITTERS   3
#define KEYS	     6	   /* 0, which is none, included */
#define CALLS	     48	   /* that one submitter has in flight at most */
#define SUBMISSIONS  15000 /* of each submitter */
#define SHARES	     2
#define POOL_THREADS (2 * CALL_SHARE_DIVISOR)
#define STACK_BYTES  ((size_t)1 << 20) /* of a submitter's thread */
#define NO_THREADS   ((size_t)1 << 60) /* a stack of which makes pthread_create(3) fail */

struct submitter;

struct stress_call {
	struct call call;
	struct submitter *submitter;
	unsigned key;
	uint64_t sequence;
	unsigned run_us; /* how long it blocks */
	unsigned run_count;
	bool in_flight;
	bool cancelled;
};

/* Its thread's, but for what run writes in a call and for `thread`, which the test joins. */
struct submitter {
	struct reactor *reactor;
	pthread_t thread;
	pthread_t self;
	unsigned index;
	unsigned short random_state[3];
	struct stress_call calls[CALLS];
	uint64_t last_done[KEYS];
	unsigned submitted;
	unsigned in_flight;
	unsigned cancelled;
	unsigned cancelled_late;
	unsigned wrong;
};

/* Only the call of the key that runs may touch it.  These are no atomics: that the calls of one key come one after
 * another, each seeing what the one before wrote, is what the pool promises (and a thread sanitizer checks). */
struct key_state {
	pthread_mutex_t submit_lock; /* the test's own: so that the order of submission is known */
	uint64_t last_run[SUBMITTERS];
	unsigned inside;
	unsigned wrong;
};

static struct call_pool *pool;
static struct submitter submitters[SUBMITTERS];
static struct key_state keys[KEYS];
static struct call_share shares[SHARES];
static uint64_t last_sequence;	   /* atomic */
static unsigned submissions_limit; /* of each submitter so far; atomic */
static bool
	order_is_global; /* one order of all submitters, else one of each; constant while threads run */

static unsigned
random_below(struct submitter *submitter, unsigned limit)
{
	return (unsigned)nrand48(submitter->random_state) % limit;
}

static void
check_key(struct stress_call *stress_call)
{
	struct key_state *key = &keys[stress_call->key];
	uint64_t *last_run = &key->last_run[order_is_global ? 0 : stress_call->submitter->index];

	key->wrong += key->inside++ != 0;
	key->wrong += *last_run >= stress_call->sequence;
	*last_run = stress_call->sequence;
	if (stress_call->run_us != 0)
		usleep(stress_call->run_us);
	else
		sched_yield();
	key->wrong += --key->inside != 0;
}

static void
on_run(struct call *call)
{
	struct stress_call *stress_call = container_of(call, struct stress_call, call);

	stress_call->run_count++;
	if (stress_call->key != 0)
		check_key(stress_call);
	else if (stress_call->run_us != 0)
		usleep(stress_call->run_us);
}

static void
on_done(struct call *call)
{
	struct stress_call *stress_call = container_of(call, struct stress_call, call);
	struct submitter *submitter = stress_call->submitter;
	uint64_t *last_done = &submitter->last_done[stress_call->key];

	submitter->wrong += !pthread_equal(submitter->self, pthread_self());
	submitter->wrong += !stress_call->in_flight;
	submitter->wrong += call->status != (stress_call->cancelled ? -ECANCELED : 0);
	submitter->wrong += stress_call->run_count != (stress_call->cancelled ? 0 : 1);
	if (stress_call->key != 0 && !stress_call->cancelled) {
		submitter->wrong += *last_done >= stress_call->sequence;
		*last_done = stress_call->sequence;
	}
	stress_call->in_flight = false;
	submitter->in_flight--;
}

static void
submit_one(struct submitter *submitter, struct stress_call *stress_call)
{
	struct key_state *key;
	unsigned share = random_below(submitter, SHARES + 1);

	*stress_call = (struct stress_call){ .call = { .run = on_run, .done = on_done } };
	stress_call->submitter = submitter;
	stress_call->key = random_below(submitter, KEYS);
	stress_call->run_us = random_below(submitter, 20) == 0 ? 1 : 0;
	stress_call->in_flight = true;
	submitter->submitted++;
	submitter->in_flight++;

	key = &keys[stress_call->key];
	if (order_is_global)
		pthread_mutex_lock(&key->submit_lock);
	stress_call->sequence = __atomic_add_fetch(&last_sequence, 1, __ATOMIC_RELAXED);
	if (random_below(submitter, 4) == 0)
		call_submit_near(pool, submitter->reactor, &stress_call->call, stress_call->key,
				 share == 0 ? NULL : &shares[share - 1]);
	else
		call_submit_keyed(pool, submitter->reactor, &stress_call->call, stress_call->key,
				  share == 0 ? NULL : &shares[share - 1]);
	if (order_is_global)
		pthread_mutex_unlock(&key->submit_lock);
}

static void
cancel_one(struct submitter *submitter, struct stress_call *stress_call)
{
	if (call_cancel(pool, &stress_call->call)) {
		submitter->wrong += stress_call->cancelled;
		stress_call->cancelled = true;
		submitter->cancelled++;
	} else {
		submitter->cancelled_late++;
	}
}

static void *
submitter_main(void *argument)
{
	struct submitter *submitter = argument;

	submitter->self = pthread_self();
	while (submitter->submitted < SUBMISSIONS || submitter->in_flight > 0) {
		struct stress_call *any = &submitter->calls[random_below(submitter, CALLS)];

		if (any->in_flight && random_below(submitter, 32) == 0)
			cancel_one(submitter, any);
		else if (!any->in_flight &&
			 submitter->submitted <
				 __atomic_load_n(&submissions_limit, __ATOMIC_RELAXED))
			submit_one(submitter, any);
		if (random_below(submitter, 8) == 0 && !reactor_turn(submitter->reactor))
			sched_yield();
	}
	return NULL;
}

/* Submit so many of each submitter's before the others.  STACK_BYTES is for the submitters' threads. */
static void
stress_start(size_t stack_bytes, unsigned submissions)
{
	const struct reactor_config config = { .disk_slots = 1, .poll_slots = 1 };
	uint64_t seed = test_seed();
	pthread_attr_t attributes;

	submissions_limit = submissions;
	pthread_attr_init(&attributes);
	cr_assert_eq(pthread_attr_setstacksize(&attributes, stack_bytes), 0);
	cr_assert_eq(call_pool_create(POOL_THREADS, &pool), 0);
	for (unsigned i = 0; i < SHARES; i++)
		call_share_init(&shares[i]);
	for (unsigned i = 0; i < KEYS; i++)
		pthread_mutex_init(&keys[i].submit_lock, NULL);
	for (unsigned i = 0; i < SUBMITTERS; i++) {
		struct submitter *submitter = &submitters[i];

		submitter->index = i;
		submitter->random_state[0] = (unsigned short)(seed + i);
		submitter->random_state[1] = (unsigned short)(seed >> 16);
		submitter->random_state[2] = (unsigned short)(seed >> 32);
		cr_assert_eq(reactor_create(&config, &submitter->reactor), 0);
		cr_assert_eq(
			pthread_create(&submitter->thread, &attributes, submitter_main, submitter),
			0);
	}
	pthread_attr_destroy(&attributes);
}

/* Join the submitters, and look at what they found. */
static void
stress_finish(void)
{
	struct call_counters counters;
	unsigned cancelled = 0, cancelled_late = 0;

	for (unsigned i = 0; i < SUBMITTERS; i++) {
		cr_assert_eq(pthread_join(submitters[i].thread, NULL), 0);
		cr_assert_eq(submitters[i].wrong, 0);
		cancelled += submitters[i].cancelled;
		cancelled_late += submitters[i].cancelled_late;
	}
	for (unsigned i = 0; i < KEYS; i++)
		cr_assert_eq(keys[i].wrong, 0);
	call_pool_counters(pool, &counters);
	cr_assert_eq(counters.submitted, SUBMITTERS * SUBMISSIONS);
	cr_assert_eq(counters.cancelled, cancelled);
	cr_assert_eq(counters.completed, counters.submitted - cancelled);
	cr_assert_eq(counters.waiting, 0);
	cr_assert_leq(counters.threads, POOL_THREADS);
	cr_assert_gt(counters.threads_started, 0);
	cr_assert_gt(cancelled, 0);
	cr_assert_gt(cancelled_late, 0);
	call_pool_destroy(pool);
	for (unsigned i = 0; i < SUBMITTERS; i++)
		reactor_destroy(submitters[i].reactor);
}

static size_t
stack_default(size_t bytes)
{
	pthread_attr_t attributes;
	size_t before;

	cr_assert_eq(pthread_getattr_default_np(&attributes), 0);
	cr_assert_eq(pthread_attr_getstacksize(&attributes, &before), 0);
	cr_assert_eq(pthread_attr_setstacksize(&attributes, bytes), 0);
	cr_assert_eq(pthread_setattr_default_np(&attributes), 0);
	pthread_attr_destroy(&attributes);
	return before;
}

Test(call_stress, with_helpers, .timeout = 120)
{
	order_is_global = true;
	stress_start(STACK_BYTES, SUBMISSIONS);
	stress_finish();
}

/* The cores begin by running the calls themselves, since there are no threads; half way there are. */
Test(call_stress, helpers_come_late, .timeout = 120)
{
	size_t stack_bytes = stack_default(NO_THREADS);
	struct call_counters counters;

	stress_start(STACK_BYTES, SUBMISSIONS / 2);
	do {
		usleep(100);
		call_pool_counters(pool, &counters);
	} while (counters.submitted < SUBMITTERS * SUBMISSIONS / 2);
	cr_assert_eq(counters.threads_started, 0);
	stack_default(stack_bytes);
	__atomic_store_n(&submissions_limit, SUBMISSIONS, __ATOMIC_RELAXED);
	stress_finish();
}
