/* The transmission phase of a connection: requests in, replies out. */
#ifndef NET_TRANSMISSION_H
#define NET_TRANSMISSION_H

#include "disk/volume.h"
#include "net/connection.h"
#include "net/nbd.h"
#include "net/nbd_wire.h"

/* One request of a client, from its header to the last byte of its reply.  From the core's pool. */
struct nbd_request {
	struct volume_request io; /* the current piece */
	struct connection *connection;
	struct list_node node; /* in the pool, or in connection->replies */
	struct nbd_header header;
	uint32_t served_bytes; /* in earlier pieces */
	enum nbd_error error;
	bool header_sent;
	size_t buffer_bytes; /* of io.buffer; 0: none */
	struct nbd_wire_simple_reply reply;
};

/* Where the next bytes go: up to CONNECTION_RECEIVE_PARTS parts.  Returns how many; 0: nothing may be received now. */
unsigned transmission_receive_parts(struct connection *connection, struct iovec *parts);

/* COUNT bytes have come into those parts (0: none, but there may be input from before): take all that can be. */
void transmission_received(struct connection *connection, size_t count);

/* What is to be sent now, in *parts, which points to room for CONNECTION_SEND_PARTS and is moved to the first one.  Returns how many
 * parts.  They are valid until transmission_sent, or transmission_discard. */
unsigned transmission_send_parts(struct connection *connection, struct iovec **parts);

/* The first COUNT bytes of those parts are sent. */
void transmission_sent(struct connection *connection, size_t count);

/* Give back all requests that are not with the volume. */
void transmission_discard(struct connection *connection);

/* True if every request was answered and sent. */
bool transmission_idle(const struct connection *connection);

#endif
