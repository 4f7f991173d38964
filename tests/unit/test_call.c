/* reactor/call.h: calls run on other threads, at most so many, in order where asked, and are done on the reactor's. */
#include "reactor/call.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/unit/kernel_faults.h"
#include "tests/unit/reactor_fixture.h"

#define IDLE_NS	     ((uint64_t)200 * 1000000) /* after which a helper leaves */
#define TEST_THREADS 3

static struct call_pool *pool;
static pthread_t reactor_thread;
static unsigned threads_before; /* the test's own, and Criterion's */

static void
setup(void)
{
	threads_before = process_threads();
	create_reactor(4, 4, 0);
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

/* A call that notes how it was run; what run writes is read in done and later only. */
struct test_call {
	struct call call;
	pthread_t run_thread;
	char run_name[16];
	cpu_set_t run_cpus;
	uint64_t run_ns;
	unsigned run_count;
	unsigned run_order;
	unsigned done_count;
	unsigned done_order;
	int done_status;
};

static unsigned run_total; /* atomic */
static pthread_barrier_t all_run;

static void
note_run(struct call *call)
{
	struct test_call *test_call = container_of(call, struct test_call, call);

	test_call->run_thread = pthread_self();
	(void)pthread_getname_np(pthread_self(), test_call->run_name, sizeof(test_call->run_name));
	if (sched_getaffinity(0, sizeof(test_call->run_cpus), &test_call->run_cpus) != 0)
		CPU_ZERO(&test_call->run_cpus);
	test_call->run_ns = kernel_clock_ns();
	test_call->run_order = __atomic_fetch_add(&run_total, 1, __ATOMIC_SEQ_CST);
	test_call->run_count++;
}

static void
note_call_done(struct call *call)
{
	struct test_call *test_call = container_of(call, struct test_call, call);

	cr_assert(pthread_equal(pthread_self(), reactor_thread));
	cr_assert(call->status == 0 || call->status == -ECANCELED);
	if (call->status == 0)
		cr_assert_eq(test_call->run_count, test_call->done_count + 1);
	test_call->done_status = call->status;
	test_call->done_count++;
	test_call->done_order = done_total++;
}

static void
submit_keyed(struct test_call *test_call, void (*run)(struct call *call), uintptr_t key)
{
	*test_call = (struct test_call){ .call = { .run = run, .done = note_call_done } };
	call_submit_keyed(pool, reactor, &test_call->call, key, NULL);
}

static void
submit_call(struct test_call *test_call, void (*run)(struct call *call))
{
	*test_call = (struct test_call){ .call = { .run = run, .done = note_call_done } };
	call_submit(pool, reactor, &test_call->call);
}

static void
pool_again(unsigned threads_max)
{
	call_pool_destroy(pool);
	cr_assert_eq(call_pool_create(threads_max, &pool), 0);
}

Test(call, create_refuses_no_threads)
{
	struct call_pool *unchanged = (struct call_pool *)&unchanged, *result = unchanged;

	cr_assert_eq(call_pool_create(0, &result), -EINVAL);
	cr_assert_eq(call_pool_create(1, NULL), -EINVAL);
	cr_assert_eq(result, unchanged);
}

Test(call, create_refuses_too_many_threads)
{
	struct call_pool *unchanged = (struct call_pool *)&unchanged, *result = unchanged;

	cr_assert_eq(call_pool_create(CALL_THREADS_LIMIT + 1, &result), -EINVAL);
	cr_assert_eq(result, unchanged);
	cr_assert_eq(call_pool_create(CALL_THREADS_LIMIT, &result), 0);
	call_pool_destroy(result);
}

Test(call, pool_without_calls_has_no_threads)
{
	cr_assert_eq(process_threads(), threads_before);
}

Test(call, runs_on_another_thread_and_is_done_on_the_reactors)
{
	struct test_call test_call;

	submit_call(&test_call, note_run);
	turn_until_done(1);
	cr_assert_not(pthread_equal(test_call.run_thread, reactor_thread));
	cr_assert_str_eq(test_call.run_name, "call");
	cr_assert_eq(test_call.run_count, 1);
}

Test(call, done_waits_for_a_turn)
{
	struct test_call test_call;

	submit_call(&test_call, note_run);
	usleep(20000);
	cr_assert_eq(test_call.done_count, 0);
	turn_until_done(1);
}

Test(call, can_be_submitted_again)
{
	struct test_call test_call;

	submit_call(&test_call, note_run);
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
		submit_call(&test_calls[i], note_run);
	turn_until_done(ARRAY_COUNT(test_calls));
	for (unsigned i = 0; i < ARRAY_COUNT(test_calls); i++)
		cr_assert_eq(test_calls[i].done_count, 1);
}

Test(call, one_thread_keeps_the_order)
{
	static struct test_call test_calls[100];

	pool_again(1);
	for (unsigned i = 0; i < ARRAY_COUNT(test_calls); i++)
		submit_call(&test_calls[i], note_run);
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
		submit_call(&test_calls[i], run_with_all);
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
		submit_call(&test_calls[i], run_slowly);
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
		submit_call(&test_calls[i], run_with_all);
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

	submit_call(&test_call, note_run);
	turn_until_done(1);
	while (process_threads() > threads_before) {
		cr_assert_lt(kernel_clock_ns(), until_ns);
		usleep(1000);
	}
	submit_call(&test_call, note_run);
	turn_until_done(2);
}

Test(call, pool_can_be_destroyed_right_after_the_last_done)
{
	for (unsigned i = 1; i <= 200; i++) {
		struct test_call test_call;

		submit_call(&test_call, note_run);
		turn_until_done(i);
		pool_again(TEST_THREADS);
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
	submit_call(&test_call, note_run);
	turn_until_done(1);
	cr_assert(CPU_EQUAL(&test_call.run_cpus, &all));
}

/* As when the service manager gives the process other CPUs than it began with. */
Test(call, helpers_come_though_the_cpus_of_the_beginning_are_gone)
{
	struct test_call test_call;
	cpu_set_t all;

	cr_assert_eq(sched_getaffinity(0, sizeof(all), &all), 0);
	cpus_gone = true;
	pool_again(TEST_THREADS);
	cpus_gone = false;
	submit_call(&test_call, note_run);
	turn_until_done(1);
	cr_assert_not(pthread_equal(test_call.run_thread, reactor_thread));
	cr_assert(CPU_EQUAL(&test_call.run_cpus, &all));
}

/* ---- Cancelling. */

/* A call that runs until it is let go: it keeps a thread, and its key, busy. */
struct gate {
	struct test_call test_call;
	sem_t entered;
	sem_t opened;
};

static void
run_gate(struct call *call)
{
	struct gate *gate = container_of(call, struct gate, test_call.call);

	note_run(call);
	sem_post(&gate->entered);
	sem_wait(&gate->opened);
}

static void
gate_submit(struct gate *gate, uintptr_t key)
{
	sem_init(&gate->entered, 0, 0);
	sem_init(&gate->opened, 0, 0);
	submit_keyed(&gate->test_call, run_gate, key);
}

/* Returns when GATE runs. */
static void
gate_start(struct gate *gate, uintptr_t key)
{
	gate_submit(gate, key);
	sem_wait(&gate->entered);
}

static struct call_counters
counters(void)
{
	struct call_counters now;

	call_pool_counters(pool, &now);
	return now;
}

Test(call, cancelled_before_it_begins_is_done_and_never_runs)
{
	struct gate gate;
	struct test_call test_call;

	pool_again(1);
	gate_start(&gate, 0);
	submit_call(&test_call, note_run);
	cr_assert(call_cancel(pool, &test_call.call));
	cr_assert_eq(test_call.done_count, 0); /* never before it returns */
	turn_until_done(1);
	cr_assert_eq(test_call.done_status, -ECANCELED);
	sem_post(&gate.opened);
	turn_until_done(2);
	usleep(20000);
	reactor_turn(reactor);
	cr_assert_eq(test_call.run_count, 0);
	cr_assert_eq(test_call.done_count, 1);
}

Test(call, is_cancelled_once)
{
	struct gate gate;
	struct test_call test_call;

	pool_again(1);
	gate_start(&gate, 0);
	submit_call(&test_call, note_run);
	cr_assert(call_cancel(pool, &test_call.call));
	cr_assert_not(call_cancel(pool, &test_call.call));
	sem_post(&gate.opened);
	turn_until_done(2);
	cr_assert_eq(test_call.done_count, 1);
}

Test(call, running_one_is_not_cancelled)
{
	struct gate gate;

	gate_start(&gate, 0);
	cr_assert_not(call_cancel(pool, &gate.test_call.call));
	sem_post(&gate.opened);
	turn_until_done(1);
	cr_assert_eq(gate.test_call.done_status, 0);
}

Test(call, ended_one_is_not_cancelled)
{
	struct test_call test_call;

	submit_call(&test_call, note_run);
	while (counters().completed == 0)
		usleep(1000);
	cr_assert_not(call_cancel(pool, &test_call.call));
	turn_until_done(1);
	cr_assert_eq(test_call.done_status, 0);
	cr_assert_not(call_cancel(pool, &test_call.call));
}

Test(call, cancelled_one_can_be_submitted_again)
{
	struct gate gate;
	struct test_call test_call;

	pool_again(1);
	gate_start(&gate, 1);
	submit_keyed(&test_call, note_run, 1);
	cr_assert(call_cancel(pool, &test_call.call));
	turn_until_done(1);
	test_call.done_count = 0;
	call_submit_keyed(pool, reactor, &test_call.call, 1, NULL);
	sem_post(&gate.opened);
	turn_until_done(3);
	cr_assert_eq(test_call.done_status, 0);
	cr_assert_eq(test_call.run_count, 1);
}

/* It waits for a thread, the next for it. */
Test(call, cancelling_the_first_of_a_key_lets_the_next_go_on)
{
	struct gate gate;
	struct test_call first, second;

	pool_again(1);
	gate_start(&gate, 0);
	submit_keyed(&first, note_run, 7);
	submit_keyed(&second, note_run, 7);
	cr_assert(call_cancel(pool, &first.call));
	sem_post(&gate.opened);
	turn_until_done(3);
	cr_assert_eq(first.run_count, 0);
	cr_assert_eq(second.run_count, 1);
}

Test(call, cancelling_one_that_waits_for_its_key_keeps_the_others_order)
{
	struct gate gate;
	struct test_call test_calls[5];

	gate_start(&gate, 7);
	for (unsigned i = 0; i < ARRAY_COUNT(test_calls); i++)
		submit_keyed(&test_calls[i], note_run, 7);
	cr_assert(call_cancel(pool, &test_calls[0].call));
	cr_assert(call_cancel(pool, &test_calls[2].call));
	cr_assert(call_cancel(pool, &test_calls[4].call));
	turn_until_done(3);
	cr_assert_eq(test_calls[1].run_count, 0);
	sem_post(&gate.opened);
	turn_until_done(6);
	cr_assert_eq(test_calls[1].run_order, 1);
	cr_assert_eq(test_calls[3].run_order, 2);
}

/* ---- Order by key. */

Test(call, calls_of_a_key_run_one_at_a_time_in_order)
{
	static struct test_call test_calls[50];

	for (unsigned i = 0; i < ARRAY_COUNT(test_calls); i++)
		submit_keyed(&test_calls[i], run_slowly, 7);
	turn_until_done(ARRAY_COUNT(test_calls));
	cr_assert_eq(running_max, 1);
	for (unsigned i = 0; i < ARRAY_COUNT(test_calls); i++) {
		cr_assert_eq(test_calls[i].run_order, i);
		cr_assert_eq(test_calls[i].done_order, i);
	}
}

Test(call, key_zero_is_none)
{
	struct test_call test_calls[TEST_THREADS];

	pthread_barrier_init(&all_run, NULL, TEST_THREADS);
	for (unsigned i = 0; i < TEST_THREADS; i++)
		submit_keyed(&test_calls[i], run_with_all, 0);
	turn_until_done(TEST_THREADS);
}

Test(call, busy_key_holds_up_no_other_call)
{
	struct gate gate;
	static struct test_call same_key[20], other_key[20], no_key[20];

	gate_start(&gate, 7);
	for (unsigned i = 0; i < 20; i++) {
		submit_keyed(&same_key[i], note_run, 7);
		submit_keyed(&other_key[i], note_run, 8);
		submit_call(&no_key[i], note_run);
	}
	turn_until_done(40);
	for (unsigned i = 0; i < 20; i++)
		cr_assert_eq(same_key[i].run_count, 0);
	sem_post(&gate.opened);
	turn_until_done(61);
}

Test(call, waiting_for_a_key_takes_no_thread)
{
	struct gate gate;
	static struct test_call test_calls[20];

	gate_start(&gate, 7);
	for (unsigned i = 0; i < ARRAY_COUNT(test_calls); i++)
		submit_keyed(&test_calls[i], note_run, 7);
	cr_assert_eq(process_threads(), threads_before + 1);
	sem_post(&gate.opened);
	turn_until_done(ARRAY_COUNT(test_calls) + 1);
	cr_assert_eq(counters().threads_started, 1);
}

/* ---- Counters. */

Test(call, counters_tell_what_happened)
{
	struct gate gate;
	struct test_call ready, behind, cancelled;
	uint64_t begin_ns = kernel_clock_ns(), until_ns = begin_ns + PATIENCE_NS;

	pool_again(1);
	gate_start(&gate, 7);
	submit_call(&ready, note_run);
	submit_keyed(&behind, note_run, 7);
	submit_call(&cancelled, note_run);
	cr_assert_eq(counters().waiting, 3);
	cr_assert_eq(counters().completed, 0);
	cr_assert(call_cancel(pool, &cancelled.call));
	cr_assert_eq(counters().waiting, 2);
	cr_assert_eq(counters().threads, 1);
	usleep(30000);
	sem_post(&gate.opened);
	turn_until_done(4);

	cr_assert_eq(counters().submitted, 4);
	cr_assert_eq(counters().completed, 3);
	cr_assert_eq(counters().cancelled, 1);
	cr_assert_eq(counters().waiting, 0);
	cr_assert_eq(counters().threads_started, 1);
	cr_assert_geq(counters().wait_max_ns, 30000000);
	cr_assert_lt(counters().wait_max_ns, kernel_clock_ns() - begin_ns);
	while (counters().threads > 0) {
		cr_assert_lt(kernel_clock_ns(), until_ns);
		usleep(1000);
	}
}

/* ---- Where the system gives no thread. */

/* No address space has room for such a stack, so that pthread_create(3) fails. */
#define NO_THREADS ((size_t)1 << 60)

/* Give new threads stacks of BYTES.  Returns what was before. */
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

/* ---- near calls ---- */

static cpu_set_t here; /* the one CPU that this thread is on */

static void
pin_here(void)
{
	CPU_ZERO(&here);
	CPU_SET((unsigned)sched_getcpu(), &here);
	cr_assert_eq(sched_setaffinity(0, sizeof(here), &here), 0);
}

static void
submit_near(struct test_call *test_call, void (*run)(struct call *call))
{
	*test_call = (struct test_call){ .call = { .run = run, .done = note_call_done } };
	call_submit_near(pool, reactor, &test_call->call, 0, NULL);
}

/* Whether a near call runs here. */
static bool
runs_here(void)
{
	struct test_call test_call;

	submit_near(&test_call, note_run);
	turn_until_done(done_total + 1);
	return CPU_EQUAL(&test_call.run_cpus, &here);
}

/* The same, behind any pause for a helper that had to wait, as it may on a machine with other work. */
static bool
runs_here_again(void)
{
	for (unsigned tries = 0; tries < 100; tries++) {
		clock_ahead_ns += 200000000;
		if (runs_here())
			return true;
	}
	return false;
}

Test(call, near_one_runs_on_the_cpu_that_it_came_from)
{
	pin_here();
	cr_assert(runs_here());
	cr_assert(runs_here_again());
}

Test(call, near_one_runs_elsewhere_while_there_is_another)
{
	struct gate gate;

	pin_here();
	sem_init(&gate.entered, 0, 0);
	sem_init(&gate.opened, 0, 0);
	submit_near(&gate.test_call, run_gate);
	sem_wait(&gate.entered);
	cr_assert_not(runs_here());
	sem_post(&gate.opened);
	turn_until_done(2);
	cr_assert(runs_here_again());
}

Test(call, calls_are_run_though_all_threads_there_are_are_near)
{
	struct test_call test_call;
	struct gate gate;

	pin_here();
	sem_init(&gate.entered, 0, 0);
	sem_init(&gate.opened, 0, 0);
	submit_near(&gate.test_call, run_gate);
	sem_wait(&gate.entered);
	stack_default(NO_THREADS);
	submit_call(&test_call, note_run);
	cr_assert_eq(test_call.run_count, 1);
	sem_post(&gate.opened);
	turn_until_done(2);
}

Test(call, one_thread_is_not_near)
{
	pool_again(1);
	pin_here();
	cr_assert_not(runs_here());
}

Test(call, helper_that_waits_for_its_cpu_is_left_alone_for_a_while)
{
	const struct sched_param first = { .sched_priority = 1 }, none = { .sched_priority = 0 };
	struct test_call test_call;

	pin_here();
	cr_assert(runs_here());
	if (sched_setscheduler(0, SCHED_FIFO, &first) != 0)
		cr_skip_test("may not keep the CPU for itself");
	clock_ahead_ns += 200000000;
	submit_near(&test_call, note_run);
	clock_ahead_ns += 1000000;
	cr_assert_eq(sched_setscheduler(0, SCHED_OTHER, &none), 0);
	turn_until_done(2);
	cr_assert(CPU_EQUAL(&test_call.run_cpus, &here));
	cr_assert_not(runs_here());
	cr_assert(runs_here_again());
}

Test(call, runs_at_once_where_there_is_no_thread_to_be_had)
{
	struct test_call test_call;

	stack_default(NO_THREADS);
	submit_call(&test_call, note_run);
	cr_assert_eq(test_call.run_count, 1);
	cr_assert_eq(test_call.done_count, 0);
	cr_assert(pthread_equal(test_call.run_thread, reactor_thread));
	turn_until_done(1);
}

/* A core that has to run a gate itself; its calls are done on the test's. */
static void *
run_gate_here(void *argument)
{
	gate_submit(argument, 7);
	return NULL;
}

/* Run GATE of key 7 on a thread that gets no helper for it. */
static pthread_t
gate_start_elsewhere(struct gate *gate, size_t *stack_bytes)
{
	pthread_attr_t attributes;
	pthread_t thread;

	*stack_bytes = stack_default(NO_THREADS);
	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, *stack_bytes);
	cr_assert_eq(pthread_create(&thread, &attributes, run_gate_here, gate), 0);
	pthread_attr_destroy(&attributes);
	while (counters().waiting > 0 || counters().submitted == 0)
		usleep(1000);
	return thread;
}

/* The core that runs the first runs the others too, while this one goes on. */
Test(call, order_of_a_key_is_kept_where_there_is_no_thread)
{
	struct gate gate;
	struct test_call behind[10], no_key;
	size_t stack_bytes;
	pthread_t thread = gate_start_elsewhere(&gate, &stack_bytes);

	for (unsigned i = 0; i < ARRAY_COUNT(behind); i++)
		submit_keyed(&behind[i], note_run, 7);
	cr_assert(call_cancel(pool, &behind[9].call));
	submit_call(&no_key, note_run);
	cr_assert_eq(no_key.run_count, 1);
	turn_until_done(2);
	cr_assert_eq(counters().completed, 1);

	sem_post(&gate.opened);
	turn_until_done(12);
	for (unsigned i = 0; i < 9; i++) {
		cr_assert(pthread_equal(behind[i].run_thread, thread));
		cr_assert_eq(behind[i].run_order, i + 2);
	}
	cr_assert_eq(behind[9].run_count, 0);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(counters().threads_started, 0);
}

Test(call, core_that_ran_a_call_leaves_the_next_to_a_helper_if_it_can)
{
	struct gate gate;
	struct test_call behind[2];
	size_t stack_bytes;
	pthread_t thread = gate_start_elsewhere(&gate, &stack_bytes);

	submit_keyed(&behind[0], note_run, 7);
	submit_keyed(&behind[1], note_run, 7);
	stack_default(stack_bytes);
	sem_post(&gate.opened);
	turn_until_done(3);
	cr_assert_not(pthread_equal(behind[0].run_thread, thread));
	cr_assert_not(pthread_equal(behind[0].run_thread, reactor_thread));
	cr_assert_eq(behind[1].run_order, 2);
	cr_assert_eq(pthread_join(thread, NULL), 0);
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
		submit_call(&test_calls[i], note_run);
	turn_until_done(OTHER_CALLS);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(other_done, OTHER_CALLS);
	cr_assert_eq(other_wrong, 0);
	call_pool_destroy(pool); /* before the reactor its helpers may still be waking */
	reactor_destroy(other_reactor);
	cr_assert_eq(call_pool_create(1, &pool), 0);
}
