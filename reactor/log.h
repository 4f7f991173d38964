/* Log lines, one per event: "LEVEL: text" on standard error, or to a sink, which also gets what the line is about.  Any thread may
 * call.  A line is written with one write(2), so lines of different threads do not mix.  Longer lines are cut at LOG_LINE_BYTES_MAX. */
#ifndef REACTOR_LOG_H
#define REACTOR_LOG_H

#include "reactor/check.h"
#include <stdbool.h>
#include <stdint.h>

enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARNING,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG,
};

#define LOG_LINE_BYTES_MAX 1024
#define LOG_FIELDS_MAX	   12 /* of a line, that of its core included */

/* One thing that a line is about, for sinks that keep it apart from the text. */
struct log_field {
	const char *key;   /* lower-case letters and underscores; must stay: a literal */
	const char *value; /* any bytes; NULL: it is the number */
	uint64_t number;
};

struct log_fields {
	unsigned count;
	struct log_field fields[LOG_FIELDS_MAX];
};

/* A line on its way to where it is written. */
struct log_entry {
	enum log_level level;
	uint64_t time_ns; /* CLOCK_REALTIME */
	const char *text; /* no newline or other control character; below LOG_LINE_BYTES_MAX */
	struct log_fields fields;
};

/* Takes ENTRY, which is only there meanwhile.  On the thread that logs: where cores log, it must neither wait nor allocate. */
typedef void (*log_sink)(void *context, const struct log_entry *entry);

/* For a program's beginning: have the null device in the place of each standard file that is closed.  Otherwise the next file or socket to be
 * opened would take that place, and lines would be written into it.  Returns false if it cannot be had; nobody could be told why. */
bool log_hold_standard_files(void) MUST_USE;

/* Write lines of LEVEL and more severe ones only, from now on.  Any thread.  Default: info. */
void log_set_level(enum log_level level);

/* Have SINK take lines, with CONTEXT; NULL, the default: log_write_text does.  While no other thread logs. */
void log_set_sink(log_sink sink, void *context);

/* Lines of the calling thread have the field "core", CPU, from now on. */
void log_set_core(unsigned cpu);

/* Write one line; FORMAT as printf(3), without a newline at the end. */
void log_line(enum log_level level, const char *format, ...) PRINTF_LIKE(2, 3);

/* The same with FIELDS, which are only read meanwhile; at most LOG_FIELDS_MAX - 1. */
void log_line_about(enum log_level level, const struct log_fields *fields, const char *format, ...)
	PRINTF_LIKE(3, 4);

#define log_error(...)	 log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)	 log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)	 log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

/* One field more; there must be room. */
void log_fields_add(struct log_fields *fields, const char *key, const char *value);
void log_fields_add_number(struct log_fields *fields, const char *key, uint64_t number);

/* "error", "warning", "info" or "debug". */
const char *log_level_word(enum log_level level);

/* Write ENTRY to standard error as "LEVEL: text".  Waits while its reader does not read.  Any thread. */
void log_write_text(const struct log_entry *entry);

/* The same of the BYTES at LINE, which are a whole line; or lose it. */
void log_write_line(const char *line, size_t bytes);

#endif
