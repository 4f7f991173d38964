/* Requests that took longer than their export allows (slow-ms): a line with where the time went.
 *   queue    waiting for a turn at the export's limits, or for a buffer; from the header's arrival on
 *   disk     with the volume, from volume_submit until it is done, the wait for a locked range and for the core included
 *   socket   the payload's coming, and the reply's going: the client or the network
 * What a client asks for beyond requests-per-connection is not read yet, so it has not begun to wait here.
 * Where slow-ms is 0 nothing is measured: no clock is read. */
#ifndef NET_SLOW_LOG_H
#define NET_SLOW_LOG_H

#include <stdint.h>

struct connection;
struct nbd_request;

enum slow_stage {
	SLOW_STAGE_QUEUE,
	SLOW_STAGE_DISK,
	SLOW_STAGE_SOCKET,
	SLOW_STAGE_COUNT,
};

/* A request's; embedded.  On the core's thread, as all functions here. */
struct slow_watch {
	/* Private. */
	uint64_t since_ns; /* of the stage; 0: the request is not watched */
	enum slow_stage stage;
	uint64_t spent_ns[SLOW_STAGE_COUNT]; /* before */
};

/* CONNECTION has chosen its export, or what the service offers has changed: take over the export's time. */
void slow_log_settle(struct connection *connection);

/* REQUEST's header has come. */
void slow_log_begin(struct nbd_request *request);

/* It comes to STAGE. */
void slow_log_enter(struct nbd_request *request, enum slow_stage stage);

/* Its reply is sent. */
void slow_log_end(struct nbd_request *request);

#endif
