/* reactor/reactor.h: what of lower classes may come before an answer of the latency class: nothing but what the core is at.
 *
 * A byte comes at a random moment of a flood: while a lower operation is called, or while io_submit takes some.  The latency
 * class's poll sees it, a receive takes it and a send answers.  All of it is one thread, so what ran in between can be counted,
 * on a machine that is as busy as it likes; how long it takes is for test_reactor_priority.c. */
#include "tests/unit/kernel_faults.h"
#include "tests/unit/reactor_fixture.h"
#include "tests/unit/seed.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define FLOOD_CALLS 100
#define FLOOD_READS 16
#define PINGS	    2000
#define APART	    300	     /* units between two pings, at most */
#define BUSY_NS	    (MS / 2) /* less than what the reactor goes by */

static int fds[2], file; /* fds: the reactor's, and the peer's */
static struct op ping_poll, ping_receive, ping_send, calls[FLOOD_CALLS], reads[FLOOD_READS];
static char byte;
static struct iovec part = { &byte, 1 };
static bool flooding, asked; /* asked: the byte is written, and not answered */
static unsigned flood_active, asked_unit, apart, answers, batch_largest;
static unsigned units,
	later_most;	     /* of the flood so far; behind a byte's, before its answer, at most */
static uint64_t received_ns; /* one call of the latency class comes behind it */
static unsigned short chance[3];

/* The core is at a unit of the flood: a call, or an io_submit.  The poll that is to see the byte may be in a batch with a read. */
static void
unit(void)
{
	units++;
	if (asked || answers == PINGS || units - asked_unit < apart || op_waits(&ping_poll))
		return;
	asked = true;
	asked_unit = units;
	write_byte(fds[1]);
}

static void
ping_again(void)
{
	op_poll(&ping_poll, fds[0], POLLIN);
	reactor_start(reactor, &ping_poll);
}

static void
ping_polled(struct op *op, long result)
{
	(void)op;
	(void)result;
	op_receive(&ping_receive, fds[0], &part, 1);
	reactor_start(reactor, &ping_receive);
}

static void
ping_received(struct op *op, long result)
{
	(void)op;
	cr_assert_eq(result, 1);
	received_ns = kernel_clock_ns();
	op_send(&ping_send, fds[0], &part, 1);
	reactor_start(reactor, &ping_send);
}

static void
ping_sent(struct op *op, long result)
{
	(void)op;
	cr_assert_eq(result, 1);
	read_byte(fds[1]);
	if (units - asked_unit > later_most)
		later_most = units - asked_unit;
	answers++;
	asked = false;
	apart = 1 + (unsigned)nrand48(chance) % APART;
	ping_again();
}

static void
call_again(struct op *op, long result)
{
	(void)result;
	unit();
	flood_active -= !flooding;
	if (flooding)
		reactor_complete(reactor, op, 0);
}

static void
read_again(struct op *op, long result)
{
	unsigned i = (unsigned)(op - reads);

	cr_assert_eq(result, BLOCK);
	unit();
	flood_active -= !flooding;
	if (!flooding)
		return;
	op_read(op, file, buffers[i], BLOCK, i * BLOCK);
	reactor_start(reactor, op);
}

/* A batch with reads of the flood is a unit, in the middle of which the byte may come. */
static long
submit_watched(io_context_t context, long count, struct iocb **iocbs)
{
	unsigned lower = 0;

	for (long i = 0; i < count; i++)
		lower += iocbs[i]->aio_lio_opcode == IO_CMD_PREAD;
	if (lower > 0)
		unit();
	if (kernel_clock_ns() - received_ns < BUSY_NS && lower > batch_largest)
		batch_largest = lower;
	return kernel_submit_unchanged(context, count, iocbs);
}

static void
init_op(struct op *op, void (*done)(struct op *op, long result), enum priority class)
{
	op_init(op, done);
	op->priority = class;
}

static void start_flood(enum priority class)
{
	flooding = true;
	flood_active = FLOOD_CALLS + FLOOD_READS;
	for (unsigned i = 0; i < FLOOD_CALLS; i++) {
		init_op(&calls[i], call_again, class);
		reactor_complete(reactor, &calls[i], 0);
	}
	for (unsigned i = 0; i < FLOOD_READS; i++) {
		init_op(&reads[i], read_again, class);
		op_read(&reads[i], file, buffers[i], BLOCK, i * BLOCK);
		reactor_start(reactor, &reads[i]);
	}
}

