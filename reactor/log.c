/* Log lines on standard error: "error: text", "warning: text", "info: text", "debug: text".
 * A line is built on the caller's stack and leaves with one write(2), so no lock and no stdio buffer is
 * needed for lines of different threads to stay whole.  Text often quotes what a client sent: control
 * characters are replaced, so that nobody can forge a line or drive the reader's terminal. */
#include "reactor/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const level_prefixes[] = {
	[LOG_LEVEL_ERROR] = "error: ",
	[LOG_LEVEL_WARNING] = "warning: ",
	[LOG_LEVEL_INFO] = "info: ",
	[LOG_LEVEL_DEBUG] = "debug: ",
};

/* The one global of this file, because a line about an error must be possible where no object is at hand.  Atomic; nothing else
 * depends on its value: relaxed. */
static enum log_level level_max = LOG_LEVEL_INFO;

static void replace_control_characters(char *text, size_t bytes);
static void write_line(const char *line, size_t bytes);

void
log_set_level(enum log_level level)
{
	__atomic_store_n(&level_max, level, __ATOMIC_RELAXED);
}

void
log_line(enum log_level level, const char *format, ...)
{
	char line[LOG_LINE_BYTES_MAX];
	size_t prefix_bytes, text_bytes, text_bytes_max;
	int errno_before = errno, length;
	va_list arguments;

	CHECK((size_t)level < ARRAY_COUNT(level_prefixes));
	if (level > __atomic_load_n(&level_max, __ATOMIC_RELAXED))
		return;

	prefix_bytes = strlen(level_prefixes[level]);
	memcpy(line, level_prefixes[level], prefix_bytes);

	va_start(arguments, format);
	length = vsnprintf(line + prefix_bytes, sizeof(line) - prefix_bytes, format, arguments);
	va_end(arguments);

	/* The newline takes the place of the final NUL, so the whole array can be used. */
	text_bytes_max = sizeof(line) - prefix_bytes - 1;
	text_bytes = length < 0 ? 0 : (size_t)length;
	if (text_bytes > text_bytes_max)
		text_bytes = text_bytes_max;
	replace_control_characters(line + prefix_bytes, text_bytes);
	line[prefix_bytes + text_bytes] = '\n';
	write_line(line, prefix_bytes + text_bytes + 1);
	errno = errno_before;
}

/* Bytes of 128 and above stay: they are UTF-8 in any text that is not garbage anyway. */
static void
replace_control_characters(char *text, size_t bytes)
{
	for (size_t i = 0; i < bytes; i++) {
		unsigned char byte = (unsigned char)text[i];

		if (byte < ' ' || byte == 127)
			text[i] = '?';
	}
}

/* A line that cannot be written is lost: there is no place left to report it, and waiting for a full pipe
 * or disk would stop a core.  A short write is not continued, as the rest would be a line of its own. */
static void
write_line(const char *line, size_t bytes)
{
	ssize_t written;

	do
		written = write(STDERR_FILENO, line, bytes);
	while (written < 0 && errno == EINTR);
}
