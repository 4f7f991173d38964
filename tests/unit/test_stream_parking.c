/* reactor/stream.h with a parking: more streams than slots for polls, and streams that are parked because they are idle.
 * The test turns the reactor itself. */
#include "reactor/stream.h"

#include <criterion/criterion.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define MS	    ((uint64_t)1000000)
#define PATIENCE_NS (20000 * MS)
#define STREAMS	    100
#define POLL_SLOTS  4

struct end {
	struct stream stream;
	int peer;
	char byte;
	struct iovec part;
	unsigned received_count, sent_count, awake_count, closed_count;
	ssize_t result;
};

static struct reactor *reactor;
static struct stream_parking parking;
static struct end ends[STREAMS];
static unsigned total, parking_stopped_count;

static struct end *
end_of(struct stream *stream)
{
	return container_of(stream, struct end, stream);
}

static void
on_received(struct stream *stream, ssize_t result)
{
	end_of(stream)->received_count++;
	end_of(stream)->result = result;
	total++;
}

static void
on_sent(struct stream *stream, ssize_t result)
{
	end_of(stream)->sent_count++;
	end_of(stream)->result = result;
	total++;
}

static void
on_awake(struct stream *stream)
{
	cr_assert_not(stream_receiving(stream));
	end_of(stream)->awake_count++;
	total++;
}

static void
on_closed(struct stream *stream)
{
	end_of(stream)->closed_count++;
	total++;
}

static void
on_parking_stopped(struct stream_parking *stopped)
{
	cr_assert_eq(stopped, &parking);
	parking_stopped_count++;
}

/* PASSCRED: the stream's end is told who has sent. */
static void
connect_end(struct end *end, int type, int passcred)
{
	int fds[2];

	cr_assert_eq(socketpair(AF_UNIX, type | SOCK_NONBLOCK, 0, fds), 0);
	cr_assert_eq(setsockopt(fds[0], SOL_SOCKET, SO_PASSCRED, &passcred, sizeof(passcred)), 0);
	end->peer = fds[1];
	stream_init(&end->stream, reactor, &parking, fds[0]);
}

static void
setup(void)
{
	const struct reactor_config config = { .disk_slots = 1, .poll_slots = POLL_SLOTS };

	signal(SIGPIPE, SIG_IGN);
	cr_assert_eq(reactor_create(&config, &reactor), 0);
	cr_assert_eq(stream_parking_start(&parking, reactor), 0);
	for (unsigned i = 0; i < STREAMS; i++) {
		ends[i].stream.on_received = on_received;
		ends[i].stream.on_sent = on_sent;
		ends[i].stream.on_awake = on_awake;
		ends[i].stream.on_closed = on_closed;
		connect_end(&ends[i], SOCK_STREAM, 0);
	}
}

static void
turn_until_total(unsigned value)
{
	uint64_t until_ns = kernel_clock_ns() + PATIENCE_NS;

	while (total < value) {
		cr_assert_lt(kernel_clock_ns(), until_ns, "%u of %u", total, value);
		(void)reactor_turn(reactor);
	}
	cr_assert_eq(total, value);
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
	unsigned open_count = 0;

	total = 0;
	for (unsigned i = 0; i < STREAMS; i++) {
		open_count += ends[i].closed_count == 0;
		stream_close(&ends[i].stream);
	}
	turn_until_total(open_count);
	stream_parking_stop(&parking, on_parking_stopped);
	turn_for_a_while();
	for (unsigned i = 0; i < 500 && (parking_stopped_count == 0 ||
					 reactor_free_slots(reactor, OP_KIND_POLL) < POLL_SLOTS);
	     i++)
		turn_for_a_while();
	cr_assert_eq(parking_stopped_count, 1);
	cr_assert_eq(reactor_free_slots(reactor, OP_KIND_POLL), POLL_SLOTS);
	for (unsigned i = 0; i < STREAMS; i++)
		(void)close(ends[i].peer);
	reactor_destroy(reactor);
}

TestSuite(stream_parking, .init = setup, .fini = teardown, .timeout = 60);

