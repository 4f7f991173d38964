/* reactor/op.h's op_nowait on real files: what would block goes through a helper thread, and nobody notices but the counters. */
#include "tests/unit/kernel_faults.h"
#include "tests/unit/reactor_fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "reactor/call.h"
#include "reactor/resubmitter.h"

static struct call_pool *calls;
static struct nowait nowait;

static void
setup_with(struct call_pool *pool, unsigned disk_slots)
{
	const struct reactor_config config = {
		.disk_slots = disk_slots,
		.poll_slots = POLL_SLOTS,
		.calls = pool,
	};

	cr_assert_eq(reactor_create(&config, &reactor), 0);
	nowait_init(&nowait);
}

static void
setup(void)
{
	cr_assert_eq(call_pool_create(2, &calls), 0);
	setup_with(calls, DISK_SLOTS);
}

static void
teardown(void)
{
	submit_fault = NULL;
	if (calls != NULL)
		call_pool_destroy(calls);
	reactor_destroy(reactor);
}

TestSuite(reactor_nowait, .init = setup, .fini = teardown, .timeout = 60);

/* A file of BLOCKS blocks without any, in FOLDER: writing it allocates. */
static int
open_sparse(const char *folder, int flags)
{
	int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC | flags, 0600);

	if (fd < 0)
		cr_skip_test("no such file in %s: %s", folder, strerror(errno));
	cr_assert_eq(ftruncate(fd, (off_t)BLOCKS * BLOCK), 0);
	return fd;
}

static void
submit_nowait(struct test_op *test_op, int fd, bool write, unsigned block)
{
	test_op_init(test_op);
	if (write)
		op_write(&test_op->op, fd, buffers[block], BLOCK, (uint64_t)block * BLOCK, false);
	else
		op_read(&test_op->op, fd, buffers[block], BLOCK, (uint64_t)block * BLOCK);
	op_nowait(&test_op->op, &nowait, false);
	submit(test_op);
}

/* Write, or read, all blocks at once. */
static void
move_all(int fd, bool write)
{
	static struct test_op test_ops[BLOCKS];

	done_total = 0;
	for (unsigned i = 0; i < BLOCKS; i++)
		submit_nowait(&test_ops[i], fd, write, i);
	turn_until_done(BLOCKS);
	for (unsigned i = 0; i < BLOCKS; i++)
		assert_done(&test_ops[i], BLOCK);
}

static void
write_and_check_all(int fd)
{
	for (unsigned i = 0; i < BLOCKS; i++)
		memset(buffers[i], (int)i + 1, BLOCK);
	move_all(fd, true);
	memset(buffers, 0, sizeof(buffers));
	move_all(fd, false);
	for (unsigned i = 0; i < BLOCKS; i++)
		cr_assert(buffer_is(i, (int)i + 1));
}

Test(reactor_nowait, writes_that_allocate_go_through_a_helper)
{
	int fd = open_sparse("build", O_DIRECT);

	write_and_check_all(fd);
	if (nowait.refused == 0)
		cr_skip_test("this file system refuses nothing");
	cr_assert_eq(reactor_counters(reactor)->ops_helped, nowait.refused + nowait.helped);
	close(fd);
}

/* After so many refusals it no longer tries. */
Test(reactor_nowait, where_all_is_refused_helpers_are_asked_at_once)
{
	int fd = open_sparse("build", O_DIRECT);

	for (unsigned i = 0; i < 4; i++) {
		cr_assert_eq(ftruncate(fd, 0), 0);
		cr_assert_eq(ftruncate(fd, (off_t)BLOCKS * BLOCK), 0);
		move_all(fd, true);
	}
	if (nowait.refused == 0)
		cr_skip_test("this file system refuses nothing");
	cr_assert_gt(nowait.helped, nowait.refused);
	close(fd);
}

Test(reactor_nowait, overwriting_and_reading_need_no_helper)
{
	int fd = open_file();

	write_and_check_all(fd);
	cr_assert_eq(nowait.asked, 2 * BLOCKS);
	cr_assert_leq(reactor_counters(reactor)->ops_helped, 2);
	close(fd);
}

