/* A connection: one client, from accept to close, on one core at a time.
 *
 * Receiving: bytes come into `input`, but for the payload of a WRITE, which goes straight into its request's buffer.  First
 * the handshake takes them, later the transmission (transmission.c).  Reading stops, and starts again by itself, while the
 * connection has as many requests or as much memory as it may, or the core has no more to give.
 * Ending: where the daemon wants it, what was read is answered first.  No more is read; what is with the disk comes back; replies are
 * sent (if the client is there to read them) and given time to arrive; then the channel closes and the connection is freed. */
#ifndef NET_CONNECTION_H
#define NET_CONNECTION_H

#include "net/address.h"
#include "net/channel.h"
#include "net/handshake.h"
#include "net/limit.h"
#include "net/service.h"
#include "net/service_gather.h"
#include "net/service_move.h"
#include "net/service_trial.h"
#include "net/traffic.h"
#include "reactor/list.h"

/* Room for a whole option, for any number of headers, or for a dozen short writes: with half of it these had 0.8 to 0.9 times the rate
 * (doc/decisions/0006-sockets.md).  Memory is only what was ever touched of it. */
#define CONNECTION_INPUT_BYTES 65536u

/* A payload and what is behind it; headers and payloads of many replies. */
#define CONNECTION_RECEIVE_PARTS 2
#define CONNECTION_SEND_PARTS	 128

_Static_assert(CONNECTION_INPUT_BYTES >= HANDSHAKE_INPUT_BYTES_MIN, "an option must fit");

/* What only a connection that is at work needs.  All that one request at a time touches is in the first page. */
struct connection_room {
	struct iovec receive_parts[CONNECTION_RECEIVE_PARTS];
	struct iovec send_parts[CONNECTION_SEND_PARTS];
	uint8_t input[CONNECTION_INPUT_BYTES];
};

enum connection_state {
	CONNECTION_STATE_HANDSHAKE,
	CONNECTION_STATE_TRANSMISSION,
	CONNECTION_STATE_FINISHING, /* nothing more is read; replies are sent, then it closes */
	CONNECTION_STATE_LINGERING, /* replies are sent, but the peer may not have them yet */
	CONNECTION_STATE_DROPPED,   /* nothing is read or sent; it closes when the disk is done */
};

struct connection {
	struct service_core *home;
	/* That it began with, held in the handshake; then NULL. */
	struct service_settings *settings;
	enum connection_state state;
	int fd; /* the channel's, from connection_start on */
	struct channel channel;
	struct list_node node;	/* in home->connections or home->parked */
	struct message message; /* placement */
	char peer[ADDRESS_TEXT_BYTES];
	/* Of the handshake; or for the rest of a request when it is to end. */
	struct timer deadline;
	struct timer linger;
	unsigned linger_count; /* looks since so much less was unsent */
	long linger_bytes;     /* that were unsent then */
	struct task receive;   /* go on receiving */
	struct task flush;     /* send what waits */

	struct connection_room *room;  /* owned */
	size_t input_start, input_end; /* of what is in room->input, received and not yet taken */

	struct handshake handshake;
	size_t handshake_sent_bytes; /* of its reply */
	bool transmission_follows;   /* when the reply is sent */
	bool tls_follows;	     /* likewise */

	/* Whether it uses what it holds: see service_hungry. */
	uint64_t moved_seen;  /* of channel.moved_bytes */
	uint64_t moved_idle;  /* at the last look of service_idle.c that found another number */
	unsigned moved_look;  /* which one that was */
	int64_t arrived_seen; /* of what it is sent while it finishes, when deadline was set */
	unsigned stalled_looks;

	struct move move; /* to another core */
	struct trial trial;
	struct gather gather;
	struct service_core *made_room; /* that it left to others; NULL: none */

	/* Transmission. */
	struct nbd_session session; /* of the handshake, when that is over; its export is held */
	struct traffic traffic;
	unsigned request_count; /* held */
	unsigned request_max;
	bool deep; /* it held SERVICE_DEEP_MIN and more since that was looked at (net/service_balance.h) */
	unsigned io_count;	    /* with the volume */
	size_t buffer_bytes;	    /* held */
	unsigned pipe_count;	    /* held */
	struct export_share *share; /* these are part of; NULL: it is not at work */
	/* WRITE whose payload is coming, or waits for its last piece. */
	struct nbd_request *receiving;
	uint32_t payload_left; /* bytes to come of its piece; 0: the piece is with the volume */
	uint64_t skip_bytes;   /* of a payload that nobody wants */
	struct nbd_request *refused;   /* whose payload that is; its answer waits */
	struct nbd_request *starved;   /* needs a buffer or a turn; nothing behind it is read */
	struct limit limit;	       /* its turn */
	struct list_node starved_node; /* in a list of home's: the core has nothing to give */
	bool starves_for_much;	       /* in which one */
	bool throttled;		  /* has its own share: goes on when a request of its own ends */
	struct list_node replies; /* requests with something to send */
	size_t front_sent_bytes;  /* of the first one's part */
	/* READ whose chunk is sent in part: no other reply may come between. */
	struct nbd_request *in_pieces;
	bool shutting_down;  /* what has not begun is not: it is answered, and then this ends */
	bool dropped;	     /* its requests are abandoned: volume.h */
	bool refusal_logged; /* of a request */
	uint64_t slow_ns;    /* requests that take longer are logged; 0: none */
};

/* Make a connection of FD on HOME's core, after SETTINGS: owns FD from here on, also if it fails.  Any core; the rest happens on HOME's.
 * Counts as one of HOME's connections, which the caller has raised.  Returns 0 or -ENOMEM; then FD is closed. */
int connection_create(struct service_core *home, struct service_settings *settings, int fd,
		      const struct address *peer) MUST_USE;

/* What a log line about CONNECTION is about: "client" and, when it has chosen one, "export". */
struct log_fields connection_log_fields(const struct connection *connection);

/* End it when what was begun is answered, and take nothing more: the client wants to leave. */
void connection_finish(struct connection *connection);

/* End it when all that was read of it is answered, with ESHUTDOWN what has not begun: the daemon wants to leave, or the export goes. */
void connection_shut_down(struct connection *connection);

/* End it now: log WHY (NULL: without a word), discard what was not sent.  Harmless if it is ending. */
void connection_drop(struct connection *connection, const char *why);

/* Take up receiving at the end of this turn. */
void connection_resume(struct connection *connection);

/* Take up receiving now: the core has something to give again. */
void connection_retry(struct connection *connection);

/* Park CONNECTION if nothing has moved since the last time, and nothing is under way.  Returns whether it is parked now. */
bool connection_park_if_idle(struct connection *connection);

/* Drop CONNECTION if its peer is gone while nothing is received from it: it waits for its turn, or for room.  Takes a system call then. */
void connection_notice_end(struct connection *connection);

/* If CONNECTION is ending and nothing holds it, close it.  To be called when io_count falls or replies are sent. */
void connection_maybe_close(struct connection *connection);

#endif
