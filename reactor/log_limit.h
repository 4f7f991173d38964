/* How often one kind of thing may be logged: what clients, disks and networks do wrong they do a thousand times a second.
 * All zeros is a limit that nothing was logged under.  Any thread may call. */
#ifndef REACTOR_LOG_LIMIT_H
#define REACTOR_LOG_LIMIT_H

#include "reactor/check.h"
#include <stdbool.h>
#include <stdint.h>

#define LOG_LIMIT_LINES 10u
#define LOG_LIMIT_NS	((uint64_t)60 * 1000000000) /* from the first of them on */
#define LOG_LIMIT_S	60

struct log_limit {
	/* Private. */
	uint64_t
		minute; /* atomic: when it began, 0: there is none; and how many lines were asked for in it */
};

/* Whether one more line may be written at NOW_NS, on CLOCK_MONOTONIC and not in its first millisecond.  If a minute has ended, *left_out
 * says how many lines were not in it, which is to be logged too; else it is 0. */
bool log_limit_take(struct log_limit *limit, uint64_t now_ns, unsigned *left_out) MUST_USE;

/* The same without a line: how many lines were left out in a minute that has ended by NOW_NS and that nobody has asked for. */
unsigned log_limit_flush(struct log_limit *limit, uint64_t now_ns) MUST_USE;

/* How many lines were left out so far in the minute that goes on. */
unsigned log_limit_left_out(const struct log_limit *limit) MUST_USE;

#endif
