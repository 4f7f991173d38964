/* reactor/stream.h on real sockets: bytes both ways, waiting, trying unasked, giving up, and the orderly end.
 * The test turns the reactor itself. */
#include "reactor/stream.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MS	    ((uint64_t)1000000)
#define PATIENCE_NS (20000 * MS)

static struct reactor *reactor;
static struct stream stream;
static int own, peer;
static char buffer[64];
static struct iovec part;
static unsigned received_count, sent_count, closed_count;
static ssize_t received, sent;

static void
on_received(struct stream *which, ssize_t result)
{
	cr_assert_eq(which, &stream);
	cr_assert_not(stream_receiving(&stream));
	received_count++;
	received = result;
}

static void
on_sent(struct stream *which, ssize_t result)
{
	cr_assert_eq(which, &stream);
	cr_assert_not(stream_sending(&stream));
	sent_count++;
	sent = result;
}

static void
on_closed(struct stream *which)
{
	cr_assert_eq(which, &stream);
	closed_count++;
}

static void
start(unsigned socket_batch_min)
{
	const struct reactor_config config = {
		.disk_slots = 4,
		.poll_slots = 4,
		.socket_batch_min = socket_batch_min,
	};
	int fds[2];

	signal(SIGPIPE, SIG_IGN);
	cr_assert_eq(reactor_create(&config, &reactor), 0);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	own = fds[0];
	peer = fds[1];
	stream.on_received = on_received;
	stream.on_sent = on_sent;
	stream.on_closed = on_closed;
	stream_init(&stream, reactor, NULL, own);
}

static void
setup(void)
{
	start(0);
}

static void
turn_until(const unsigned *count, unsigned value)
{
	uint64_t until_ns = kernel_clock_ns() + PATIENCE_NS;

	while (*count < value) {
		cr_assert_lt(kernel_clock_ns(), until_ns);
		(void)reactor_turn(reactor);
	}
	cr_assert_eq(*count, value);
}

static void
turn_for_a_while(void)
{
	uint64_t until_ns = kernel_clock_ns() + 20 * MS;

	while (kernel_clock_ns() < until_ns)
		(void)reactor_turn(reactor);
}

static void
teardown(void)
{
	stream_close(&stream);
	turn_until(&closed_count, 1);
	turn_for_a_while();
	cr_assert_eq(closed_count, 1);
	for (unsigned i = 0; i < 500 && reactor_free_slots(reactor, OP_KIND_POLL) < 4; i++)
		turn_for_a_while();
	/* Its event was dropped, and its slot is free again. */
	cr_assert_eq(reactor_free_slots(reactor, OP_KIND_POLL), 4);
	(void)close(peer);
	reactor_destroy(reactor);
}

static void
setup_batches(void)
{
	start(1);
}

TestSuite(stream, .init = setup, .fini = teardown, .timeout = 60);
TestSuite(stream_batches, .init = setup_batches, .fini = teardown, .timeout = 60);

static void
receive(size_t bytes)
{
	part = (struct iovec){ buffer, bytes };
	memset(buffer, 0, sizeof(buffer));
	stream_receive(&stream, &part, 1);
}

static void
peer_writes(const char *text)
{
	cr_assert_eq(write(peer, text, strlen(text)), (ssize_t)strlen(text));
}

/* Receive TEXT, which is written while the stream waits. */
static void
receive_late(const char *text)
{
	unsigned before = received_count;

	receive(sizeof(buffer));
	turn_for_a_while();
	cr_assert_eq(received_count, before);
	peer_writes(text);
	turn_until(&received_count, before + 1);
	cr_assert_eq(received, (ssize_t)strlen(text));
	cr_assert_str_eq(buffer, text);
}

/* Receive TEXT, which is there already. */
static void
receive_now(const char *text)
{
	unsigned before = received_count;

	peer_writes(text);
	receive(sizeof(buffer));
	cr_assert_eq(received_count, before);
	turn_until(&received_count, before + 1);
	cr_assert_eq(received, (ssize_t)strlen(text));
	cr_assert_str_eq(buffer, text);
}

