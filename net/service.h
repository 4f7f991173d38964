/* The NBD service: exports served to connections on all cores.
 * Each core owns its connections, its pool of requests and its buffers; a connection is placed on the core with the
 * fewest, and mostly stays there (net/service_move.h). */
#ifndef NET_SERVICE_H
#define NET_SERVICE_H

#include "net/client_log.h"
#include "net/client_table.h"
#include "net/cpu_usage.h"
#include "net/listener.h"
#include "net/service_balance.h"
#include "net/service_settings.h"
#include "net/tls_line.h"
#include "net/traffic.h"
#include "reactor/core.h"
#include "reactor/stream.h"
#include <semaphore.h>
#include <stdbool.h>

struct connection;
struct request_block;

/* The largest part of a request that is in memory at one time; longer requests are served in pieces.  The buffers' largest
 * block must hold a piece and two blocks of the volume. */
#define SERVICE_PIECE_BYTES	     (2u << 20)
#define SERVICE_BUFFER_BYTES_LARGEST ((size_t)4 << 20)

/* One core's part of the service.  Owned by the core but for connection_count. */
struct service_core {
	struct core *core;
	struct service *service;
	struct service_settings *settings; /* one reference; for the connections that come here */
	/* Atomic: raised by the core that places, lowered here; placement goes by it. */
	unsigned connection_count;
	/* Atomic: when it last saw one of its connections make many requests; see net/service_trial.h. */
	uint64_t busy_ns;
	struct balance balance;
	struct list_node connections; /* at work, or were lately */
	struct list_node parked;      /* idle for long */
	struct stream_parking parking;
	bool parking_started;
	struct timer idle_look;		/* runs while there are connections at work */
	unsigned idle_looks;		/* how many were begun */
	bool idle_rest;			/* the next one goes on with the last */
	struct traffic traffic_of_gone; /* of connections that are no more */
	struct request_block *request_blocks;
	struct list_node unused_requests;
	unsigned unused_request_count;
	/* For connections that hold no request: one for each of this core's even share of max-connections. */
	unsigned kept_request_count;
	size_t bytes_per_connection_max; /* of buffers; a lone request may have more */
	size_t bytes_reserved; /* of buffers: for connections that hold none and need little */
	struct request_block *more_requests; /* from service_change; NULL: none */
	struct list_node shares; /* struct export_share: of exports whose clients are at work */
	unsigned share_count;
	/* Of these, those whose connections starve; stale ones among them. */
	struct list_node hungry;
	struct task feed;
	struct timer hunger;	  /* runs while connections starve */
	struct tls_line tls_line; /* handshakes of its connections */
	struct timer log_flush;	  /* runs while lines were left out here: net/client_log.h */
	struct timer drain_deadline;
	bool draining;
	bool drops;		/* connections of exports that are not in the settings */
	struct message message; /* from service_start, service_change and service_stop */
} __attribute__((aligned(64)));

struct service {
	/* Private. */
	/* For the cores to take, while service_change waits for them; and whether they are to drop
	 * connections of exports that are gone. */
	struct service_settings *next_settings;
	bool next_drops;
	struct cores *cores;
	unsigned core_count; /* cores->count is 0 when the service is freed */
	struct service_core *per_core;
	bool started;
	bool stopping;		    /* atomic: connections stay where they are */
	struct list_node listeners; /* struct service_listener */
	unsigned listener_count;
	unsigned connection_count; /* atomic: on all cores */
	struct client_table clients;
	struct cpu_usage cpu_usage;
	struct client_log client_log;
	sem_t done; /* a listener or a core has done what it was told */
};

/* Prepare to serve on CORES, which run and must outlive the service, after SETTINGS, which it holds.
 * Returns 0 or -ENOMEM; then SERVICE is not usable. */
int service_init(struct service *service, struct cores *cores,
		 struct service_settings *settings) MUST_USE;

/* Listen on ADDRESS; *bound (may be NULL) is where, with the port that the kernel chose.  Clients wait until the next service_start.
 * Returns 0, or the negative errno of listener_open, logged. */
int service_listen(struct service *service, const struct address *address,
		   struct address *bound) MUST_USE;

/* Listen on FD, which a service manager made, in the same way; it is the service's then.
 * Returns 0, or the negative errno of listener_adopt, logged. */
int service_adopt(struct service *service, int fd, struct address *bound) MUST_USE;

/* Accept connections, on the listeners that have come since the last call, too. */
void service_start(struct service *service);

/* Listen no more where a listener said that it was BOUND; removes the path of a Unix socket.  Connections stay.  Blocks for a
 * moment: not on a core.  Returns false if there is no such listener. */
bool service_unlisten(struct service *service, const struct address *bound);

/* After service_start: let connections that come from now on have SETTINGS, which it holds.
 * drop: connections whose export has no name in them are ended when what they asked is answered; otherwise they stay until their
 * client leaves.  Blocks until all cores have changed: not on a core.
 * Returns 0, or -ENOMEM; then nothing has changed. */
int service_change(struct service *service, struct service_settings *settings, bool drop) MUST_USE;

/* Wait until each core has delivered the messages that were sent to it before.  Not on a core. */
void service_barrier(struct service *service);

/* After service_start: log what each core serves, and to whom, in a bounded number of lines of level info.  Blocks until all cores have: not on
 * a core. */
void service_report(struct service *service);

/* After service_start: accept no more, answer what was asked, close all connections; those that do not read their answers within 10 s are
 * dropped.  Blocks until all are gone and nothing is in flight: not on a core. */
void service_stop(struct service *service);

/* Free all.  Never started, or stopped; and after cores_stop. */
void service_fini(struct service *service);

/* ---- for the connections of a core ---- */

/* CONNECTION begins, or goes on after it was parked; it is parked. */
void service_connection_active(struct connection *connection);
void service_connection_parked(struct connection *connection);

/* CONNECTION has the export that it asked for; it ends at once if a reload has taken that away meanwhile. */
void service_connection_began(struct connection *connection);

/* Where the streams of HOME's connections are parked; NULL: nowhere. */
struct stream_parking *service_parking(struct service_core *home);

/* How many connections CORE has.  Any thread; a moment's truth. */
unsigned service_connection_count(const struct service_core *core);

/* Whether what takes CONNECTION's core long should rather be done by a helper: it has more to do meanwhile, and there is a core without connections,
 * whose CPU may have time, or its own serves others, too. */
bool service_wants_help(const struct connection *connection);

/* A connection of HOME, from CLIENT, is gone. */
void service_connection_gone(struct service_core *home, const struct access_peer *client);

/* Log a warning about FIELDS that a client has caused, FORMAT as printf(3), because of REASON, unless there are too many of them
 * already: see net/client_log.h.  On the core's thread. */
void service_log(struct service_core *home, const struct log_fields *fields, const char *reason,
		 const char *format, ...) PRINTF_LIKE(4, 5);

/* A connection of HOME has begun to starve.  If that lasts, connections that hold buffers and neither read their replies
 * nor send the rest of their payload are dropped. */
void service_hungry(struct service_core *home);

/* A request of HOME, or a buffer, is free again: have starved connections go on. */
void service_feed(struct service_core *home);

#endif
