/* A line is built on the caller's stack and leaves with one write(2), so no lock and no stdio buffer is
 * needed for lines of different threads to stay whole.  Text often quotes what a client sent: control
 * characters are replaced, so that nobody can forge a line or drive the reader's terminal. */
#include "reactor/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char *const level_words[] = {
	[LOG_LEVEL_ERROR] = "error",
	[LOG_LEVEL_WARNING] = "warning",
	[LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_DEBUG] = "debug",
};

/* The globals of this file, because a line about an error must be possible where no object is at hand.
 * Atomic; nothing else depends on its value: relaxed. */
static enum log_level level_max = LOG_LEVEL_INFO;
/* Set while one thread logs. */
static log_sink sink_now;
static void *sink_context;
/* Of this thread. */
static __thread bool has_core;
static __thread unsigned core_cpu;

static void write_formatted(enum log_level level, const struct log_fields *fields,
			    const char *format, va_list arguments);
static void replace_control_characters(char *text);

bool
log_hold_standard_files(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
			return false;
	}
	return true;
}

void
log_set_level(enum log_level level)
{
	__atomic_store_n(&level_max, level, __ATOMIC_RELAXED);
}

void
log_set_sink(log_sink sink, void *context)
{
	sink_now = sink;
	sink_context = context;
}

void
log_set_core(unsigned cpu)
{
	has_core = true;
	core_cpu = cpu;
}

const char *
log_level_word(enum log_level level)
{
	CHECK((size_t)level < ARRAY_COUNT(level_words));
	return level_words[level];
}

void
log_fields_add(struct log_fields *fields, const char *key, const char *value)
{
	CHECK(fields->count < LOG_FIELDS_MAX && value != NULL);
	fields->fields[fields->count++] = (struct log_field){ .key = key, .value = value };
}

void
log_fields_add_number(struct log_fields *fields, const char *key, uint64_t number)
{
	CHECK(fields->count < LOG_FIELDS_MAX);
	fields->fields[fields->count++] = (struct log_field){ .key = key, .number = number };
}

void
log_line(enum log_level level, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	write_formatted(level, NULL, format, arguments);
	va_end(arguments);
}

void
log_line_about(enum log_level level, const struct log_fields *fields, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	write_formatted(level, fields, format, arguments);
	va_end(arguments);
}

static uint64_t
clock_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void
write_formatted(enum log_level level, const struct log_fields *fields, const char *format,
		va_list arguments)
{
	char text[LOG_LINE_BYTES_MAX] = "";
	struct log_entry entry = { .level = level, .text = text };
	int errno_before = errno;

	CHECK((size_t)level < ARRAY_COUNT(level_words));
	if (level > __atomic_load_n(&level_max, __ATOMIC_RELAXED))
		return;

	(void)vsnprintf(text, sizeof(text), format, arguments);
	replace_control_characters(text);
	entry.time_ns = clock_now_ns();
	if (fields != NULL)
		entry.fields = *fields;
	if (has_core)
		log_fields_add_number(&entry.fields, "core", core_cpu);
	if (sink_now != NULL)
		sink_now(sink_context, &entry);
	else
		log_write_text(&entry);
	errno = errno_before;
}

/* The code of the character at TEXT, which ends in a NUL, and its *bytes in UTF-8; UINT32_MAX if it is none. */
static uint32_t
character_at(const char *text, unsigned *bytes)
{
	static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
	unsigned char first = (unsigned char)*text;
	uint32_t code = first;

	*bytes = first < 0x80 ? 1 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
	if (*bytes == 1)
		return code;
	if (first < 0xc0 || first >= 0xf8)
		return UINT32_MAX;
	code &= 0x7fu >> *bytes;
	for (unsigned i = 1; i < *bytes; i++) {
		if (((unsigned char)text[i] & 0xc0) != 0x80)
			return UINT32_MAX;
		code = code << 6 | ((unsigned char)text[i] & 0x3f);
	}
	if (code < least[*bytes] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
		return UINT32_MAX;
	return code;
}

/* Whether CODE is not shown but obeyed: a control character, of which terminals know those from 128 on, too, or one that turns the
 * direction of what is behind it.  Source: ECMA-48; Unicode Standard Annex 9. */
static bool
is_command(uint32_t code)
{
	return code < ' ' || (code >= 0x7f && code <= 0x9f) || (code >= 0x202a && code <= 0x202e) ||
	       (code >= 0x2066 && code <= 0x2069);
}

/* And what is no UTF-8, for which the journal would show none of the line. */
static void
replace_control_characters(char *text)
{
	unsigned bytes;

	for (; *text != '\0'; text += bytes) {
		uint32_t code = character_at(text, &bytes);

		if (code == UINT32_MAX)
			bytes = 1;
		if (code == UINT32_MAX || is_command(code))
			memset(text, '?', bytes);
	}
}

void
log_write_text(const struct log_entry *entry)
{
	char line[LOG_LINE_BYTES_MAX];
	int length =
		snprintf(line, sizeof(line), "%s: %s", log_level_word(entry->level), entry->text);
	size_t bytes = length < 0 ? 0 : (size_t)length;

	/* The newline takes the place of the final NUL, so the whole array can be used. */
	if (bytes > sizeof(line) - 1)
		bytes = sizeof(line) - 1;
	line[bytes] = '\n';
	log_write_line(line, bytes + 1);
}

/* A line that cannot be written is lost: there is no place left to report it.  A short write is not continued, as the rest would
 * be a line of its own. */
void
log_write_line(const char *line, size_t bytes)
{
	ssize_t written;

	do
		written = write(STDERR_FILENO, line, bytes);
	while (written < 0 && errno == EINTR);
}
