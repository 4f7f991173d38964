/* reactor/reactor.h, reactor_run: what wakes a reactor that sleeps (timers, operations, messages, stop), that no message
 * is lost on the way, and that a reactor with nothing to do uses no CPU.  Each test makes its reactor. */
#include "tests/unit/reactor_fixture.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/unit/kernel_faults.h"

TestSuite(reactor_rest, .fini = reactor_fixture_fini, .timeout = 60);

/* ---- rest: timers, messages, stop ---- */

static uint64_t fired_ns[16];
static unsigned fired_count, fired_expected;

static void
note_fired(struct timer *timer)
{
	(void)timer;
	fired_ns[fired_count++] = kernel_clock_ns();
	if (fired_count == fired_expected)
		reactor_stop(reactor);
}

/* Of the time that a reactor waits for a timer it has rested nearly all, and never more than all. */
static void
assert_rested(uint64_t started_ns, uint64_t delay_ns)
{
	uint64_t rest_ns = reactor_counters(reactor)->rest_ns;

	cr_assert_geq(rest_ns, delay_ns / 2);
	cr_assert_leq(rest_ns, kernel_clock_ns() - started_ns);
}

static void
assert_timer_wakes(unsigned poll_us)
{
	struct timer timer;
	uint64_t started_ns;

	create_reactor(1, 1, poll_us);
	timer_init(&timer, note_fired);
	fired_expected = 1;
	started_ns = kernel_clock_ns();
	reactor_timer_start(reactor, &timer, 50 * MS);
	reactor_run(reactor);
	cr_assert_eq(fired_count, 1);
	cr_assert_geq(fired_ns[0] - started_ns, 50 * MS);
	cr_assert_lt(fired_ns[0] - started_ns, 5000 * MS);
	cr_assert_geq(reactor_counters(reactor)->sleeps, 1);
	assert_rested(started_ns, 50 * MS);
}

Test(reactor_rest, timer_wakes_a_sleeping_reactor_and_is_not_early)
{
	assert_timer_wakes(0);
}

Test(reactor_rest, timer_wakes_a_spinning_reactor_and_is_not_early)
{
	assert_timer_wakes(200);
}

Test(reactor_rest, timers_fire_in_order_and_never_early)
{
	static const uint64_t delays_ns[] = { 30 * MS, 1 * MS, 7 * MS, 0, 15 * MS, 3 * MS };
	static const unsigned order[] = { 3, 1, 5, 2, 4, 0 };
	struct timer timers[ARRAY_COUNT(delays_ns)];
	uint64_t started_ns;

	create_reactor(1, 1, 0);
	fired_expected = ARRAY_COUNT(timers);
	started_ns = kernel_clock_ns();
	for (unsigned i = 0; i < ARRAY_COUNT(timers); i++) {
		timer_init(&timers[i], note_fired);
		reactor_timer_start(reactor, &timers[i], delays_ns[i]);
	}
	reactor_run(reactor);
	cr_assert_eq(fired_count, ARRAY_COUNT(timers));
	for (unsigned i = 0; i < ARRAY_COUNT(order); i++)
		cr_assert_geq(fired_ns[i] - started_ns, delays_ns[order[i]]);
}

Test(reactor_rest, stopped_timer_does_not_fire)
{
	struct timer stopped, last;

	create_reactor(1, 1, 0);
	fired_expected = 1;
	timer_init(&stopped, note_fired);
	timer_init(&last, note_fired);
	reactor_timer_start(reactor, &stopped, 5 * MS);
	reactor_timer_start(reactor, &last, 30 * MS);
	reactor_timer_stop(reactor, &stopped);
	reactor_run(reactor);
	cr_assert_eq(fired_count, 1);
	cr_assert_not(timer_running(&last));
}

static void
note_early(struct timer *timer)
{
	(void)timer;
	cr_assert_fail("a timer that is for ever fires");
}