Test(reactor_nowait, files_that_do_not_know_it_are_not_asked_again)
{
	int fd = open_sparse("/dev/shm", 0);

	write_and_check_all(fd);
	if (!nowait.unsupported)
		cr_skip_test("this kernel's tmpfs knows it");
	cr_assert_leq(nowait.asked, BLOCKS); /* those of the first batch */
	cr_assert_eq(reactor_counters(reactor)->ops_helped, 0);
	cr_assert_eq(reactor_counters(reactor)->ops_refused, 0);
	close(fd);
}

static void
setup_without_helpers(void)
{
	setup_with(NULL, DISK_SLOTS);
}

TestSuite(reactor_nowait_alone, .init = setup_without_helpers, .fini = teardown, .timeout = 60);

Test(reactor_nowait_alone, what_would_block_blocks_after_all)
{
	int fd = open_sparse("build", O_DIRECT);

	for (unsigned i = 0; i < 4; i++)
		write_and_check_all(fd);
	cr_assert_eq(reactor_counters(reactor)->ops_helped, 0);
	close(fd);
}

/* ---- what the helper can't submit ---- */

/* Refuses what comes without the flag, and nothing else: the helper's second try. */
static long
fail_the_helper(io_context_t context, long count, struct iocb **iocbs)
{
	if (iocbs[0]->aio_lio_opcode == IO_CMD_PWRITE && (iocbs[0]->aio_rw_flags & RWF_NOWAIT) == 0)
		return -EINVAL;
	/* One at a time, so that each is looked at. */
	return kernel_submit_unchanged(context, count < 1 ? count : 1, iocbs);
}

Test(reactor_nowait, an_error_of_the_helpers_submit_reaches_done)
{
	static struct test_op test_ops[BLOCKS];
	int fd = open_sparse("build", O_DIRECT);
	unsigned failed = 0;

	submit_fault = fail_the_helper;
	for (unsigned i = 0; i < BLOCKS; i++)
		submit_nowait(&test_ops[i], fd, true, i);
	turn_until_done(BLOCKS);
	for (unsigned i = 0; i < BLOCKS; i++) {
		cr_assert_eq(test_ops[i].done_count, 1);
		cr_assert(test_ops[i].result == BLOCK || test_ops[i].result == -EINVAL);
		failed += test_ops[i].result == -EINVAL;
	}
	cr_assert_eq(failed, reactor_counters(reactor)->ops_helped);
	cr_assert_eq(reactor_free_slots(reactor, OP_KIND_DISK), DISK_SLOTS);
	/* And it goes on. */
	submit_fault = NULL;
	write_and_check_all(fd);
	close(fd);
}

/* ---- helpers that wait ---- */

#define FILES (RESUBMIT_LANES_ANSWERING + 3)

static void
setup_with_room(void)
{
	cr_assert_eq(call_pool_create(2, &calls), 0);
	setup_with(calls, BLOCKS);
}

TestSuite(reactor_nowait_hung, .init = setup_with_room, .fini = teardown, .timeout = 10);

static int hung_fd, answering_fd = -1; /* the one, or all but the other */
static sem_t hangs, goes_on;

/* What is for a file that hangs waits, as with a device that has stopped answering. */
static long
hang_on_files(io_context_t context, long count, struct iocb **iocbs)
{
	int fd = iocbs[0]->aio_fildes;

	if (iocbs[0]->aio_lio_opcode == IO_CMD_PREAD &&
	    (fd == hung_fd || (answering_fd >= 0 && fd != answering_fd))) {
		sem_post(&hangs);
		while (sem_wait(&goes_on) != 0)
			;
	}
	return kernel_submit_unchanged(context, count, iocbs);
}

/* From now on all goes to helpers unasked. */
static void
learn_refusals(void)
{
	for (unsigned i = 0; i < 32; i++)
		nowait_refused(&nowait);
}

