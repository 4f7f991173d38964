/* Streams: what they wait for in their parking and otherwise is never lost, bytes arrive in order and once, those that are parked wake
 * up, and what was closed is silent.
 *
 * Many peers send a burst and then nothing until all of it was received: so a wake-up that was lost is not made up for by the next.  And
 * often the next burst comes at once, before the core is told of the one before. */
#include "tests/sim/sim_run.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "reactor/stream.h"

#define STREAMS	       8
#define STREAM_ROOM    200
#define STREAM_BYTES   96 /* of a receive or send */
#define CLOSE_NS_MAX   (20 * MS)
#define QUIET_NS_MAX   (4 * MS) /* between two bursts */
#define PEER_NS_MAX    20000
#define AT_ONCE_NS_MAX 4000

/* A receive or send of a stream. */
struct half {
	bool busy;
	bool told; /* it is over for the kernel, with RESULT, and is to be told */
	long result;
	uint64_t since_ns; /* it could go on, but does not; 0: not seen so */
	struct iovec parts[PARTS_MAX];
	unsigned part_count;
	uint8_t buffer[STREAM_BYTES];
};

struct sim_stream {
	struct stream stream;
	int fd;
	unsigned life;
	bool open, closing;
	bool parked;	     /* in.busy then, too */
	bool polite;	     /* its peer waits until all was received */
	bool ended, reset;   /* by the peer */
	uint64_t closing_ns; /* since when */
	uint64_t quiet_until_ns;
	uint64_t taken, received; /* from the kernel, and told */
	uint64_t sent, peer_received, peer_sent;
	struct half in, out;
};

static struct {
	struct stream_parking parking;
	bool started, stopped;
	bool finishing; /* peers are silent; before, a stream that waits for one may hold the only slot */
	unsigned count, open_count;
	struct sim_stream streams[STREAMS];
	uint64_t opened, awoken, received_calls, sent_calls;
} all;

static uint8_t
byte_at(const struct sim_stream *sim_stream, bool send, uint64_t position)
{
	return (uint8_t)(position * 11 + (position >> 8) + sim_stream->life * 29 + (send ? 77 : 0));
}

/* ---- the peers ---- */

/* Whether the peer of SIM_STREAM does anything now that could make up for a wake-up that was lost. */
static bool
peer_may(const struct sim_stream *sim_stream)
{
	return kernel_sim_now_ns() >= sim_stream->quiet_until_ns && !all.finishing &&
	       (!sim_stream->polite || sim_stream->taken == sim_stream->peer_sent);
}

/* Behind what was sent last, and often together with it. */
static void
peer_ends(struct sim_stream *sim_stream)
{
	if (sim_stream->ended || sim_stream->reset)
		return;
	switch (kernel_sim_below(64)) {
	case 0:
		sim_stream->reset = true;
		kernel_sim_peer_reset(sim_stream->fd);
		break;
	case 1:
	case 2:
		sim_stream->ended = true;
		kernel_sim_peer_end(sim_stream->fd);
		break;
	}
}

static void
peer_moves(struct sim_stream *sim_stream)
{
	uint8_t bytes[STREAM_ROOM];
	size_t count = 1 + kernel_sim_below(kernel_sim_below(2) == 0 ? 8 : STREAM_ROOM);

	for (size_t i = 0; i < count; i++)
		bytes[i] = byte_at(sim_stream, false, sim_stream->peer_sent + i);
	if (peer_may(sim_stream)) {
		sim_stream->peer_sent += kernel_sim_peer_send(sim_stream->fd, bytes, count);
		peer_ends(sim_stream);
		if (kernel_sim_below(2) == 0)
			sim_stream->quiet_until_ns =
				kernel_sim_now_ns() + kernel_sim_below(QUIET_NS_MAX);
	}
	count = kernel_sim_peer_receive(sim_stream->fd, bytes, kernel_sim_below(STREAM_ROOM));
	for (size_t i = 0; i < count; i++)
		SIM_CHECK(bytes[i] == byte_at(sim_stream, true, sim_stream->peer_received++));
}

