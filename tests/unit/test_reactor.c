/* reactor/reactor.h on the real kernel: every kind of operation, the limits, timers, tasks and messages, rest; then with
 * io_submit made to take less, or nothing, or to refuse.
 * The program is linked with --wrap=kernel_submit: every call of it comes through here, and goes on to the kernel
 * unless a test has set submit_fault.  Assertions are for the test's own thread, which is the reactor's. */
#include "reactor/reactor.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define MS	    ((uint64_t)1000000)
#define PATIENCE_NS (20000 * MS) /* long enough for a machine that is busy with other things */
#define BLOCK	    4096
#define BLOCKS	    64
#define DISK_SLOTS  8
#define POLL_SLOTS  8

/* ---- the seam ---- */

long __real_kernel_submit(io_context_t context, long count, struct iocb **iocbs);
long __wrap_kernel_submit(io_context_t context, long count, struct iocb **iocbs);

/* Instead of the kernel if not NULL.  Set by a test, in the process of its own that Criterion gives it. */
static long (*submit_fault)(io_context_t context, long count, struct iocb **iocbs);

long
__wrap_kernel_submit(io_context_t context, long count, struct iocb **iocbs)
{
	if (submit_fault != NULL)
		return submit_fault(context, count, iocbs);
	return __real_kernel_submit(context, count, iocbs);
}

/* ---- what all tests use ---- */

static struct reactor *reactor;
static bool submitting; /* in a call during which no done may be called */

static void
create_reactor(unsigned disk_slots, unsigned poll_slots, unsigned poll_us)
{
	const struct reactor_config config = {
		.disk_slots = disk_slots,
		.poll_slots = poll_slots,
		.poll_us = poll_us,
	};

	cr_assert_eq(reactor_create(&config, &reactor), 0);
}

static void
setup(void)
{
	create_reactor(DISK_SLOTS, POLL_SLOTS, 0);
}

static void
teardown(void)
{
	reactor_destroy(reactor);
}

TestSuite(reactor, .init = setup, .fini = teardown, .timeout = 60);
/* These make the reactor they need. */
TestSuite(reactor_limits, .fini = teardown, .timeout = 60);
TestSuite(reactor_rest, .fini = teardown, .timeout = 60);
TestSuite(reactor_create, .timeout = 60);

/* An operation that notes its end. */
struct test_op {
	struct op op;
	unsigned done_count;
	long result;
};

static unsigned done_total;

static void
note_done(struct op *op, long result)
{
	struct test_op *test_op = container_of(op, struct test_op, op);

	cr_assert_not(submitting);
	cr_assert(op_idle(op));
	test_op->done_count++;
	test_op->result = result;
	done_total++;
}

static void
test_op_init(struct test_op *test_op)
{
	*test_op = (struct test_op){ 0 };
	op_init(&test_op->op, note_done);
}

static void
submit(struct test_op *test_op)
{
	submitting = true;
	reactor_submit(reactor, &test_op->op);
	submitting = false;
}

static void
submit_poll(struct test_op *test_op, int fd, int events)
{
	test_op_init(test_op);
	op_poll(&test_op->op, fd, events);
	submit(test_op);
}

static void
submit_read(struct test_op *test_op, int fd, void *buffer, size_t bytes, uint64_t offset)
{
	test_op_init(test_op);
	op_read(&test_op->op, fd, buffer, bytes, offset);
	submit(test_op);
}

static void
submit_write(struct test_op *test_op, int fd, void *buffer, size_t bytes, uint64_t offset)
{
	test_op_init(test_op);
	op_write(&test_op->op, fd, buffer, bytes, offset, false);
	submit(test_op);
}

/* Take turns until TOTAL operations are done, and not one more. */
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

/* Take turns for a while in which nothing should end. */
static void
turn_for_a_while(void)
{
	for (unsigned i = 0; i < 20; i++) {
		reactor_turn(reactor);
		usleep(1000);
	}
}

static void
turn_until_idle(void)
{
	while (reactor_turn(reactor))
		;
}

static void
assert_done(const struct test_op *test_op, long result)
{
	cr_assert_eq(test_op->done_count, 1);
	cr_assert_eq(test_op->result, result, "result %ld, not %ld", test_op->result, result);
}

/* The result of a poll may have bits that nobody asked for. */
static void
assert_polled(const struct test_op *test_op, int events)
{
	cr_assert_eq(test_op->done_count, 1);
	cr_assert(test_op->result > 0 && (test_op->result & events) == events,
		  "result %ld has not %d", test_op->result, events);
}

static void
make_pipe(int fds[2])
{
	cr_assert_eq(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
}

static void
close_pipe(int fds[2])
{
	close(fds[0]);
	close(fds[1]);
}

static void
write_byte(int fd)
{
	cr_assert_eq(write(fd, "x", 1), 1);
}

static void
read_byte(int fd)
{
	char byte;

	cr_assert_eq(read(fd, &byte, 1), 1);
}

/* A file of BLOCKS blocks, block i filled with byte i, opened for direct I/O and without a name.  It is in the build
 * directory, because a file system in memory may refuse O_DIRECT. */
static int
open_file(void)
{
	static char content[BLOCKS][BLOCK] __attribute__((aligned(BLOCK)));
	char path[64];
	int fd;

	(void)snprintf(path, sizeof(path), "build/unit-work-%ld", (long)getpid());
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_DIRECT | O_CLOEXEC, 0600);
	if (fd < 0 && errno == EINVAL) {
		unlink(path);
		cr_skip_test("the build directory's file system has no O_DIRECT");
	}
	cr_assert_geq(fd, 0, "%s: %s", path, strerror(errno));
	unlink(path);
	for (int i = 0; i < BLOCKS; i++)
		memset(content[i], i, BLOCK);
	cr_assert_eq(pwrite(fd, content, sizeof(content), 0), (ssize_t)sizeof(content));
	return fd;
}

