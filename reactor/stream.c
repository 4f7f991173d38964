/* Sockets on the reactor's ring.
 *
 * Each half goes IDLE -> TRANSFER -> (nothing there) -> wait -> TRANSFER -> IDLE.  A receive of a stream that is not hot begins with
 * waiting; one of a hot stream is tried again LATER before it waits, and only LATER if the stream is sending.
 *
 * A receive waits in the parking (PARKED), where a stream stays watched from its first wait on, so that waiting again costs
 * nothing: but the parking tells only what is new, so the stream keeps in mind what it left (undrained).  A hot stream is not
 * watched.  By a poll (POLL) waits what the parking can't take, and the latency class, which the ring tells of at once; and sends, until
 * there are no slots left.  A stream that is parked on purpose has no parts to go on with: on_awake.
 *
 * Who is called by the reactor receives at once instead of submitting an operation, and sends are made at once, too, where the
 * reactor allows it: see reactor_transfers_directly.  The result of a send is told in a later turn.
 *
 * An armed poll pins its file, so that close alone would neither end the connection nor free the poll's slot.  Therefore:
 * abandon, shut down, which completes the poll, and then close; the event finds no operation any more. */
#include "reactor/stream.h"

#include <errno.h>
#include <poll.h>

/* Receives of a hot stream that find nothing, before it waits after all. */
#define TRIES_MAX 2
/* One that is answered within so many turns would have been found by trying. */
#define HOT_TURNS 8
/* And only where not too many are told of at a time: in a crowd each costs less than a try in vain. */
#define HOT_TOLD 40
/* Waits that were answered so while the reactor never rested, before a stream that was tried in vain is hot again, at most. */
#define SIGNS_MAX 64

static void send_pipe_directly(struct stream *stream);

static void
transfer(struct stream *stream, struct stream_half *half)
{
	if (half == &stream->out && stream->pipe_bytes > 0) {
		send_pipe_directly(stream);
		return;
	}
	half->state = STREAM_HALF_TRANSFER;
	if (half == &stream->in) {
		/* What the parking tells from now on may come behind the receive, which is made later, and its result told
		 * later still. */
		stream->undrained = false;
		op_receive(&half->op, stream->fd, half->parts, half->part_count);
	} else {
		op_send(&half->op, stream->fd, half->parts, half->part_count);
	}
	reactor_start_always(stream->reactor, &half->op);
}

/* Whether HALF may take one more slot for a poll.  Some are left for receiving when many peers do not read; and some for those who
 * can't wait elsewhere, as listeners. */
static bool
may_poll(const struct stream *stream, const struct stream_half *half)
{
	unsigned slots = reactor_slots(stream->reactor, OP_KIND_POLL);

	return reactor_free_slots(stream->reactor, OP_KIND_POLL) >
		       slots / (half == &stream->in ? 2 : 4) &&
	       reactor_free_slots_of(stream->reactor, OP_KIND_POLL, half->op.priority) > 0;
}

static int
park(struct stream *stream, struct stream_half *half)
{
	struct stream_parking *parking = stream->parking;

	return parking_add(half == &stream->in ? &parking->reading : &parking->writing,
			   &half->parked, stream->fd);
}

/* Have STREAM watched for something to receive.  Returns whether it is. */
static bool
watch(struct stream *stream)
{
	return stream->parking != NULL && stream->in.op.priority != PRIORITY_LATENCY &&
	       parking_watch(&stream->parking->reading, &stream->in.parked, stream->fd) == 0;
}

/* HALF waits until it can go on. */
static void
arm(struct stream *stream, struct stream_half *half)
{
	bool in = half == &stream->in;

	if (in) {
		stream->armed_rests = reactor_rests(stream->reactor);
		stream->armed_turn = reactor_turns(stream->reactor);
	}
	half->state = STREAM_HALF_PARKED;
	if (in && watch(stream))
		return;
	if (stream->parking != NULL && !may_poll(stream, half) && park(stream, half) == 0)
		return;
	half->state = STREAM_HALF_POLL;
	op_poll(&half->op, stream->fd, in ? POLLIN : POLLOUT);
	reactor_start_always(stream->reactor, &half->op);
}

static void
receive_later(struct stream *stream)
{
	stream->in.state = STREAM_HALF_LATER;
	reactor_defer_idle(stream->reactor, &stream->try_later);
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
		if (half == &stream->in && stream->undrained)
			transfer(stream, half);
		else if (half == &stream->in && stream->hot)
			receive_later(stream);
		else
			arm(stream, half);
		return false;
	}
	half->state = STREAM_HALF_IDLE;
	return true;
}

/* Tries that found nothing were in vain: next time it takes twice as many signs to make the stream hot. */
static void
cool_down(struct stream *stream)
{
	if (stream->signs_needed < SIGNS_MAX)
		stream->signs_needed = (uint8_t)(2 * stream->signs_needed);
	stream->signs = 0;
	stream->hot = false;
}

