/* reactor/reactor.h: the budget of a turn.  Whoever has always more to do, the other parts of the turn come round. */
#include "tests/unit/reactor_fixture.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

TestSuite(reactor_budget, .init = reactor_fixture_init, .fini = reactor_fixture_fini,
	  .timeout = 60);

static unsigned delivered_count;

static void
post_again(struct message *message)
{
	delivered_count++;
	reactor_send(reactor, message);
}

Test(reactor_budget, message_that_posts_itself_is_delivered_once_a_turn)
{
	struct message message = { .deliver = post_again };

	reactor_send(reactor, &message);
	for (unsigned i = 1; i <= 100; i++) {
		cr_assert(reactor_turn(reactor));
		cr_assert_eq(delivered_count, i);
	}
}

#define FLOOD 1000

Test(reactor_budget, message_flood_is_cut_by_the_turn)
{
	static struct message messages[FLOOD];
	unsigned turns = 0, most = 0;

	for (unsigned i = 0; i < FLOOD; i++) {
		messages[i].deliver = post_again;
		reactor_send(reactor, &messages[i]);
	}
	for (; turns < 50; turns++) {
		unsigned before = delivered_count;

		reactor_turn(reactor);
		if (delivered_count - before > most)
			most = delivered_count - before;
	}
	cr_assert_leq(most, 256);
	cr_assert_geq(delivered_count, 50 * 200);
}

static unsigned fired_count;

static void
note_fired(struct timer *timer)
{
	(void)timer;
	fired_count++;
}

/* A flood of messages, another of completions, and a task that defers itself: a poll, a read and a timer are in time. */
static void
complete_again(struct op *op, long result)
{
	reactor_complete(reactor, op, result);
}

static void
defer_again(struct task *task)
{
	reactor_defer(reactor, task);
}

Test(reactor_budget, floods_starve_nothing)
{
	static struct message messages[FLOOD];
	static struct op ops[2 * FLOOD];
	struct test_op poll, read;
	struct task task;
	struct timer timer;
	int file = open_file(), fds[2];
	uint64_t turns;

	make_pipe(fds);
	for (unsigned i = 0; i < FLOOD; i++) {
		messages[i].deliver = post_again;
		reactor_send(reactor, &messages[i]);
	}
	for (unsigned i = 0; i < ARRAY_COUNT(ops); i++) {
		op_init(&ops[i], complete_again);
		reactor_complete(reactor, &ops[i], 0);
	}
	task_init(&task, defer_again);
	reactor_defer(reactor, &task);
	for (unsigned i = 0; i < 20; i++)
		reactor_turn(reactor);
	timer_init(&timer, note_fired);
	reactor_timer_start(reactor, &timer, 0);
	submit_poll(&poll, fds[1], POLLOUT);
	submit_read(&read, file, buffers[0], BLOCK, 0);
	usleep(10000);
	turns = reactor_turns(reactor);
	/* The flood of their class was there before, so it takes them one round. */
	for (unsigned i = 0; i < 2 + ARRAY_COUNT(ops) / 512; i++)
		reactor_turn(reactor);
	cr_assert_eq(fired_count, 1);
	assert_polled(&poll, POLLOUT);
	while (read.done_count == 0) {
		cr_assert_lt(reactor_turns(reactor) - turns, 10000);
		reactor_turn(reactor);
	}
	assert_done(&read, BLOCK);
	cr_assert_gt(reactor_counters(reactor)->turns_cut, 0);
	task_cancel(&task);
	close_pipe(fds);
	close(file);
}

/* ---- classes ---- */

static struct test_op lower[100], upper;
static unsigned upper_at; /* how many lower ones were done before */

static void
note_upper(struct op *op, long result)
{
	upper_at = done_total;
	note_done(op, result);
}

/* In one turn: the latency class before what was ready long before it. */
Test(reactor_budget, latency_class_goes_first)
{
	for (unsigned i = 0; i < ARRAY_COUNT(lower); i++) {
		test_op_init(&lower[i]);
		reactor_complete(reactor, &lower[i].op, 0);
	}
	test_op_init(&upper);
	upper.op.done = note_upper;
	upper.op.priority = PRIORITY_LATENCY;
	reactor_complete(reactor, &upper.op, 0);
	turn_until_done(ARRAY_COUNT(lower) + 1);
	cr_assert_eq(upper_at, 0);
}

static int pair[2];
static unsigned write_at = 10;

static void
write_in_the_middle(struct op *op, long result)
{
	if (done_total == write_at)
		write_byte(pair[1]);
	note_done(op, result);
}

/* An event for an armed poll of the latency class comes while lower ones are called: the turn ends after that one. */
Test(reactor_budget, event_for_the_latency_class_cuts_the_turn)
{
	make_pipe(pair);
	test_op_init(&upper);
	upper.op.done = note_upper;
	upper.op.priority = PRIORITY_LATENCY;
	op_poll(&upper.op, pair[0], POLLIN);
	submit(&upper);
	turn_until_idle();
	for (unsigned i = 0; i < ARRAY_COUNT(lower); i++) {
		test_op_init(&lower[i]);
		lower[i].op.done = write_in_the_middle;
		reactor_complete(reactor, &lower[i].op, 0);
	}
	turn_until_done(ARRAY_COUNT(lower) + 1);
	assert_polled(&upper, POLLIN);
	cr_assert_leq(upper_at, write_at + 2);
	cr_assert_geq(reactor_counters(reactor)->turns_cut, 1);
	close_pipe(pair);
}

/* ---- timers ---- */

#define MANY_TIMERS 100000

Test(reactor_budget, a_hundred_thousand_timers)
{
	struct timer *timers = calloc(MANY_TIMERS, sizeof(*timers));
	struct test_op poll;
	uint64_t started_ns = kernel_clock_ns(), until_ns = started_ns + PATIENCE_NS;
	int fds[2];

	cr_assert_not_null(timers);
	make_pipe(fds);
	for (unsigned i = 0; i < MANY_TIMERS; i++) {
		timer_init(&timers[i], note_fired);
		reactor_timer_start(reactor, &timers[i], (i % 100) * MS);
	}
	for (unsigned i = 0; i < MANY_TIMERS; i += 2)
		reactor_timer_stop(reactor, &timers[i]);
	submit_poll(&poll, fds[1], POLLOUT);
	while (fired_count < MANY_TIMERS / 2) {
		cr_assert_lt(kernel_clock_ns(), until_ns);
		if (!reactor_turn(reactor))
			sched_yield();
	}
	cr_assert_geq(kernel_clock_ns() - started_ns, 99 * MS);
	for (unsigned i = 0; i < MANY_TIMERS; i++)
		cr_assert_not(timer_running(&timers[i]));
	assert_polled(&poll, POLLOUT);
	turn_for_a_while();
	cr_assert_eq(fired_count, MANY_TIMERS / 2);
	cr_assert_eq(reactor_counters(reactor)->timers, MANY_TIMERS / 2);
	close_pipe(fds);
	free(timers);
}
