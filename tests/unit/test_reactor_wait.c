/* reactor/reactor.h, reactor_wait and reactor_wake: for loops of others.  The reactor is the test's own thread. */
#include "tests/unit/reactor_fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#define LONG_NS (60000 * MS) /* longer than any test may take */

TestSuite(reactor_wait, .init = reactor_fixture_init, .fini = reactor_fixture_fini, .timeout = 50);

static void
complete(struct test_op *test_ops, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		test_op_init(&test_ops[i]);
		reactor_complete(reactor, &test_ops[i].op, 0);
	}
}

static uint64_t
sleeps(void)
{
	return reactor_counters(reactor)->sleeps;
}

Test(reactor_wait, returns_what_was_done)
{
	struct test_op test_ops[5];

	complete(test_ops, 5);
	cr_assert_eq(reactor_wait(reactor, 5, 100, LONG_NS), 5);
	cr_assert_eq(done_total, 5);
}

Test(reactor_wait, does_no_more_than_max)
{
	struct test_op test_ops[10];

	complete(test_ops, 10);
	for (unsigned i = 1; i <= 3; i++) {
		cr_assert_eq(reactor_wait(reactor, 1, 3, LONG_NS), 3);
		cr_assert_eq(done_total, 3 * i);
	}
	cr_assert_eq(reactor_wait(reactor, 0, 3, LONG_NS), 1);
	cr_assert_eq(done_total, 10);
	cr_assert_eq(sleeps(), 0);
}

/* Of several classes together, too. */
Test(reactor_wait, max_counts_all_classes)
{
	struct test_op test_ops[12];

	for (unsigned i = 0; i < ARRAY_COUNT(test_ops); i++) {
		test_op_init(&test_ops[i]);
		test_ops[i].op.priority = (enum priority)(i % PRIORITY_COUNT);
		reactor_complete(reactor, &test_ops[i].op, 0);
	}
	for (unsigned i = 1; i <= 12; i++) {
		cr_assert_eq(reactor_wait(reactor, 1, 1, LONG_NS), 1);
		cr_assert_eq(done_total, i);
	}
}

Test(reactor_wait, min_beyond_max_is_max)
{
	struct test_op test_ops[4];

	complete(test_ops, 4);
	cr_assert_eq(reactor_wait(reactor, 100, 2, LONG_NS), 2);
	cr_assert_eq(done_total, 2);
}

Test(reactor_wait, min_0_takes_one_turn)
{
	uint64_t turns = reactor_turns(reactor);

	cr_assert_eq(reactor_wait(reactor, 0, 10, LONG_NS), 0);
	cr_assert_eq(reactor_turns(reactor), turns + 1);
	cr_assert_eq(sleeps(), 0);
}

/* One at a time is completed, in turn after turn. */
static unsigned again_left;

static void
complete_again(struct op *op, long result)
{
	note_done(op, result);
	if (again_left-- > 0)
		reactor_complete(reactor, op, 0);
}

Test(reactor_wait, takes_turns_until_min_are_done)
{
	struct test_op test_op;

	again_left = 100;
	test_op_init(&test_op);
	test_op.op.done = complete_again;
	reactor_complete(reactor, &test_op.op, 0);
	cr_assert_eq(reactor_wait(reactor, 7, 100, LONG_NS), 7);
	cr_assert_eq(reactor_wait(reactor, 20, 20, LONG_NS), 20);
	cr_assert_eq(done_total, 27);
	again_left = 0;
	turn_until_idle();
}

Test(reactor_wait, timeout_ends_it)
{
	uint64_t started_ns = kernel_clock_ns();

	cr_assert_eq(reactor_wait(reactor, 1, 1, 30 * MS), 0);
	cr_assert_geq(kernel_clock_ns() - started_ns, 30 * MS);
	cr_assert_lt(kernel_clock_ns() - started_ns, 5000 * MS);
	cr_assert_geq(sleeps(), 1);
	cr_assert_leq(sleeps(), 5);
}

Test(reactor_wait, timeout_ends_it_with_less_than_min)
{
	struct test_op test_ops[2];

	complete(test_ops, 2);
	cr_assert_eq(reactor_wait(reactor, 3, 10, 10 * MS), 2);
	cr_assert_eq(done_total, 2);
}

/* A turn always has something to do, but the time is up. */
static void
defer_again(struct task *task)
{
	reactor_defer(reactor, task);
}