static void
receive(struct end *end)
{
	end->part = (struct iovec){ &end->byte, 1 };
	end->byte = 0;
	stream_receive(&end->stream, &end->part, 1);
}

static void
peer_writes(struct end *end, char byte)
{
	cr_assert_eq(write(end->peer, &byte, 1), 1);
}

static void
park(struct end *end)
{
	receive(end);
	turn_for_a_while();
	cr_assert(stream_park(&end->stream));
	end->part.iov_base = NULL; /* it is ours again */
}

Test(stream_parking, more_streams_than_slots_all_receive)
{
	for (unsigned round = 0; round < 5; round++) {
		total = 0;
		for (unsigned i = 0; i < STREAMS; i++)
			receive(&ends[i]);
		turn_for_a_while();
		cr_assert_eq(total, 0);
		/* Half of the slots are not theirs. */
		cr_assert_geq(reactor_free_slots(reactor, OP_KIND_POLL), POLL_SLOTS / 2);
		for (unsigned i = STREAMS; i-- > 0;)
			peer_writes(&ends[i], (char)(i + round));
		turn_until_total(STREAMS);
		for (unsigned i = 0; i < STREAMS; i++) {
			cr_assert_eq(ends[i].received_count, round + 1);
			cr_assert_eq(ends[i].byte, (char)(i + round));
		}
	}
}

Test(stream_parking, more_streams_than_slots_all_send)
{
	static char many[1 << 20], got[1 << 20];
	struct iovec part = { many, sizeof(many) };

	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < STREAMS; i++)
			stream_send(&ends[i].stream, &part, 1);
		if (round == 0)
			turn_until_total(STREAMS); /* a part of it, until the socket is full */
	}
	turn_for_a_while();
	cr_assert_eq(total, STREAMS);
	/* A quarter of the slots is not theirs. */
	cr_assert_geq(reactor_free_slots(reactor, OP_KIND_POLL), POLL_SLOTS / 4);
	for (unsigned i = 0; i < STREAMS; i++) {
		while (read(ends[i].peer, got, sizeof(got)) > 0)
			;
	}
	turn_until_total(2 * STREAMS);
	for (unsigned i = 0; i < STREAMS; i++) {
		cr_assert_eq(ends[i].sent_count, 2);
		cr_assert_gt(ends[i].result, 0);
	}
}

Test(stream_parking, of_many_that_send_in_the_background_any_can_go_on)
{
	static char many[1 << 20], got[1 << 20];
	struct iovec part = { many, sizeof(many) };

	for (unsigned i = 0; i < STREAMS; i++) {
		stream_set_priority(&ends[i].stream, PRIORITY_BACKGROUND);
		stream_send(&ends[i].stream, &part, 1);
	}
	turn_until_total(STREAMS); /* a part of it, until the socket is full */
	for (unsigned i = 0; i < STREAMS; i++)
		stream_send(&ends[i].stream, &part, 1);
	turn_for_a_while();
	cr_assert_eq(total, STREAMS);
	/* The first one's peer never reads. */
	for (unsigned i = 1; i < STREAMS; i++) {
		while (read(ends[i].peer, got, sizeof(got)) > 0)
			;
	}
	turn_until_total(2 * STREAMS - 1);
	cr_assert_eq(ends[0].sent_count, 1);
}

Test(stream_parking, parked_wakes_when_something_comes_and_receives_it)
{
	park(&ends[0]);
	turn_for_a_while();
	cr_assert_eq(reactor_free_slots(reactor, OP_KIND_POLL), POLL_SLOTS);
	cr_assert_eq(total, 0);
	peer_writes(&ends[0], 'x');
	turn_until_total(1);
	cr_assert_eq(ends[0].awake_count, 1);
	receive(&ends[0]);
	turn_until_total(2);
	cr_assert_eq(ends[0].byte, 'x');
	/* And again. */
	park(&ends[0]);
	peer_writes(&ends[0], 'y');
	turn_until_total(3);
	cr_assert_eq(ends[0].awake_count, 2);
}

