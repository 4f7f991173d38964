/* reactor/call.h: calls run on other threads, at most so many, and are done on the reactor's. */
#include "reactor/call.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#define IDLE_NS	     ((uint64_t)200 * 1000000) /* after which a helper leaves */
#define PATIENCE_NS  ((uint64_t)20 * 1000000000)
#define TEST_THREADS 3

static struct reactor *reactor;
static struct call_pool *pool;
static pthread_t reactor_thread;
static unsigned threads_before; /* the test's own, and Criterion's */

static unsigned process_threads(void);

static void
setup(void)
{
	threads_before = process_threads();
	const struct reactor_config config = { .disk_slots = 4, .poll_slots = 4 };

	cr_assert_eq(reactor_create(&config, &reactor), 0);
	cr_assert_eq(call_pool_create(TEST_THREADS, &pool), 0);
	reactor_thread = pthread_self();
}

/* The pool first: a helper whose call is done may not have left reactor_send yet. */
static void
teardown(void)
{
	call_pool_destroy(pool);
	reactor_destroy(reactor);
}

TestSuite(call, .init = setup, .fini = teardown, .timeout = 60);

static unsigned
process_threads(void)
{
	DIR *directory = opendir("/proc/self/task");
	struct dirent *entry;
	unsigned count = 0;

	cr_assert_not_null(directory);
	while ((entry = readdir(directory)) != NULL)
		count += entry->d_name[0] != '.';
	closedir(directory);
	return count;
}

/* A call that notes how it was run; what run writes is read in done and later only. */
struct test_call {
	struct call call;
	pthread_t run_thread;
	cpu_set_t run_cpus;
	uint64_t run_ns;
	unsigned run_count;
	unsigned done_count;
	unsigned done_order;
};

static unsigned done_total;
static pthread_barrier_t all_run;

static void
note_run(struct call *call)
{
	struct test_call *test_call = container_of(call, struct test_call, call);

	test_call->run_thread = pthread_self();
	if (sched_getaffinity(0, sizeof(test_call->run_cpus), &test_call->run_cpus) != 0)
		CPU_ZERO(&test_call->run_cpus);
	test_call->run_ns = kernel_clock_ns();
	test_call->run_count++;
}

static void
note_done(struct call *call)
{
	struct test_call *test_call = container_of(call, struct test_call, call);

	cr_assert(pthread_equal(pthread_self(), reactor_thread));
	cr_assert_eq(test_call->run_count, test_call->done_count + 1);
	test_call->done_count++;
	test_call->done_order = done_total++;
}

static void
submit(struct test_call *test_call, void (*run)(struct call *call))
{
	*test_call = (struct test_call){ .call = { .run = run, .done = note_done } };
	call_submit(pool, reactor, &test_call->call);
}

static void
turn_until_done(unsigned total)
{
	uint64_t until_ns = kernel_clock_ns() + PATIENCE_NS;

	while (done_total < total) {
		cr_assert_lt(kernel_clock_ns(), until_ns);
		if (!reactor_turn(reactor))
			sched_yield();
	}
	cr_assert_eq(done_total, total);
}

Test(call, create_refuses_no_threads)
{
	struct call_pool *unchanged = (struct call_pool *)&unchanged, *result = unchanged;

	cr_assert_eq(call_pool_create(0, &result), -EINVAL);
	cr_assert_eq(result, unchanged);
}

Test(call, pool_without_calls_has_no_threads)
{
	cr_assert_eq(process_threads(), threads_before);
}

Test(call, runs_on_another_thread_and_is_done_on_the_reactors)
{
	struct test_call test_call;

	submit(&test_call, note_run);
	turn_until_done(1);
	cr_assert_not(pthread_equal(test_call.run_thread, reactor_thread));
	cr_assert_eq(test_call.run_count, 1);
}

Test(call, done_waits_for_a_turn)
{
	struct test_call test_call;

	submit(&test_call, note_run);
	usleep(20000);
	cr_assert_eq(test_call.done_count, 0);
	turn_until_done(1);
}

