/* reactor/reactor.h, reactor_submit and reactor_start: what they refuse, and that it has no other effect. */
#include "tests/unit/reactor_fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void
create_with_waiting_max(unsigned waiting_max)
{
	const struct reactor_config config = {
		.disk_slots = 2,
		.poll_slots = 2,
		.waiting_max = waiting_max,
	};

	cr_assert_eq(reactor_create(&config, &reactor), 0);
}

TestSuite(reactor_submit, .init = reactor_fixture_init, .fini = reactor_fixture_fini,
	  .timeout = 60);
/* These make the reactor they need. */
TestSuite(reactor_waiting, .fini = reactor_fixture_fini, .timeout = 60);

/* OP stays as it is. */
static void
assert_refused(struct op *op, int error)
{
	struct op before;

	memcpy(&before, op, sizeof(before));
	cr_assert_eq(reactor_submit(reactor, op), error);
	cr_assert_eq(memcmp(&before, op, sizeof(before)), 0);
}

Test(reactor_submit, busy_operation_is_refused_in_every_state)
{
	struct test_op test_op;
	int fds[2];

	make_pipe(fds);
	submit_poll(&test_op, fds[0], POLLIN);
	assert_refused(&test_op.op, -EINVAL); /* queued */
	turn_until_idle();
	assert_refused(&test_op.op, -EINVAL); /* with the kernel */
	write_byte(fds[1]);
	turn_until_done(1);
	assert_polled(&test_op, POLLIN);
	reactor_complete(reactor, &test_op.op, 5);
	assert_refused(&test_op.op, -EINVAL); /* ready */
	turn_until_done(2);
	cr_assert_eq(test_op.result, 5);
	turn_for_a_while();
	cr_assert_eq(done_total, 2);
	close_pipe(fds);
}

Test(reactor_submit, operation_without_done_is_refused)
{
	struct op op;

	op_init(&op, NULL);
	op_poll(&op, 0, POLLIN);
	assert_refused(&op, -EINVAL);
	cr_assert(op_idle(&op));
	cr_assert_not(reactor_turn(reactor));
}

Test(reactor_submit, unknown_priority_is_refused)
{
	struct test_op test_op;

	test_op_init(&test_op);
	op_poll(&test_op.op, 0, POLLIN);
	test_op.op.priority = PRIORITY_COUNT;
	assert_refused(&test_op.op, -EINVAL);
	test_op.op.priority = (enum priority) - 1;
	assert_refused(&test_op.op, -EINVAL);
	cr_assert(op_idle(&test_op.op));
	cr_assert_not(reactor_turn(reactor));
	cr_assert_eq(test_op.done_count, 0);
}

/* There is no list that it could wait in for done. */
Test(reactor_submit, start_with_an_unknown_priority_is_a_mistake, .signal = SIGABRT)
{
	struct test_op test_op;

	test_op_init(&test_op);
	op_poll(&test_op.op, 0, POLLIN);
	test_op.op.priority = PRIORITY_COUNT;
	reactor_start(reactor, &test_op.op);
}

Test(reactor_submit, pipe_opened_for_both_ends_can_not_be_polled)
{
	struct test_op test_op;
	char path[64];
	int fd;

	(void)snprintf(path, sizeof(path), "build/unit-fifo-%ld", (long)getpid());
	cr_assert_eq(mkfifo(path, 0600), 0);
	fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	unlink(path);
	cr_assert_geq(fd, 0);
	submit_poll(&test_op, fd, POLLIN);
	turn_until_done(1);
	assert_done(&test_op, -EOPNOTSUPP);
	cr_assert_eq(reactor_free_slots(reactor, OP_KIND_POLL), POLL_SLOTS);
	close(fd);
}

Test(reactor_submit, terminal_can_not_be_polled)
{
	struct test_op test_op;
	int fd = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);

	if (fd < 0)
		cr_skip_test("there are no pseudo-terminals here");
	submit_poll(&test_op, fd, POLLIN);
	turn_until_done(1);
	assert_done(&test_op, -EOPNOTSUPP);
	close(fd);
}

/* ---- waiting_max ---- */

Test(reactor_waiting, one_more_than_may_wait_is_refused)
{
	struct test_op polls[4];
	int fds[2];

	create_with_waiting_max(3);
	make_pipe(fds);
	for (unsigned i = 0; i < 4; i++) {
		test_op_init(&polls[i]);
		op_poll(&polls[i].op, fds[0], POLLIN);
		polls[i].op.priority = (enum priority)(i % PRIORITY_COUNT);
	}
	for (unsigned i = 0; i < 3; i++)
		cr_assert_eq(reactor_submit(reactor, &polls[i].op), 0);
	assert_refused(&polls[3].op, -ENOBUFS);
	cr_assert(op_idle(&polls[3].op));
	/* Two go to the kernel, which makes room for that many. */
	turn_until_idle();
	cr_assert_eq(reactor_submit(reactor, &polls[3].op), 0);
	write_byte(fds[1]);
	turn_until_done(4);
	for (unsigned i = 0; i < 4; i++)
		assert_polled(&polls[i], POLLIN);
	close_pipe(fds);
}

Test(reactor_waiting, each_kind_has_its_own_bound)
{
	struct test_op poll, read, receive;
	struct iovec part = { buffers[1], 1 };
	int file = open_file(), fds[2];

	create_with_waiting_max(1);
	make_pipe(fds);
	test_op_init(&poll);
	op_poll(&poll.op, fds[1], POLLOUT);
	cr_assert_eq(reactor_submit(reactor, &poll.op), 0);
	test_op_init(&read);
	op_read(&read.op, file, buffers[0], BLOCK, 0);
	cr_assert_eq(reactor_submit(reactor, &read.op), 0);
	test_op_init(&receive);
	op_receive(&receive.op, fds[0], &part, 1);
	cr_assert_eq(reactor_submit(reactor, &receive.op), 0);
	turn_until_done(3);
	close_pipe(fds);
	close(file);
}

Test(reactor_waiting, start_tells_done_what_was_refused)
{
	struct test_op polls[2];
	int fds[2];

	create_with_waiting_max(1);
	make_pipe(fds);
	submit_poll(&polls[0], fds[1], POLLOUT);
	submit_poll(&polls[1], fds[1], POLLOUT);
	turn_until_done(2);
	assert_polled(&polls[0], POLLOUT);
	assert_done(&polls[1], -ENOBUFS);
	close_pipe(fds);
}

/* A queued poll that is cancelled or abandoned waits no more. */
Test(reactor_waiting, who_leaves_makes_room)
{
	struct test_op polls[3];
	int fds[2];

	create_with_waiting_max(1);
	make_pipe(fds);
	submit_poll(&polls[0], fds[1], POLLOUT);
	reactor_cancel_poll(reactor, &polls[0].op);
	submit_poll(&polls[1], fds[1], POLLOUT);
	reactor_abandon(reactor, &polls[1].op);
	submit_poll(&polls[2], fds[1], POLLOUT);
	turn_until_done(2);
	assert_done(&polls[0], -ECANCELED);
	cr_assert_eq(polls[1].done_count, 0);
	assert_polled(&polls[2], POLLOUT);
	close_pipe(fds);
}
