/* reactor/reactor.h on the real kernel: polls of pipes, sockets and eventfds report once and can be armed again; each
 * ends once, whenever it is cancelled. */
#include "tests/unit/reactor_fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

TestSuite(reactor_poll, .init = reactor_fixture_init, .fini = reactor_fixture_fini, .timeout = 60);

Test(reactor_poll, poll_of_a_pipe_waits_for_data)
{
	struct test_op test_op;
	int fds[2];

	make_pipe(fds);
	submit_poll(&test_op, fds[0], POLLIN);
	turn_for_a_while();
	cr_assert_eq(test_op.done_count, 0);
	write_byte(fds[1]);
	turn_until_done(1);
	assert_polled(&test_op, POLLIN);
	close_pipe(fds);
}

static void *
wake_later(void *unused)
{
	(void)unused;
	usleep(20000);
	reactor_wake(reactor);
	return NULL;
}

/* Who has not reserved a slot can't take the last one: the reactor would hear of nothing any more. */
Test(reactor_poll, the_wake_up_has_its_slot_whatever_others_reserve)
{
	struct test_op polls[REACTOR_RESERVED_SLOTS];
	int fds[2];

	cr_assert_eq(pipe(fds), 0);
	for (unsigned i = 0; i < REACTOR_RESERVED_SLOTS; i++) {
		test_op_init(&polls[i]);
		op_poll_reserved(&polls[i].op, fds[0], POLLIN);
		cr_assert_eq(reactor_submit(reactor, &polls[i].op),
			     i < REACTOR_RESERVED_SLOTS - 1 ? 0 : -ENOBUFS);
	}
	for (unsigned i = 0; i < 3; i++) {
		uint64_t until_ns = kernel_clock_ns() + PATIENCE_NS;
		pthread_t waker;

		cr_assert_eq(pthread_create(&waker, NULL, wake_later, NULL), 0);
		cr_assert_eq(reactor_wait(reactor, 1, 1, PATIENCE_NS), 0);
		cr_assert_lt(kernel_clock_ns(), until_ns);
		cr_assert_eq(pthread_join(waker, NULL), 0);
	}
	for (unsigned i = 0; i < REACTOR_RESERVED_SLOTS - 1; i++)
		reactor_abandon(reactor, &polls[i].op);
	close(fds[0]);
	close(fds[1]);
}