Test(reactor_rest, delay_behind_the_clocks_end_is_not_early)
{
	struct timer timer;

	create_reactor(DISK_SLOTS, POLL_SLOTS, 0);
	timer_init(&timer, note_early);
	reactor_timer_start(reactor, &timer, UINT64_MAX);
	usleep(2000); /* a timer's tick, and more */
	turn_for_a_while();
	cr_assert(timer_running(&timer));
	reactor_timer_stop(reactor, &timer);
}

Test(reactor_rest, moved_timer_fires_once_at_the_new_time)
{
	struct timer timer;
	uint64_t started_ns;

	create_reactor(1, 1, 0);
	fired_expected = 1;
	timer_init(&timer, note_fired);
	reactor_timer_start(reactor, &timer, 1 * MS);
	started_ns = kernel_clock_ns();
	reactor_timer_start(reactor, &timer, 40 * MS);
	reactor_run(reactor);
	cr_assert_geq(fired_ns[0] - started_ns, 40 * MS);
	turn_for_a_while();
	cr_assert_eq(fired_count, 1);
}

static void
stop_from_done(struct op *op, long result)
{
	note_done(op, result);
	reactor_stop(reactor);
}

Test(reactor_rest, disk_operation_wakes_a_sleeping_reactor)
{
	struct test_op test_op;
	int fd = open_file();

	create_reactor(1, 1, 0);
	test_op_init(&test_op);
	test_op.op.done = stop_from_done;
	op_write(&test_op.op, fd, buffers[0], BLOCK, 0, true);
	submit(&test_op);
	reactor_run(reactor);
	assert_done(&test_op, BLOCK);
	close(fd);
}

/* ---- spinning while the disk is at work ---- */

#define TICKS	 20u
#define HELD_MAX 8u

static struct iocb *held[HELD_MAX];
static io_context_t held_context;
static unsigned held_count, ticks, held_left;
static uint64_t spins_while_held;

/* The kernel takes them, and does nothing. */
static long
hold(io_context_t context, long count, struct iocb **iocbs)
{
	held_context = context;
	for (long i = 0; i < count; i++)
		held[held_count++] = iocbs[i];
	return count;
}

static void
tick(struct timer *timer)
{
	if (++ticks < TICKS) {
		reactor_timer_start(reactor, timer, MS);
		return;
	}
	spins_while_held = reactor_counters(reactor)->spins;
	submit_fault = NULL;
	cr_assert_eq(kernel_submit_unchanged(held_context, held_count, held), held_count);
}

static void
stop_behind_last(struct op *op, long result)
{
	note_done(op, result);
	if (--held_left == 0)
		reactor_stop(reactor);
}

/* How often a reactor spins in TICKS timeouts of a millisecond with COUNT reads at the disk. */
static uint64_t
spins_beside_reads(unsigned count)
{
	struct test_op test_ops[HELD_MAX];
	struct timer timer;
	int fd = open_file();

	create_reactor(HELD_MAX, 1, 100000);
	submit_fault = hold;
	held_left = count;
	for (unsigned i = 0; i < count; i++) {
		test_op_init(&test_ops[i]);
		test_ops[i].op.done = stop_behind_last;
		op_read(&test_ops[i].op, fd, buffers[i], BLOCK, i * BLOCK);
		submit(&test_ops[i]);
	}
	timer_init(&timer, tick);
	reactor_timer_start(reactor, &timer, MS);
	reactor_run(reactor);
	for (unsigned i = 0; i < count; i++)
		assert_done(&test_ops[i], BLOCK);
	close(fd);
	return spins_while_held;
}

Test(reactor_rest, spins_while_it_waits_for_few_disk_operations)
{
	cr_assert_geq(spins_beside_reads(HELD_MAX - 1), TICKS / 2);
}

Test(reactor_rest, does_not_spin_while_it_waits_for_many_disk_operations)
{
	cr_assert_eq(spins_beside_reads(HELD_MAX), 0);
}

