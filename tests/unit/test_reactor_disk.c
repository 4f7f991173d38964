/* reactor/reactor.h on the real kernel: reads, writes and syncs of a file with direct I/O, alone and in batches, and
 * operations that the kernel refuses: each fails alone, wherever in its batch it is. */
#include "tests/unit/reactor_fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

TestSuite(reactor_disk, .init = reactor_fixture_init, .fini = reactor_fixture_fini, .timeout = 60);

/* ---- disk operations ---- */

Test(reactor_disk, reads)
{
	struct test_op test_op;
	int fd = open_file();

	submit_read(&test_op, fd, buffers[0], BLOCK, 3 * BLOCK);
	turn_until_done(1);
	assert_done(&test_op, BLOCK);
	cr_assert(buffer_is(0, 3));
	close(fd);
}

Test(reactor_disk, read_across_the_end_is_short)
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

Test(reactor_disk, writes)
{
	write_and_read_back(false);
}

Test(reactor_disk, writes_durably)
{
	write_and_read_back(true);
}

Test(reactor_disk, syncs)
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

Test(reactor_disk, many_reads_each_get_their_own_block)
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

Test(reactor_disk, done_is_not_called_before_the_turn)
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
	reactor_start(reactor, op);
	cr_assert_eq(done_total, chain_length);
}

Test(reactor_disk, done_can_submit_its_operation_again)
{
	struct op op;
	int fd = open_file();

	op_init(&op, read_next);
	op_read(&op, fd, buffers[0], BLOCK, 0);
	reactor_start(reactor, &op);
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

Test(reactor_disk, done_can_free_its_operation)
{
	int fd = open_file();

	for (unsigned i = 0; i < 4; i++) {
		struct op *op = malloc(sizeof(*op));

		cr_assert_not_null(op);
		op_init(op, free_itself);
		op_read(op, fd, buffers[i], BLOCK, 0);
		reactor_start(reactor, op);
	}
	turn_until_done(4);
	turn_until_idle();
	close(fd);
}

/* ---- operations that the kernel refuses ---- */

Test(reactor_disk, closed_fd_is_refused)
{
	struct test_op test_op;

	submit_read(&test_op, -1, buffers[0], BLOCK, 0);
	turn_until_done(1);
	assert_done(&test_op, -EBADF);
	cr_assert_eq(reactor_counters(reactor)->ops_refused, 1);
}

Test(reactor_disk, poll_of_a_closed_fd_is_refused)
{
	struct test_op test_op;

	submit_poll(&test_op, -1, POLLIN);
	turn_until_done(1);
	assert_done(&test_op, -EBADF);
}

Test(reactor_disk, unknown_operation_is_refused)
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

Test(reactor_disk, bad_fd_in_a_batch_fails_alone)
{
	assert_bad_ones_fail_alone(BAD_FD, 1 << 3, DISK_SLOTS);
}

Test(reactor_disk, bad_operation_in_a_batch_fails_alone)
{
	assert_bad_ones_fail_alone(BAD_OPCODE, 1 << 3, DISK_SLOTS);
}

/* Some file systems read what is not aligned through the page cache: see whether this one does. */
Test(reactor_disk, unaligned_read_in_a_batch_fails_alone)
{
	int fd = open_file();
	ssize_t result = pread(fd, buffers[0], BLOCK, 1);

	close(fd);
	if (result >= 0)
		cr_skip_test("the build directory's file system takes what is not aligned");
	assert_bad_ones_fail_alone(BAD_ALIGNMENT, 1 << 3, DISK_SLOTS);
}

Test(reactor_disk, buffer_that_is_not_memory_fails_alone)
{
	assert_bad_ones_fail_alone(BAD_BUFFER, 1 << 3, DISK_SLOTS);
}

Test(reactor_disk, bad_ones_fail_alone_wherever_they_are)
{
	for (unsigned bad_bits = 0; bad_bits < 1 << 5; bad_bits++) {
		assert_bad_ones_fail_alone(BAD_FD, bad_bits, 5);
		assert_bad_ones_fail_alone(BAD_OPCODE, bad_bits, 5);
		assert_bad_ones_fail_alone(BAD_BUFFER, bad_bits, 5);
	}
}

Test(reactor_disk, bad_poll_behind_disk_operations_fails_alone)
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
