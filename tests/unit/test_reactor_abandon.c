/* reactor/reactor.h, reactor_abandon: whatever state a poll is in, it is idle at once and its done is not called; and the
 * event that still comes for it is nobody's. */
#include "tests/unit/reactor_fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

TestSuite(reactor_abandon, .init = reactor_fixture_init, .fini = reactor_fixture_fini,
	  .timeout = 60);

/* ABANDON is idle at once. */
static void
abandon(struct test_op *test_op)
{
	submitting = true;
	reactor_abandon(reactor, &test_op->op);
	submitting = false;
	cr_assert(op_idle(&test_op->op));
}

static unsigned
free_polls(void)
{
	return reactor_free_slots(reactor, OP_KIND_POLL);
}

Test(reactor_abandon, idle_poll_is_left_alone)
{
	struct test_op test_op;

	test_op_init(&test_op);
	abandon(&test_op);
	turn_until_idle();
	cr_assert_eq(test_op.done_count, 0);
	cr_assert_eq(reactor_counters(reactor)->ops_abandoned, 0);
}

Test(reactor_abandon, queued_poll_never_goes_to_the_kernel)
{
	const struct reactor_counters *counters = reactor_counters(reactor);
	uint64_t submitted = counters->ops_submitted;
	struct test_op test_op;
	int fds[2];

	make_pipe(fds);
	submit_poll(&test_op, fds[1], POLLOUT);
	abandon(&test_op);
	turn_for_a_while();
	cr_assert_eq(test_op.done_count, 0);
	cr_assert_eq(counters->ops_submitted, submitted);
	cr_assert_eq(counters->ops_abandoned, 1);
	cr_assert_eq(free_polls(), POLL_SLOTS);
	close_pipe(fds);
}

Test(reactor_abandon, armed_poll_holds_its_slot_until_its_event_is_dropped)
{
	const struct reactor_counters *counters = reactor_counters(reactor);
	struct test_op test_op;
	int fds[2];

	make_pipe(fds);
	submit_poll(&test_op, fds[0], POLLIN);
	turn_for_a_while();
	abandon(&test_op);
	turn_for_a_while();
	cr_assert_eq(free_polls(), POLL_SLOTS - 1);
	write_byte(fds[1]);
	turn_for_a_while();
	cr_assert_eq(free_polls(), POLL_SLOTS);
	cr_assert_eq(counters->events_stale, 1);
	cr_assert_eq(counters->ops_abandoned, 1);
	cr_assert_eq(test_op.done_count, 0);
	close_pipe(fds);
}

/* The event is in the ring, but the reactor has not looked. */
Test(reactor_abandon, event_that_has_come_is_dropped)
{
	struct test_op test_op;
	int fds[2];

	make_pipe(fds);
	submit_poll(&test_op, fds[0], POLLIN);
	reactor_turn(reactor);
	write_byte(fds[1]);
	usleep(20000);
	abandon(&test_op);
	turn_for_a_while();
	cr_assert_eq(test_op.done_count, 0);
	cr_assert_eq(reactor_counters(reactor)->events_stale, 1);
	cr_assert_eq(free_polls(), POLL_SLOTS);
	close_pipe(fds);
}

static struct test_op other_op;

static void
abandon_other(struct op *op, long result)
{
	reactor_abandon(reactor, &other_op.op);
	cr_assert(op_idle(&other_op.op));
	note_done(op, result);
}

/* Both complete in one turn; the first one's done abandons the second, which is ready. */
Test(reactor_abandon, ready_poll_is_not_done)
{
	struct test_op test_op;
	int fds[2];

	make_pipe(fds);
	test_op_init(&test_op);
	test_op.op.done = abandon_other;
	op_poll(&test_op.op, fds[1], POLLOUT);
	submit(&test_op);
	submit_poll(&other_op, fds[1], POLLOUT);
	turn_until_done(1);
	turn_for_a_while();
	cr_assert_eq(other_op.done_count, 0);
	cr_assert_eq(reactor_counters(reactor)->ops_abandoned, 1);
	cr_assert_eq(reactor_counters(reactor)->events_stale, 0);
	close_pipe(fds);
}

/* The same struct op polls something else when the old event comes: that is not taken for the new one's. */
Test(reactor_abandon, stale_event_does_not_reach_the_operations_next_poll)
{
	struct test_op test_op;
	int old[2], new[2];

	make_pipe(old);
	make_pipe(new);
	for (unsigned i = 1; i <= 10; i++) {
		submit_poll(&test_op, old[0], POLLIN);
		turn_for_a_while();
		abandon(&test_op);
		submit_poll(&test_op, new[0], POLLIN);
		reactor_turn(reactor);
		write_byte(old[1]);
		turn_for_a_while();
		cr_assert_eq(test_op.done_count, 0);
		cr_assert_eq(reactor_counters(reactor)->events_stale, i);
		cr_assert_eq(free_polls(), POLL_SLOTS - 1);
		write_byte(new[1]);
		turn_until_done(i);
		assert_polled(&test_op, POLLIN);
		read_byte(old[0]);
		read_byte(new[0]);
	}
	close_pipe(old);
	close_pipe(new);
}

