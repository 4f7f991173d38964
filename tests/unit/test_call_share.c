/* Shares of reactor/call.h: calls of one that hang leave threads to others, and nothing that waited for its share is forgotten. */
#include <criterion/criterion.h>
#include <errno.h>
#include <semaphore.h>
#include <unistd.h>

#include "reactor/call.h"
#include "tests/unit/reactor_fixture.h"

#define THREADS (4 * CALL_SHARE_DIVISOR)
/* What one share alone gets: no more when as many have a thread as that part of the rest. */
#define ALONE 4
#define CALLS 16 /* of a share; more than it gets */

struct gated_call {
	struct call call;
	sem_t opened;
	bool entered; /* atomic */
	bool is_done;
	int status;
};

static struct call_pool *pool;

static void
setup(void)
{
	create_reactor(4, 4, 0);
	cr_assert_eq(call_pool_create(THREADS, &pool), 0);
}

static void
teardown(void)
{
	call_pool_destroy(pool);
	reactor_destroy(reactor);
}

TestSuite(call_share, .init = setup, .fini = teardown, .timeout = 60);

static void
run(struct call *call)
{
	struct gated_call *gated = container_of(call, struct gated_call, call);

	__atomic_store_n(&gated->entered, true, __ATOMIC_SEQ_CST);
	while (sem_wait(&gated->opened) != 0)
		;
}

static void
done(struct call *call)
{
	struct gated_call *gated = container_of(call, struct gated_call, call);

	gated->is_done = true;
	gated->status = call->status;
	done_total++;
}

static void
submit_gated(struct gated_call *gated, uintptr_t key, struct call_share *share)
{
	*gated = (struct gated_call){ .call = { .run = run, .done = done } };
	sem_init(&gated->opened, 0, 0);
	call_submit_keyed(pool, reactor, &gated->call, key, share);
}

static bool
has_entered(const struct gated_call *gated)
{
	return __atomic_load_n(&gated->entered, __ATOMIC_SEQ_CST);
}

static unsigned
count_entered(const struct gated_call *gated, unsigned count)
{
	unsigned entered = 0;

	for (unsigned i = 0; i < count; i++)
		entered += has_entered(&gated[i]);
	return entered;
}

/* Wait until WANTED of the COUNT calls GATED run, and no more come. */
static void
assert_entered(const struct gated_call *gated, unsigned count, unsigned wanted)
{
	for (unsigned i = 0; i < 5000 && count_entered(gated, count) < wanted; i++)
		usleep(1000);
	usleep(20000);
	cr_assert_eq(count_entered(gated, count), wanted, "%u", count_entered(gated, count));
}

static void
open_all(struct gated_call *gated, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		sem_post(&gated[i].opened);
}

Test(call_share, one_that_hangs_has_its_share_and_no_more)
{
	static struct gated_call hung[CALLS], other;
	struct call_share shares[2];

	call_share_init(&shares[0]);
	call_share_init(&shares[1]);
	for (unsigned i = 0; i < CALLS; i++)
		submit_gated(&hung[i], 0, &shares[0]);
	assert_entered(hung, CALLS, ALONE);
	submit_gated(&other, 0, &shares[1]);
	assert_entered(&other, 1, 1);
	open_all(&other, 1);
	open_all(hung, CALLS);
	turn_until_done(CALLS + 1);
	assert_entered(hung, CALLS, CALLS);
}

/* Each has a thread, and there are always some for one more. */
Test(call_share, many_that_hang_leave_threads)
{
	enum {
		SHARES = THREADS - CALL_SHARE_DIVISOR + 1
	};
	static struct gated_call hung[SHARES][CALLS], other;
	struct call_share shares[SHARES + 1];

	for (unsigned s = 0; s <= SHARES; s++)
		call_share_init(&shares[s]);
	for (unsigned i = 0; i < CALLS; i++) {
		for (unsigned s = 0; s < SHARES; s++)
			submit_gated(&hung[s][i], 0, &shares[s]);
	}
	assert_entered(hung[0], SHARES * CALLS, SHARES);
	submit_gated(&other, 0, &shares[SHARES]);
	assert_entered(&other, 1, 1);
	open_all(&other, 1);
	open_all(hung[0], SHARES * CALLS);
	turn_until_done(SHARES * CALLS + 1);
}