/* STREAM's wait was answered: soon enough, and while the reactor was busy all the time, is a sign that trying would have done. */
static void
learn_from_wait(struct stream *stream)
{
	if (reactor_rests(stream->reactor) != stream->armed_rests ||
	    reactor_turns(stream->reactor) - stream->armed_turn > HOT_TURNS ||
	    (stream->parking != NULL && parking_told(&stream->parking->reading) > HOT_TOLD))
		return;
	stream->hot = ++stream->signs >= stream->signs_needed;
	if (stream->hot)
		parking_mute(&stream->in.parked);
}

/* Learn from what came of a try whether the next one is to be made unasked. */
static void
learn_from_try(struct stream *stream, long result)
{
	if (result != -EAGAIN) {
		if (stream->unasked)
			stream->signs_needed = 1;
	} else if (++stream->tries == TRIES_MAX) {
		cool_down(stream);
	}
}

static size_t
bytes_of(const struct iovec *parts, unsigned part_count)
{
	size_t bytes = 0;

	for (unsigned i = 0; i < part_count; i++)
		bytes += parts[i].iov_len;
	return bytes;
}

/* Keep in mind whether there may be more after a receive with RESULT.  A short one has taken all, where sockets do that, but
 * neither the end nor what is behind urgent bytes: epoll(7), tcp(7).  One that failed has taken nothing. */
static void
note_rest(struct stream *stream, long result)
{
	const struct stream_half *half = &stream->in;

	if (result > 0)
		stream->undrained |= !stream->receives_all ||
				     (size_t)result == bytes_of(half->parts, half->part_count) ||
				     (half->parked.events & ~(unsigned)EPOLLIN) != 0;
	else if (result != -EAGAIN)
		stream->undrained = true;
}

/* Its poll is no longer armed. */
static void
retire(struct stream *stream)
{
	stream->in.state = STREAM_HALF_PARKED;
	/* Without room in the kernel for one more there is nothing to wait for. */
	if (park(stream, &stream->in) < 0) {
		stream->in.state = STREAM_HALF_IDLE;
		stream->on_awake(stream);
	}
}

static void
received(struct stream *stream, long result)
{
	learn_from_try(stream, result);
	note_rest(stream, result);
	if (half_done(stream, &stream->in, result))
		stream->on_received(stream, result);
}

/* Receive at once, not by way of the reactor's queues. */
static long
receive_directly(struct stream *stream)
{
	stream->in.state = STREAM_HALF_TRANSFER;
	stream->undrained = false;
	reactor_count_direct(stream->reactor);
	return kernel_recvmsg(stream->fd, stream->in.parts, stream->in.part_count);
}

static void
in_done(struct op *op, long result)
{
	struct stream *stream = container_of(op, struct stream, in.op);

	switch (stream->in.state) {
	case STREAM_HALF_RETIRING:
		retire(stream);
		break;
	case STREAM_HALF_POLL:
		learn_from_wait(stream);
		/* Whatever a poll says, trying tells. */
		if (reactor_transfers_directly(stream->reactor))
			received(stream, receive_directly(stream));
		else
			transfer(stream, &stream->in);
		break;
	default:
		received(stream, result);
	}
}

/* What was received is told in its class's turn. */
static void
try_later(struct task *task)
{
	struct stream *stream = container_of(task, struct stream, try_later);
	long result;

	if (!reactor_transfers_directly(stream->reactor)) {
		transfer(stream, &stream->in);
		return;
	}
	result = receive_directly(stream);
	if (result == -EAGAIN)
		received(stream, result);
	else
		reactor_complete(stream->reactor, &stream->in.op, result);
}

/* There is something to receive for STREAM, which was parked on purpose. */
static void
wake(struct stream *stream)
{
	stream->in.state = STREAM_HALF_IDLE;
	stream->undrained = true;
	if (stream->in.op.priority == PRIORITY_LATENCY)
		parking_remove(&stream->in.parked);
	stream->on_awake(stream);
}

static void
in_ready(struct parked *parked)
{
	struct stream *stream = container_of(parked, struct stream, in.parked);

	if (stream->in.state != STREAM_HALF_PARKED) {
		stream->undrained = true; /* it is watched, but does not wait */
		return;
	}
	if (stream->in.parts == NULL) {
		wake(stream);
		return;
	}
	learn_from_wait(stream);
	if (reactor_take_call(stream->reactor, &stream->in.op))
		received(stream, receive_directly(stream));
	else
		transfer(stream, &stream->in);
}

static void
out_ready(struct parked *parked)
{
	struct stream *stream = container_of(parked, struct stream, out.parked);

	transfer(stream, &stream->out);
}

/* A send was made at once, with RESULT; on_sent comes in a later turn. */
static void
sent_directly(struct stream *stream, ssize_t result)
{
	struct stream_half *half = &stream->out;

	reactor_count_direct(stream->reactor);
	half->state = STREAM_HALF_TRANSFER;
	if (result == -EAGAIN)
		arm(stream, half);
	else
		reactor_complete(stream->reactor, &half->op, result);
}

