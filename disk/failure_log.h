/* What a volume says of requests that failed: a line each, but no more than a few per second, so that a broken disk does not fill
 * the log's. */
#ifndef DISK_FAILURE_LOG_H
#define DISK_FAILURE_LOG_H

#include <stdint.h>

#define FAILURE_LINES_PER_SECOND 10

struct volume_request;

/* Zero is the beginning.  Embedded by the volume; all cores use it. */
struct failure_log {
	/* Private; atomic. */
	uint64_t second;
	uint64_t count; /* in that second, those that were not logged too */
};

/* REQUEST of the volume of LOG failed with ERROR, a negative errno, at NOW_NS (kernel_clock_ns).  Any core. */
void failure_log_add(struct failure_log *log, const struct volume_request *request, int error,
		     uint64_t now_ns);

#endif