Test(stream_parking, what_comes_while_it_is_being_parked_is_not_lost)
{
	receive(&ends[0]);
	turn_for_a_while();
	peer_writes(&ends[0], 'x');
	cr_assert(stream_park(&ends[0].stream));
	turn_until_total(1);
	cr_assert_eq(ends[0].awake_count, 1);
	cr_assert_eq(ends[0].byte, 0);
	receive(&ends[0]);
	turn_until_total(2);
	cr_assert_eq(ends[0].byte, 'x');
}

Test(stream_parking, one_that_waits_for_a_slot_can_be_parked_on_purpose)
{
	for (unsigned i = 0; i < STREAMS; i++)
		receive(&ends[i]);
	turn_for_a_while();
	for (unsigned i = 0; i < STREAMS; i++)
		cr_assert(stream_park(&ends[i].stream));
	turn_for_a_while();
	cr_assert_eq(reactor_free_slots(reactor, OP_KIND_POLL), POLL_SLOTS);
	for (unsigned i = 0; i < STREAMS; i++)
		peer_writes(&ends[i], 'x');
	turn_until_total(STREAMS);
	for (unsigned i = 0; i < STREAMS; i++)
		cr_assert_eq(ends[i].awake_count, 1);
}

Test(stream_parking, the_peers_end_wakes_it)
{
	park(&ends[0]);
	cr_assert_eq(shutdown(ends[0].peer, SHUT_WR), 0);
	turn_until_total(1);
	receive(&ends[0]);
	turn_until_total(2);
	cr_assert_eq(ends[0].result, 0);
}

Test(stream_parking, busy_streams_are_not_parked)
{
	static char many[1 << 20];
	struct iovec part = { many, sizeof(many) };

	cr_assert_not(stream_park(&ends[0].stream));
	receive(&ends[0]);
	stream_send(&ends[0].stream, &part, 1);
	cr_assert_not(stream_park(&ends[0].stream));
	turn_until_total(1);
	cr_assert_eq(ends[0].sent_count, 1);
	cr_assert(stream_park(&ends[0].stream));
}

Test(stream_parking, parked_can_be_closed)
{
	char byte;

	park(&ends[0]);
	stream_close(&ends[0].stream); /* its poll is being cancelled */
	park(&ends[1]);
	turn_for_a_while();
	stream_close(&ends[1].stream); /* it is in the set */
	turn_until_total(2);
	cr_assert_eq(ends[0].closed_count, 1);
	cr_assert_eq(ends[1].closed_count, 1);
	cr_assert_eq(read(ends[0].peer, &byte, 1), 0);
	cr_assert_eq(read(ends[1].peer, &byte, 1), 0);
}

/* ---- watched ---- */

Test(stream_parking, waiting_takes_no_slot)
{
	uint64_t submitted;

	receive(&ends[0]);
	turn_for_a_while();
	submitted = reactor_counters(reactor)->ops_submitted;
	cr_assert_eq(reactor_free_slots(reactor, OP_KIND_POLL), POLL_SLOTS);
	peer_writes(&ends[0], 'x');
	turn_until_total(1);
	receive(&ends[0]);
	cr_assert_eq(reactor_free_slots(reactor, OP_KIND_POLL), POLL_SLOTS);
	turn_for_a_while();
	/* The set's own poll, once more. */
	cr_assert_leq(reactor_counters(reactor)->ops_submitted, submitted + 1);
	cr_assert_eq(total, 1);
}

/* The kernel tells of each byte once, or of all together; the stream asks for one at a time. */
Test(stream_parking, what_is_left_is_received_without_being_told_again)
{
	receive(&ends[0]);
	turn_for_a_while();
	for (unsigned i = 0; i < 5; i++)
		peer_writes(&ends[0], (char)('a' + i));
	for (unsigned i = 0; i < 5; i++) {
		turn_until_total(i + 1);
		cr_assert_eq(ends[0].byte, 'a' + (char)i);
		receive(&ends[0]);
		cr_assert_eq(total, i + 1);
	}
	turn_for_a_while();
	cr_assert_eq(total, 5);
}

static char many_bytes[64];

static void
receive_many(struct end *end)
{
	end->part = (struct iovec){ many_bytes, sizeof(many_bytes) };
	stream_receive(&end->stream, &end->part, 1);
}

