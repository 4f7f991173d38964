/* A load: connections on one or more cores that ask a server for what a pattern says, for a time or a number of requests, and what came of
 * it.
 * Closed loop: each connection keeps DEPTH requests under way; a latency runs from when its request was made.
 * Open loop (a rate): requests are due at fixed times, whether or not the server keeps up; a latency runs from when its request was
 * due, so that what waits because the server is slow is counted as slow, too. */
#ifndef BENCH_LOAD_LOAD_H
#define BENCH_LOAD_LOAD_H

#include "bench/load/client.h"
#include "bench/load/histogram.h"
#include "bench/load/pattern.h"
#include "bench/load/target.h"
#include "reactor/check.h"
#include "reactor/cpu_list.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum load_kind {
	LOAD_KIND_READ,
	LOAD_KIND_WRITE,
	LOAD_KIND_TRIM,
	LOAD_KIND_ZEROES,
	LOAD_KIND_FLUSH,
	LOAD_KIND_COUNT,
};

#define LOAD_CONNECTIONS_MAX 20000u
#define LOAD_DEPTH_MAX	     4096u

struct load_options {
	const struct target *target;
	struct cpu_list cores;
	unsigned connections; /* 1 to LOAD_CONNECTIONS_MAX */
	unsigned depth;	      /* requests under way on each, 1 to LOAD_DEPTH_MAX */
	struct pattern_mix mix;
	uint64_t region_start, region_bytes; /* of the export; region_bytes 0: to its end */
	double rate;			     /* requests a second in all; 0: closed loop */
	uint64_t warmup_ns;		     /* not measured */
	uint64_t duration_ns;		     /* measured */
	/* End after so many behind the warm-up, if that is before the time; 0: time only. */
	uint64_t requests_max;
	uint64_t silence_ns; /* without any answer for so long, the server is taken for dead */
	uint64_t seed;
	unsigned poll_us; /* of the reactors */
};

/* Of one moment; latencies in rows of LOAD_ROW_BUCKETS buckets of the histogram. */
#define LOAD_ROW_BUCKETS 32u
#define LOAD_ROW_COUNT	 ((HISTOGRAM_BUCKET_COUNT + LOAD_ROW_BUCKETS - 1) / LOAD_ROW_BUCKETS)

struct load_interval {
	uint64_t requests, bytes;
	uint32_t rows[LOAD_ROW_COUNT];
};

#define LOAD_INTERVALS_MAX 1200u /* what is later goes into the last one */

struct load_result {
	/* Of successful requests that began in the measured time, and see rate_missed and unanswered. */
	struct histogram latency[LOAD_KIND_COUNT];
	uint64_t requests[LOAD_KIND_COUNT]; /* that ended within the measured time */
	uint64_t bytes[LOAD_KIND_COUNT];
	uint64_t errors;			      /* replies with an error, at any time */
	uint32_t first_error;			      /* NBD's */
	char first_message[CLIENT_MESSAGE_BYTES_MAX]; /* of the server, about that; or "" */
	uint64_t read_bytes;			      /* at any time */
	uint64_t hole_bytes;   /* of these: zeros, that the server did not send */
	uint64_t export_bytes; /* its size */
	enum nbd_style style;
	uint64_t measured_ns;
	uint64_t cpu_ns;	/* this process's, user and system, from beginning to end */
	uint64_t requests_made; /* and answered in that time */
	uint64_t interval_ns;
	unsigned interval_count;
	struct load_interval *intervals; /* owned */
	bool partial;			 /* ended before its time: `why` */
	char why[160];
	/* Open loop: requests that were due and not made within a second of the end; their latency is how long they had waited then. */
	uint64_t rate_missed;
	/* Of a partial result: requests of the measured time that were under way at its end; their latency is how long they had waited then. */
	uint64_t unanswered;
};

/* Called about once a second while a load runs. */
struct load_progress {
	void (*report)(struct load_progress *progress, double elapsed_s, double total_s,
		       uint64_t requests, uint64_t bytes);
};

/* Run the load of OPTIONS.  Blocks.  PROGRESS may be NULL.  load_result_fini frees what *result holds.
 * Returns 0, also for a partial result; or a negative errno if it could not begin, written to ERRORS: then *result needs no fini. */
int load_run(const struct load_options *options, struct load_progress *progress,
	     struct load_result *result, FILE *errors) MUST_USE;
void load_result_fini(struct load_result *result);

/* All kinds together. */
uint64_t load_result_requests(const struct load_result *result);
uint64_t load_result_bytes(const struct load_result *result);
void load_result_latency(const struct load_result *result, struct histogram *all);

const char *load_kind_name(enum load_kind kind);

#endif
