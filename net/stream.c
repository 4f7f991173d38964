/* Sockets on the reactor's ring.
 *
 * An armed poll pins its file, so that close alone would neither end the connection nor free the poll's slot.
 * Therefore: shut down, which completes the polls; when both are idle, close; then tell the owner. */
#include "net/stream.h"

#include <poll.h>

static void
maybe_finish_close(struct stream *stream)
{
	if (stream->closing && op_idle(&stream->read_poll) && op_idle(&stream->write_poll))
		reactor_defer(stream->reactor, &stream->finish_close);
}

static void
read_poll_done(struct op *op, long result)
{
	struct stream *stream = container_of(op, struct stream, read_poll);

	(void)result; /* whatever it says, trying tells */
	if (stream->closing)
		maybe_finish_close(stream);
	else
		stream->on_readable(stream);
}

static void
write_poll_done(struct op *op, long result)
{
	struct stream *stream = container_of(op, struct stream, write_poll);

	(void)result;
	if (stream->closing)
		maybe_finish_close(stream);
	else
		stream->on_writable(stream);
}

static void
finish_close(struct task *task)
{
	struct stream *stream = container_of(task, struct stream, finish_close);

	kernel_close(stream->fd);
	stream->on_closed(stream);
}

void
stream_init(struct stream *stream, struct reactor *reactor, int fd)
{
	stream->reactor = reactor;
	stream->fd = fd;
	stream->closing = false;
	op_init(&stream->read_poll, read_poll_done);
	op_init(&stream->write_poll, write_poll_done);
	task_init(&stream->finish_close, finish_close);
}

ssize_t
stream_receive(struct stream *stream, struct iovec *parts, unsigned part_count)
{
	return kernel_recvmsg(stream->fd, parts, part_count);
}

ssize_t
stream_send(struct stream *stream, struct iovec *parts, unsigned part_count)
{
	return kernel_sendmsg(stream->fd, parts, part_count);
}

static void
arm(struct stream *stream, struct op *op, int events)
{
	if (stream->closing || !op_idle(op))
		return;
	op_poll(op, stream->fd, events);
	reactor_start(stream->reactor, op);
}

void
stream_want_read(struct stream *stream)
{
	arm(stream, &stream->read_poll, POLLIN);
}

void
stream_want_write(struct stream *stream)
{
	arm(stream, &stream->write_poll, POLLOUT);
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
	kernel_shutdown(stream->fd);
	maybe_finish_close(stream);
}