Test(stream, receives_what_is_there)
{
	receive_now("hello");
}

Test(stream, receives_what_comes_later)
{
	receive_late("first");
	receive_late("second");
	receive_late("third");
}

Test(stream, receives_in_parts)
{
	char first[3] = "", second[8] = "";
	struct iovec parts[2] = { { first, 2 }, { second, 7 } };

	peer_writes("hello");
	stream_receive(&stream, parts, 2);
	turn_until(&received_count, 1);
	cr_assert_eq(received, 5);
	cr_assert_str_eq(first, "he");
	cr_assert_str_eq(second, "llo");
}

Test(stream, receives_no_more_than_asked_for)
{
	peer_writes("hello");
	receive(2);
	turn_until(&received_count, 1);
	cr_assert_eq(received, 2);
	receive(sizeof(buffer));
	turn_until(&received_count, 2);
	cr_assert_eq(received, 3);
	cr_assert_str_eq(buffer, "llo");
}

Test(stream, sends_parts)
{
	struct iovec parts[2] = { { (void *)(uintptr_t) "ab", 2 },
				  { (void *)(uintptr_t) "cde", 3 } };
	char got[8] = "";

	stream_send(&stream, parts, 2);
	cr_assert(stream_sending(&stream));
	turn_until(&sent_count, 1);
	cr_assert_eq(sent, 5);
	cr_assert_eq(read(peer, got, sizeof(got)), 5);
	cr_assert_str_eq(got, "abcde");
}

Test(stream, sends_a_part_of_what_does_not_fit_and_waits_with_the_rest)
{
	static char many[1 << 20], got[1 << 20];
	struct iovec all = { many, sizeof(many) };
	size_t first, read_bytes = 0;
	ssize_t count;

	memset(many, 'x', sizeof(many));
	stream_send(&stream, &all, 1);
	turn_until(&sent_count, 1);
	cr_assert_gt(sent, 0);
	cr_assert_lt((size_t)sent, sizeof(many));
	first = (size_t)sent;
	all = (struct iovec){ many, 1 };
	stream_send(&stream, &all, 1);
	turn_for_a_while();
	cr_assert_eq(sent_count, 1);
	while ((count = read(peer, got, sizeof(got))) > 0)
		read_bytes += (size_t)count;
	cr_assert_eq(read_bytes, first);
	turn_until(&sent_count, 2);
	cr_assert_eq(sent, 1);
}

/* TEXT in a pipe, whose end for reading this returns. */
static int
pipe_of(const char *text)
{
	int fds[2];

	cr_assert_eq(pipe2(fds, O_NONBLOCK), 0);
	cr_assert_eq(write(fds[1], text, strlen(text)), (ssize_t)strlen(text));
	(void)close(fds[1]);
	return fds[0];
}

static void
send_parts_and_pipe(void)
{
	struct iovec parts[2] = { { (void *)(uintptr_t) "ab", 2 },
				  { (void *)(uintptr_t) "cde", 3 } };
	int pipe_fd = pipe_of("fghij");
	char got[16] = "";

	stream_send_piped(&stream, parts, 2, pipe_fd, 4);
	cr_assert(stream_sending(&stream));
	cr_assert_eq(sent_count, 0);
	turn_until(&sent_count, 1);
	cr_assert_eq(sent, 9);
	stream_send_piped(&stream, NULL, 0, pipe_fd, 1);
	turn_until(&sent_count, 2);
	cr_assert_eq(sent, 1);
	/* And nothing of it stays behind. */
	stream_send(&stream, parts, 1);
	turn_until(&sent_count, 3);
	cr_assert_eq(sent, 2);
	cr_assert_eq(read(peer, got, sizeof(got)), 12);
	cr_assert_str_eq(got, "abcdefghijab");
	(void)close(pipe_fd);
}

