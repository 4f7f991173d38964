/* reactor/reactor.h with more operations than slots: the kernel never has more than there are slots, what waits is done
 * in the end, and neither the disk nor the polls take what belongs to the other.  Each test makes its reactor. */
#include "tests/unit/reactor_fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <unistd.h>

TestSuite(reactor_limits, .fini = reactor_fixture_fini, .timeout = 60);

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
