/* reactor/reactor.h on the real kernel: receives and sends on sockets, whether each is a system call of its own or all
 * are part of one io_submit.  Most tests are run both ways. */
#include "tests/unit/reactor_fixture.h"

#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* socket_batch_min: every operation is above it, or none is. */
#define BATCHED	 1
#define DIRECTLY UINT_MAX

static int fds[2]; /* a pair of sockets: the reactor's, and its peer's */

static void
create_with_batch_min(unsigned socket_batch_min)
{
	const struct reactor_config config = {
		.disk_slots = DISK_SLOTS,
		.poll_slots = POLL_SLOTS,
		.socket_batch_min = socket_batch_min,
	};

	cr_assert_eq(reactor_create(&config, &reactor), 0);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
	signal(SIGPIPE, SIG_IGN);
}

static void
end(void)
{
	close_pipe(fds);
	reactor_destroy(reactor);
}

static void
submit_receive(struct test_op *test_op, struct iovec *parts, unsigned part_count)
{
	test_op_init(test_op);
	op_receive(&test_op->op, fds[0], parts, part_count);
	submit(test_op);
}

static void
submit_send(struct test_op *test_op, struct iovec *parts, unsigned part_count)
{
	test_op_init(test_op);
	op_send(&test_op->op, fds[0], parts, part_count);
	submit(test_op);
}

TestSuite(reactor_socket, .timeout = 60);

/* Criterion's parameterized tests fork per parameter. */
#define BOTH_WAYS(name)                                         \
	ParameterizedTestParameters(reactor_socket, name)       \
	{                                                       \
		static unsigned ways[] = { BATCHED, DIRECTLY }; \
                                                                \
		return cr_make_param_array(unsigned, ways, 2);  \
	}                                                       \
	static void name(void);                                 \
	ParameterizedTest(unsigned *way, reactor_socket, name)  \
	{                                                       \
		create_with_batch_min(*way);                    \
		name();                                         \
		end();                                          \
	}                                                       \
	static void name(void)

BOTH_WAYS(receive_gets_what_was_sent)
{
	struct test_op test_op;
	struct iovec part = { buffers[0], 100 };

	cr_assert_eq(send(fds[1], "hello", 5, 0), 5);
	submit_receive(&test_op, &part, 1);
	turn_until_done(1);
	assert_done(&test_op, 5);
	cr_assert_arr_eq(buffers[0], "hello", 5);
}

BOTH_WAYS(send_reaches_the_peer)
{
	struct test_op test_op;
	char bytes[8] = "goodbye", got[8];
	struct iovec part = { bytes, sizeof(bytes) };

	submit_send(&test_op, &part, 1);
	turn_until_done(1);
	assert_done(&test_op, sizeof(bytes));
	cr_assert_eq(recv(fds[1], got, sizeof(got), 0), sizeof(got));
	cr_assert_arr_eq(got, bytes, sizeof(got));
}

BOTH_WAYS(done_in_the_turn_that_asks)
{
	struct test_op test_op;
	struct iovec part = { buffers[0], 1 };

	write_byte(fds[1]);
	submit_receive(&test_op, &part, 1);
	cr_assert(reactor_turn(reactor));
	assert_done(&test_op, 1);
}

BOTH_WAYS(receive_from_an_empty_socket_does_not_wait)
{
	struct test_op test_op;
	struct iovec part = { buffers[0], 1 };

	for (unsigned i = 1; i <= 3; i++) {
		submit_receive(&test_op, &part, 1);
		turn_until_done(i);
		assert_done(&test_op, -EAGAIN);
	}
}

BOTH_WAYS(send_to_a_full_socket_is_short_then_again)
{
	static char more_than_fits[4 << 20];
	struct iovec part = { more_than_fits, sizeof(more_than_fits) };
	struct test_op test_op;
	long sent;

	submit_send(&test_op, &part, 1);
	turn_until_done(1);
	cr_assert_eq(test_op.done_count, 1);
	sent = test_op.result;
	cr_assert(sent > 0 && sent < (long)sizeof(more_than_fits), "sent %ld", sent);
	/* Room for less than a packet may be left. */
	for (unsigned i = 2; test_op.result > 0; i++) {
		submit_send(&test_op, &part, 1);
		turn_until_done(i);
		sent += test_op.result > 0 ? test_op.result : 0;
	}
	assert_done(&test_op, -EAGAIN);
	while (sent > 0) {
		ssize_t got = recv(fds[1], more_than_fits, sizeof(more_than_fits), 0);

		cr_assert_gt(got, 0);
		sent -= got;
	}
	cr_assert_eq(recv(fds[1], more_than_fits, 1, 0), -1);
}