Test(call, can_be_submitted_again)
{
	struct test_call test_call;

	submit(&test_call, note_run);
	turn_until_done(1);
	for (unsigned i = 2; i <= 100; i++) {
		call_submit(pool, reactor, &test_call.call);
		turn_until_done(i);
	}
	cr_assert_eq(test_call.run_count, 100);
}

Test(call, more_calls_than_threads_all_run_once)
{
	static struct test_call test_calls[1000];

	for (unsigned i = 0; i < ARRAY_COUNT(test_calls); i++)
		submit(&test_calls[i], note_run);
	turn_until_done(ARRAY_COUNT(test_calls));
	for (unsigned i = 0; i < ARRAY_COUNT(test_calls); i++)
		cr_assert_eq(test_calls[i].done_count, 1);
}

Test(call, one_thread_keeps_the_order)
{
	static struct test_call test_calls[100];

	call_pool_destroy(pool);
	cr_assert_eq(call_pool_create(1, &pool), 0);
	for (unsigned i = 0; i < ARRAY_COUNT(test_calls); i++)
		submit(&test_calls[i], note_run);
	turn_until_done(ARRAY_COUNT(test_calls));
	for (unsigned i = 0; i < ARRAY_COUNT(test_calls); i++)
		cr_assert_eq(test_calls[i].done_order, i);
}

static void
run_with_all(struct call *call)
{
	note_run(call);
	pthread_barrier_wait(&all_run);
}

/* Each waits for the others: with fewer threads than allowed none would end. */
Test(call, as_many_as_there_are_threads_run_at_one_time)
{
	struct test_call test_calls[TEST_THREADS];

	pthread_barrier_init(&all_run, NULL, TEST_THREADS);
	for (unsigned i = 0; i < TEST_THREADS; i++)
		submit(&test_calls[i], run_with_all);
	turn_until_done(TEST_THREADS);
	for (unsigned i = 1; i < TEST_THREADS; i++)
		cr_assert_not(pthread_equal(test_calls[0].run_thread, test_calls[i].run_thread));
}

static unsigned running, running_max; /* atomic */

