/* A small writer of its own: a line must be made without allocating, also when memory is short.
 * A text is cut where its line would not fit; what encloses it always has room. */
#include "daemon/log_json.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "daemon/config_value.h"

#define NS_PER_S	   1000000000
#define ESCAPE_BYTES_MAX   6   /* \u001f */
#define CLOSING_BYTES	   4   /* quote, brace, newline, and snprintf's NUL */
#define FIELD_BYTES_MIN	   128 /* a key and a number, or the beginning of a text */
#define REPLACEMENT_ESCAPE "\\ufffd"

/* Where the next byte goes, and the first that is not ours. */
struct json {
	char *at, *end;
};

static size_t
room_bytes(const struct json *json)
{
	return (size_t)(json->end - json->at);
}

static void PRINTF_LIKE(2, 3) put(struct json *json, const char *format, ...)
{
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(json->at, room_bytes(json), format, arguments);
	va_end(arguments);
	CHECK(length >= 0 && (size_t)length < room_bytes(json));
	json->at += length;
}

/* Put the character at TEXT.  Returns how many bytes of TEXT it has. */
static unsigned
put_character(struct json *json, const char *text)
{
	unsigned bytes = config_value_utf8_bytes(text);

	if (bytes == 0)
		put(json, REPLACEMENT_ESCAPE);
	else if (*text == '"' || *text == '\\')
		put(json, "\\%c", *text);
	else if ((unsigned char)*text < ' ')
		put(json, "\\u%04x", (unsigned)(unsigned char)*text);
	else
		put(json, "%.*s", (int)bytes, text);
	return bytes == 0 ? 1 : bytes;
}

static void
put_text(struct json *json, const char *text)
{
	put(json, "\"");
	while (*text != '\0' && room_bytes(json) > ESCAPE_BYTES_MAX + CLOSING_BYTES)
		text += put_character(json, text);
	put(json, "\"");
}

static void
put_time(struct json *json, uint64_t time_ns)
{
	time_t seconds = (time_t)(time_ns / NS_PER_S);
	struct tm utc;

	(void)gmtime_r(&seconds, &utc);
	put(json, "%04d-%02d-%02dT%02d:%02d:%02d.%06" PRIu64 "Z", utc.tm_year + 1900,
	    utc.tm_mon + 1, utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec,
	    time_ns % NS_PER_S / 1000);
}

size_t
log_json_format(const struct log_entry *entry, char *line, size_t line_bytes)
{
	struct json json = { line, line + line_bytes };

	put(&json, "{\"time\":\"");
	put_time(&json, entry->time_ns);
	put(&json, "\",\"level\":\"%s\",\"message\":", log_level_word(entry->level));
	put_text(&json, entry->text);
	for (unsigned i = 0; i < entry->fields.count && room_bytes(&json) > FIELD_BYTES_MIN; i++) {
		const struct log_field *field = &entry->fields.fields[i];

		put(&json, ",\"%s\":", field->key);
		if (field->value == NULL)
			put(&json, "%" PRIu64, field->number);
		else
			put_text(&json, field->value);
	}
	put(&json, "}\n");
	return (size_t)(json.at - line);
}

void
log_json_write(const struct log_entry *entry)
{
	char line[LOG_JSON_BYTES_MAX];

	log_write_line(line, log_json_format(entry, line, sizeof(line)));
}
