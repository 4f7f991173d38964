/* reactor/notice.h: many raises are one delivery, and no bit is lost. */
#include "reactor/notice.h"

#include <criterion/criterion.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

static struct inbox inbox;
static struct notice notice;
static unsigned delivered_count;
static uint32_t delivered_bits; /* the last ones */

static void
note_bits(struct notice *delivered, uint32_t bits)
{
	cr_assert_eq(delivered, &notice);
	delivered_count++;
	delivered_bits = bits;
}

static void
setup(void)
{
	inbox_init(&inbox);
	notice_init(&notice, note_bits);
}

TestSuite(notice, .init = setup, .timeout = 60);

Test(notice, first_raise_posts)
{
	cr_assert(inbox_empty(&inbox));
	cr_assert(notice_raise(&notice, &inbox, 4));
	cr_assert_not(inbox_empty(&inbox));
	cr_assert_eq(delivered_count, 0);
	cr_assert_eq(inbox_deliver(&inbox, UINT_MAX), 1);
	cr_assert_eq(delivered_count, 1);
	cr_assert_eq(delivered_bits, 4);
}

Test(notice, many_raises_are_one_delivery_of_all_bits)
{
	cr_assert(notice_raise(&notice, &inbox, 1));
	for (unsigned i = 0; i < 1000; i++)
		cr_assert_not(notice_raise(&notice, &inbox, (uint32_t)1 << i % 32));
	cr_assert_eq(inbox_deliver(&inbox, UINT_MAX), 1);
	cr_assert_eq(delivered_count, 1);
	cr_assert_eq(delivered_bits, UINT32_MAX);
	cr_assert(inbox_empty(&inbox));
}

Test(notice, bits_are_delivered_once)
{
	(void)notice_raise(&notice, &inbox, 1);
	(void)inbox_deliver(&inbox, UINT_MAX);
	cr_assert(notice_raise(&notice, &inbox, 2));
	cr_assert_eq(inbox_deliver(&inbox, UINT_MAX), 1);
	cr_assert_eq(delivered_count, 2);
	cr_assert_eq(delivered_bits, 2);
	cr_assert_eq(inbox_deliver(&inbox, UINT_MAX), 0);
}

static void
raise_again(struct notice *delivered, uint32_t bits)
{
	delivered_count++;
	delivered_bits = bits;
	if (delivered_count < 3)
		cr_assert(notice_raise(delivered, &inbox, bits << 1));
}

Test(notice, raised_during_its_delivery_is_delivered_again)
{
	notice_init(&notice, raise_again);
	(void)notice_raise(&notice, &inbox, 1);
	for (unsigned i = 1; i <= 3; i++) {
		cr_assert_eq(inbox_deliver(&inbox, UINT_MAX), 1);
		cr_assert_eq(delivered_count, i);
		cr_assert_eq(delivered_bits, (uint32_t)1 << (i - 1));
	}
	cr_assert_eq(inbox_deliver(&inbox, UINT_MAX), 0);
}

Test(notice, notices_do_not_share_bits)
{
	struct notice other;

	notice_init(&other, note_bits);
	other.deliver = raise_again;
	delivered_count = 2; /* raise_again does not */
	(void)notice_raise(&notice, &inbox, 1);
	(void)notice_raise(&other, &inbox, 8);
	cr_assert_eq(inbox_deliver(&inbox, 1), 1);
	cr_assert_eq(delivered_bits, 1);
	cr_assert_eq(inbox_deliver(&inbox, 1), 1);
	cr_assert_eq(delivered_bits, 8);
}

/* Many producers.  Each counts up in a variable of its own, then raises its bit; so when a bit comes, its count must be
 * newer than at the last one.  Now and then a producer waits until its count has been seen: a bit that is lost is not
 * made up for by the next.  Odd producers raise a notice of their own, even ones share one. */

#define PRODUCERS 4
#define RAISES	  200000
#define WAIT_EACH 8

static struct notice shared, own[PRODUCERS];
static uint64_t published[PRODUCERS]; /* relaxed: what orders it is the notice */
static uint64_t seen[PRODUCERS];      /* atomic */
static unsigned ended;		      /* atomic */
static uint64_t posts;		      /* atomic */

static void
look(struct notice *delivered, uint32_t bits)
{
	cr_assert_neq(bits, 0);
	delivered_count++;
	for (unsigned i = 0; i < PRODUCERS; i++) {
		uint64_t now;

		if ((bits & (uint32_t)1 << i) == 0)
			continue;
		cr_assert_eq(delivered, i % 2 == 0 ? &shared : &own[i]);
		/* The producer goes on writing. */
		now = __atomic_load_n(&published[i], __ATOMIC_RELAXED);
		cr_assert_geq(now, seen[i]);
		__atomic_store_n(&seen[i], now, __ATOMIC_RELAXED);
	}
}

static void *
produce(void *argument)
{
	unsigned i = (unsigned)((uint64_t *)argument - published);
	uint64_t mine = 0;

	for (uint64_t n = 1; n <= RAISES; n++) {
		__atomic_store_n(&published[i], n, __ATOMIC_RELAXED);
		mine += notice_raise(i % 2 == 0 ? &shared : &own[i], &inbox, (uint32_t)1 << i);
		if (n % WAIT_EACH != 0)
			continue;
		while (__atomic_load_n(&seen[i], __ATOMIC_RELAXED) < n)
			sched_yield();
	}
	__atomic_fetch_add(&posts, mine, __ATOMIC_RELAXED);
	__atomic_fetch_add(&ended, 1, __ATOMIC_RELEASE);
	return NULL;
}

Test(notice, many_producers_lose_no_bit)
{
	pthread_t threads[PRODUCERS];
	uint64_t messages = 0;
	bool last;

	notice_init(&shared, look);
	for (unsigned i = 0; i < PRODUCERS; i++)
		notice_init(&own[i], look);
	for (unsigned i = 0; i < PRODUCERS; i++)
		cr_assert_eq(pthread_create(&threads[i], NULL, produce, &published[i]), 0);
	do {
		last = __atomic_load_n(&ended, __ATOMIC_ACQUIRE) == PRODUCERS;
		if (inbox_empty(&inbox))
			sched_yield();
		messages += inbox_deliver(&inbox, UINT_MAX);
	} while (!last);
	for (unsigned i = 0; i < PRODUCERS; i++) {
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
		cr_assert_eq(seen[i], RAISES);
	}
	cr_assert_eq(messages, delivered_count);
	cr_assert_eq(messages, posts);
	cr_assert(inbox_empty(&inbox));
}

/* It would be in the inbox twice. */
Test(notice, raising_nothing_is_a_mistake, .signal = SIGABRT)
{
	notice_init(&notice, look);
	(void)notice_raise(&notice, &inbox, 0);
}