static void
begin_to_hang(struct test_op *test_op, int fd)
{
	hung_fd = fd;
	cr_assert_eq(sem_init(&hangs, 0, 0), 0);
	cr_assert_eq(sem_init(&goes_on, 0, 0), 0);
	submit_fault = hang_on_files;
	learn_refusals();
	submit_nowait(test_op, fd, false, 0);
	(void)reactor_turn(reactor);
	while (sem_wait(&hangs) != 0)
		;
}

Test(reactor_nowait_hung, a_file_that_hangs_holds_up_no_other)
{
	static struct test_op hung, others[2];
	int hung_file = open_file(), other_file = open_file();

	begin_to_hang(&hung, hung_file);
	for (unsigned i = 0; i < 2; i++)
		submit_nowait(&others[i], other_file, false, i);
	turn_until_done(2);
	cr_assert_eq(hung.done_count, 0);
	sem_post(&goes_on);
	turn_until_done(3);
	assert_done(&hung, BLOCK);
	cr_assert_eq(reactor_counters(reactor)->ops_helped, 3);
	close(hung_file);
	close(other_file);
}

static struct op *after_hang; /* the first of the call behind the one that hung */

static long
hang_and_look(io_context_t context, long count, struct iocb **iocbs)
{
	if (iocbs[0]->aio_lio_opcode == IO_CMD_PREAD && hung_fd < 0)
		after_hang = container_of(iocbs[0], struct op, iocb);
	return hang_on_files(context, count, iocbs);
}

/* They gather behind a call that is out: a slow one, or of a file whose writes all need a helper. */
Test(reactor_nowait_hung, what_gathers_for_a_helper_goes_by_class)
{
	static struct test_op hung, test_ops[BLOCKS / 4];
	int fd = open_file();

	begin_to_hang(&hung, fd);
	submit_fault = hang_and_look;
	for (unsigned i = 0; i < ARRAY_COUNT(test_ops); i++) {
		test_op_init(&test_ops[i]);
		if (i == ARRAY_COUNT(test_ops) - 1)
			test_ops[i].op.priority = PRIORITY_LATENCY;
		op_read(&test_ops[i].op, fd, buffers[i], BLOCK, (uint64_t)i * BLOCK);
		op_nowait(&test_ops[i].op, &nowait, false);
		submit(&test_ops[i]);
		(void)reactor_turn(reactor);
	}
	hung_fd = -1;
	sem_post(&goes_on);
	turn_until_done(1 + ARRAY_COUNT(test_ops));
	cr_assert_eq(after_hang, &test_ops[ARRAY_COUNT(test_ops) - 1].op);
	for (unsigned i = 0; i < ARRAY_COUNT(test_ops); i++)
		assert_done(&test_ops[i], BLOCK);
	close(fd);
}

/* With two threads for all of them, of which one hangs; two each, so that some wait in a lane and some for one. */
Test(reactor_nowait_hung, more_files_than_lanes_all_have_their_turn)
{
	static struct test_op hung, test_ops[2 * FILES];
	int files[FILES];

	for (unsigned i = 0; i < FILES; i++)
		files[i] = open_file();
	begin_to_hang(&hung, files[0]);
	for (unsigned i = 0; i < 2 * FILES; i++)
		submit_nowait(&test_ops[i], files[i % FILES], false, 1 + i % (BLOCKS - 1));
	turn_until_done(2 * (FILES - 1));
	cr_assert_eq(hung.done_count, 0);
	hung_fd = -1;
	sem_post(&goes_on);
	turn_until_done(2 * FILES + 1);
	assert_done(&hung, BLOCK);
	for (unsigned i = 0; i < 2 * FILES; i++)
		assert_done(&test_ops[i], BLOCK);
	for (unsigned i = 0; i < FILES; i++)
		close(files[i]);
}

#define THREADS (2 * FILES + 2)

static void
setup_with_threads(void)
{
	cr_assert_eq(call_pool_create(THREADS, &calls), 0);
	setup_with(calls, BLOCKS);
}