Test(stream_parking, what_comes_while_nothing_is_received_is_not_lost)
{
	receive_many(&ends[0]);
	turn_for_a_while();
	peer_writes(&ends[0], 'a');
	turn_until_total(1);
	peer_writes(&ends[0], 'b'); /* told when nobody asks */
	turn_for_a_while();
	cr_assert_eq(total, 1);
	receive_many(&ends[0]);
	turn_until_total(2);
	cr_assert_eq(many_bytes[0], 'b');
}

static void
write_more(struct op *op, long result)
{
	(void)op;
	(void)result;
	peer_writes(&ends[0], 'b');
}

/* The receive of a background stream has taken all there was, but its result waits behind the call that has more come, and behind the
 * parking, which tells of that only once. */
Test(stream_parking, what_comes_behind_a_receive_whose_result_waits_is_not_lost)
{
	struct op writer;

	stream_set_priority(&ends[0].stream, PRIORITY_BACKGROUND);
	receive_many(&ends[0]);
	turn_for_a_while();
	peer_writes(&ends[0], 'a');
	while (ends[0].stream.in.state != STREAM_HALF_TRANSFER)
		(void)reactor_turn(reactor);
	op_init(&writer, write_more);
	reactor_complete(reactor, &writer, 0);
	/* The receive is made, and one call: that of the higher class. */
	cr_assert_eq(reactor_wait(reactor, 1, 1, PATIENCE_NS), 1);
	cr_assert_eq(total, 0);
	turn_until_total(1);
	cr_assert_eq(ends[0].result, 1);
	cr_assert_eq(many_bytes[0], 'a');
	receive_many(&ends[0]);
	turn_until_total(2);
	cr_assert_eq(many_bytes[0], 'b');
}

Test(stream_parking, the_end_behind_the_last_bytes_is_seen)
{
	receive_many(&ends[0]);
	turn_for_a_while();
	peer_writes(&ends[0], 'a');
	cr_assert_eq(shutdown(ends[0].peer, SHUT_WR), 0);
	turn_until_total(1);
	cr_assert_eq(ends[0].result, 1);
	receive_many(&ends[0]);
	turn_until_total(2);
	cr_assert_eq(ends[0].result, 0);
}

/* Put a TCP connection into the place of END's socket. */
static void
use_tcp(struct end *end)
{
	struct sockaddr_in address = { .sin_family = AF_INET };
	socklen_t bytes = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM, 0), fd;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	cr_assert_eq(bind(listener, (struct sockaddr *)&address, bytes), 0);
	cr_assert_eq(listen(listener, 1), 0);
	cr_assert_eq(getsockname(listener, (struct sockaddr *)&address, &bytes), 0);
	(void)close(end->peer);
	(void)close(end->stream.fd);
	end->peer = socket(AF_INET, SOCK_STREAM, 0);
	cr_assert_eq(connect(end->peer, (struct sockaddr *)&address, bytes), 0);
	fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
	cr_assert_geq(fd, 0);
	(void)close(listener);
	stream_init(&end->stream, reactor, &parking, fd);
}

/* A receive ends in front of the urgent byte, however much is behind it. */
Test(stream_parking, urgent_bytes_do_not_hide_what_is_behind)
{
	unsigned got = 0;

	use_tcp(&ends[0]);
	receive_many(&ends[0]);
	turn_for_a_while();
	cr_assert_eq(send(ends[0].peer, "ab", 2, 0), 2);
	cr_assert_eq(send(ends[0].peer, "!", 1, MSG_OOB), 1);
	cr_assert_eq(send(ends[0].peer, "c", 1, 0), 1);
	while (got < 3) {
		turn_until_total(total + 1);
		cr_assert_gt(ends[0].result, 0);
		got += (unsigned)ends[0].result;
		receive_many(&ends[0]);
	}
	cr_assert_eq(many_bytes[0], 'c');
}