static void
send_directly(struct stream *stream)
{
	sent_directly(stream,
		      kernel_sendmsg(stream->fd, stream->out.parts, stream->out.part_count));
}

/* The ring has no operation for it. */
static void
send_pipe_directly(struct stream *stream)
{
	sent_directly(stream,
		      kernel_send_piped(stream->fd, stream->out.parts, stream->out.part_count,
					stream->pipe_fd, stream->pipe_bytes));
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
half_init(struct stream_half *half, void (*done)(struct op *op, long result),
	  void (*ready)(struct parked *parked))
{
	op_init(&half->op, done);
	parked_init(&half->parked, ready);
	half->state = STREAM_HALF_IDLE;
}

void
stream_init(struct stream *stream, struct reactor *reactor, struct stream_parking *parking, int fd)
{
	stream->reactor = reactor;
	stream->parking = parking;
	stream->fd = fd;
	stream->closing = false;
	half_init(&stream->in, in_done, in_ready);
	half_init(&stream->out, out_done, out_ready);
	stream->pipe_bytes = 0;
	stream->hot = false;
	stream->undrained = false;
	stream->receives_all = kernel_receives_all(fd);
	stream->signs = 0;
	stream->signs_needed = 1;
	task_init(&stream->try_later, try_later);
	task_init(&stream->finish_close, finish_close);
}

void
stream_set_priority(struct stream *stream, enum priority priority)
{
	parking_remove(&stream->in.parked); /* the latency class is not watched */
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
	stream->tries = 0;
	stream->unasked = stream->hot;
	if (stream->undrained) {
		transfer(stream, half);
	} else if (!stream->hot) {
		arm(stream, half);
	} else if (stream_sending(stream)) {
		receive_later(stream); /* most likely the peer waits for what is being sent */
	} else {
		transfer(stream, half);
	}
}

static void
begin_sending(struct stream *stream, struct iovec *parts, unsigned part_count)
{
	CHECK(stream->out.state == STREAM_HALF_IDLE && !stream->closing);
	stream->out.parts = parts;
	stream->out.part_count = part_count;
}

void
stream_send(struct stream *stream, struct iovec *parts, unsigned part_count)
{
	begin_sending(stream, parts, part_count);
	stream->pipe_bytes = 0;
	if (reactor_transfers_directly(stream->reactor))
		send_directly(stream);
	else
		transfer(stream, &stream->out);
}

void
stream_send_piped(struct stream *stream, struct iovec *parts, unsigned part_count, int pipe_fd,
		  size_t bytes)
{
	begin_sending(stream, parts, part_count);
	stream->pipe_fd = pipe_fd;
	stream->pipe_bytes = bytes;
	send_pipe_directly(stream);
}

bool
stream_park(struct stream *stream)
{
	struct stream_half *half = &stream->in;

	if (stream->parking == NULL || stream_sending(stream))
		return false;
	if (half->state == STREAM_HALF_POLL) {
		half->state = STREAM_HALF_RETIRING;
		reactor_cancel_poll(stream->reactor, &half->op);
	} else if (half->state != STREAM_HALF_PARKED) {
		return false;
	}
	half->parts = NULL;
	return true;
}

static void
abandon(struct stream *stream, struct stream_half *half)
{
	reactor_abandon(stream->reactor, &half->op);
	parking_remove(&half->parked);
	half->state = STREAM_HALF_IDLE;
}

void
stream_detach(struct stream *stream)
{
	CHECK(!stream_receiving(stream) && !stream_sending(stream) && !stream->closing);
	parking_remove(&stream->in.parked);
	parking_remove(&stream->out.parked);
}

void
stream_abandon(struct stream *stream)
{
	task_cancel(&stream->try_later);
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

/* ---- where streams are parked ---- */

int
stream_parking_start(struct stream_parking *parking, struct reactor *reactor)
{
	int error;

	if (parking == NULL)
		return -EINVAL;
	error = parking_start(&parking->reading, reactor, POLLIN);
	if (error < 0)
		return error;
	error = parking_start(&parking->writing, reactor, POLLOUT);
	if (error < 0)
		parking_discard(&parking->reading);
	return error;
}

static void
writing_stopped(struct parking *stopped)
{
	struct stream_parking *parking = container_of(stopped, struct stream_parking, writing);

	parking->on_stopped(parking);
}

static void
reading_stopped(struct parking *stopped)
{
	struct stream_parking *parking = container_of(stopped, struct stream_parking, reading);

	parking_stop(&parking->writing, writing_stopped);
}

void
stream_parking_stop(struct stream_parking *parking,
		    void (*on_stopped)(struct stream_parking *parking))
{
	parking->on_stopped = on_stopped;
	parking_stop(&parking->reading, reading_stopped);
}