static char buffers[BLOCKS][BLOCK] __attribute__((aligned(BLOCK)));

/* Is the whole of buffers[INDEX] filled with BYTE? */
static bool
buffer_is(unsigned index, int byte)
{
	return buffers[index][0] == (char)byte &&
	       memcmp(buffers[index], buffers[index] + 1, BLOCK - 1) == 0;
}

static uint64_t
counter(const uint64_t *value)
{
	return __atomic_load_n(value, __ATOMIC_RELAXED);
}

/* ---- disk operations ---- */

Test(reactor, reads)
{
	struct test_op test_op;
	int fd = open_file();

	submit_read(&test_op, fd, buffers[0], BLOCK, 3 * BLOCK);
	turn_until_done(1);
	assert_done(&test_op, BLOCK);
	cr_assert(buffer_is(0, 3));
	close(fd);
}

Test(reactor, read_across_the_end_is_short)
{
	struct test_op test_op;
	int fd = open_file();

	submit_read(&test_op, fd, buffers[0], 4 * BLOCK, (BLOCKS - 1) * BLOCK);
	turn_until_done(1);
	assert_done(&test_op, BLOCK);
	cr_assert(buffer_is(0, BLOCKS - 1));
	close(fd);
}

static void
write_and_read_back(bool durable)
{
	struct test_op test_op;
	int fd = open_file();

	memset(buffers[0], 0xa5, BLOCK);
	test_op_init(&test_op);
	op_write(&test_op.op, fd, buffers[0], BLOCK, 7 * BLOCK, durable);
	submit(&test_op);
	turn_until_done(1);
	assert_done(&test_op, BLOCK);
	submit_read(&test_op, fd, buffers[1], 3 * BLOCK, 6 * BLOCK);
	turn_until_done(2);
	assert_done(&test_op, 3 * BLOCK);
	cr_assert(buffer_is(1, 6));
	cr_assert(buffer_is(2, 0xa5));
	cr_assert(buffer_is(3, 8));
	close(fd);
}

Test(reactor, writes)
{
	write_and_read_back(false);
}

Test(reactor, writes_durably)
{
	write_and_read_back(true);
}

Test(reactor, syncs)
{
	struct test_op test_op;
	int fd = open_file();

	submit_write(&test_op, fd, buffers[0], BLOCK, 0);
	turn_until_done(1);
	test_op_init(&test_op);
	op_fdatasync(&test_op.op, fd);
	submit(&test_op);
	turn_until_done(2);
	assert_done(&test_op, 0);
	close(fd);
}

Test(reactor, many_reads_each_get_their_own_block)
{
	struct test_op test_ops[BLOCKS];
	int fd = open_file();

	for (unsigned i = 0; i < BLOCKS; i++)
		submit_read(&test_ops[i], fd, buffers[i], BLOCK, i * BLOCK);
	turn_until_done(BLOCKS);
	for (unsigned i = 0; i < BLOCKS; i++) {
		assert_done(&test_ops[i], BLOCK);
		cr_assert(buffer_is(i, (int)i));
	}
	close(fd);
}

Test(reactor, done_is_not_called_before_the_turn)
{
	struct test_op test_op;
	int fd = open_file();

	submit_read(&test_op, fd, buffers[0], BLOCK, 0);
	usleep(20000);
	cr_assert_eq(test_op.done_count, 0);
	cr_assert_not(op_idle(&test_op.op));
	turn_until_done(1);
	close(fd);
}

static unsigned chain_length;

/* Read the next block from the done of the one before. */
static void
read_next(struct op *op, long result)
{
	cr_assert_eq(result, BLOCK);
	done_total++;
	if (++chain_length == BLOCKS)
		return;
	op_read(op, (int)op->iocb.aio_fildes, buffers[chain_length], BLOCK, chain_length * BLOCK);
	reactor_submit(reactor, op);
	cr_assert_eq(done_total, chain_length);
}

Test(reactor, done_can_submit_its_operation_again)
{
	struct op op;
	int fd = open_file();

	op_init(&op, read_next);
	op_read(&op, fd, buffers[0], BLOCK, 0);
	reactor_submit(reactor, &op);
	turn_until_done(BLOCKS);
	for (unsigned i = 0; i < BLOCKS; i++)
		cr_assert(buffer_is(i, (int)i));
	close(fd);
}

static void
free_itself(struct op *op, long result)
{
	cr_assert_eq(result, BLOCK);
	done_total++;
	free(op);
}

