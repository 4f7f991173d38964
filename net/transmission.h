/* The transmission phase of a connection: bytes of requests in, bytes of replies out. */
#ifndef NET_TRANSMISSION_H
#define NET_TRANSMISSION_H

#include "net/connection.h"

/* Where the next bytes go: up to CONNECTION_RECEIVE_PARTS parts.  Returns how many; 0: nothing may be received now. */
unsigned transmission_receive_parts(struct connection *connection, struct iovec *parts);

/* COUNT bytes have come into those parts (0: none, but there may be input from before): take all that can be. */
void transmission_received(struct connection *connection, size_t count);

/* What is to be sent now, in *parts, which points to room for CONNECTION_SEND_PARTS and is moved to the first one.  *pipe, NULL before the
 * call: what the last part stands for is in that.  Returns how many parts.  They are valid until transmission_sent, or
 * transmission_discard. */
unsigned transmission_send_parts(struct connection *connection, struct iovec **parts,
				 const struct pipe **pipe) MUST_USE;

/* The first COUNT bytes of those parts are sent. */
void transmission_sent(struct connection *connection, size_t count);

/* Answer what was read with ESHUTDOWN, but for what has begun; when nothing is left, and no payload is to come any more, the connection
 * finishes. */
void transmission_shut_down(struct connection *connection);

/* Give back all requests that are not with the volume. */
void transmission_discard(struct connection *connection);

/* Whether the input, of which not all can be taken now, seems to end with a goodbye: then what was asked before it is to be answered. */
bool transmission_has_goodbye(const struct connection *connection);

/* Whether what is to be sent next, and all that is behind it, waits for the volume: for the next piece of a reply that is sent in pieces. */
bool transmission_awaits_piece(const struct connection *connection);

/* True if every request was answered and sent. */
bool transmission_idle(const struct connection *connection);

#endif
