/* The log lines that clients cause: at most LOG_LIMIT_LINES a minute for each reason, of all clients together, and one that
 * says how many there were besides.
 * A reason is a text, compared without its digits: "with 3 requests in flight" and "with 4" are one.  Reasons are few, because
 * clients can't choose them; those that find no room share a last one. */
#ifndef NET_CLIENT_LOG_H
#define NET_CLIENT_LOG_H

#include "reactor/check.h"
#include "reactor/log.h"
#include "reactor/log_limit.h"
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define CLIENT_LOG_REASONS	64
#define CLIENT_LOG_REASON_BYTES 96

struct client_log_reason {
	uint64_t key; /* of its text */
	char text[CLIENT_LOG_REASON_BYTES];
	struct log_limit limit;
};

/* Shared by all cores. */
struct client_log {
	/* Private. */
	pthread_mutex_t lock; /* of the count, keys and texts, for some hundred instructions */
	/* Only grows; what is below it does not change, but for the limits. */
	unsigned reason_count;
	struct client_log_reason reasons[CLIENT_LOG_REASONS];
};

void client_log_init(struct client_log *log);
void client_log_fini(struct client_log *log);

/* Log a warning about FIELDS, FORMAT as printf(3), because of REASON, unless there were too many; NOW_NS on CLOCK_MONOTONIC.
 * Returns true if some were left out and client_log_flush is to be called LOG_LIMIT_NS from now.  Any thread. */
bool client_log_line(struct client_log *log, uint64_t now_ns, const struct log_fields *fields,
		     const char *reason, const char *format, ...) PRINTF_LIKE(5, 6);

/* Log how many lines were left out in minutes that have ended by NOW_NS (UINT64_MAX: in all), a line for each reason.
 * Returns true if there are some left out in minutes that go on.  Any thread. */
bool client_log_flush(struct client_log *log, uint64_t now_ns);

#endif