Test(reactor, done_can_free_its_operation)
{
	int fd = open_file();

	for (unsigned i = 0; i < 4; i++) {
		struct op *op = malloc(sizeof(*op));

		cr_assert_not_null(op);
		op_init(op, free_itself);
		op_read(op, fd, buffers[i], BLOCK, 0);
		reactor_submit(reactor, op);
	}
	turn_until_done(4);
	turn_until_idle();
	close(fd);
}

/* ---- operations that the kernel refuses ---- */

Test(reactor, closed_fd_is_refused)
{
	struct test_op test_op;

	submit_read(&test_op, -1, buffers[0], BLOCK, 0);
	turn_until_done(1);
	assert_done(&test_op, -EBADF);
	cr_assert_eq(reactor_counters(reactor)->ops_refused, 1);
}

Test(reactor, poll_of_a_closed_fd_is_refused)
{
	struct test_op test_op;

	submit_poll(&test_op, -1, POLLIN);
	turn_until_done(1);
	assert_done(&test_op, -EBADF);
}

Test(reactor, unknown_operation_is_refused)
{
	struct test_op test_op;
	int fd = open_file();

	test_op_init(&test_op);
	op_read(&test_op.op, fd, buffers[0], BLOCK, 0);
	test_op.op.iocb.aio_lio_opcode = 99;
	submit(&test_op);
	turn_until_done(1);
	assert_done(&test_op, -EINVAL);
	close(fd);
}

enum bad {
	BAD_FD,
	BAD_OPCODE,
	BAD_ALIGNMENT, /* these two are refused by the file system: what they get comes through the ring */
	BAD_BUFFER,
	BAD_KINDS
};

