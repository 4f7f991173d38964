/* net/client_log.h, with a clock of our own: the lines, and what is said of those that are left out. */
#include "net/client_log.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <stdio.h>
#include <string.h>

#define BEGIN_NS ((uint64_t)5000000000)

static struct client_log client_log;

static void
begin(void)
{
	cr_redirect_stderr();
	client_log_init(&client_log);
}

static void
end(void)
{
	client_log_fini(&client_log);
}

TestSuite(client_log, .init = begin, .fini = end);

/* All that has been logged since the last call. */
static const char *
logged(void)
{
	static char text[65536];
	FILE *out = cr_get_redirected_stderr();
	size_t bytes = fread(text, 1, sizeof(text) - 1, out);

	text[bytes] = '\0';
	clearerr(out);
	return text;
}

static unsigned
count_lines(const char *text)
{
	unsigned lines = 0;

	for (; *text != '\0'; text++)
		lines += *text == '\n';
	return lines;
}

static bool
complain(uint64_t now_ns, const char *reason, unsigned client)
{
	return client_log_line(&client_log, now_ns, NULL, reason, "client %u: %s", client, reason);
}

Test(client_log, a_line_is_a_warning_with_its_text)
{
	cr_assert_not(complain(BEGIN_NS, "is rude", 7));
	fflush(stderr);
	cr_assert_stderr_eq_str("warning: client 7: is rude\n");
}

Test(client_log, each_reason_has_its_own_minute)
{
	for (unsigned i = 0; i < 50; i++) {
		cr_assert_eq(complain(BEGIN_NS, "is rude", i), i >= LOG_LIMIT_LINES);
		cr_assert_eq(complain(BEGIN_NS, "is late", i), i >= LOG_LIMIT_LINES);
	}
	cr_assert_eq(count_lines(logged()), 2 * LOG_LIMIT_LINES);
}

Test(client_log, reasons_that_differ_in_digits_are_one)
{
	char reason[64];

	for (unsigned i = 0; i < 50; i++) {
		snprintf(reason, sizeof(reason), "left with %u requests in flight", i);
		(void)complain(BEGIN_NS, reason, i);
	}
	cr_assert_eq(count_lines(logged()), LOG_LIMIT_LINES);
}

Test(client_log, flush_says_how_many_were_left_out)
{
	for (unsigned i = 0; i < LOG_LIMIT_LINES + 41; i++)
		(void)complain(BEGIN_NS, "is rude", i);
	for (unsigned i = 0; i < LOG_LIMIT_LINES; i++)
		cr_assert_not(complain(BEGIN_NS, "is late", i));
	(void)logged();
	cr_assert(client_log_flush(&client_log, BEGIN_NS + LOG_LIMIT_NS - 1));
	cr_assert_str_empty(logged());
	cr_assert_not(client_log_flush(&client_log, BEGIN_NS + LOG_LIMIT_NS));
	cr_assert_str_eq(logged(), "warning: clients: 41 more times in 60 s: is rude\n");
	cr_assert_not(client_log_flush(&client_log, BEGIN_NS + LOG_LIMIT_NS));
	cr_assert_str_empty(logged());
}

Test(client_log, last_flush_says_all)
{
	for (unsigned i = 0; i < LOG_LIMIT_LINES + 3; i++)
		(void)complain(BEGIN_NS, "is rude", i);
	(void)logged();
	cr_assert_not(client_log_flush(&client_log, UINT64_MAX));
	cr_assert_str_eq(logged(), "warning: clients: 3 more times in 60 s: is rude\n");
}

Test(client_log, next_line_says_how_many_were_left_out)
{
	for (unsigned i = 0; i < LOG_LIMIT_LINES + 5; i++)
		(void)complain(BEGIN_NS, "is rude", i);
	(void)logged();
	cr_assert_not(complain(BEGIN_NS + LOG_LIMIT_NS, "is rude", 1));
	cr_assert_str_eq(logged(), "warning: clients: 5 more times in 60 s: is rude\n"
				   "warning: client 1: is rude\n");
}

Test(client_log, reasons_without_room_share_the_last_one)
{
	char reason[8];

	for (unsigned i = 0; i < CLIENT_LOG_REASONS + 30; i++) {
		snprintf(reason, sizeof(reason), "%c%c", 'a' + (int)i % 26, 'a' + (int)i / 26);
		(void)complain(BEGIN_NS, reason, i);
	}
	/* 63 of their own, and the first ten of the 31 others. */
	cr_assert_eq(count_lines(logged()), CLIENT_LOG_REASONS - 1 + LOG_LIMIT_LINES);
	cr_assert_not(client_log_flush(&client_log, UINT64_MAX));
	cr_assert_str_eq(logged(), "warning: clients: 21 more times in 60 s: other reasons\n");
}