static void assert_nothing_before_the_answer(enum priority class)
{
	uint64_t seed = test_seed();

	chance[0] = (unsigned short)seed;
	chance[1] = (unsigned short)(seed >> 16);
	apart = 1;
	create_reactor(64, POLL_SLOTS, 0);
	submit_fault = submit_watched;
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
	file = open_file();
	init_op(&ping_poll, ping_polled, PRIORITY_LATENCY);
	init_op(&ping_receive, ping_received, PRIORITY_LATENCY);
	init_op(&ping_send, ping_sent, PRIORITY_LATENCY);
	ping_again();
	start_flood(class);
	while (answers < PINGS)
		reactor_turn(reactor);
	flooding = false;
	while (flood_active > 0)
		reactor_turn(reactor);
	cr_assert_eq(later_most, 0, "%u calls or batches before the answer", later_most);
	cr_assert_leq(batch_largest, 1, "%u in one io_submit", batch_largest);
	submit_fault = NULL;
	reactor_destroy(reactor);
	close_pipe(fds);
	close(file);
}

TestSuite(reactor_urgent, .timeout = 60);

Test(reactor_urgent, nothing_of_a_background_flood_comes_before_an_answer)
{
	assert_nothing_before_the_answer(PRIORITY_BACKGROUND);
}

Test(reactor_urgent, nothing_of_a_normal_flood_comes_before_an_answer)
{
	assert_nothing_before_the_answer(PRIORITY_NORMAL);
}

/* The ping is always ready, and still the flood goes on. */
static void
complete_again(struct op *op, long result)
{
	if (flooding)
		reactor_complete(reactor, op, result);
}

Test(reactor_urgent, a_flood_of_the_latency_class_starves_no_read)
{
	static struct op ops[FLOOD_CALLS];
	struct test_op read;

	create_reactor(64, POLL_SLOTS, 0);
	file = open_file();
	flooding = true;
	for (unsigned i = 0; i < FLOOD_CALLS; i++) {
		init_op(&ops[i], complete_again, PRIORITY_LATENCY);
		reactor_complete(reactor, &ops[i], 0);
	}
	for (unsigned i = 0; i < 3; i++)
		reactor_turn(reactor);
	submit_read(&read, file, buffers[0], BLOCK, 0);
	read.op.priority = PRIORITY_BACKGROUND;
	for (unsigned i = 0; i < 17; i++)
		reactor_turn(reactor);
	cr_assert_not(op_waits(&read.op));
	while (read.done_count == 0)
		reactor_turn(reactor);
	assert_done(&read, BLOCK);
	flooding = false;
	turn_until_idle();
	reactor_destroy(reactor);
	close(file);
}

/* Sends, of which the first is what the latency class waits for; the others are lower. */
#define SENDS 4

static int sinks[SENDS][2];
static struct op sends[SENDS];
static char sent_bytes[SENDS];
static struct iovec sent_parts[SENDS];
static int sent_before; /* of the others, when the latency class was called */

static void
sent(struct op *op, long result)
{
	(void)op;
	cr_assert_eq(result, 1);
}

static void
count_sent(struct op *op, long result)
{
	(void)op;
	cr_assert(result & POLLIN);
	sent_before = 0;
	for (unsigned i = 1; i < SENDS; i++) {
		int bytes;

		cr_assert_eq(ioctl(sinks[i][1], FIONREAD, &bytes), 0);
		sent_before += bytes;
	}
}

/* How many others go before that is called, if the first one is of CLASS. */
static void
assert_sent_before(enum priority class, int expected)
{
	create_reactor(64, POLL_SLOTS, 0);
	sent_before = -1;
	for (unsigned i = 0; i < SENDS; i++)
		cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
					sinks[i]),
			     0);
	init_op(&ping_poll, count_sent, PRIORITY_LATENCY);
	op_poll(&ping_poll, sinks[0][1], POLLIN);
	reactor_start(reactor, &ping_poll);
	reactor_turn(reactor);
	for (unsigned i = 0; i < SENDS; i++) {
		sent_parts[i] = (struct iovec){ &sent_bytes[i], 1 };
		init_op(&sends[i], sent, i == 0 ? class : PRIORITY_NORMAL);
		op_send(&sends[i], sinks[i][0], &sent_parts[i], 1);
		reactor_start(reactor, &sends[i]);
	}
	turn_until_idle();
	cr_assert_eq(sent_before, expected, "%d others were sent first", sent_before);
	reactor_destroy(reactor);
	for (unsigned i = 0; i < SENDS; i++)
		close_pipe(sinks[i]);
}

Test(reactor_urgent, a_batch_of_sends_ends_where_the_latency_class_has_something)
{
	assert_sent_before(PRIORITY_NORMAL, 0);
}

/* Else who sends of the latency class in every turn would keep the others from ever sending. */
Test(reactor_urgent, one_lower_send_goes_whatever_the_latency_class_has)
{
	assert_sent_before(PRIORITY_LATENCY, 1);
}