TestSuite(reactor_nowait_all_hung, .init = setup_with_threads, .fini = teardown, .timeout = 30);

static unsigned
hung_count(void)
{
	int value;

	cr_assert_eq(sem_getvalue(&hangs, &value), 0);
	return (unsigned)value;
}

/* Turn until COUNT helpers hang. */
static void
turn_until_hung(unsigned count)
{
	while (hung_count() < count)
		(void)reactor_turn(reactor);
}

/* More files hang than answer at one time otherwise, and each of another's operations goes on. */
Test(reactor_nowait_all_hung, a_file_that_answers_goes_on_beside_many_that_hang)
{
	static struct test_op hung[FILES], others[3];
	int files[FILES], other_file = open_file();

	answering_fd = other_file;
	for (unsigned i = 0; i < FILES; i++)
		files[i] = open_file();
	begin_to_hang(&hung[0], files[0]);
	for (unsigned i = 1; i < FILES; i++)
		submit_nowait(&hung[i], files[i], false, i);
	for (unsigned i = 0; i < 3; i++) {
		submit_nowait(&others[i], other_file, false, i);
		turn_until_done(i + 1);
		assert_done(&others[i], BLOCK);
	}
	turn_until_hung(FILES - 1);
	for (unsigned i = 0; i < FILES; i++)
		sem_post(&goes_on);
	turn_until_done(3 + FILES);
	for (unsigned i = 0; i < FILES; i++) {
		assert_done(&hung[i], BLOCK);
		close(files[i]);
	}
	close(other_file);
}

/* Those that hang do not get all threads: a half is left for other calls. */
Test(reactor_nowait_all_hung, helpers_that_hang_leave_threads_for_other_calls)
{
	static struct test_op hung[2 * FILES];
	struct call_counters counters;
	int files[2 * FILES];

	answering_fd = INT_MAX;
	for (unsigned i = 0; i < 2 * FILES; i++)
		files[i] = open_file();
	begin_to_hang(&hung[0], files[0]);
	for (unsigned i = 1; i < 2 * FILES; i++)
		submit_nowait(&hung[i], files[i], false, i);
	/* The first was taken out of the semaphore. */
	turn_until_hung(THREADS / 2);
	for (unsigned i = 0; i < 4; i++)
		turn_for_a_while();
	call_pool_counters(calls, &counters);
	cr_assert_eq(counters.threads, THREADS / 2 + 1);
	for (unsigned i = 0; i < 2 * FILES; i++)
		sem_post(&goes_on);
	turn_until_done(2 * FILES);
	for (unsigned i = 0; i < 2 * FILES; i++) {
		assert_done(&hung[i], BLOCK);
		close(files[i]);
	}
}

/* ---- a helper that finds no slot ---- */

static atomic_uint times_without_slot; /* the core's and the helper's */

static long
have_no_slot(io_context_t context, long count, struct iocb **iocbs)
{
	unsigned left = atomic_load(&times_without_slot);

	while (iocbs[0]->aio_lio_opcode == IO_CMD_PREAD && left > 0) {
		if (atomic_compare_exchange_weak(&times_without_slot, &left, left - 1))
			return -EAGAIN;
	}
	return kernel_submit_unchanged(context, count, iocbs);
}

Test(reactor_nowait_hung, a_helper_that_finds_no_slot_tries_again)
{
	static struct test_op test_ops[BLOCKS];
	int fd = open_file();

	times_without_slot = 3;
	submit_fault = have_no_slot;
	learn_refusals();
	for (unsigned i = 0; i < BLOCKS; i++)
		submit_nowait(&test_ops[i], fd, false, i);
	turn_until_done(BLOCKS);
	for (unsigned i = 0; i < BLOCKS; i++)
		assert_done(&test_ops[i], BLOCK);
	cr_assert_eq(times_without_slot, 0);
	cr_assert_geq(reactor_counters(reactor)->no_slot, 3);
	cr_assert_eq(reactor_free_slots(reactor, OP_KIND_DISK), BLOCKS);
	close(fd);
}
