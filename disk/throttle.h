/* Limits of one export: requests per second and bytes per second, over all cores together.
 *
 * A request takes its turn before it holds anything: each limit is a clock that says when the next request may begin, and that every
 * request moves on by what it costs.  So turns are in order of arrival, whichever the core, a large request is as welcome as a small
 * one, and nobody is refused or passed over.  The clock may be behind by the burst: what was not used for that long is saved up.
 * The cores share the limits and the two clocks, and nothing else. */
#ifndef DISK_THROTTLE_H
#define DISK_THROTTLE_H

#include "reactor/check.h"
#include "reactor/core.h"
#include "reactor/list.h"
#include <stdbool.h>
#include <stdint.h>

struct throttle;
struct throttle_core;

/* 0: no limit; both may be, until they are changed. */
struct throttle_limits {
	unsigned requests_per_s;
	uint64_t bytes_per_s;
	unsigned burst_ms; /* at least 1 */
};

/* Somebody's wait for a turn; embedded, one turn at a time, on one core. */
struct throttle_wait {
	/* The turn has come.  On the wait's core, never from within throttle_take. */
	void (*granted)(struct throttle_wait *wait);
	/* Private. */
	struct throttle_core *core;
	uint64_t bytes;
	uint64_t start_ns;
	struct list_node node;
};

/* Create the throttle of LIMITS for CORES, which must outlive it.
 * Returns 0 or -ENOMEM; then *throttle is unchanged. */
int throttle_create(const struct throttle_limits *limits, struct cores *cores,
		    struct throttle **throttle) MUST_USE;

/* LIMITS take the place of what THROTTLE has, at once, also for those who wait; unless they are the same, nothing is owed from before.
 * One thread at a time, not a core's; it must not change them again, nor destroy THROTTLE, before each core has delivered all that was
 * sent to it until now. */
void throttle_change(struct throttle *throttle, const struct throttle_limits *limits);

/* Nobody may wait any more. */
void throttle_destroy(struct throttle *throttle);

/* Prepare WAIT, which waits for nothing. */
void throttle_wait_init(struct throttle_wait *wait, void (*granted)(struct throttle_wait *wait));

/* Take a turn for a request of BYTES (may be 0) on CORE, the caller's.  Returns true if it has come; false if WAIT, which is idle, waits
 * for it now. */
bool throttle_take(struct throttle *throttle, const struct core *core, struct throttle_wait *wait,
		   uint64_t bytes) MUST_USE;

/* Give WAIT's turn back: those who come later need not wait for it, as those do who came before this.  Harmless if it waits for none.  On
 * its core. */
void throttle_cancel(struct throttle_wait *wait);

/* Whether WAIT waits. */
bool throttle_waiting(const struct throttle_wait *wait) MUST_USE;

#endif