static void
peer_of(void *context)
{
	struct sim_stream *sim_stream = context;

	if (sim_stream->open && !sim_stream->closing)
		peer_moves(sim_stream);
}

/* A step: other machines. */
static void
peer(void *context)
{
	(void)context;
	peer_of(&all.streams[kernel_sim_below(all.count)]);
	if (!all.stopped)
		kernel_sim_at(kernel_sim_below(PEER_NS_MAX), peer, NULL);
}

/* ---- what the core does ---- */

/* One to PARTS_MAX parts of the buffer, one behind the other. */
static void
prepare(struct half *half)
{
	size_t bytes = 1 + kernel_sim_below(STREAM_BYTES), used = 0;

	half->busy = true;
	half->told = false;
	half->since_ns = 0;
	half->part_count = 0;
	while (used < bytes) {
		size_t part = 1 + kernel_sim_below(bytes - used);

		if (half->part_count == PARTS_MAX - 1)
			part = bytes - used;
		half->parts[half->part_count++] = (struct iovec){ half->buffer + used, part };
		used += part;
	}
	run.started++;
}

static void
receive(struct sim_stream *sim_stream)
{
	struct half *half = &sim_stream->in;

	if (half->busy || !sim_stream->open || sim_stream->closing)
		return;
	prepare(half);
	memset(half->buffer, 0, sizeof(half->buffer));
	run.calling = true;
	stream_receive(&sim_stream->stream, half->parts, half->part_count);
	run.calling = false;
}

static void
send_bytes(struct sim_stream *sim_stream)
{
	struct half *half = &sim_stream->out;

	if (half->busy || !sim_stream->open || sim_stream->closing || run.over)
		return;
	prepare(half);
	for (unsigned i = 0; i < STREAM_BYTES; i++)
		half->buffer[i] = byte_at(sim_stream, true, sim_stream->sent + i);
	run.calling = true;
	stream_send(&sim_stream->stream, half->parts, half->part_count);
	run.calling = false;
}

static void
park(struct sim_stream *sim_stream)
{
	struct half *half = &sim_stream->in;

	if (!half->busy || sim_stream->parked || sim_stream->closing)
		return;
	run.calling = true;
	sim_stream->parked = stream_park(&sim_stream->stream);
	run.calling = false;
	SIM_CHECK(!sim_stream->parked || !sim_stream->out.busy);
	/* What was received but not told is not parked away. */
	SIM_CHECK(!sim_stream->parked || !half->told);
}

static void
over(struct half *half)
{
	SIM_CHECK(half->busy);
	half->busy = half->told = false;
	half->since_ns = 0;
	run.done++;
}

static void
close_stream(struct sim_stream *sim_stream)
{
	if (!sim_stream->open || sim_stream->closing)
		return;
	sim_stream->closing = true;
	sim_stream->closing_ns = kernel_sim_now_ns();
	sim_stream->parked = false;
	if (sim_stream->in.busy)
		over(&sim_stream->in);
	if (sim_stream->out.busy)
		over(&sim_stream->out);
	run.calling = true;
	stream_close(&sim_stream->stream);
	run.calling = false;
}

/* ---- what the core is told ---- */

static struct sim_stream *
sim_stream_of(struct stream *stream)
{
	struct sim_stream *sim_stream = container_of(stream, struct sim_stream, stream);

	turns_enter(PLACE_STREAM);
	SIM_CHECK(sim_stream->open);
	return sim_stream;
}

/* HALF is told, with RESULT, what happened to it, and only that. */
static void
check_told(const struct sim_stream *sim_stream, const struct half *half, ssize_t result)
{
	SIM_CHECK(!sim_stream->closing && half->busy);
	SIM_CHECK(half == &sim_stream->out || !sim_stream->parked);
	SIM_CHECK((half->told && result == half->result) ||
		  (run.config.manner.refused > 0 && (result == -EINVAL || result == -EBADF)));
}