/* The kernel looks for the address, and that is the abandoned one's, too. */
Test(reactor_abandon, next_poll_of_an_abandoned_operation_can_be_cancelled)
{
	struct test_op test_op;
	int old[2], new[2];

	make_pipe(old);
	make_pipe(new);
	submit_poll(&test_op, old[0], POLLIN);
	turn_for_a_while();
	abandon(&test_op);
	submit_poll(&test_op, new[0], POLLIN);
	turn_for_a_while();
	reactor_cancel_poll(reactor, &test_op.op);
	turn_until_done(1);
	cr_assert(test_op.result == -ECANCELED || test_op.result == 0);
	turn_for_a_while();
	cr_assert_eq(test_op.done_count, 1);
	close_pipe(old);
	close_pipe(new);
}

/* What its memory is used for meanwhile is nobody's business. */
Test(reactor_abandon, memory_of_an_abandoned_poll_can_be_freed)
{
	struct test_op *test_op = malloc(sizeof(*test_op));
	int fds[2];

	cr_assert_not_null(test_op);
	make_pipe(fds);
	submit_poll(test_op, fds[0], POLLIN);
	turn_for_a_while();
	abandon(test_op);
	memset(test_op, 0xff, sizeof(*test_op));
	free(test_op);
	write_byte(fds[1]);
	turn_for_a_while();
	cr_assert_eq(reactor_counters(reactor)->events_stale, 1);
	close_pipe(fds);
}

/* The dropped event is all that a turn has; but it gives back a slot that another poll waits for. */
Test(reactor_abandon, slot_of_a_dropped_event_is_used_before_sleeping)
{
	struct test_op abandoned[POLL_SLOTS], waiting;
	int fds[2];

	make_pipe(fds);
	for (unsigned i = 0; i < POLL_SLOTS; i++)
		submit_poll(&abandoned[i], fds[0], POLLIN);
	turn_until_idle();
	for (unsigned i = 0; i < POLL_SLOTS; i++)
		abandon(&abandoned[i]);
	submit_poll(&waiting, fds[1], POLLOUT);
	write_byte(fds[1]);
	usleep(20000);
	cr_assert_eq(reactor_wait(reactor, 1, 1, 1000 * MS), 1);
	cr_assert_eq(reactor_counters(reactor)->sleeps, 0);
	assert_polled(&waiting, POLLOUT);
	close_pipe(fds);
}

/* Of every class: the class's slots come back, too. */
Test(reactor_abandon, all_slots_come_back)
{
	struct test_op test_ops[POLL_SLOTS];
	int fds[2];

	make_pipe(fds);
	for (unsigned i = 1; i <= 3 * PRIORITY_COUNT; i++) {
		for (unsigned j = 0; j < POLL_SLOTS; j++) {
			test_op_init(&test_ops[j]);
			op_poll(&test_ops[j].op, fds[0], POLLIN);
			test_ops[j].op.priority = (enum priority)(i % PRIORITY_COUNT);
			submit(&test_ops[j]);
		}
		turn_until_idle();
		for (unsigned j = 0; j < POLL_SLOTS; j++)
			abandon(&test_ops[j]);
		write_byte(fds[1]);
		turn_for_a_while();
		cr_assert_eq(free_polls(), POLL_SLOTS);
		read_byte(fds[0]);
	}
	cr_assert_eq(done_total, 0);
	close_pipe(fds);
}

static int other_fds[2];

static void
write_to_other(struct op *op, long result)
{
	write_byte(other_fds[1]);
	note_done(op, result);
}

/* It is as if it had never been of the latency class: a turn does all that the lower classes have, whatever comes. */
Test(reactor_abandon, abandoned_latency_poll_does_not_cut_turns)
{
	struct test_op poll, other, local[40];
	int fds[2];

	make_pipe(fds);
	make_pipe(other_fds);
	for (unsigned state = 0; state < 2; state++) {
		test_op_init(&poll);
		op_poll(&poll.op, fds[0], POLLIN);
		poll.op.priority = PRIORITY_LATENCY;
		submit(&poll);
		if (state == 1)
			turn_until_idle();
		abandon(&poll);
		submit_poll(&other, other_fds[0], POLLIN);
		turn_until_idle();
		for (unsigned i = 0; i < ARRAY_COUNT(local); i++) {
			test_op_init(&local[i]);
			local[i].op.done = i == 5 ? write_to_other : note_done;
			reactor_complete(reactor, &local[i].op, 0);
		}
		done_total = 0;
		reactor_turn(reactor);
		cr_assert_eq(done_total, ARRAY_COUNT(local));
		turn_until_done(ARRAY_COUNT(local) + 1);
		read_byte(other_fds[0]);
	}
	cr_assert_eq(reactor_counters(reactor)->turns_cut, 0);
	close_pipe(fds);
	close_pipe(other_fds);
}