Test(stream, sends_parts_and_what_is_in_a_pipe)
{
	send_parts_and_pipe();
}

Test(stream_batches, send_what_is_in_a_pipe_as_well)
{
	send_parts_and_pipe();
}

/* The peer reads nothing until the socket is full; then each byte comes once. */
static void
send_much_from_pipe(void)
{
	static char got[1 << 16];
	size_t wanted = 0, read_bytes = 0;
	ssize_t count;
	int fds[2];

	cr_assert_eq(pipe2(fds, O_NONBLOCK), 0);
	while (sent_count == 0 || sent_count * sizeof(buffer) == wanted) {
		unsigned before = sent_count;

		memset(buffer, 'a' + (int)(before % 26), sizeof(buffer));
		cr_assert_eq(write(fds[1], buffer, sizeof(buffer)), (ssize_t)sizeof(buffer));
		wanted += sizeof(buffer);
		stream_send_piped(&stream, NULL, 0, fds[0], sizeof(buffer));
		turn_for_a_while();
	}
	cr_assert(stream_sending(&stream));
	for (;;) {
		while ((count = read(peer, got, sizeof(got))) > 0)
			for (ssize_t i = 0; i < count; i++, read_bytes++)
				cr_assert_eq(got[i], 'a' + (int)(read_bytes / sizeof(buffer) % 26));
		if (read_bytes == wanted)
			break;
		turn_for_a_while();
	}
	cr_assert_not(stream_sending(&stream));
	(void)close(fds[0]);
	(void)close(fds[1]);
}

Test(stream, waits_with_what_is_in_a_pipe_while_there_is_no_room)
{
	send_much_from_pipe();
}

Test(stream_batches, wait_with_what_is_in_a_pipe_while_there_is_no_room)
{
	send_much_from_pipe();
}

Test(stream, sending_a_pipe_to_a_closed_peer_is_an_error_and_no_signal)
{
	struct iovec out = { (void *)(uintptr_t) "x", 1 };
	int pipe_fd = pipe_of("yz");

	(void)close(peer);
	stream_send_piped(&stream, &out, 1, pipe_fd, 2);
	turn_until(&sent_count, 1);
	cr_assert_eq(sent, -EPIPE);
	stream_send_piped(&stream, NULL, 0, pipe_fd, 2);
	turn_until(&sent_count, 2);
	cr_assert_eq(sent, -EPIPE);
	peer = -1;
	(void)close(pipe_fd);
}

Test(stream, both_directions_at_once)
{
	struct iovec out = { (void *)(uintptr_t) "pong", 4 };

	receive(sizeof(buffer));
	stream_send(&stream, &out, 1);
	turn_until(&sent_count, 1);
	cr_assert(stream_receiving(&stream));
	peer_writes("ping");
	turn_until(&received_count, 1);
	cr_assert_str_eq(buffer, "ping");
}

Test(stream, end_of_the_peer_is_zero_bytes)
{
	receive(sizeof(buffer));
	turn_for_a_while();
	cr_assert_eq(shutdown(peer, SHUT_WR), 0);
	turn_until(&received_count, 1);
	cr_assert_eq(received, 0);
}

Test(stream, sending_to_a_closed_peer_is_an_error_and_no_signal)
{
	struct iovec out = { (void *)(uintptr_t) "x", 1 };

	(void)close(peer);
	stream_send(&stream, &out, 1);
	turn_until(&sent_count, 1);
	cr_assert_eq(sent, -EPIPE);
	peer = -1;
}

/* The same through io_submit, where no flag keeps the signal away. */
Test(stream_batches, sending_to_a_closed_peer_is_an_error)
{
	struct iovec out = { (void *)(uintptr_t) "x", 1 };

	(void)close(peer);
	stream_send(&stream, &out, 1);
	turn_until(&sent_count, 1);
	cr_assert_eq(sent, -EPIPE);
	cr_assert_eq(reactor_counters(reactor)->ops_direct, 0);
	peer = -1;
}

