/* Streams: readiness and the orderly end, on a reactor that the test turns itself. */
#include <criterion/criterion.h>
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/stream.h"

struct fixture {
	struct reactor *reactor;
	struct stream stream;
	int peer;
	unsigned readable, writable, closed;
};

static void
on_readable(struct stream *stream)
{
	container_of(stream, struct fixture, stream)->readable++;
}

static void
on_writable(struct stream *stream)
{
	container_of(stream, struct fixture, stream)->writable++;
}

static void
on_closed(struct stream *stream)
{
	container_of(stream, struct fixture, stream)->closed++;
}

static void
fixture_start(struct fixture *fixture)
{
	struct reactor_config config = { .disk_slots = 4, .poll_slots = 4 };
	int fds[2];

	*fixture = (struct fixture){ .readable = 0 };
	cr_assert_eq(reactor_create(&config, &fixture->reactor), 0);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	fixture->peer = fds[1];
	fixture->stream.on_readable = on_readable;
	fixture->stream.on_writable = on_writable;
	fixture->stream.on_closed = on_closed;
	stream_init(&fixture->stream, fixture->reactor, fds[0]);
}

static void
turn(struct fixture *fixture)
{
	for (unsigned i = 0; i < 20; i++) {
		(void)reactor_turn(fixture->reactor);
		usleep(500);
	}
}

static void
fixture_stop(struct fixture *fixture)
{
	stream_close(&fixture->stream);
	turn(fixture);
	cr_assert_eq(fixture->closed, 1);
	(void)close(fixture->peer);
	reactor_destroy(fixture->reactor);
}

Test(stream, readable_is_told_once_for_each_wish)
{
	struct fixture fixture;

	fixture_start(&fixture);
	stream_want_read(&fixture.stream);
	stream_want_read(&fixture.stream);
	turn(&fixture);
	cr_assert_eq(fixture.readable, 0);
	cr_assert_eq(write(fixture.peer, "x", 1), 1);
	turn(&fixture);
	cr_assert_eq(fixture.readable, 1);
	/* Still readable, but nobody asked again. */
	turn(&fixture);
	cr_assert_eq(fixture.readable, 1);
	stream_want_read(&fixture.stream);
	turn(&fixture);
	cr_assert_eq(fixture.readable, 2);
	fixture_stop(&fixture);
}

Test(stream, writable_is_told_at_once_if_there_is_room)
{
	struct fixture fixture;

	fixture_start(&fixture);
	stream_want_write(&fixture.stream);
	turn(&fixture);
	cr_assert_eq(fixture.writable, 1);
	fixture_stop(&fixture);
}

Test(stream, bytes_go_both_ways_in_parts)
{
	struct fixture fixture;
	char first[3] = "", second[8] = "";
	struct iovec in[2] = { { first, 2 }, { second, 7 } };
	struct iovec out[2] = { { (void *)(uintptr_t) "ab", 2 }, { (void *)(uintptr_t) "cd", 2 } };
	char got[8] = "";

	fixture_start(&fixture);
	cr_assert_eq(stream_receive(&fixture.stream, in, 2), -EAGAIN);
	cr_assert_eq(write(fixture.peer, "hello", 5), 5);
	cr_assert_eq(stream_receive(&fixture.stream, in, 2), 5);
	cr_assert_str_eq(first, "he");
	cr_assert_str_eq(second, "llo");
	cr_assert_eq(stream_send(&fixture.stream, out, 2), 4);
	cr_assert_eq(read(fixture.peer, got, sizeof(got)), 4);
	cr_assert_str_eq(got, "abcd");
	fixture_stop(&fixture);
}

Test(stream, closing_ends_armed_polls_and_tells_the_peer)
{
	struct fixture fixture;
	char byte;

	fixture_start(&fixture);
	stream_want_read(&fixture.stream);
	turn(&fixture);
	stream_close(&fixture.stream);
	stream_close(&fixture.stream);
	cr_assert_eq(fixture.closed, 0, "not from within the call");
	turn(&fixture);
	cr_assert_eq(fixture.closed, 1);
	cr_assert_eq(fixture.readable, 0);
	cr_assert_eq(read(fixture.peer, &byte, 1), 0);
	stream_want_read(&fixture.stream);
	turn(&fixture);
	fixture_stop(&fixture);
}

Test(stream, sending_to_a_peer_that_is_gone_is_an_error_not_a_signal)
{
	struct fixture fixture;
	struct iovec part = { (void *)(uintptr_t) "x", 1 };

	fixture_start(&fixture);
	(void)close(fixture.peer);
	cr_assert_eq(stream_send(&fixture.stream, &part, 1), -EPIPE);
	fixture.peer = dup(0);
	fixture_stop(&fixture);
}