static void
on_received(struct stream *stream, ssize_t result)
{
	struct sim_stream *sim_stream = sim_stream_of(stream);
	struct half *half = &sim_stream->in;
	uint64_t position = sim_stream->received;

	check_told(sim_stream, half, result);
	for (unsigned i = 0; i < half->part_count; i++) {
		const uint8_t *bytes = half->parts[i].iov_base;

		for (size_t j = 0; j < half->parts[i].iov_len; j++) {
			if (position == sim_stream->received + (uint64_t)(result > 0 ? result : 0))
				break;
			SIM_CHECK(bytes[j] == byte_at(sim_stream, false, position++));
		}
	}
	sim_stream->received = position;
	SIM_CHECK(position <= sim_stream->peer_sent);
	SIM_CHECK(result != 0 || (sim_stream->ended && position == sim_stream->peer_sent));
	SIM_CHECK(result != -ECONNRESET || sim_stream->reset);
	over(half);
	all.received_calls++;
	if (result == 0 || result == -ECONNRESET)
		close_stream(sim_stream);
	else if (run.over || kernel_sim_below(4) != 0)
		receive(sim_stream);
	if (kernel_sim_below(3) == 0)
		send_bytes(sim_stream);
	turns_leave();
}

static void
on_sent(struct stream *stream, ssize_t result)
{
	struct sim_stream *sim_stream = sim_stream_of(stream);

	check_told(sim_stream, &sim_stream->out, result);
	SIM_CHECK(result != 0 && (result != -EPIPE || sim_stream->reset));
	if (result > 0)
		sim_stream->sent += (uint64_t)result;
	over(&sim_stream->out);
	all.sent_calls++;
	if (result == -EPIPE)
		close_stream(sim_stream);
	else if (kernel_sim_below(4) == 0)
		send_bytes(sim_stream);
	turns_leave();
}

static void
on_awake(struct stream *stream)
{
	struct sim_stream *sim_stream = sim_stream_of(stream);

	SIM_CHECK(sim_stream->parked && !sim_stream->closing);
	sim_stream->parked = false;
	over(&sim_stream->in);
	all.awoken++;
	if (run.over || kernel_sim_below(4) != 0)
		receive(sim_stream);
	turns_leave();
}

static void
on_closed(struct stream *stream)
{
	struct sim_stream *sim_stream = container_of(stream, struct sim_stream, stream);

	turns_enter(PLACE_STREAM);
	SIM_CHECK(sim_stream->open && sim_stream->closing);
	sim_stream->open = sim_stream->closing = false;
	all.open_count--;
	turns_leave();
}

bool
streams_on_transfer(void *first_byte, bool send, long result)
{
	size_t offset = (size_t)((char *)first_byte - (char *)all.streams);
	struct sim_stream *sim_stream;
	struct half *half;

	if (offset >= sizeof(all.streams))
		return false;
	sim_stream = &all.streams[offset / sizeof(all.streams[0])];
	half = send ? &sim_stream->out : &sim_stream->in;
	/* Into the caller's bytes only while they are lent, and only once. */
	SIM_CHECK(first_byte == half->buffer && half->busy && !half->told);
	SIM_CHECK(!sim_stream->closing && (send || !sim_stream->parked));
	half->told = result != -EAGAIN;
	half->result = result;
	if (!send && result > 0) {
		sim_stream->taken += (uint64_t)result;
		if (kernel_sim_below(4) == 0)
			kernel_sim_at(kernel_sim_below(AT_ONCE_NS_MAX), peer_of, sim_stream);
	}
	return true;
}

/* ---- what is begun ---- */

static void
open_stream(struct sim_stream *sim_stream)
{
	int fd = kernel_sim_socket(STREAM_ROOM);

	if (fd < 0)
		return; /* closed ones are still pinned */
	*sim_stream = (struct sim_stream){
		.fd = fd,
		.life = sim_stream->life + 1,
		.open = true,
		.polite = kernel_sim_below(4) != 0,
		.stream.on_received = on_received,
		.stream.on_sent = on_sent,
		.stream.on_awake = on_awake,
		.stream.on_closed = on_closed,
	};
	all.open_count++;
	all.opened++;
	stream_init(&sim_stream->stream, run.reactor, &all.parking, fd);
	stream_set_priority(&sim_stream->stream, ops_random_priority());
}