/* A durable write is finished by a thread of the kernel's, whether it has one part or more. */
static uint64_t
spins_beside_durable_write(bool in_parts)
{
	struct iovec parts[2] = { { buffers[0], BLOCK }, { buffers[1], BLOCK } };
	struct test_op test_op;
	struct timer timer;
	int fd = open_file();

	create_reactor(1, 1, 100000);
	submit_fault = hold;
	held_left = 1;
	test_op_init(&test_op);
	test_op.op.done = stop_behind_last;
	op_write(&test_op.op, fd, buffers[0], BLOCK, 0, true);
	submit(&test_op);
	if (in_parts)
		op_set_parts(&test_op.op, parts, ARRAY_COUNT(parts));
	timer_init(&timer, tick);
	reactor_timer_start(reactor, &timer, MS);
	reactor_run(reactor);
	assert_done(&test_op, in_parts ? 2 * BLOCK : BLOCK);
	close(fd);
	return spins_while_held;
}

Test(reactor_rest, does_not_spin_while_it_waits_for_a_durable_write)
{
	cr_assert_eq(spins_beside_durable_write(false), 0);
}

Test(reactor_rest, does_not_spin_while_it_waits_for_a_durable_write_in_parts)
{
	cr_assert_eq(spins_beside_durable_write(true), 0);
}

static int poll_fds[2];
static uint64_t sent_ns;

static void *
write_when_asleep(void *argument)
{
	wait_for_sleep(0);
	sent_ns = kernel_clock_ns();
	if (write(poll_fds[1], "x", 1) != 1)
		reactor_stop(reactor);
	return argument;
}

Test(reactor_rest, poll_wakes_a_sleeping_reactor)
{
	struct test_op test_op;
	pthread_t thread;

	create_reactor(1, 1, 0);
	make_pipe(poll_fds);
	test_op_init(&test_op);
	test_op.op.done = stop_from_done;
	op_poll(&test_op.op, poll_fds[0], POLLIN);
	submit(&test_op);
	cr_assert_eq(pthread_create(&thread, NULL, write_when_asleep, NULL), 0);
	reactor_run(reactor);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	assert_polled(&test_op, POLLIN);
	cr_assert_lt(kernel_clock_ns() - sent_ns, 2000 * MS);
	close_pipe(poll_fds);
}

Test(reactor_rest, messages_wake_a_sleeping_reactor)
{
	create_reactor(1, 1, 0);
	assert_messages_wake();
}

Test(reactor_rest, messages_wake_a_reactor_that_spins_first)
{
	create_reactor(1, 1, 200);
	assert_messages_wake();
}

/* Each wake-up ends the poll of the wake-up's eventfd: its slot must be kept for it. */
Test(reactor_rest, messages_wake_a_reactor_whose_polls_wait_for_slots)
{
	struct test_op test_ops[5];
	int idle[2];

	create_reactor(1, 1, 0);
	make_pipe(idle);
	for (unsigned i = 0; i < ARRAY_COUNT(test_ops); i++)
		submit_poll(&test_ops[i], idle[0], POLLIN);
	assert_messages_wake();
	cr_assert_eq(done_total, 0);
	close_pipe(idle);
}

static void *
stop_when_asleep(void *argument)
{
	wait_for_sleep(0);
	sent_ns = kernel_clock_ns();
	reactor_stop(reactor);
	return argument;
}

Test(reactor_rest, another_thread_stops_a_sleeping_reactor)
{
	pthread_t thread;

	create_reactor(1, 1, 0);
	cr_assert_eq(pthread_create(&thread, NULL, stop_when_asleep, NULL), 0);
	reactor_run(reactor);
	cr_assert_lt(kernel_clock_ns() - sent_ns, 2000 * MS);
	cr_assert_eq(pthread_join(thread, NULL), 0);
}

Test(reactor_rest, stopped_before_it_runs_it_returns)
{
	create_reactor(1, 1, 0);
	reactor_stop(reactor);
	reactor_run(reactor);
	cr_assert_eq(reactor_counters(reactor)->sleeps, 0);
}

/* Many senders.  Each has its own messages, which are numbered. */

#define PRODUCERS	  8
#define PRODUCER_MESSAGES 100000

