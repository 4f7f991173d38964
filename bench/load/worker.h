/* One core's part of a load.  Made and read by the thread that runs the load while the worker is not running; in between the core's. */
#ifndef BENCH_LOAD_WORKER_H
#define BENCH_LOAD_WORKER_H

#include "bench/load/client.h"
#include "bench/load/load.h"
#include "reactor/core.h"
#include <semaphore.h>

struct worker;

struct worker_connection {
	struct worker *worker;
	struct client client;
	struct pattern pattern;
	struct target_session *session; /* the client's once it is open */
	uint64_t due_ns;		/* open loop: of its next request */
	unsigned owed;			/* open loop: requests that are due and found no room */
	struct list_node unused;	/* its struct worker_request that are not under way */
	bool open;
};

/* The times of a load, on CLOCK_MONOTONIC. */
struct worker_schedule {
	uint64_t start_ns, measure_ns, end_ns;
	uint64_t interval_ns;
};

struct worker {
	const struct load_options *options;
	struct worker_schedule schedule;
	struct core *core;
	unsigned connection_count;
	struct worker_connection *connections;
	struct worker_request *requests; /* [connection_count * depth] */
	struct stream_parking parking;
	uint8_t *payload;	/* what is written */
	uint64_t requests_left; /* to make; UINT64_MAX: no limit */
	bool stopping;		/* nothing more comes due */
	bool catching_up;	/* open loop: what was due at the end is still made */
	unsigned in_flight, open_count;
	/* Open loop. */
	uint64_t gap_ns;     /* between two requests of this core */
	uint64_t arrival_ns; /* of the next one */
	uint64_t yield_ns;   /* spins until then, while it waits for that */
	unsigned arrival_connection;
	struct task pace;
	struct timer pace_later;
	struct timer end;
	struct timer watch;  /* for silence */
	uint64_t watched_ns; /* of the last answer */
	struct message start, stop;
	sem_t *stopped;
	/* What comes of it. */
	struct histogram latency[LOAD_KIND_COUNT];
	uint64_t done[LOAD_KIND_COUNT], bytes[LOAD_KIND_COUNT];
	uint64_t errors;
	uint32_t first_error;
	char first_message[CLIENT_MESSAGE_BYTES_MAX];
	uint64_t read_bytes, hole_bytes;
	uint64_t rate_missed; /* open loop: requests that were due and never made */
	uint64_t unanswered;  /* requests that were made in the measured time */
	uint64_t last_done_ns;
	uint64_t ended_ns;		 /* when its connections were closed */
	struct load_interval *intervals; /* [LOAD_INTERVALS_MAX] */
	struct load_interval *interval;	 /* that of the last answer, until interval_end_ns */
	uint64_t interval_end_ns;
	uint64_t live_requests, live_bytes; /* atomic: read by others */
	bool failed;			    /* atomic: `why` is set before */
	char why[160];
};

/* Prepare WORKER for CONNECTION_COUNT of the load's connections, which are SESSIONS and belong to it; FIRST is the index of the first of
 * them.  REGION: see pattern_init.  STOPPED is posted when a worker that was started has ended.
 * Returns 0 or -ENOMEM; worker_fini in any case. */
int worker_init(struct worker *worker, const struct load_options *options, struct core *core,
		struct target_session *sessions, unsigned first, unsigned connection_count,
		uint64_t region_start, uint64_t region_bytes, sem_t *stopped) MUST_USE;
void worker_fini(struct worker *worker);

/* Begin, after SCHEDULE; and end before its time.  Any thread. */
void worker_start(struct worker *worker, const struct worker_schedule *schedule);
void worker_stop(struct worker *worker);

#endif
