/* daemon/log_json.h: the very bytes; tests/e2e/test_logging.py has a parser read them. */
#include "daemon/log_json.h"

#include <criterion/criterion.h>
#include <string.h>

/* 2026-11-21 13:23:08.000042 */
#define TIME_NS ((uint64_t)1795267388 * 1000000000 + 42999)

static char line[LOG_JSON_BYTES_MAX];

static const char *
format(const struct log_entry *entry, size_t line_bytes)
{
	size_t bytes = log_json_format(entry, line, line_bytes);

	cr_assert_lt(bytes, line_bytes);
	cr_assert_eq(line[bytes - 1], '\n');
	line[bytes - 1] = '\0';
	cr_assert_eq(strlen(line), bytes - 1);
	return line;
}

Test(log_json, line_has_time_level_message_and_fields)
{
	struct log_entry entry = { .level = LOG_LEVEL_WARNING,
				   .time_ns = TIME_NS,
				   .text = "hello" };

	log_fields_add(&entry.fields, "export", "disk");
	log_fields_add_number(&entry.fields, "core", 3);
	cr_assert_str_eq(format(&entry, sizeof(line)),
			 "{\"time\":\"2026-11-21T13:23:08.000042Z\",\"level\":\"warning\","
			 "\"message\":\"hello\",\"export\":\"disk\",\"core\":3}");
}

static const char *
message(const char *text)
{
	struct log_entry entry = { .level = LOG_LEVEL_INFO, .text = text };
	const char *found = strstr(format(&entry, sizeof(line)), "\"message\":");

	cr_assert_not_null(found);
	return found + strlen("\"message\":");
}

Test(log_json, what_would_end_a_text_is_escaped)
{
	cr_assert_str_eq(message("a\"b\\c"), "\"a\\\"b\\\\c\"}");
	cr_assert_str_eq(message("\x01\n"), "\"\\u0001\\u000a\"}");
}

Test(log_json, utf8_is_kept_and_other_bytes_are_replaced)
{
	cr_assert_str_eq(message("M\xc3\xbchle"), "\"M\xc3\xbchle\"}");
	cr_assert_str_eq(message("a\xff z\xc3"), "\"a\\ufffd z\\ufffd\"}");
}

Test(log_json, line_that_does_not_fit_is_cut_inside_its_texts)
{
	char text[LOG_LINE_BYTES_MAX];
	struct log_entry entry = { .level = LOG_LEVEL_INFO, .text = text };

	memset(text, '"', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	log_fields_add(&entry.fields, "export", text);
	for (size_t bytes = 256; bytes < 1000; bytes++) {
		const char *cut = format(&entry, bytes);

		cr_assert_str_eq(cut + strlen(cut) - 4, "\\\"\"}", "%zu bytes: %s", bytes, cut);
	}
	cr_assert_null(strstr(format(&entry, 256), "export"));
	cr_assert_not_null(strstr(format(&entry, sizeof(line)), "export"));
}
