/* Reasons by hash in a small table that only grows. */
#include "net/client_log.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void
client_log_init(struct client_log *log)
{
	memset(log, 0, sizeof(*log));
	pthread_mutex_init(&log->lock, NULL);
}

void
client_log_fini(struct client_log *log)
{
	pthread_mutex_destroy(&log->lock);
}

/* FNV-1a of TEXT without its digits. */
static uint64_t
key_of(const char *text)
{
	uint64_t key = 0xcbf29ce484222325;

	for (; *text != '\0'; text++) {
		if (*text < '0' || *text > '9')
			key = (key ^ (unsigned char)*text) * 0x100000001b3;
	}
	return key;
}

/* With the lock held. */
static struct client_log_reason *
find_or_add(struct client_log *log, uint64_t key, const char *text)
{
	struct client_log_reason *last = &log->reasons[CLIENT_LOG_REASONS - 1];
	struct client_log_reason *reason = log->reasons;

	while (reason < log->reasons + log->reason_count && reason->key != key && reason < last)
		reason++;
	if (reason == log->reasons + log->reason_count) {
		reason->key = key;
		snprintf(reason->text, sizeof(reason->text), "%s",
			 reason == last ? "other reasons" : text);
		log->reason_count++;
	}
	return reason;
}

static struct client_log_reason *
find_reason(struct client_log *log, const char *text)
{
	uint64_t key = key_of(text);
	struct client_log_reason *reason;

	pthread_mutex_lock(&log->lock);
	reason = find_or_add(log, key, text);
	pthread_mutex_unlock(&log->lock);
	return reason;
}

static void
say_left_out(const struct client_log_reason *reason, unsigned count)
{
	if (count > 0)
		log_warning("clients: %u more times in %u s: %s", count, LOG_LIMIT_S, reason->text);
}

bool
client_log_line(struct client_log *log, uint64_t now_ns, const struct log_fields *fields,
		const char *reason, const char *format, ...)
{
	struct client_log_reason *known = find_reason(log, reason);
	char line[LOG_LINE_BYTES_MAX];
	unsigned left_out;
	va_list arguments;

	if (!log_limit_take(&known->limit, now_ns, &left_out))
		return true;
	say_left_out(known, left_out);
	va_start(arguments, format);
	(void)vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	log_line_about(LOG_LEVEL_WARNING, fields, "%s", line);
	return false;
}

bool
client_log_flush(struct client_log *log, uint64_t now_ns)
{
	bool pending = false;
	unsigned count;

	pthread_mutex_lock(&log->lock);
	count = log->reason_count;
	pthread_mutex_unlock(&log->lock);
	for (unsigned i = 0; i < count; i++) {
		struct client_log_reason *reason = &log->reasons[i];

		say_left_out(reason, log_limit_flush(&reason->limit, now_ns));
		pending = pending || log_limit_left_out(&reason->limit) > 0;
	}
	return pending;
}