struct numbered {
	struct message message;
	unsigned producer, number;
};

static struct numbered *numbered[PRODUCERS];
static unsigned next_number[PRODUCERS];
static unsigned numbered_total, out_of_order;

static void
take_numbered(struct message *message)
{
	struct numbered *taken = container_of(message, struct numbered, message);

	if (taken->number != next_number[taken->producer]++)
		out_of_order++;
	if (++numbered_total == PRODUCERS * PRODUCER_MESSAGES)
		reactor_stop(reactor);
}

static void *
send_numbered(void *argument)
{
	struct numbered *mine = argument;

	for (unsigned i = 0; i < PRODUCER_MESSAGES; i++) {
		reactor_send(reactor, &mine[i].message);
		if (i % 1000 == 999)
			usleep(100); /* time for the reactor to fall asleep */
	}
	return NULL;
}

Test(reactor_rest, many_senders_lose_nothing_and_keep_their_order)
{
	pthread_t threads[PRODUCERS];

	create_reactor(1, 1, 0);
	for (unsigned i = 0; i < PRODUCERS; i++) {
		numbered[i] = calloc(PRODUCER_MESSAGES, sizeof(*numbered[i]));
		cr_assert_not_null(numbered[i]);
		for (unsigned j = 0; j < PRODUCER_MESSAGES; j++)
			numbered[i][j] = (struct numbered){
				.message.deliver = take_numbered,
				.producer = i,
				.number = j,
			};
		cr_assert_eq(pthread_create(&threads[i], NULL, send_numbered, numbered[i]), 0);
	}
	reactor_run(reactor);
	for (unsigned i = 0; i < PRODUCERS; i++) {
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
		cr_assert_eq(next_number[i], PRODUCER_MESSAGES);
		free(numbered[i]);
	}
	cr_assert_eq(out_of_order, 0);
	cr_assert_eq(reactor_counters(reactor)->messages, PRODUCERS * PRODUCER_MESSAGES);
}

/* ---- an idle reactor uses no CPU ---- */

#define BUSY_MESSAGES 2000

static unsigned busy_count;
static uint64_t idle_from_cpu_ns;
static uint64_t idle_from_sleeps;

static void
count_busy(struct message *message)
{
	(void)message;
	if (++busy_count < BUSY_MESSAGES)
		return;
	idle_from_cpu_ns = thread_cpu_ns();
	idle_from_sleeps = reactor_counters(reactor)->sleeps;
}

/* Messages that come so often that spinning pays, then half a second of silence. */
static void *
be_busy_then_idle(void *argument)
{
	struct message *messages = argument;

	for (unsigned i = 0; i < BUSY_MESSAGES; i++) {
		uint64_t until_ns = kernel_clock_ns() + 20000;

		messages[i].deliver = count_busy;
		reactor_send(reactor, &messages[i]);
		while (kernel_clock_ns() < until_ns)
			sched_yield();
	}
	usleep(500000);
	reactor_stop(reactor);
	return NULL;
}

static void
assert_idle_is_free(unsigned poll_us)
{
	static struct message messages[BUSY_MESSAGES];
	pthread_t thread;
	uint64_t idle_cpu_ns;

	create_reactor(4, 4, poll_us);
	cr_assert_eq(pthread_create(&thread, NULL, be_busy_then_idle, messages), 0);
	reactor_run(reactor);
	idle_cpu_ns = thread_cpu_ns() - idle_from_cpu_ns;
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(busy_count, BUSY_MESSAGES);
	cr_assert_lt(idle_cpu_ns, 10 * MS, "%llu us of CPU",
		     (unsigned long long)idle_cpu_ns / 1000);
	cr_assert_leq(reactor_counters(reactor)->sleeps - idle_from_sleeps, 10);
}

Test(reactor_rest, idle_uses_no_cpu_without_spinning)
{
	assert_idle_is_free(0);
}

Test(reactor_rest, idle_uses_no_cpu_after_spinning)
{
	assert_idle_is_free(200);
}