/* Submit COUNT reads as one batch, of which those with a bit in BAD_BITS are bad in KIND. */
static void
assert_bad_ones_fail_alone(enum bad kind, unsigned bad_bits, unsigned count)
{
	static const int errors[BAD_KINDS] = { -EBADF, -EINVAL, -EINVAL, -EFAULT };
	struct test_op test_ops[DISK_SLOTS];
	unsigned before = done_total;
	int fd = open_file();
	void *nowhere = mmap(NULL, BLOCK, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	cr_assert_neq(nowhere, MAP_FAILED);
	for (unsigned i = 0; i < count; i++) {
		bool bad = (bad_bits >> i & 1) != 0;

		memset(buffers[i], 0xee, BLOCK);
		test_op_init(&test_ops[i]);
		op_read(&test_ops[i].op, bad && kind == BAD_FD ? -1 : fd,
			bad && kind == BAD_BUFFER ? nowhere : buffers[i], BLOCK,
			i * BLOCK + (bad && kind == BAD_ALIGNMENT));
		if (bad && kind == BAD_OPCODE)
			test_ops[i].op.iocb.aio_lio_opcode = 99;
		submit(&test_ops[i]);
	}
	turn_until_done(before + count);
	turn_until_idle();
	for (unsigned i = 0; i < count; i++) {
		bool bad = (bad_bits >> i & 1) != 0;

		assert_done(&test_ops[i], bad ? errors[kind] : BLOCK);
		cr_assert(bad || buffer_is(i, (int)i));
	}
	cr_assert_eq(done_total, before + count);
	munmap(nowhere, BLOCK);
	close(fd);
}

Test(reactor, bad_fd_in_a_batch_fails_alone)
{
	assert_bad_ones_fail_alone(BAD_FD, 1 << 3, DISK_SLOTS);
}

Test(reactor, bad_operation_in_a_batch_fails_alone)
{
	assert_bad_ones_fail_alone(BAD_OPCODE, 1 << 3, DISK_SLOTS);
}

/* Some file systems read what is not aligned through the page cache: see whether this one does. */
Test(reactor, unaligned_read_in_a_batch_fails_alone)
{
	int fd = open_file();
	ssize_t result = pread(fd, buffers[0], BLOCK, 1);

	close(fd);
	if (result >= 0)
		cr_skip_test("the build directory's file system takes what is not aligned");
	assert_bad_ones_fail_alone(BAD_ALIGNMENT, 1 << 3, DISK_SLOTS);
}

Test(reactor, buffer_that_is_not_memory_fails_alone)
{
	assert_bad_ones_fail_alone(BAD_BUFFER, 1 << 3, DISK_SLOTS);
}

Test(reactor, bad_ones_fail_alone_wherever_they_are)
{
	for (unsigned bad_bits = 0; bad_bits < 1 << 5; bad_bits++) {
		assert_bad_ones_fail_alone(BAD_FD, bad_bits, 5);
		assert_bad_ones_fail_alone(BAD_OPCODE, bad_bits, 5);
		assert_bad_ones_fail_alone(BAD_BUFFER, bad_bits, 5);
	}
}

Test(reactor, bad_poll_behind_disk_operations_fails_alone)
{
	struct test_op reads[2], polls[3];
	int fd = open_file(), fds[2];

	make_pipe(fds);
	write_byte(fds[1]);
	submit_poll(&polls[0], fds[0], POLLIN);
	submit_poll(&polls[1], -1, POLLIN);
	submit_poll(&polls[2], fds[0], POLLIN);
	submit_read(&reads[0], fd, buffers[0], BLOCK, 0);
	submit_read(&reads[1], -1, buffers[1], BLOCK, 0);
	turn_until_done(5);
	assert_done(&reads[0], BLOCK);
	assert_done(&reads[1], -EBADF);
	assert_polled(&polls[0], POLLIN);
	assert_done(&polls[1], -EBADF);
	assert_polled(&polls[2], POLLIN);
	close_pipe(fds);
	close(fd);
}

/* ---- polls ---- */

Test(reactor, poll_of_a_pipe_waits_for_data)
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

Test(reactor, poll_of_a_socket_waits_for_data)
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

Test(reactor, poll_of_an_eventfd_waits_for_a_count)
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

Test(reactor, poll_of_what_is_ready_is_done_at_once)
{
	struct test_op test_op;
	int fds[2];

	make_pipe(fds);
	submit_poll(&test_op, fds[1], POLLOUT);
	cr_assert(reactor_turn(reactor));
	assert_polled(&test_op, POLLOUT);
	close_pipe(fds);
}

Test(reactor, poll_of_a_socket_waits_for_room)
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

Test(reactor, poll_sees_the_peers_end)
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

Test(reactor, poll_reports_once)
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

Test(reactor, poll_can_be_armed_again)
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

Test(reactor, poll_armed_again_with_data_left_is_done_at_once)
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

Test(reactor, two_polls_of_one_fd_are_both_done)
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

Test(reactor, cancelled_before_the_turn_a_poll_ends_in_it)
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

Test(reactor, cancelled_when_armed_a_poll_ends_soon)
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

Test(reactor, cancelled_too_late_a_poll_tells_its_events)
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

Test(reactor, cancel_twice_is_done_once)
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

Test(reactor, cancel_of_an_idle_poll_is_harmless)
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
Test(reactor, cancel_of_a_completed_poll_is_harmless)
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

/* ---- completion by hand, tasks, turns, counters ---- */

Test(reactor, complete_is_done_in_the_next_turn)
{
	struct test_op test_op;

	test_op_init(&test_op);
	submitting = true;
	reactor_complete(reactor, &test_op.op, -EIO);
	submitting = false;
	cr_assert_eq(test_op.done_count, 0);
	cr_assert(reactor_turn(reactor));
	assert_done(&test_op, -EIO);
	turn_until_idle();
	cr_assert_eq(test_op.done_count, 1);
}

static void
complete_again(struct op *op, long result)
{
	done_total++;
	reactor_complete(reactor, op, result + 1);
}

Test(reactor, completed_during_a_turn_waits_for_the_next)
{
	struct test_op test_op;

	test_op_init(&test_op);
	test_op.op.done = complete_again;
	reactor_complete(reactor, &test_op.op, 0);
	for (unsigned i = 1; i <= 3; i++) {
		reactor_turn(reactor);
		cr_assert_eq(done_total, i);
	}
}

/* Appends a letter to what has happened so far. */
static char story[64];

static void
tell(char letter)
{
	size_t length = strlen(story);

	cr_assert_lt(length + 1, sizeof(story));
	story[length] = letter;
}

static void
tell_task(struct task *task)
{
	(void)task;
	tell('t');
}

static struct task task, second_task;

static void
defer_from_done(struct op *op, long result)
{
	(void)op;
	(void)result;
	reactor_defer(reactor, &task);
	reactor_defer(reactor, &task);
	tell('d');
}

static void
defer_from_message(struct message *message)
{
	(void)message;
	reactor_defer(reactor, &task);
	tell('m');
}

static void
defer_from_timer(struct timer *timer)
{
	(void)timer;
	reactor_defer(reactor, &task);
	tell('e');
}

Test(reactor, task_runs_once_at_the_end_of_the_turn)
{
	struct message message = { .deliver = defer_from_message };
	struct timer timer;
	struct op op;

	task_init(&task, tell_task);
	timer_init(&timer, defer_from_timer);
	reactor_timer_start(reactor, &timer, 0);
	op_init(&op, defer_from_done);
	reactor_complete(reactor, &op, 0);
	reactor_send(reactor, &message);
	usleep(1000); /* a timer's tick */
	cr_assert(reactor_turn(reactor));
	cr_assert_str_eq(story, "dmet");
	turn_until_idle();
	cr_assert_eq(strchr(story, 't'), strrchr(story, 't'));
}

Test(reactor, task_deferred_outside_of_a_turn_runs_in_the_next)
{
	task_init(&task, tell_task);
	reactor_defer(reactor, &task);
	cr_assert_str_eq(story, "");
	cr_assert(reactor_turn(reactor));
	cr_assert_str_eq(story, "t");
	cr_assert_not(reactor_turn(reactor));
}

static void
defer_itself(struct task *deferred)
{
	tell('t');
	reactor_defer(reactor, deferred);
}

Test(reactor, task_that_defers_itself_waits_for_the_next_turn)
{
	task_init(&task, defer_itself);
	reactor_defer(reactor, &task);
	for (size_t i = 1; i <= 3; i++) {
		cr_assert(reactor_turn(reactor));
		cr_assert_eq(strlen(story), i);
	}
	task_cancel(&task);
}

Test(reactor, cancelled_task_does_not_run)
{
	task_init(&task, tell_task);
	task_cancel(&task);
	reactor_defer(reactor, &task);
	task_cancel(&task);
	task_cancel(&task);
	cr_assert_not(reactor_turn(reactor));
	cr_assert_str_eq(story, "");
}

static void
cancel_second(struct task *first)
{
	(void)first;
	task_cancel(&second_task);
}

Test(reactor, task_can_cancel_another_of_its_turn)
{
	task_init(&task, cancel_second);
	task_init(&second_task, tell_task);
	reactor_defer(reactor, &task);
	reactor_defer(reactor, &second_task);
	turn_until_idle();
	cr_assert_str_eq(story, "");
}

Test(reactor, turn_with_nothing_to_do_says_so)
{
	cr_assert_not(reactor_turn(reactor));
	cr_assert_not(reactor_turn(reactor));
}

static void
tell_message(struct message *message)
{
	(void)message;
	tell('m');
}

Test(reactor, counters_move)
{
	const struct reactor_counters *counters = reactor_counters(reactor);
	struct reactor_counters before = *counters;
	struct message message = { .deliver = tell_message };
	struct test_op test_op, bad;
	int fd = open_file();

	submit_read(&test_op, fd, buffers[0], BLOCK, 0);
	submit_read(&bad, -1, buffers[1], BLOCK, 0);
	reactor_send(reactor, &message);
	turn_until_done(2);
	cr_assert_gt(counters->turns, before.turns);
	cr_assert_eq(counters->submit_calls, before.submit_calls + 2);
	cr_assert_eq(counters->ops_submitted, before.ops_submitted + 1);
	cr_assert_eq(counters->ops_refused, before.ops_refused + 1);
	cr_assert_eq(counters->events, before.events + 1);
	cr_assert_eq(counters->messages, before.messages + 1);
	cr_assert_eq(counters->sleeps, before.sleeps);
	close(fd);
}

Test(reactor, one_call_submits_all_that_is_queued)
{
	const struct reactor_counters *counters = reactor_counters(reactor);
	uint64_t before = counters->submit_calls;
	struct test_op reads[DISK_SLOTS], polls[POLL_SLOTS];
	int fd = open_file(), fds[2];

	make_pipe(fds);
	for (unsigned i = 0; i < DISK_SLOTS; i++)
		submit_read(&reads[i], fd, buffers[i], BLOCK, 0);
	for (unsigned i = 0; i < POLL_SLOTS; i++)
		submit_poll(&polls[i], fds[1], POLLOUT);
	reactor_turn(reactor);
	cr_assert_eq(counters->submit_calls, before + 1);
	turn_until_done(DISK_SLOTS + POLL_SLOTS);
	close_pipe(fds);
	close(fd);
}

/* ---- limits ---- */

/* Take turns until TOTAL are done; after none of them more than SLOTS are with the kernel, the wake-up included. */
static void
turn_within_slots(unsigned total, unsigned slots)
{
	const struct reactor_counters *counters = reactor_counters(reactor);
	uint64_t until_ns = kernel_clock_ns() + PATIENCE_NS;

	while (done_total < total) {
		cr_assert_lt(kernel_clock_ns(), until_ns);
		reactor_turn(reactor);
		cr_assert_leq(counters->ops_submitted - counters->events, slots);
	}
	cr_assert_eq(done_total, total);
}

Test(reactor_limits, more_disk_operations_than_slots_wait)
{
	static struct test_op test_ops[1000];
	int fd = open_file();

	create_reactor(3, 1, 0);
	for (unsigned i = 0; i < ARRAY_COUNT(test_ops); i++)
		submit_read(&test_ops[i], fd, buffers[i % BLOCKS], BLOCK, i % BLOCKS * BLOCK);
	turn_within_slots(ARRAY_COUNT(test_ops), 3 + 1);
	for (unsigned i = 0; i < ARRAY_COUNT(test_ops); i++)
		assert_done(&test_ops[i], BLOCK);
	close(fd);
}

Test(reactor_limits, more_polls_than_slots_wait)
{
	static struct test_op test_ops[1000];
	int fds[2];

	create_reactor(1, 3, 0);
	make_pipe(fds);
	for (unsigned i = 0; i < ARRAY_COUNT(test_ops); i++)
		submit_poll(&test_ops[i], fds[1], POLLOUT);
	turn_within_slots(ARRAY_COUNT(test_ops), 3 + 1);
	for (unsigned i = 0; i < ARRAY_COUNT(test_ops); i++)
		assert_polled(&test_ops[i], POLLOUT);
	close_pipe(fds);
}

Test(reactor_limits, poll_that_ends_makes_room_for_the_next)
{
	struct test_op test_ops[4];
	int idle[2], ready[2];

	create_reactor(1, 2, 0);
	make_pipe(idle);
	make_pipe(ready);
	write_byte(ready[1]);
	submit_poll(&test_ops[0], idle[0], POLLIN);
	submit_poll(&test_ops[1], idle[0], POLLIN);
	submit_poll(&test_ops[2], ready[0], POLLIN);
	submit_poll(&test_ops[3], ready[0], POLLIN);
	turn_for_a_while();
	cr_assert_eq(done_total, 0);
	reactor_cancel_poll(reactor, &test_ops[0].op);
	turn_until_done(3);
	cr_assert_eq(test_ops[0].done_count, 1);
	assert_polled(&test_ops[2], POLLIN);
	assert_polled(&test_ops[3], POLLIN);
	close_pipe(idle);
	close_pipe(ready);
}

Test(reactor_limits, poll_that_waits_for_a_slot_can_be_cancelled)
{
	struct test_op armed, waiting;
	int idle[2];

	create_reactor(1, 1, 0);
	make_pipe(idle);
	submit_poll(&armed, idle[0], POLLIN);
	submit_poll(&waiting, idle[0], POLLIN);
	turn_for_a_while();
	reactor_cancel_poll(reactor, &waiting.op);
	turn_until_done(1);
	assert_done(&waiting, -ECANCELED);
	close_pipe(idle);
}

/* Many armed polls take none of the disk's slots. */
Test(reactor_limits, armed_polls_leave_the_disks_slots)
{
	struct test_op polls[8], read;
	int fd = open_file(), idle[2];

	create_reactor(1, 4, 0);
	make_pipe(idle);
	for (unsigned i = 0; i < ARRAY_COUNT(polls); i++)
		submit_poll(&polls[i], idle[0], POLLIN);
	turn_for_a_while();
	submit_read(&read, fd, buffers[0], BLOCK, 0);
	turn_until_done(1);
	assert_done(&read, BLOCK);
	close_pipe(idle);
	close(fd);
}

/* More of both than one batch of the two should hold: two calls, the disk's first. */
Test(reactor_limits, many_polls_beside_disk_operations_are_all_done)
{
	static struct test_op polls[200], reads[BLOCKS];
	int fd = open_file(), fds[2];

	create_reactor(BLOCKS, ARRAY_COUNT(polls), 0);
	make_pipe(fds);
	for (unsigned i = 0; i < ARRAY_COUNT(polls); i++)
		submit_poll(&polls[i], fds[1], POLLOUT);
	for (unsigned i = 0; i < BLOCKS; i++)
		submit_read(&reads[i], fd, buffers[i], BLOCK, i * BLOCK);
	turn_until_done(ARRAY_COUNT(polls) + BLOCKS);
	for (unsigned i = 0; i < BLOCKS; i++)
		cr_assert(buffer_is(i, (int)i));
	close_pipe(fds);
	close(fd);
}

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

/* Wait until the reactor, which runs on another thread, has slept more than SLEEPS times, and likely does still. */
static void
wait_for_sleep(uint64_t sleeps)
{
	while (counter(&reactor_counters(reactor)->sleeps) <= sleeps)
		usleep(100);
	usleep(10000);
}

static int poll_fds[2];
static uint64_t sent_ns, arrived_ns;

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

#define WAKES 20

static unsigned arrived_count; /* atomic: the sender waits for it */
static uint64_t latency_max_ns;

static void
note_arrival(struct message *message)
{
	(void)message;
	arrived_ns = kernel_clock_ns();
	if (arrived_ns - sent_ns > latency_max_ns)
		latency_max_ns = arrived_ns - sent_ns;
	if (__atomic_add_fetch(&arrived_count, 1, __ATOMIC_RELEASE) == WAKES)
		reactor_stop(reactor);
}

static void *
send_when_asleep(void *argument)
{
	static struct message message = { .deliver = note_arrival };

	for (unsigned i = 0; i < WAKES; i++) {
		wait_for_sleep(i);
		sent_ns = kernel_clock_ns();
		reactor_send(reactor, &message);
		while (__atomic_load_n(&arrived_count, __ATOMIC_ACQUIRE) == i)
			sched_yield();
	}
	return argument;
}

static void
assert_messages_wake(void)
{
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, send_when_asleep, NULL), 0);
	reactor_run(reactor);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(arrived_count, WAKES);
	cr_assert_lt(latency_max_ns, 2000 * MS);
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