/* For it the ring is looked at between any two calls, the set only once in a turn. */
Test(stream_parking, the_latency_class_waits_by_a_poll)
{
	receive(&ends[0]);
	peer_writes(&ends[0], 'x');
	turn_until_total(1);
	stream_set_priority(&ends[0].stream, PRIORITY_LATENCY);
	receive(&ends[0]);
	turn_for_a_while();
	cr_assert_eq(reactor_free_slots(reactor, OP_KIND_POLL), POLL_SLOTS - 1);
	cr_assert(stream_park(&ends[0].stream));
	turn_for_a_while();
	cr_assert_eq(reactor_free_slots(reactor, OP_KIND_POLL), POLL_SLOTS);
	peer_writes(&ends[0], 'y');
	turn_until_total(2);
	cr_assert_eq(ends[0].awake_count, 1);
	receive(&ends[0]);
	turn_until_total(3);
	cr_assert_eq(ends[0].byte, 'y');
}

/* One that speaks again at once is tried; when it falls silent it is watched again. */
Test(stream_parking, a_hot_stream_that_cools_down_is_told_again)
{
	unsigned told = 0;

	for (unsigned round = 0; round < 5; round++) {
		for (unsigned i = 0; i < 50; i++) {
			peer_writes(&ends[0], (char)i);
			receive(&ends[0]);
			turn_until_total(++told);
			cr_assert_eq(ends[0].byte, (char)i);
		}
		receive(&ends[0]);
		(void)reactor_wait(reactor, 1000, 1000, 3 * MS);
		cr_assert_eq(total, told);
		peer_writes(&ends[0], 'z');
		turn_until_total(++told);
		cr_assert_eq(ends[0].byte, 'z');
	}
}

Test(stream_parking, receives_are_counted_by_who_waits_for_them)
{
	unsigned before;

	for (unsigned i = 0; i < 10; i++)
		receive(&ends[i]);
	turn_for_a_while();
	for (unsigned i = 0; i < 10; i++)
		peer_writes(&ends[i], 'x');
	while (total < 10) {
		before = total;
		cr_assert_eq(reactor_wait(reactor, 1, 1, PATIENCE_NS), 1);
		cr_assert_leq(total, before + 1);
	}
}

static void
connect_again(struct end *end, int type, int passcred)
{
	stream_close(&end->stream);
	turn_until_total(1);
	(void)close(end->peer);
	end->closed_count = 0;
	connect_end(end, type, passcred);
}

static void
another_process_writes(const struct end *end, char byte)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit(write(end->peer, &byte, 1) == 1 ? 0 : 1);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert_eq(status, 0);
}

/* A receive ends with the bytes of one of them, short as it is. */
Test(stream_parking, what_several_processes_sent_is_all_told_where_they_are_told_apart)
{
	struct end *end = &ends[0];
	char bytes[16];
	struct iovec part = { bytes, sizeof(bytes) };

	connect_again(end, SOCK_STREAM, 1);
	for (unsigned round = 0; round < 3; round++) {
		total = 0;
		stream_receive(&end->stream, &part, 1);
		turn_for_a_while();
		peer_writes(end, 'a');
		another_process_writes(end, 'b');
		turn_until_total(1);
		cr_assert_eq(end->result, 1);
		stream_receive(&end->stream, &part, 1);
		turn_until_total(2);
		cr_assert_eq(end->result, 1);
		cr_assert_eq(bytes[0], 'b');
	}
}

/* What watches a stream tells of both packets at once, and the first receive, short as it is, takes one only.  So it can be with a vsock. */
Test(stream_parking, packets_that_come_together_are_all_told)
{
	struct end *end = &ends[0];
	char bytes[16];
	struct iovec part = { bytes, sizeof(bytes) };

	connect_again(end, SOCK_SEQPACKET, 0);
	for (unsigned round = 0; round < 3; round++) {
		total = 0;
		stream_receive(&end->stream, &part, 1);
		turn_for_a_while();
		for (char packet = 'a'; packet <= 'c'; packet++)
			peer_writes(end, packet);
		for (char packet = 'a'; packet <= 'c'; packet++) {
			turn_until_total((unsigned)(packet - 'a') + 1);
			cr_assert_eq(end->result, 1);
			cr_assert_eq(bytes[0], packet);
			if (packet < 'c')
				stream_receive(&end->stream, &part, 1);
		}
	}
}
