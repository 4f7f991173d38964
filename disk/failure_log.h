/* What a volume says of requests that failed: a line each, but no more than LOG_LIMIT_LINES a minute, so that a broken disk does
 * not fill the log's. */
#ifndef DISK_FAILURE_LOG_H
#define DISK_FAILURE_LOG_H

#include "reactor/log.h"
#include "reactor/log_limit.h"
#include <stddef.h>
#include <stdint.h>

struct volume_request;

/* Half a line of the log's: what failed, and why, is never cut off. */
#define FAILURE_LOG_WHERE_BYTES (LOG_LINE_BYTES_MAX / 2)

/* Zero is the beginning.  Embedded by the volume; all cores use it. */
struct failure_log {
	/* Private. */
	struct log_limit limit;
};

/* REQUEST of the volume of LOG failed with ERROR, a negative errno, at NOW_NS (kernel_clock_ns; not 0).  Any core. */
void failure_log_add(struct failure_log *log, const struct volume_request *request, int error,
		     uint64_t now_ns);

/* Write to TEXT of TEXT_BYTES which export's REQUEST it is and of which volume, for the beginning of a line. */
void failure_log_where(const struct volume_request *request, char *text, size_t text_bytes);

/* The same apart from the text: "export" and "volume". */
struct log_fields failure_log_fields(const struct volume_request *request);

#endif