static uint64_t
thread_cpu_ns(void)
{
	struct rusage usage;

	cr_assert_eq(getrusage(RUSAGE_THREAD, &usage), 0);
	return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 * MS +
	       (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000;
}

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

/* ---- creation ---- */

static unsigned
process_fds(void)
{
	DIR *directory = opendir("/proc/self/fd");
	struct dirent *entry;
	unsigned count = 0;

	cr_assert_not_null(directory);
	while ((entry = readdir(directory)) != NULL)
		count += entry->d_name[0] != '.';
	closedir(directory);
	return count;
}

/* The mapped rings of this process. */
static unsigned
process_contexts(void)
{
	FILE *file = fopen("/proc/self/maps", "r");
	char line[512];
	unsigned count = 0;

	cr_assert_not_null(file);
	while (fgets(line, sizeof(line), file) != NULL)
		count += strstr(line, "[aio]") != NULL;
	fclose(file);
	return count;
}

static void
assert_create_fails(const struct reactor_config *config, int error)
{
	struct reactor *unchanged = (struct reactor *)&unchanged, *result = unchanged;
	unsigned fds = process_fds();

	cr_assert_eq(reactor_create(config, &result), error);
	cr_assert_eq(result, unchanged);
	cr_assert_eq(process_fds(), fds);
	cr_assert_eq(process_contexts(), 0);
}

Test(reactor_create, without_slots_is_refused)
{
	struct reactor_config config = { .disk_slots = 0, .poll_slots = 8 };

	assert_create_fails(&config, -EINVAL);
	config = (struct reactor_config){ .disk_slots = 8, .poll_slots = 0 };
	assert_create_fails(&config, -EINVAL);
}

Test(reactor_create, more_slots_than_the_host_has_are_refused)
{
	struct reactor_config config = { .poll_slots = 8 };
	FILE *file = fopen("/proc/sys/fs/aio-max-nr", "r");
	unsigned long slots_max;

	cr_assert_not_null(file);
	cr_assert_eq(fscanf(file, "%lu", &slots_max), 1);
	fclose(file);
	if (slots_max > (unsigned long)1 << 20)
		cr_skip_test("fs.aio-max-nr is %lu: too many to ask for", slots_max);
	config.disk_slots = (unsigned)slots_max;
	assert_create_fails(&config, -EAGAIN);
}

Test(reactor_create, without_a_file_descriptor_is_refused)
{
	const struct reactor_config config = { .disk_slots = 8, .poll_slots = 8 };
	struct reactor *unchanged = (struct reactor *)&unchanged, *result = unchanged;
	struct rlimit limit, none;

	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	none = limit;
	none.rlim_cur = 0;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	cr_assert_eq(reactor_create(&config, &result), -EMFILE);
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	cr_assert_eq(result, unchanged);
	cr_assert_eq(process_contexts(), 0);
}

static long
refuse_all(io_context_t context, long count, struct iocb **iocbs)
{
	(void)context;
	(void)count;
	(void)iocbs;
	return -EINVAL;
}

Test(reactor_create, kernel_without_polls_is_refused)
{
	const struct reactor_config config = { .disk_slots = 8, .poll_slots = 8 };

	submit_fault = refuse_all;
	assert_create_fails(&config, -EOPNOTSUPP);
}

Test(reactor_create, destroy_leaves_nothing)
{
	unsigned fds = process_fds();

	for (unsigned i = 0; i < 5; i++) {
		setup();
		reactor_turn(reactor);
		reactor_destroy(reactor);
	}
	cr_assert_eq(process_fds(), fds);
	cr_assert_eq(process_contexts(), 0);
}

Test(reactor_create, destroy_drops_polls_and_messages)
{
	struct message message = { .deliver = tell_message };
	struct test_op armed, queued;
	int fds[2];

	setup();
	make_pipe(fds);
	submit_poll(&armed, fds[0], POLLIN);
	turn_for_a_while();
	submit_poll(&queued, fds[0], POLLIN);
	reactor_send(reactor, &message);
	reactor_destroy(reactor);
	write_byte(fds[1]);
	cr_assert_eq(done_total, 0);
	cr_assert_str_eq(story, "");
	cr_assert_eq(process_contexts(), 0);
	close_pipe(fds);
}

/* ---- faults of io_submit ---- */

#define FAULT_READS 40
#define FAULT_POLLS 40
#define FAULT_OPS   (FAULT_READS + FAULT_POLLS)

static struct test_op fault_reads[FAULT_READS], fault_polls[FAULT_POLLS];
static int fault_file, fault_pipe[2];

/* Of each FAULT_PERIOD calls all but one get FAULT_ERROR, and so does the FAULT_CALLth; 0: none. */
static unsigned fault_period, fault_call;
static long fault_error;
static long taken_max; /* by one call; 0: all */

static unsigned submit_calls, faults; /* since submit_all */
static struct op *refused;	      /* the first one of the call that got an error last */

static long
submit_with_faults(io_context_t context, long count, struct iocb **iocbs)
{
	submit_calls++;
	if ((fault_period != 0 && submit_calls % fault_period != 0) || submit_calls == fault_call) {
		faults++;
		refused = iocbs[0]->data;
		return fault_error;
	}
	if (taken_max != 0 && count > taken_max)
		count = taken_max;
	return __real_kernel_submit(context, count, iocbs);
}

/* Queue operations for several batches of a new reactor, whose submits come through submit_with_faults. */
static void
submit_all(void)
{
	create_reactor(16, 16, 0);
	memset(buffers, 0xee, sizeof(buffers));
	for (unsigned i = 0; i < FAULT_READS; i++)
		submit_read(&fault_reads[i], fault_file, buffers[i], BLOCK, i * BLOCK);
	for (unsigned i = 0; i < FAULT_POLLS; i++)
		submit_poll(&fault_polls[i], fault_pipe[1], POLLOUT);
	done_total = 0;
	submit_calls = 0;
	faults = 0;
	refused = NULL;
	submit_fault = submit_with_faults;
}

static void
end_all(void)
{
	reactor_destroy(reactor);
	submit_fault = NULL;
}

static void
assert_all_done(void)
{
	cr_assert_eq(done_total, FAULT_OPS);
	for (unsigned i = 0; i < FAULT_READS; i++) {
		assert_done(&fault_reads[i], BLOCK);
		cr_assert(buffer_is(i, (int)i));
	}
	for (unsigned i = 0; i < FAULT_POLLS; i++)
		assert_polled(&fault_polls[i], POLLOUT);
}

/* Looks now and then whether all is done, so that the reactor rests in between. */
static void
stop_when_all_done(struct timer *timer)
{
	if (done_total >= FAULT_OPS)
		reactor_stop(reactor);
	else
		reactor_timer_start(reactor, timer, 5 * MS);
}

static void
run_until_all_done(void)
{
	struct timer timer;

	timer_init(&timer, stop_when_all_done);
	reactor_timer_start(reactor, &timer, 5 * MS);
	reactor_run(reactor);
}

static void
setup_faults(void)
{
	fault_file = open_file();
	make_pipe(fault_pipe);
}

static void
teardown_faults(void)
{
	close_pipe(fault_pipe);
	close(fault_file);
}

TestSuite(reactor_faults, .init = setup_faults, .fini = teardown_faults, .timeout = 60);

/* Every call takes something, so that there are no more calls than operations. */
Test(reactor_faults, short_submits_lose_nothing)
{
	for (taken_max = 1; taken_max <= 20; taken_max++) {
		submit_all();
		turn_until_done(FAULT_OPS);
		assert_all_done();
		cr_assert_leq(submit_calls, FAULT_OPS);
		end_all();
	}
}

Test(reactor_faults, without_a_slot_operations_wait)
{
	fault_error = -EAGAIN;
	for (fault_period = 2; fault_period <= 5; fault_period++) {
		submit_all();
		run_until_all_done();
		assert_all_done();
		cr_assert_gt(faults, 0);
		cr_assert_leq(submit_calls, fault_period * FAULT_OPS);
		end_all();
	}
}

Test(reactor_faults, short_submits_and_no_slot_in_turn)
{
	fault_error = -EAGAIN;
	fault_period = 2;
	for (taken_max = 1; taken_max <= 8; taken_max *= 2) {
		submit_all();
		run_until_all_done();
		assert_all_done();
		cr_assert_leq(submit_calls, fault_period * FAULT_OPS);
		end_all();
	}
}

/* The Nth call finds no slot, for every N. */
Test(reactor_faults, any_one_call_may_find_no_slot)
{
	fault_error = -EAGAIN;
	fault_call = 0;
	do {
		fault_call++;
		submit_all();
		run_until_all_done();
		assert_all_done();
		end_all();
	} while (faults > 0);
	cr_assert_gt(fault_call, 1);
}

/* The Nth call refuses its first operation, for every N: that one fails, and no other. */
Test(reactor_faults, any_one_operation_may_be_refused)
{
	fault_error = -EINVAL;
	fault_call = 0;
	taken_max = 7;
	do {
		fault_call++;
		submit_all();
		turn_until_done(FAULT_OPS);
		turn_until_idle();
		for (unsigned i = 0; i < FAULT_READS; i++)
			assert_done(&fault_reads[i],
				    &fault_reads[i].op == refused ? -EINVAL : BLOCK);
		for (unsigned i = 0; i < FAULT_POLLS; i++)
			assert_done(&fault_polls[i],
				    &fault_polls[i].op == refused ? -EINVAL : POLLOUT);
		cr_assert_eq(reactor_counters(reactor)->ops_refused, faults);
		end_all();
	} while (faults > 0);
	cr_assert_gt(fault_call, FAULT_OPS / 7);
}

/* As if the kernel had no memory for a while: the reactor looks again about once a millisecond. */
Test(reactor_faults, no_slot_for_long_is_no_reason_to_spin)
{
	struct timer timer;
	uint64_t started_ns, waited_ms, cpu_ns;

	fault_error = -EAGAIN;
	fault_period = UINT_MAX;
	submit_all();
	timer_init(&timer, note_fired);
	fired_expected = 1;
	started_ns = kernel_clock_ns();
	cpu_ns = thread_cpu_ns();
	reactor_timer_start(reactor, &timer, 200 * MS);
	reactor_run(reactor);
	waited_ms = (kernel_clock_ns() - started_ns) / MS;
	cr_assert_eq(done_total, 0);
	cr_assert_gt(submit_calls, 1);
	cr_assert_leq(submit_calls, waited_ms + 2);
	cr_assert_leq(reactor_counters(reactor)->turns, 3 * (waited_ms + 2));
	cr_assert_lt(thread_cpu_ns() - cpu_ns, 100 * MS);

	submit_fault = NULL;
	turn_until_done(FAULT_OPS);
	assert_all_done();
	end_all();
}

/* The second try arms the poll, and then there is nothing more to try. */
Test(reactor_faults, after_the_retry_the_reactor_sleeps)
{
	struct test_op test_op;
	struct timer timer;

	create_reactor(1, 1, 0);
	fault_error = -EAGAIN;
	fault_call = 1;
	submit_fault = submit_with_faults;
	submit_poll(&test_op, fault_pipe[0], POLLIN);
	timer_init(&timer, note_fired);
	fired_expected = 1;
	reactor_timer_start(reactor, &timer, 100 * MS);
	reactor_run(reactor);
	cr_assert_eq(submit_calls, 2);
	cr_assert_leq(reactor_counters(reactor)->sleeps, 10);
	end_all();
}

/* The poll of the wake-up, too, finds no slot now and then. */
Test(reactor_faults, messages_wake_a_reactor_without_slots)
{
	create_reactor(1, 1, 0);
	fault_error = -EAGAIN;
	fault_period = 3;
	submit_fault = submit_with_faults;
	assert_messages_wake();
	cr_assert_gt(faults, 0);
	end_all();
}
