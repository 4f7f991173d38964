/* Log lines to standard error, one per event: "LEVEL text".  Any thread may call; a line is written with
 * one write(2), so lines of different threads do not mix.  Longer lines are cut at LOG_LINE_BYTES_MAX. */
#ifndef REACTOR_LOG_H
#define REACTOR_LOG_H

#include "reactor/check.h"

enum log_level {
	LOG_LEVEL_ERROR,
	LOG_LEVEL_WARNING,
	LOG_LEVEL_INFO,
	LOG_LEVEL_DEBUG,
};

#define LOG_LINE_BYTES_MAX 1024

/* Write lines of LEVEL and more severe ones only, from now on.  Any thread.  Default: info. */
void log_set_level(enum log_level level);

/* Write one line; FORMAT as printf(3), without a newline at the end. */
void log_line(enum log_level level, const char *format, ...) PRINTF_LIKE(2, 3);

#define log_error(...)	 log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...)	 log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...)	 log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