Test(reactor_poll, poll_of_a_socket_waits_for_data)
{
	struct test_op test_op;
	int fds[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	submit_poll(&test_op, fds[0], POLLIN);
	turn_for_a_while();
	cr_assert_eq(test_op.done_count, 0);
	write_byte(fds[1]);
	turn_until_done(1);
	assert_polled(&test_op, POLLIN);
	close_pipe(fds);
}

Test(reactor_poll, poll_of_an_eventfd_waits_for_a_count)
{
	struct test_op test_op;
	int fd = eventfd(0, EFD_CLOEXEC);

	cr_assert_geq(fd, 0);
	submit_poll(&test_op, fd, POLLIN);
	turn_for_a_while();
	cr_assert_eq(test_op.done_count, 0);
	cr_assert_eq(eventfd_write(fd, 1), 0);
	turn_until_done(1);
	assert_polled(&test_op, POLLIN);
	close(fd);
}

Test(reactor_poll, poll_of_what_is_ready_is_done_at_once)
{
	struct test_op test_op;
	int fds[2];

	make_pipe(fds);
	submit_poll(&test_op, fds[1], POLLOUT);
	cr_assert(reactor_turn(reactor));
	assert_polled(&test_op, POLLOUT);
	close_pipe(fds);
}

Test(reactor_poll, poll_of_a_socket_waits_for_room)
{
	static const char filler[BLOCK];
	struct test_op test_op;
	char taken[BLOCK];
	int fds[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	while (write(fds[0], filler, sizeof(filler)) > 0)
		;
	submit_poll(&test_op, fds[0], POLLOUT);
	turn_for_a_while();
	cr_assert_eq(test_op.done_count, 0);
	while (read(fds[1], taken, sizeof(taken)) > 0)
		;
	turn_until_done(1);
	assert_polled(&test_op, POLLOUT);
	close_pipe(fds);
}

Test(reactor_poll, poll_sees_the_peers_end)
{
	struct test_op test_op;
	int fds[2];

	make_pipe(fds);
	submit_poll(&test_op, fds[0], POLLIN);
	turn_for_a_while();
	close(fds[1]);
	turn_until_done(1);
	assert_polled(&test_op, POLLHUP);
	close(fds[0]);
}

Test(reactor_poll, poll_reports_once)
{
	struct test_op test_op;
	int fds[2];

	make_pipe(fds);
	submit_poll(&test_op, fds[0], POLLIN);
	write_byte(fds[1]);
	turn_until_done(1);
	write_byte(fds[1]);
	turn_for_a_while();
	assert_polled(&test_op, POLLIN);
	close_pipe(fds);
}

Test(reactor_poll, poll_can_be_armed_again)
{
	struct test_op test_op;
	int fds[2];

	make_pipe(fds);
	for (unsigned i = 1; i <= 5; i++) {
		submit_poll(&test_op, fds[0], POLLIN);
		reactor_turn(reactor);
		write_byte(fds[1]);
		turn_until_done(i);
		assert_polled(&test_op, POLLIN);
		read_byte(fds[0]);
	}
	close_pipe(fds);
}

Test(reactor_poll, poll_armed_again_with_data_left_is_done_at_once)
{
	struct test_op test_op;
	int fds[2];

	make_pipe(fds);
	write_byte(fds[1]);
	for (unsigned i = 1; i <= 5; i++) {
		submit_poll(&test_op, fds[0], POLLIN);
		turn_until_done(i);
		assert_polled(&test_op, POLLIN);
	}
	close_pipe(fds);
}

Test(reactor_poll, two_polls_of_one_fd_are_both_done)
{
	struct test_op test_ops[2];
	int fds[2];

	make_pipe(fds);
	submit_poll(&test_ops[0], fds[0], POLLIN);
	submit_poll(&test_ops[1], fds[0], POLLIN);
	reactor_turn(reactor);
	write_byte(fds[1]);
	turn_until_done(2);
	assert_polled(&test_ops[0], POLLIN);
	assert_polled(&test_ops[1], POLLIN);
	close_pipe(fds);
}

Test(reactor_poll, cancelled_before_the_turn_a_poll_ends_in_it)
{
	struct test_op test_op;
	int fds[2];

	make_pipe(fds);
	submit_poll(&test_op, fds[0], POLLIN);
	submitting = true;
	reactor_cancel_poll(reactor, &test_op.op);
	submitting = false;
	cr_assert_eq(test_op.done_count, 0);
	cr_assert(reactor_turn(reactor));
	assert_done(&test_op, -ECANCELED);
	write_byte(fds[1]);
	turn_for_a_while();
	cr_assert_eq(test_op.done_count, 1);
	close_pipe(fds);
}

Test(reactor_poll, cancelled_when_armed_a_poll_ends_soon)
{
	struct test_op test_op;
	int fds[2];

	make_pipe(fds);
	submit_poll(&test_op, fds[0], POLLIN);
	turn_for_a_while();
	submitting = true;
	reactor_cancel_poll(reactor, &test_op.op);
	submitting = false;
	cr_assert_eq(test_op.done_count, 0);
	turn_until_done(1);
	cr_assert(test_op.result == -ECANCELED || test_op.result == 0);
	write_byte(fds[1]);
	turn_for_a_while();
	cr_assert_eq(test_op.done_count, 1);
	close_pipe(fds);
}

Test(reactor_poll, cancelled_too_late_a_poll_tells_its_events)
{
	struct test_op test_op;
	int fds[2];

	make_pipe(fds);
	submit_poll(&test_op, fds[0], POLLIN);
	reactor_turn(reactor);
	write_byte(fds[1]);
	usleep(20000);
	reactor_cancel_poll(reactor, &test_op.op);
	turn_until_done(1);
	assert_polled(&test_op, POLLIN);
	turn_for_a_while();
	cr_assert_eq(test_op.done_count, 1);
	close_pipe(fds);
}

Test(reactor_poll, cancel_twice_is_done_once)
{
	struct test_op queued, armed;
	int fds[2];

	make_pipe(fds);
	submit_poll(&armed, fds[0], POLLIN);
	reactor_turn(reactor);
	submit_poll(&queued, fds[0], POLLIN);
	for (unsigned i = 0; i < 2; i++) {
		reactor_cancel_poll(reactor, &queued.op);
		reactor_cancel_poll(reactor, &armed.op);
	}
	turn_until_done(2);
	turn_for_a_while();
	cr_assert_eq(queued.done_count, 1);
	cr_assert_eq(armed.done_count, 1);
	close_pipe(fds);
}

Test(reactor_poll, cancel_of_an_idle_poll_is_harmless)
{
	struct test_op test_op;
	int fds[2];

	make_pipe(fds);
	submit_poll(&test_op, fds[1], POLLOUT);
	turn_until_done(1);
	reactor_cancel_poll(reactor, &test_op.op);
	turn_for_a_while();
	cr_assert_eq(test_op.done_count, 1);
	close_pipe(fds);
}

static struct test_op other_op;

static void
cancel_other(struct op *op, long result)
{
	reactor_cancel_poll(reactor, &other_op.op);
	note_done(op, result);
}

/* Both complete in one turn; the first one's done cancels the second. */
Test(reactor_poll, cancel_of_a_completed_poll_is_harmless)
{
	struct test_op test_op;
	int fds[2];

	make_pipe(fds);
	test_op_init(&test_op);
	test_op.op.done = cancel_other;
	op_poll(&test_op.op, fds[1], POLLOUT);
	submit(&test_op);
	submit_poll(&other_op, fds[1], POLLOUT);
	turn_until_done(2);
	turn_for_a_while();
	assert_polled(&test_op, POLLOUT);
	assert_polled(&other_op, POLLOUT);
	close_pipe(fds);
}
