/* Sockets on the reactor's ring.
 *
 * Each half goes IDLE -> TRANSFER -> (nothing there) -> POLL -> TRANSFER -> IDLE; a receive that is not expected to find
 * something begins with POLL.
 *
 * An armed poll pins its file, so that close alone would neither end the connection nor free the poll's slot.  Therefore:
 * abandon, shut down, which completes the poll, and then close; the event finds no operation any more. */
#include "reactor/stream.h"

#include <errno.h>
#include <poll.h>

/* Receives that find nothing, before a poll comes first. */
#define MISSES_MAX 2

static void
transfer(struct stream *stream, struct stream_half *half)
{
	half->state = STREAM_HALF_TRANSFER;
	if (half == &stream->in)
		op_receive(&half->op, stream->fd, half->parts, half->part_count);
	else
		op_send(&half->op, stream->fd, half->parts, half->part_count);
	reactor_start(stream->reactor, &half->op);
}

static void
arm(struct stream *stream, struct stream_half *half)
{
	half->state = STREAM_HALF_POLL;
	op_poll(&half->op, stream->fd, half == &stream->in ? POLLIN : POLLOUT);
	reactor_start(stream->reactor, &half->op);
}

/* HALF's operation is done.  Returns whether the transfer is over, with *result; if not, it goes on. */
static bool
half_done(struct stream *stream, struct stream_half *half, long result)
{
	/* Whatever a poll says, trying tells. */
	if (half->state == STREAM_HALF_POLL || result == -EINTR) {
		transfer(stream, half);
		return false;
	}
	if (result == -EAGAIN) {
		arm(stream, half);
		return false;
	}
	half->state = STREAM_HALF_IDLE;
	return true;
}

/* Learn from what came of a receive whether it pays to try the next one unasked. */
static void
learn(struct stream *stream, long result)
{
	uint64_t turn = reactor_turns(stream->reactor);

	if (stream->in.state == STREAM_HALF_POLL) {
		/* Ready in the very turn in which it was armed: trying would have done. */
		if (turn == stream->armed_turn)
			stream->misses = 0;
	} else if (result == -EAGAIN) {
		stream->misses++;
		stream->polled = true;
		stream->armed_turn = turn + 1;
	} else if (!stream->polled) {
		stream->misses = 0;
	}
}

static void
in_done(struct op *op, long result)
{
	struct stream *stream = container_of(op, struct stream, in.op);

	learn(stream, result);
	if (half_done(stream, &stream->in, result))
		stream->on_received(stream, result);
}

static void
out_done(struct op *op, long result)
{
	struct stream *stream = container_of(op, struct stream, out.op);

	if (half_done(stream, &stream->out, result))
		stream->on_sent(stream, result);
}

static void
finish_close(struct task *task)
{
	struct stream *stream = container_of(task, struct stream, finish_close);

	kernel_close(stream->fd);
	stream->on_closed(stream);
}

static void
half_init(struct stream_half *half, void (*done)(struct op *op, long result))
{
	op_init(&half->op, done);
	half->state = STREAM_HALF_IDLE;
}

void
stream_init(struct stream *stream, struct reactor *reactor, int fd)
{
	stream->reactor = reactor;
	stream->fd = fd;
	stream->closing = false;
	half_init(&stream->in, in_done);
	half_init(&stream->out, out_done);
	stream->misses = MISSES_MAX; /* nothing is known of it yet */
	task_init(&stream->finish_close, finish_close);
}

void
stream_set_priority(struct stream *stream, enum priority priority)
{
	stream->in.op.priority = priority;
	stream->out.op.priority = priority;
}

void
stream_receive(struct stream *stream, struct iovec *parts, unsigned part_count)
{
	struct stream_half *half = &stream->in;

	CHECK(half->state == STREAM_HALF_IDLE && !stream->closing);
	half->parts = parts;
	half->part_count = part_count;
	stream->polled = stream->misses >= MISSES_MAX;
	if (!stream->polled) {
		transfer(stream, half);
	} else {
		stream->armed_turn = reactor_turns(stream->reactor) + 1;
		arm(stream, half);
	}
}

void
stream_send(struct stream *stream, struct iovec *parts, unsigned part_count)
{
	struct stream_half *half = &stream->out;

	CHECK(half->state == STREAM_HALF_IDLE && !stream->closing);
	half->parts = parts;
	half->part_count = part_count;
	transfer(stream, half);
}

static void
abandon(struct stream *stream, struct stream_half *half)
{
	reactor_abandon(stream->reactor, &half->op);
	half->state = STREAM_HALF_IDLE;
}

void
stream_abandon(struct stream *stream)
{
	abandon(stream, &stream->in);
	abandon(stream, &stream->out);
}

void
stream_end_sending(struct stream *stream)
{
	kernel_shutdown_send(stream->fd);
}

int
stream_unsent_bytes(const struct stream *stream)
{
	return kernel_unsent_bytes(stream->fd);
}

void
stream_close(struct stream *stream)
{
	if (stream->closing)
		return;
	stream->closing = true;
	stream_abandon(stream);
	kernel_shutdown(stream->fd);
	reactor_defer(stream->reactor, &stream->finish_close);
}
