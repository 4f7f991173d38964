/* A stream: a connected, non-blocking socket on one core, with its readiness and its orderly end.
 * Embedded and owned by a connection.  All calls on the core that called stream_init. */
#ifndef NET_STREAM_H
#define NET_STREAM_H

#include "reactor/reactor.h"
#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>

struct stream {
	/* The socket may be readable, writable: try.  Called once per stream_want_*. */
	void (*on_readable)(struct stream *stream);
	void (*on_writable)(struct stream *stream);
	/* The end of stream_close: STREAM is no longer used and may be freed. */
	void (*on_closed)(struct stream *stream);
	/* Private. */
	struct reactor *reactor;
	int fd;
	bool closing;
	struct op read_poll, write_poll;
	struct task finish_close;
};

/* Take FD over; the callbacks must be set. */
void stream_init(struct stream *stream, struct reactor *reactor, int fd);

/* Receive into, or send from, PARTS without blocking; parts are left as they are.
 * Returns how many bytes (receiving: 0 at the peer's end), or a negative errno; -EAGAIN: want, and try later. */
ssize_t stream_receive(struct stream *stream, struct iovec *parts, unsigned part_count) MUST_USE;
ssize_t stream_send(struct stream *stream, struct iovec *parts, unsigned part_count) MUST_USE;

/* Have on_readable, on_writable called when the socket is ready, or at once if it is.  Harmless if wanted already, and
 * after stream_close. */
void stream_want_read(struct stream *stream);
void stream_want_write(struct stream *stream);

/* Send no more; and, how many bytes of what was sent the peer's kernel does not have yet.  Closing a TCP socket before it
 * has them, or with received bytes unread, throws them away. */
void stream_end_sending(struct stream *stream);
int stream_unsent_bytes(const struct stream *stream);

/* End both directions; on_closed follows, never from within this call.  Harmless if called already. */
void stream_close(struct stream *stream);

#endif
