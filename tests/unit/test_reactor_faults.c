/* reactor/reactor.h with io_submit made to take less than it gets, or nothing, or to refuse; and with a host that has few
 * slots. */
#include "tests/unit/kernel_faults.h"
#include "tests/unit/reactor_fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

/* ---- creation ---- */

static void
create_reactor_with_host_slots(unsigned slots_max, unsigned disk_slots, unsigned poll_slots)
{
	context_slots_max = slots_max;
	create_reactor(disk_slots, poll_slots, 0);
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

/* The host has no more than so many slots: half as many of each kind are asked for until they fit. */
Test(reactor_create, makes_do_with_the_slots_there_are)
{
	create_reactor_with_host_slots(REACTOR_OWN_SLOTS + 1000 + 300, 1024, 256);
	cr_assert_eq(reactor_slots(reactor, OP_KIND_DISK), 1024);
	cr_assert_eq(reactor_slots(reactor, OP_KIND_POLL), 256);
	reactor_destroy(reactor);
	create_reactor_with_host_slots(REACTOR_OWN_SLOTS + 1024 + 255, 1024, 256);
	cr_assert_eq(reactor_slots(reactor, OP_KIND_DISK), 512);
	cr_assert_eq(reactor_slots(reactor, OP_KIND_POLL), 128);
	reactor_destroy(reactor);
	create_reactor_with_host_slots(REACTOR_OWN_SLOTS + 8 + REACTOR_SLOTS_MIN, 8, 5000);
	cr_assert_eq(reactor_slots(reactor, OP_KIND_DISK), 8);
	cr_assert_eq(reactor_slots(reactor, OP_KIND_POLL), REACTOR_SLOTS_MIN);
	reactor_destroy(reactor);
}

Test(reactor_create, too_few_slots_on_the_host_are_refused)
{
	const struct reactor_config config = { .disk_slots = 1024, .poll_slots = 8 };

	context_slots_max = REACTOR_OWN_SLOTS + REACTOR_SLOTS_MIN + 8 - 1;
	assert_create_fails(&config, -EAGAIN);
}

/* ---- operations ---- */

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
		refused = container_of(iocbs[0], struct op, iocb);
		return fault_error;
	}
	if (taken_max != 0 && count > taken_max)
		count = taken_max;
	return kernel_submit_unchanged(context, count, iocbs);
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
				    &fault_polls[i].op == refused ? -EOPNOTSUPP : POLLOUT);
		cr_assert_eq(reactor_counters(reactor)->ops_refused, faults);
		end_all();
	} while (faults > 0);
	cr_assert_gt(fault_call, FAULT_OPS / 7);
}

static void
stop_when_fired(struct timer *timer)
{
	(void)timer;
	reactor_stop(reactor);
}

/* As if the kernel had no memory for a while: the reactor looks again about once a millisecond. */
Test(reactor_faults, no_slot_for_long_is_no_reason_to_spin)
{
	struct timer timer;
	uint64_t started_ns, waited_ms, cpu_ns;

	fault_error = -EAGAIN;
	fault_period = UINT_MAX;
	submit_all();
	timer_init(&timer, stop_when_fired);
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
	timer_init(&timer, stop_when_fired);
	reactor_timer_start(reactor, &timer, 100 * MS);
	reactor_run(reactor);
	cr_assert_eq(submit_calls, 2);
	cr_assert_leq(reactor_counters(reactor)->sleeps, 10);
	end_all();
}

/* What found no slot is abandoned: there is nothing to try again, and nothing to wake up for. */
Test(reactor_faults, abandoned_after_a_refusal_the_reactor_sleeps)
{
	struct test_op test_op;
	struct timer timer;

	create_reactor(1, 1, 0);
	fault_error = -EAGAIN;
	fault_call = 1;
	submit_fault = submit_with_faults;
	submit_poll(&test_op, fault_pipe[0], POLLIN);
	reactor_turn(reactor);
	reactor_abandon(reactor, &test_op.op);
	timer_init(&timer, stop_when_fired);
	reactor_timer_start(reactor, &timer, 100 * MS);
	reactor_run(reactor);
	cr_assert_eq(submit_calls, 1);
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