BOTH_WAYS(receive_behind_the_end_is_0)
{
	struct iovec part = { buffers[0], 10 };
	struct test_op test_op;

	write_byte(fds[1]);
	cr_assert_eq(shutdown(fds[1], SHUT_WR), 0);
	submit_receive(&test_op, &part, 1);
	turn_until_done(1);
	assert_done(&test_op, 1);
	submit_receive(&test_op, &part, 1);
	turn_until_done(2);
	assert_done(&test_op, 0);
}

/* With SIGPIPE ignored, as op.h asks for: io_submit would raise it. */
BOTH_WAYS(send_to_a_closed_peer_is_epipe)
{
	struct iovec part = { buffers[0], 10 };
	struct test_op test_op;

	close(fds[1]);
	submit_send(&test_op, &part, 1);
	turn_until_done(1);
	assert_done(&test_op, -EPIPE);
	fds[1] = dup(fds[0]);
}

BOTH_WAYS(parts_are_filled_one_after_the_other)
{
	struct iovec parts[] = { { buffers[0], 3 }, { buffers[1], 1 }, { buffers[2], 10 } };
	struct test_op test_op;

	cr_assert_eq(send(fds[1], "abcdef", 6, 0), 6);
	submit_receive(&test_op, parts, 3);
	turn_until_done(1);
	assert_done(&test_op, 6);
	cr_assert_arr_eq(buffers[0], "abc", 4);
	cr_assert_arr_eq(buffers[1], "d", 2);
	cr_assert_arr_eq(buffers[2], "ef", 3);
}

BOTH_WAYS(parts_are_sent_one_after_the_other)
{
	char a[] = "abc", b[] = "d", c[] = "efg", got[8];
	struct iovec parts[] = { { a, 3 }, { b, 1 }, { c, 3 } };
	struct test_op test_op;

	submit_send(&test_op, parts, 3);
	turn_until_done(1);
	assert_done(&test_op, 7);
	cr_assert_eq(recv(fds[1], got, sizeof(got), 0), 7);
	cr_assert_arr_eq(got, "abcdefg", 7);
}

/* As many parts as one operation may have. */
BOTH_WAYS(a_thousand_parts_in_one_send)
{
	static char bytes[1024], got[1025];
	static struct iovec parts[1024];
	struct test_op test_op;

	for (unsigned i = 0; i < 1024; i++) {
		bytes[i] = (char)i;
		parts[i] = (struct iovec){ &bytes[i], 1 };
	}
	submit_send(&test_op, parts, 1024);
	turn_until_done(1);
	assert_done(&test_op, 1024);
	cr_assert_eq(recv(fds[1], got, sizeof(got), 0), 1024);
	cr_assert_arr_eq(got, bytes, 1024);
}

/* A socket that is none fails alone. */
BOTH_WAYS(bad_fd_fails_alone)
{
	struct test_op receives[3];
	struct iovec parts[3];

	write_byte(fds[1]);
	write_byte(fds[1]);
	for (unsigned i = 0; i < 3; i++) {
		parts[i] = (struct iovec){ buffers[i], 1 };
		test_op_init(&receives[i]);
		op_receive(&receives[i].op, i == 1 ? -1 : fds[0], &parts[i], 1);
		submit(&receives[i]);
	}
	turn_until_done(3);
	assert_done(&receives[0], 1);
	assert_done(&receives[1], -EBADF);
	assert_done(&receives[2], 1);
}

BOTH_WAYS(a_pipe_can_be_received_from_and_sent_to)
{
	struct iovec out = { buffers[0], 3 }, in[2] = { { buffers[1], 2 }, { buffers[2], 2 } };
	struct test_op test_op;
	int pipe_fds[2];

	make_pipe(pipe_fds);
	memcpy(buffers[0], "xyz", 3);
	test_op_init(&test_op);
	op_send(&test_op.op, pipe_fds[1], &out, 1);
	submit(&test_op);
	turn_until_done(1);
	assert_done(&test_op, 3);
	test_op_init(&test_op);
	op_receive(&test_op.op, pipe_fds[0], in, 2);
	submit(&test_op);
	turn_until_done(2);
	assert_done(&test_op, 3);
	cr_assert_arr_eq(buffers[1], "xy", 3);
	cr_assert_arr_eq(buffers[2], "z", 2);
	test_op_init(&test_op);
	op_receive(&test_op.op, pipe_fds[0], in, 1);
	submit(&test_op);
	turn_until_done(3);
	assert_done(&test_op, -EAGAIN);
	close_pipe(pipe_fds);
}