Test(reactor_wait, timeout_ends_it_when_it_is_busy)
{
	struct task task;

	task_init(&task, defer_again);
	reactor_defer(reactor, &task);
	cr_assert_eq(reactor_wait(reactor, 1, 1, 10 * MS), 0);
	cr_assert_eq(sleeps(), 0);
	task_cancel(&task);
}

Test(reactor_wait, timeout_0_does_not_sleep)
{
	cr_assert_eq(reactor_wait(reactor, 1, 1, 0), 0);
	cr_assert_eq(sleeps(), 0);
}

static unsigned delivered_count;

static void
count_delivery(struct message *message)
{
	(void)message;
	delivered_count++;
}

static void
count_timer(struct timer *timer)
{
	(void)timer;
	delivered_count++;
}

Test(reactor_wait, messages_and_timers_are_served_but_not_counted)
{
	struct message message = { .deliver = count_delivery };
	struct timer timer;

	timer_init(&timer, count_timer);
	reactor_timer_start(reactor, &timer, 5 * MS);
	reactor_send(reactor, &message);
	cr_assert_eq(reactor_wait(reactor, 1, 1, 40 * MS), 0);
	cr_assert_eq(delivered_count, 2);
}

Test(reactor_wait, done_after_the_last_wait_is_done_by_a_turn)
{
	struct test_op test_ops[20];

	complete(test_ops, 20);
	cr_assert_eq(reactor_wait(reactor, 1, 1, LONG_NS), 1);
	reactor_turn(reactor);
	cr_assert_eq(done_total, 20);
}

/* ---- what other threads do to it ---- */

static int fds[2];

static void *
write_when_asleep(void *argument)
{
	wait_for_sleep(0);
	if (write(fds[1], "x", 1) != 1)
		reactor_stop(reactor);
	return argument;
}

Test(reactor_wait, event_ends_it)
{
	struct test_op test_op;
	pthread_t thread;

	make_pipe(fds);
	submit_poll(&test_op, fds[0], POLLIN);
	cr_assert_eq(pthread_create(&thread, NULL, write_when_asleep, NULL), 0);
	cr_assert_eq(reactor_wait(reactor, 1, 8, LONG_NS), 1);
	assert_polled(&test_op, POLLIN);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	close_pipe(fds);
}

static void *
stop_when_asleep(void *argument)
{
	wait_for_sleep(0);
	reactor_stop(reactor);
	return argument;
}

Test(reactor_wait, stop_ends_it)
{
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, stop_when_asleep, NULL), 0);
	cr_assert_eq(reactor_wait(reactor, 1, 8, LONG_NS), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(reactor_wait(reactor, 1, 8, LONG_NS), 0); /* it stays stopped */
}

Test(reactor_wait, wake_before_ends_the_next_one)
{
	reactor_wake(reactor);
	reactor_wake(reactor);
	cr_assert_eq(reactor_wait(reactor, 1, 1, LONG_NS), 0);
	cr_assert_eq(sleeps(), 0);
	/* and only that */
	cr_assert_eq(reactor_wait(reactor, 1, 1, 5 * MS), 0);
	cr_assert_geq(sleeps(), 1);
}

#define WAKES 50

static unsigned waits; /* atomic: that have returned */

static void *
wake_when_asleep(void *argument)
{
	for (unsigned i = 0; i < WAKES; i++) {
		wait_for_sleep(i);
		reactor_wake(reactor);
		while (__atomic_load_n(&waits, __ATOMIC_ACQUIRE) == i)
			sched_yield();
	}
	return argument;
}

Test(reactor_wait, wake_ends_a_sleep)
{
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, wake_when_asleep, NULL), 0);
	for (unsigned i = 0; i < WAKES; i++) {
		cr_assert_eq(reactor_wait(reactor, 1, 1, LONG_NS), 0);
		cr_assert_gt(sleeps(), i);
		__atomic_fetch_add(&waits, 1, __ATOMIC_RELEASE);
	}
	cr_assert_eq(pthread_join(thread, NULL), 0);
}

/* Wakes at every moment of the way to sleep: none is lost. */
#define RACES 20000

static unsigned turn_of; /* atomic: how many wakes may be sent */

static void *
wake_as_it_falls_asleep(void *argument)
{
	for (unsigned i = 1; i <= RACES; i++) {
		while (__atomic_load_n(&turn_of, __ATOMIC_ACQUIRE) < i)
			;
		for (unsigned j = 0; j < i % 64; j++)
			__asm__ volatile("");
		reactor_wake(reactor);
	}
	return argument;
}