void
streams_act(void)
{
	struct sim_stream *sim_stream = &all.streams[kernel_sim_below(all.count)];
	uint64_t choice = kernel_sim_below(64);

	if (run.over)
		return;
	if (!sim_stream->open)
		open_stream(sim_stream);
	else if (choice < 36)
		receive(sim_stream);
	else if (choice < 48)
		send_bytes(sim_stream);
	else if (choice < 62)
		park(sim_stream);
	else if (choice == 62 && kernel_sim_below(8) == 0)
		close_stream(sim_stream);
	else if (!sim_stream->closing && !sim_stream->in.busy && !sim_stream->out.busy)
		stream_set_priority(&sim_stream->stream, ops_random_priority());
}

/* ---- nothing is lost ---- */

static void
check_half(const struct sim_stream *sim_stream, struct half *half, unsigned events,
	   const char *what)
{
	uint64_t now_ns = kernel_sim_now_ns();

	if (!half->busy || (kernel_sim_ready(sim_stream->fd) & events) == 0)
		half->since_ns = 0;
	else if (half->since_ns == 0)
		half->since_ns = now_ns;
	else if (now_ns - half->since_ns > run.polls.age_ns_max)
		kernel_sim_fail("stream %d, of class %d, could %s for %" PRIu64
				" ns: a lost wake-up",
				(int)(sim_stream - all.streams), sim_stream->stream.in.op.priority,
				sim_stream->parked ? "wake" : what, now_ns - half->since_ns);
}

void
streams_check(void)
{
	for (unsigned i = 0; i < all.count; i++) {
		struct sim_stream *sim_stream = &all.streams[i];

		if (!sim_stream->open)
			continue;
		if (sim_stream->closing) {
			SIM_CHECK(kernel_sim_now_ns() - sim_stream->closing_ns <= CLOSE_NS_MAX);
			continue;
		}
		check_half(sim_stream, &sim_stream->in, POLLIN, "receive");
		check_half(sim_stream, &sim_stream->out, POLLOUT, "send");
	}
}

/* ---- beginning and end ---- */

void
streams_start(unsigned count)
{
	all.count = count;
	if (stream_parking_start(&all.parking, run.reactor) < 0)
		kernel_sim_fail("no parking");
	all.started = true;
	kernel_sim_at(0, peer, NULL);
}

static void
on_stopped(struct stream_parking *parking)
{
	SIM_CHECK(parking == &all.parking && !all.stopped);
	all.stopped = true;
}

/* Whether SIM_STREAM has received all that was sent to it; if not, it goes on. */
static bool
caught_up(struct sim_stream *sim_stream)
{
	if (sim_stream->closing || sim_stream->reset)
		return true;
	if (!sim_stream->in.busy)
		receive(sim_stream);
	return sim_stream->received == sim_stream->peer_sent && !sim_stream->out.busy;
}

bool
streams_finish(void)
{
	bool done = true;

	if (all.stopped || !all.started)
		return true;
	all.finishing = true;
	for (unsigned i = 0; i < all.count; i++) {
		if (all.streams[i].open && caught_up(&all.streams[i]))
			close_stream(&all.streams[i]);
		done &= !all.streams[i].open;
	}
	if (done && all.parking.on_stopped == NULL)
		stream_parking_stop(&all.parking, on_stopped);
	return false;
}

void
streams_report(void)
{
	printf("%u streams: %" PRIu64 " opened, %" PRIu64 " receives, %" PRIu64 " sends, %" PRIu64
	       " wakes; %" PRIu64 " parked told; ",
	       all.count, all.opened, all.received_calls, all.sent_calls, all.awoken,
	       parked_told());
}
