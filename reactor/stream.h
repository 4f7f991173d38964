/* A stream: a connected, non-blocking socket on one reactor, with at most one receive and one send under way.
 * Its user says what is to be moved; the stream finds the cheapest way.  While the reactor is too busy to rest, receives are tried
 * unasked, now and then, until they find something; else, or after too many misses, the stream waits in a parking, or if it has none
 * by a poll.  Of the latency class it waits by a poll in any case.
 * The transfers of one turn are system calls of their own when they are few, and part of the turn's io_submit when they are many
 * (reactor_config.socket_batch_min).
 * Embedded and owned by its user.  All calls on the reactor's thread, and all callbacks come there, never from within a
 * call. */
#ifndef REACTOR_STREAM_H
#define REACTOR_STREAM_H

#include "reactor/parking.h"
#include "reactor/reactor.h"
#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>

enum stream_half_state {
	STREAM_HALF_IDLE,
	STREAM_HALF_LATER,    /* a receive that is tried when there is nothing else to do */
	STREAM_HALF_TRANSFER, /* the reactor is about to try it */
	STREAM_HALF_POLL,     /* the poll is armed; then TRANSFER */
	STREAM_HALF_PARKED,   /* it waits in a parking; then TRANSFER */
	STREAM_HALF_RETIRING, /* its poll is being cancelled; then PARKED, with nothing to receive into */
};

/* Where the streams of a reactor are parked, both ways.  Owned by their users; not before and not after the reactor's run. */
struct stream_parking {
	/* Private. */
	void (*on_stopped)(struct stream_parking *parking);
	struct parking reading, writing;
};

/* Private.  What each event touches comes first: among many streams it is in no cache. */
struct stream_half {
	struct parked parked;
	enum stream_half_state state;
	unsigned part_count;
	struct iovec *parts;
	struct op op;
};

struct stream {
	/* A receive is over.  result: bytes, 0 at the peer's end, or a negative errno of recv(2) but -EAGAIN. */
	void (*on_received)(struct stream *stream, ssize_t result);
	/* A send is over.  result: bytes, which may be fewer than were given; or a negative errno of send(2) but -EAGAIN. */
	void (*on_sent)(struct stream *stream, ssize_t result);
	/* After stream_park: there is something to receive, or the end.  No receive is under way. */
	void (*on_awake)(struct stream *stream);
	/* The end of stream_close: STREAM is no longer used and may be freed. */
	void (*on_closed)(struct stream *stream);
	/* Private. */
	struct reactor *reactor;
	struct stream_parking *parking;
	int fd;
	bool closing;
	bool hot;	   /* receives are tried unasked */
	bool unasked;	   /* this one is */
	bool undrained;	   /* there is more, or may be: what watches it has told already */
	bool receives_all; /* a short receive has taken all: kernel_receives_all */
	uint8_t tries;	   /* of this receive that found nothing */
	uint8_t signs, signs_needed; /* that it should be hot */
	struct stream_half in, out;
	int pipe_fd;	   /* what is sent behind the parts is in it */
	size_t pipe_bytes; /* 0: nothing is */
	/* Of the reactor, when the last wait for receiving began. */
	uint64_t armed_rests, armed_turn;
	struct task try_later;
	struct task finish_close;
};

/* Make PARKING for streams of REACTOR.  Returns 0, or the negative errno of parking_start; then it is not usable. */
int stream_parking_start(struct stream_parking *parking, struct reactor *reactor) MUST_USE;

/* The end of PARKING, whose streams are all closed; on_stopped is called in a later turn: it may be freed then. */
void stream_parking_stop(struct stream_parking *parking,
			 void (*on_stopped)(struct stream_parking *parking));

/* Take FD over, a connected socket that is set to O_NONBLOCK; the callbacks must be set.  The process must ignore SIGPIPE.
 * PARKING is the reactor's, and must outlive the stream; NULL: each wait takes a slot for a poll, or waits for one, and none can be
 * parked. */
void stream_init(struct stream *stream, struct reactor *reactor, struct stream_parking *parking,
		 int fd);

/* Of all that the stream does from now on; normal at first.  Nothing may be under way. */
void stream_set_priority(struct stream *stream, enum priority priority);

/* Receive into PARTS (1 to 1,024, one byte at least), which belong to the stream until on_received.  No other receive may be under
 * way. */
void stream_receive(struct stream *stream, struct iovec *parts, unsigned part_count);

/* Send PARTS (1 to 1,024, one byte at least), which belong to the stream until on_sent.  No other send may be under way. */
void stream_send(struct stream *stream, struct iovec *parts, unsigned part_count);

/* Send PARTS (0 to 1,024), which belong to the stream until on_sent, and behind these BYTES (one at least) of what is in PIPE_FD, a pipe, by
 * splice(2): at least so much is in it, and nobody else reads there meanwhile.  What on_sent counts comes from the parts first; what it
 * does not count is in the pipe still.  Else as stream_send. */
void stream_send_piped(struct stream *stream, struct iovec *parts, unsigned part_count, int pipe_fd,
		       size_t bytes);

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

/* Park STREAM, which waits to receive and does not send: its parts are the caller's again, and on_awake comes instead of
 * on_received.  It holds no slot then.  Returns false, and changes nothing, if it is not waiting but trying, sends, or has no
 * parking.  Slow if it waits by a poll: one io_cancel(2). */
bool stream_park(struct stream *stream);

/* Take STREAM, on which nothing is under way, off its reactor: its descriptor is the caller's again, for a stream of another one. */
void stream_detach(struct stream *stream);

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