Test(reactor_wait, no_wake_is_lost)
{
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, wake_as_it_falls_asleep, NULL), 0);
	for (unsigned i = 1; i <= RACES; i++) {
		__atomic_store_n(&turn_of, i, __ATOMIC_RELEASE);
		cr_assert_eq(reactor_wait(reactor, 1, 1, LONG_NS), 0);
	}
	cr_assert_eq(pthread_join(thread, NULL), 0);
}

/* ---- while it spins ---- */

#define SPIN_NS_MAX (400 * MS)

static uint64_t asked_ns; /* written before the call that it is about */

static void *
wake_soon(void *argument)
{
	usleep(10000);
	asked_ns = kernel_clock_ns();
	reactor_wake(reactor);
	return argument;
}

static void *
stop_soon(void *argument)
{
	usleep(10000);
	asked_ns = kernel_clock_ns();
	reactor_stop(reactor);
	return argument;
}

/* A reactor that has learned to spin for long, by waits that a little more of it would have ended, ends a rest by ASK at once: within
 * a time that is far from the end of the spin. */
static void
assert_ends_a_spin(void *(*ask)(void *argument))
{
	pthread_t thread;

	reactor_destroy(reactor);
	create_reactor(1, 1, (unsigned)(SPIN_NS_MAX / 1000));
	for (unsigned i = 0; i < 20; i++)
		cr_assert_eq(reactor_wait(reactor, 1, 1, 100000), 0);
	for (uint64_t wait_ns = 200000; wait_ns < SPIN_NS_MAX * 3 / 4; wait_ns *= 2)
		cr_assert_eq(reactor_wait(reactor, 1, 1, wait_ns), 0);
	cr_assert_eq(pthread_create(&thread, NULL, ask, NULL), 0);
	cr_assert_eq(reactor_wait(reactor, 1, 1, LONG_NS), 0);
	cr_assert_lt(kernel_clock_ns() - asked_ns, 60 * MS);
	cr_assert_eq(pthread_join(thread, NULL), 0);
}

Test(reactor_wait, wake_ends_a_spin)
{
	assert_ends_a_spin(wake_soon);
}

Test(reactor_wait, stop_ends_a_spin)
{
	assert_ends_a_spin(stop_soon);
}

/* ---- reactor_wake and reactor_run ---- */

static uint64_t turns_asleep; /* when it slept */
static uint64_t turns_woken;  /* after the wake */

static void *
wake_a_run(void *argument)
{
	wait_for_sleep(0);
	turns_asleep = reactor_turns(reactor);
	reactor_wake(reactor);
	wait_for_sleep(1);
	turns_woken = reactor_turns(reactor);
	reactor_stop(reactor);
	return argument;
}

Test(reactor_wait, wake_makes_a_running_reactor_take_a_turn)
{
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, wake_a_run, NULL), 0);
	reactor_run(reactor);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_gt(turns_woken, turns_asleep);
	cr_assert_leq(turns_woken, turns_asleep + 4);
}

/* ---- reactor_notify ---- */

static struct notice notice;
static uint32_t noticed;
static unsigned notices;

static void
note_bits(struct notice *delivered, uint32_t bits)
{
	(void)delivered;
	noticed |= bits;
	notices++;
	reactor_wake(reactor); /* ends the wait */
}

static void *
notify_when_asleep(void *argument)
{
	wait_for_sleep(0);
	reactor_notify(reactor, &notice, 8);
	return argument;
}

Test(reactor_wait, notice_wakes_a_sleeping_reactor)
{
	pthread_t thread;

	notice_init(&notice, note_bits);
	cr_assert_eq(pthread_create(&thread, NULL, notify_when_asleep, NULL), 0);
	cr_assert_eq(reactor_wait(reactor, 1, 1, LONG_NS), 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(noticed, 8);
	cr_assert_eq(notices, 1);
}

Test(reactor_wait, many_notices_before_a_turn_are_one)
{
	notice_init(&notice, note_bits);
	for (unsigned i = 0; i < 100; i++)
		reactor_notify(reactor, &notice, (uint32_t)1 << i % 4);
	reactor_turn(reactor);
	cr_assert_eq(notices, 1);
	cr_assert_eq(noticed, 15);
	cr_assert_eq(reactor_counters(reactor)->messages, 1);
}
