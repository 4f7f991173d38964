/* What is done for a request: it goes to the volume, piece by piece, and makes its reply part by part.
 *
 * A request longer than a piece is served in one buffer.  A READ's next part is made when the last one is sent; a WRITE's next piece
 * is received when the last is written.  A READ's parts are chunks of their own, between which other replies may come; but with simple
 * replies, or the flag DF, they are one, whose header is sent before all of it is read: if it fails in the middle, the connection
 * ends, or zeros and an error come behind.
 * A sparse READ asks the volume for its holes first, if it does not remember, and does not read them. */
#ifndef NET_SERVE_H
#define NET_SERVE_H

#include "net/request.h"
#include "reactor/check.h"

/* Begin to serve REQUEST, whose header is valid: anything but DISC.  A WRITE becomes connection->receiving.
 * Returns false if it needs a buffer and there is none: then nothing has begun, to be called again. */
bool serve_begin(struct nbd_request *request) MUST_USE;

/* A piece of a WRITE's payload is in the buffer. */
void serve_payload_piece(struct nbd_request *request);

/* REQUEST's header is not valid: answer ERROR, for the reason WHY.  If it is its connection's `refused`, the answer waits for
 * serve_send. */
void serve_refuse(struct nbd_request *request, enum nbd_error error, const char *why);

/* REQUEST is not begun, because the connection shuts down; its answer waits in the same way. */
void serve_shut_down(struct nbd_request *request);

/* REQUEST, answered, may be sent. */
void serve_send(struct nbd_request *request);

/* REQUEST's part is sent: make the next one, or end. */
void serve_part_sent(struct nbd_request *request);

#endif
