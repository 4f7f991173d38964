/* A stream: a connected, non-blocking socket on one reactor, with at most one receive and one send under way.
 * Its user says what is to be moved; the stream finds the cheapest way.  A receive that follows a successful one is tried
 * unasked, in the hope that more has come; after misses a poll is armed first, until one shows that there was something at once.
 * The transfers of one turn are system calls of their own when they are few, and part of the turn's io_submit when they are many
 * (reactor_config.socket_batch_min).
 * Embedded and owned by its user.  All calls on the reactor's thread, and all callbacks come there, never from within a
 * call. */
#ifndef REACTOR_STREAM_H
#define REACTOR_STREAM_H

#include "reactor/reactor.h"
#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>

enum stream_half_state {
	STREAM_HALF_IDLE,
	STREAM_HALF_TRANSFER, /* the reactor is about to try it */
	STREAM_HALF_POLL,     /* the poll is armed; then TRANSFER */
};

/* Private. */
struct stream_half {
	struct op op;
	enum stream_half_state state;
	struct iovec *parts;
	unsigned part_count;
};

struct stream {
	/* A receive is over.  result: bytes, 0 at the peer's end, or a negative errno of recv(2) but -EAGAIN. */
	void (*on_received)(struct stream *stream, ssize_t result);
	/* A send is over.  result: bytes, which may be fewer than were given; or a negative errno of send(2) but -EAGAIN. */
	void (*on_sent)(struct stream *stream, ssize_t result);
	/* The end of stream_close: STREAM is no longer used and may be freed. */
	void (*on_closed)(struct stream *stream);
	/* Private. */
	struct reactor *reactor;
	int fd;
	bool closing;
	struct stream_half in, out;
	unsigned misses;     /* receives in a row that were tried unasked and found nothing */
	bool polled;	     /* this receive has been through a poll */
	uint64_t armed_turn; /* when the poll of a receive goes to the kernel */
	struct task finish_close;
};

/* Take FD over, a connected socket that is set to O_NONBLOCK; the callbacks must be set.  The process must ignore SIGPIPE. */
void stream_init(struct stream *stream, struct reactor *reactor, int fd);

/* Of all that the stream does from now on; normal at first.  Nothing may be under way. */
void stream_set_priority(struct stream *stream, enum priority priority);

/* Receive into PARTS (1 to 1,024, one byte at least), which belong to the stream until on_received.  No other receive may be under
 * way. */
void stream_receive(struct stream *stream, struct iovec *parts, unsigned part_count);

/* Send PARTS (1 to 1,024, one byte at least), which belong to the stream until on_sent.  No other send may be under way. */
void stream_send(struct stream *stream, struct iovec *parts, unsigned part_count);

static inline bool
stream_receiving(const struct stream *stream)
{
	return stream->in.state != STREAM_HALF_IDLE;
}

static inline bool
stream_sending(const struct stream *stream)
{
	return stream->out.state != STREAM_HALF_IDLE;
}

/* Give up what is under way: no on_received and on_sent comes of it, and its parts are the caller's again.  What was already
 * received, or sent, is lost, or not: only for a stream that is to be closed. */
void stream_abandon(struct stream *stream);

/* Send no more; and, how many bytes of what was sent the peer's kernel does not have yet.  Closing a TCP socket before it
 * has them, or with received bytes unread, throws them away. */
void stream_end_sending(struct stream *stream);
int stream_unsent_bytes(const struct stream *stream);

/* Give up what is under way and end both directions; on_closed follows.  Harmless if called already. */
void stream_close(struct stream *stream);

#endif