/* Over TCP, with the connection reset under the reactor. */
BOTH_WAYS(reset_is_told)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t bytes = sizeof(address);
	const struct linger reset = { .l_onoff = 1 };
	struct iovec part = { buffers[0], 10 };
	struct test_op test_op;
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), peer;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	cr_assert_eq(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	cr_assert_eq(listen(listener, 1), 0);
	cr_assert_eq(getsockname(listener, (struct sockaddr *)&address, &bytes), 0);
	close(fds[0]);
	fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert_eq(connect(fds[0], (struct sockaddr *)&address, sizeof(address)), 0);
	peer = accept(listener, NULL, NULL);
	cr_assert_geq(peer, 0);
	cr_assert_eq(setsockopt(peer, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset)), 0);
	close(peer);
	submit_receive(&test_op, &part, 1);
	turn_until_done(1);
	assert_done(&test_op, -ECONNRESET);
	close(listener);
}

/* ---- which way is taken ---- */

#define MANY 300 /* more than one batch's slots for sockets */

static struct iovec many_parts[MANY];
static struct test_op many[MANY];

/* COUNT receives of a byte each, submitted in one turn, get the bytes in order. */
static void
receive_many(unsigned count)
{
	char bytes[MANY];

	for (unsigned i = 0; i < count; i++)
		bytes[i] = (char)i;
	cr_assert_eq(send(fds[1], bytes, count, 0), count);
	for (unsigned i = 0; i < count; i++) {
		many_parts[i] = (struct iovec){ &buffers[0][i], 1 };
		submit_receive(&many[i], &many_parts[i], 1);
	}
	done_total = 0;
	turn_until_done(count);
	for (unsigned i = 0; i < count; i++) {
		assert_done(&many[i], 1);
		cr_assert_eq(buffers[0][i], (char)i);
	}
}

Test(reactor_socket, few_are_system_calls_of_their_own)
{
	const struct reactor_counters *counters;
	struct reactor_counters before;

	create_with_batch_min(8);
	reactor_turn(reactor);
	counters = reactor_counters(reactor);
	before = *counters;
	receive_many(7);
	cr_assert_eq(counters->ops_direct, before.ops_direct + 7);
	cr_assert_eq(counters->ops_submitted, before.ops_submitted);
	cr_assert_eq(counters->submit_calls, before.submit_calls);
	end();
}

Test(reactor_socket, many_are_one_submit)
{
	const struct reactor_counters *counters;
	struct reactor_counters before;

	create_with_batch_min(8);
	reactor_turn(reactor);
	counters = reactor_counters(reactor);
	before = *counters;
	receive_many(8);
	cr_assert_eq(counters->ops_direct, before.ops_direct);
	cr_assert_eq(counters->ops_submitted, before.ops_submitted + 8);
	cr_assert_eq(counters->submit_calls, before.submit_calls + 1);
	end();
}

Test(reactor_socket, any_number_is_few_by_default)
{
	create_with_batch_min(0);
	receive_many(8);
	cr_assert_eq(reactor_counters(reactor)->ops_direct, 8);
	end();
}

/* More than there are slots for them: the rest is submitted in the turns behind. */
Test(reactor_socket, more_than_the_slots_keep_their_order)
{
	create_with_batch_min(BATCHED);
	receive_many(MANY);
	cr_assert_eq(reactor_free_slots(reactor, OP_KIND_SOCKET),
		     reactor_slots(reactor, OP_KIND_SOCKET));
	end();
}

Test(reactor_socket, priority_is_kept_on_both_ways)
{
	for (unsigned i = 0; i < 2; i++) {
		create_with_batch_min(i == 0 ? BATCHED : DIRECTLY);
		cr_assert_eq(send(fds[1], "ab", 2, 0), 2);
		for (unsigned j = 0; j < 2; j++) {
			many_parts[j] = (struct iovec){ &buffers[0][j], 1 };
			test_op_init(&many[j]);
			op_receive(&many[j].op, fds[0], &many_parts[j], 1);
			many[j].op.priority = j == 0 ? PRIORITY_BACKGROUND : PRIORITY_LATENCY;
			submit(&many[j]);
		}
		done_total = 0;
		turn_until_done(2);
		cr_assert_eq(buffers[0][1], 'a');
		cr_assert_eq(buffers[0][0], 'b');
		cr_assert_eq(reactor_counters(reactor)->ops_done[PRIORITY_LATENCY], 1);
		cr_assert_eq(reactor_counters(reactor)->ops_done[PRIORITY_BACKGROUND], 1);
		end();
	}
}
