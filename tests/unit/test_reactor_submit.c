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
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "reactor/child_watch.h"
#include "reactor/file_watch.h"
#include "reactor/stream.h"

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

Test(reactor_submit, nothing_is_refused)
{
	struct test_op test_op;

	test_op_init(&test_op);
	op_poll(&test_op.op, 0, POLLIN);
	cr_assert_eq(reactor_submit(NULL, &test_op.op), -EINVAL);
	cr_assert_eq(reactor_submit(reactor, NULL), -EINVAL);
	cr_assert(op_idle(&test_op.op));
	cr_assert_not(reactor_turn(reactor));
}

/* Whatever its memory was before. */
Test(reactor_submit, operation_that_is_to_do_nothing_is_refused)
{
	for (int byte = 0; byte < 4; byte++) {
		struct op op;

		memset(&op, byte, sizeof(op));
		op_init(&op, note_done);
		assert_refused(&op, -EINVAL);
	}
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

/* It is not refused, but waits its turn. */
Test(reactor_waiting, always_is_however_many_wait)
{
	struct test_op polls[4];
	int fds[2];

	create_with_waiting_max(1);
	make_pipe(fds);
	submit_poll(&polls[0], fds[1], POLLOUT);
	for (unsigned i = 1; i < 4; i++) {
		test_op_init(&polls[i]);
		op_poll(&polls[i].op, fds[1], POLLOUT);
		submitting = true;
		reactor_start_always(reactor, &polls[i].op);
		submitting = false;
	}
	turn_until_done(4);
	for (unsigned i = 0; i < 4; i++)
		assert_polled(&polls[i], POLLOUT);
	close_pipe(fds);
}

/* Take all slots for polls, and all places to wait for one. */
static void
fill_polls(struct test_op polls[3], int fd)
{
	submit_poll(&polls[0], fd, POLLIN);
	turn_until_idle();
	submit_poll(&polls[1], fd, POLLIN);
	turn_until_idle();
	submit_poll(&polls[2], fd, POLLIN);
	cr_assert_eq(reactor_free_slots(reactor, OP_KIND_POLL), 0);
}

static unsigned events_seen;

static void
note_event(struct file_watch *watch, const struct file_event *event)
{
	(void)watch;
	(void)event;
	events_seen++;
}

static void
note_end(struct child_watch *watch, const struct child_end *end)
{
	(void)watch;
	(void)end;
	events_seen++;
}

static void
note_received(struct stream *stream, ssize_t result)
{
	(void)stream;
	cr_assert_eq(result, 1);
	events_seen++;
}

static void
ignore_closed(struct stream *stream)
{
	(void)stream;
}

/* What has one poll of its own waits for a slot with the rest, and does not ask for it again and again. */
static void
assert_waits_quietly(struct test_op polls[3], int fd)
{
	uint64_t turns = reactor_turns(reactor);

	cr_assert_eq(reactor_wait(reactor, 1, 8, 50 * MS), 0);
	cr_assert_leq(reactor_turns(reactor) - turns, 5);
	cr_assert_eq(events_seen, 0);
	write_byte(fd);
	while (events_seen == 0 || done_total < 3)
		cr_assert_gt(reactor_wait(reactor, 1, 8, PATIENCE_NS), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_polled(&polls[i], POLLIN);
}

Test(reactor_waiting, watch_of_files_waits_quietly)
{
	struct test_op polls[3];
	struct file_watch watch;
	int fds[2];

	create_with_waiting_max(1);
	make_pipe(fds);
	fill_polls(polls, fds[0]);
	cr_assert_eq(file_watch_start(&watch, reactor, note_event), 0);
	cr_assert_gt(file_watch_add(&watch, "/dev/null", IN_OPEN), 0);
	close(open("/dev/null", O_RDONLY));
	assert_waits_quietly(polls, fds[1]);
	close_pipe(fds);
}

Test(reactor_waiting, watch_of_a_child_waits_quietly)
{
	struct test_op polls[3];
	struct child_watch watch;
	int fds[2];
	pid_t pid;

	create_with_waiting_max(1);
	make_pipe(fds);
	fill_polls(polls, fds[0]);
	pid = fork();
	if (pid == 0) {
		usleep(100000);
		_exit(0);
	}
	cr_assert_eq(child_watch_start(&watch, reactor, pid, note_end), 0);
	assert_waits_quietly(polls, fds[1]);
	close_pipe(fds);
}

Test(reactor_waiting, stream_waits_quietly)
{
	struct test_op polls[3];
	struct stream stream = { .on_received = note_received, .on_closed = ignore_closed };
	struct iovec part = { buffers[0], 1 };
	int fds[2], ends[2];

	create_with_waiting_max(1);
	make_pipe(fds);
	fill_polls(polls, fds[0]);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends), 0);
	stream_init(&stream, reactor, NULL, ends[0]);
	stream_receive(&stream, &part, 1);
	write_byte(ends[1]);
	assert_waits_quietly(polls, fds[1]);
	stream_close(&stream);
	turn_until_idle();
	close(ends[1]);
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