Test(stream_batches, move_the_same_bytes)
{
	struct iovec parts[2] = { { (void *)(uintptr_t) "ab", 2 },
				  { (void *)(uintptr_t) "cde", 3 } };
	char got[8] = "";

	receive_late("late");
	receive_now("now");
	stream_send(&stream, parts, 2);
	turn_until(&sent_count, 1);
	cr_assert_eq(sent, 5);
	cr_assert_eq(read(peer, got, sizeof(got)), 5);
	cr_assert_str_eq(got, "abcde");
	cr_assert_eq(reactor_counters(reactor)->ops_direct, 0);
}

/* While the reactor never rests, what comes is found by trying, and no poll is armed. */
Test(stream, a_hot_stream_arms_no_poll)
{
	uint64_t submitted;

	for (unsigned i = 0; i < 5; i++)
		receive_now("warm");
	submitted = reactor_counters(reactor)->ops_submitted;
	for (unsigned i = 0; i < 100; i++)
		receive_now("hot");
	cr_assert_eq(reactor_counters(reactor)->ops_submitted, submitted);
}

static void
rest(void)
{
	(void)reactor_wait(reactor, 1000, 1000, 3 * MS);
}

/* One whose data comes while the reactor rests is not tried in vain. */
Test(stream, a_slow_stream_is_not_tried_in_vain)
{
	uint64_t direct;

	for (unsigned i = 0; i < 5; i++)
		receive_now("warm");
	for (unsigned i = 0; i < 10; i++) {
		unsigned before = received_count;

		direct = reactor_counters(reactor)->ops_direct;
		receive(sizeof(buffer));
		rest();
		peer_writes("cold");
		turn_until(&received_count, before + 1);
	}
	/* The last one was tried once, when it was there. */
	cr_assert_eq(reactor_counters(reactor)->ops_direct, direct + 1);
}

/* A receive behind a send waits for what the peer says to that. */
Test(stream, a_hot_stream_receives_after_it_has_sent)
{
	struct iovec out = { (void *)(uintptr_t) "ping", 4 };
	char got[8] = "";

	for (unsigned i = 0; i < 5; i++)
		receive_now("warm");
	stream_send(&stream, &out, 1);
	receive(sizeof(buffer));
	turn_until(&sent_count, 1);
	cr_assert_eq(read(peer, got, sizeof(got)), 4);
	peer_writes("pong");
	turn_until(&received_count, 6);
	cr_assert_str_eq(buffer, "pong");
}

Test(stream, abandoned_transfers_are_not_told)
{
	struct iovec out = { (void *)(uintptr_t) "x", 1 };

	receive(sizeof(buffer));
	turn_for_a_while();
	stream_send(&stream, &out, 1);
	stream_abandon(&stream);
	cr_assert_not(stream_receiving(&stream));
	cr_assert_not(stream_sending(&stream));
	peer_writes("late");
	turn_for_a_while();
	cr_assert_eq(received_count + sent_count, 0);
	cr_assert_eq(buffer[0], 0);
}

Test(stream, closing_ends_an_armed_poll_and_tells_the_peer)
{
	char byte;

	receive(sizeof(buffer));
	turn_for_a_while();
	stream_close(&stream);
	stream_close(&stream);
	cr_assert_eq(closed_count, 0);
	turn_until(&closed_count, 1);
	cr_assert_eq(received_count, 0);
	cr_assert_eq(read(peer, &byte, 1), 0);
	cr_assert_eq(fcntl(own, F_GETFD), -1);
}

Test(stream, ended_sending_is_seen_by_the_peer_while_receiving_goes_on)
{
	char byte;

	stream_end_sending(&stream);
	cr_assert_eq(read(peer, &byte, 1), 0);
	cr_assert_eq(stream_unsent_bytes(&stream), 0);
	receive_late("still");
}