Test(call_share, calls_without_one_have_all_threads)
{
	static struct gated_call calls[THREADS];

	for (unsigned i = 0; i < THREADS; i++)
		submit_gated(&calls[i], 0, NULL);
	assert_entered(calls, THREADS, THREADS);
	open_all(calls, THREADS);
	turn_until_done(THREADS);
}

/* While others had all threads it got one, which hangs: when they have ended it gets as many as it may have then, each of its own. */
Test(call_share, one_that_was_short_of_threads_gets_several_from_others)
{
	static struct gated_call others[THREADS - 1], calls[CALLS];
	struct call_share share;

	call_share_init(&share);
	for (unsigned i = 0; i < THREADS - 1; i++)
		submit_gated(&others[i], 0, NULL);
	assert_entered(others, THREADS - 1, THREADS - 1);
	for (unsigned i = 0; i < CALLS; i++)
		submit_gated(&calls[i], 0, &share);
	assert_entered(calls, CALLS, 1);
	open_all(others, THREADS - 1);
	assert_entered(calls, CALLS, ALONE);
	turn_until_done(THREADS - 1);
	open_all(calls, CALLS);
	turn_until_done(THREADS - 1 + CALLS);
}

Test(call_share, those_of_a_key_keep_their_order)
{
	static struct gated_call calls[CALLS];
	struct call_share share;

	call_share_init(&share);
	for (unsigned i = 0; i < CALLS; i++)
		submit_gated(&calls[i], 7, &share);
	for (unsigned i = 0; i < CALLS; i++) {
		assert_entered(calls, CALLS, i + 1);
		cr_assert(has_entered(&calls[i]));
		open_all(&calls[i], 1);
	}
	turn_until_done(CALLS);
}

Test(call_share, who_is_cancelled_takes_no_place)
{
	static struct gated_call calls[CALLS];
	struct call_share share;

	call_share_init(&share);
	for (unsigned i = 0; i < CALLS; i++)
		submit_gated(&calls[i], 0, &share);
	assert_entered(calls, CALLS, ALONE);
	for (unsigned i = ALONE; i < CALLS - 1; i++)
		cr_assert(call_cancel(pool, &calls[i].call));
	turn_until_done(CALLS - 1 - ALONE);
	open_all(calls, 1);
	assert_entered(calls, CALLS, ALONE + 1);
	cr_assert(has_entered(&calls[CALLS - 1]));
	open_all(calls, CALLS);
	turn_until_done(CALLS);
	for (unsigned i = 0; i < CALLS; i++)
		cr_assert_eq(calls[i].status, i < ALONE || i == CALLS - 1 ? 0 : -ECANCELED);
}

/* It has a place, and no thread yet: what waits for that place gets it, and a thread as soon as there is one. */
Test(call_share, the_next_gets_the_place_of_one_that_is_cancelled)
{
	static struct gated_call others[THREADS], first, second;
	struct call_share share;

	call_share_init(&share);
	for (unsigned i = 0; i < THREADS; i++)
		submit_gated(&others[i], 0, NULL);
	assert_entered(others, THREADS, THREADS);
	submit_gated(&first, 0, &share);
	submit_gated(&second, 0, &share);
	cr_assert(call_cancel(pool, &first.call));
	open_all(others, 1);
	assert_entered(&second, 1, 1);
	open_all(others + 1, THREADS - 1);
	open_all(&second, 1);
	turn_until_done(THREADS + 2);
	cr_assert_eq(first.status, -ECANCELED);
	cr_assert_not(has_entered(&first));
}