static void
run_slowly(struct call *call)
{
	unsigned now = __atomic_add_fetch(&running, 1, __ATOMIC_SEQ_CST);
	unsigned max = __atomic_load_n(&running_max, __ATOMIC_SEQ_CST);

	while (max < now && !__atomic_compare_exchange_n(&running_max, &max, now, false,
							 __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
	note_run(call);
	usleep(2000);
	__atomic_sub_fetch(&running, 1, __ATOMIC_SEQ_CST);
}

Test(call, never_more_threads_than_allowed)
{
	static struct test_call test_calls[50];

	for (unsigned i = 0; i < ARRAY_COUNT(test_calls); i++) {
		submit(&test_calls[i], run_slowly);
		cr_assert_leq(process_threads(), threads_before + TEST_THREADS);
	}
	turn_until_done(ARRAY_COUNT(test_calls));
	cr_assert_leq(running_max, TEST_THREADS);
	cr_assert_leq(process_threads(), threads_before + TEST_THREADS);
}

Test(call, threads_leave_after_idling)
{
	struct test_call test_calls[TEST_THREADS];
	uint64_t last_run_ns = 0, until_ns;

	pthread_barrier_init(&all_run, NULL, TEST_THREADS);
	for (unsigned i = 0; i < TEST_THREADS; i++)
		submit(&test_calls[i], run_with_all);
	turn_until_done(TEST_THREADS);
	until_ns = kernel_clock_ns() + PATIENCE_NS;
	while (process_threads() > threads_before) {
		cr_assert_lt(kernel_clock_ns(), until_ns);
		usleep(1000);
	}
	for (unsigned i = 0; i < TEST_THREADS; i++)
		if (test_calls[i].run_ns > last_run_ns)
			last_run_ns = test_calls[i].run_ns;
	cr_assert_geq(kernel_clock_ns() - last_run_ns, IDLE_NS);
}

Test(call, starts_threads_again_after_all_left)
{
	struct test_call test_call;
	uint64_t until_ns = kernel_clock_ns() + PATIENCE_NS;

	submit(&test_call, note_run);
	turn_until_done(1);
	while (process_threads() > threads_before) {
		cr_assert_lt(kernel_clock_ns(), until_ns);
		usleep(1000);
	}
	submit(&test_call, note_run);
	turn_until_done(2);
}

Test(call, pool_can_be_destroyed_right_after_the_last_done)
{
	for (unsigned i = 1; i <= 200; i++) {
		struct test_call test_call;

		submit(&test_call, note_run);
		turn_until_done(i);
		call_pool_destroy(pool);
		cr_assert_eq(call_pool_create(TEST_THREADS, &pool), 0);
	}
}

/* The test's thread pins itself as a core does, after the pool was created. */
Test(call, helper_of_a_pinned_thread_may_run_anywhere)
{
	struct test_call test_call;
	cpu_set_t all, one;
	unsigned cpu = 0;

	cr_assert_eq(sched_getaffinity(0, sizeof(all), &all), 0);
	while (!CPU_ISSET(cpu, &all))
		cpu++;
	CPU_ZERO(&one);
	CPU_SET(cpu, &one);
	cr_assert_eq(sched_setaffinity(0, sizeof(one), &one), 0);
	submit(&test_call, note_run);
	turn_until_done(1);
	cr_assert(CPU_EQUAL(&test_call.run_cpus, &all));
}

/* No address space has room for such a stack, so that pthread_create(3) fails. */
Test(call, runs_at_once_where_there_is_no_thread_to_be_had)
{
	pthread_attr_t attributes;
	struct test_call test_call;

	pthread_attr_init(&attributes);
	cr_assert_eq(pthread_attr_setstacksize(&attributes, (size_t)1 << 60), 0);
	cr_assert_eq(pthread_setattr_default_np(&attributes), 0);
	pthread_attr_destroy(&attributes);

	submit(&test_call, note_run);
	cr_assert_eq(test_call.run_count, 1);
	cr_assert_eq(test_call.done_count, 0);
	cr_assert(pthread_equal(test_call.run_thread, reactor_thread));
	turn_until_done(1);
}

/* Two reactors share the pool; each gets its own calls back. */

static struct reactor *other_reactor;
static pthread_t other_thread;
static unsigned other_wrong, other_done; /* written by the other thread, read when it ended */

#define OTHER_CALLS 500

static struct test_call other_calls[OTHER_CALLS];

static void
note_other_done(struct call *call)
{
	struct test_call *test_call = container_of(call, struct test_call, call);

	other_wrong += !pthread_equal(pthread_self(), other_thread);
	other_wrong += test_call->run_count != 1;
	if (++other_done == OTHER_CALLS)
		reactor_stop(other_reactor);
}

static void *
run_other(void *argument)
{
	other_thread = pthread_self();
	for (unsigned i = 0; i < OTHER_CALLS; i++) {
		other_calls[i].call = (struct call){ .run = note_run, .done = note_other_done };
		call_submit(pool, other_reactor, &other_calls[i].call);
	}
	reactor_run(other_reactor);
	return argument;
}

Test(call, each_reactor_gets_its_own_back)
{
	static struct test_call test_calls[OTHER_CALLS];
	const struct reactor_config config = { .disk_slots = 1, .poll_slots = 1 };
	pthread_t thread;

	cr_assert_eq(reactor_create(&config, &other_reactor), 0);
	cr_assert_eq(pthread_create(&thread, NULL, run_other, NULL), 0);
	for (unsigned i = 0; i < OTHER_CALLS; i++)
		submit(&test_calls[i], note_run);
	turn_until_done(OTHER_CALLS);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(other_done, OTHER_CALLS);
	cr_assert_eq(other_wrong, 0);
	call_pool_destroy(pool); /* before the reactor its helpers may still be waking */
	reactor_destroy(other_reactor);
	cr_assert_eq(call_pool_create(1, &pool), 0);
}
