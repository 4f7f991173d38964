/* One connection in its transmission phase, as a client: requests out, replies in, on a channel (plain, or inside TLS) of one reactor.
 * The requests of a turn leave in one send.  Replies come in any order.  What fails ends the client: `on_failed` is called once, the
 * requests that were under way are not done, and nothing more may be submitted.
 * All on the reactor's thread; no callback comes from within a call. */
#ifndef BENCH_LOAD_CLIENT_H
#define BENCH_LOAD_CLIENT_H

#include "bench/load/target.h"
#include "bench/load/wire.h"
#include "net/channel.h"
#include "net/nbd.h"
#include "reactor/list.h"
#include <stdbool.h>
#include <stdint.h>

/* Requests in one sendmsg; each has a header, and a WRITE a payload. */
#define CLIENT_SEND_REQUESTS 64u

/* Of what a server says of an error; the rest is cut off. */
#define CLIENT_MESSAGE_BYTES_MAX 160u

/* One request; embedded by its owner, the client's from client_submit until done. */
struct client_request {
	enum nbd_command command;
	uint16_t flags; /* NBD_CMD_FLAG_ */
	uint64_t offset;
	uint32_t length;
	/* LENGTH bytes: what to WRITE; or room for what is READ, NULL: it is thrown away. */
	uint8_t *buffer;
	/* Private. */
	unsigned slot; /* the cookie */
	uint32_t error;
	uint32_t answered_bytes; /* of a READ */
	struct list_node node;
};

struct client {
	/* The reply is here.  error: 0, or the server's NBD error, with what it says of it in MESSAGE, "" if nothing. */
	void (*on_done)(struct client *client, struct client_request *request, uint32_t error,
			const char *message);
	/* Why: text that is valid as long as the client. */
	void (*on_failed)(struct client *client, const char *why);
	/* The end of client_close. */
	void (*on_closed)(struct client *client);
	uint64_t received_ns; /* CLOCK_MONOTONIC: when what is being done was received */
	/* Of all that was read: those that the server did not send, because they are zeros. */
	uint64_t hole_bytes;
	/* Private. */
	struct reactor *reactor;
	enum nbd_style style;
	struct link link; /* the channel's */
	struct channel channel;
	struct client_request **slots; /* [depth]; the cookie is the index */
	unsigned depth;
	unsigned *unused; /* a stack of the indices that are */
	unsigned unused_count;
	bool failed;
	bool leaving;	       /* closed by its owner: what is half sent goes out, then goodbye */
	struct timer farewell; /* the end of that */
	struct task flush;
	/* Requests, in order, behind those in the batch that is being sent. */
	struct list_node unsent;
	uint8_t headers[CLIENT_SEND_REQUESTS * WIRE_REQUEST_BYTES_MAX];
	struct iovec parts[2 * CLIENT_SEND_REQUESTS];
	struct iovec *part; /* the first that is not sent */
	unsigned part_count;
	struct iovec receive_part;
	uint8_t *input; /* of input_bytes */
	size_t input_bytes, input_used;
	struct client_request *reading; /* whose payload comes, while payload_left > 0 */
	uint32_t payload_left;
	uint8_t *payload_to;			/* or NULL */
	bool payload_last;			/* then the request is done */
	const struct client_request *error_of;	/* whose error `message` is */
	char message[CLIENT_MESSAGE_BYTES_MAX]; /* of a server */
};

/* Take over the connection of SESSION; it becomes non-blocking.  At most DEPTH requests at a time; payloads are mostly of
 * LENGTH bytes.  The callbacks must be set.  PARKING: as for stream_init.
 * Returns 0 or -ENOMEM; then it is the caller's. */
int client_init(struct client *client, struct reactor *reactor, struct stream_parking *parking,
		const struct target_session *session, unsigned depth, uint32_t length) MUST_USE;

/* Send REQUEST at the end of this turn.  Fewer than DEPTH may be under way. */
void client_submit(struct client *client, struct client_request *request);

/* Say goodbye (DISC) behind what is half sent, for which a server has a second, and close; on_closed follows.  What was under way is
 * forgotten. */
void client_close(struct client *client);

/* Free what client_init made; after on_closed. */
void client_fini(struct client *client);

#endif
