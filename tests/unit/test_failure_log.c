/* Lines about failed requests: what they say, and how many there are. */
#include "disk/failure_log.h"

#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "disk/volume.h"

#define BEGIN_NS ((uint64_t)5000000000)

static struct volume volume = { .path = "/srv/x" };
static const struct volume_request request = {
	.command = VOLUME_COMMAND_WRITE,
	.durable = true,
	.offset = 4096,
	.length = 512,
	.volume = &volume,
};

/* What standard error got; static. */
static const char *
said(void)
{
	static char text[65536];
	size_t bytes;

	fflush(stderr);
	bytes = fread(text, 1, sizeof(text) - 1, cr_get_redirected_stderr());
	text[bytes] = '\0';
	return text;
}

static unsigned
count_lines(const char *text)
{
	unsigned count = 0;

	for (; (text = strchr(text, '\n')) != NULL; text++)
		count++;
	return count;
}

Test(failure_log, says_what_where_and_why, .init = cr_redirect_stderr)
{
	struct failure_log log = { 0 };

	failure_log_add(&log, &request, -ENOSPC, BEGIN_NS);
	cr_assert_str_eq(said(), "error: /srv/x: durable write of 512 bytes at offset 4096 failed: "
				 "No space left on device\n");
}

Test(failure_log, names_the_export_and_never_cuts_the_reason, .init = cr_redirect_stderr)
{
	struct failure_log log = { 0 };
	const char *first = "error: export \"disk\": /srv/x: flush failed: Input/output error\n";
	struct volume_request named = request;
	const char *text;
	char long_name[4096];

	named.export_name = "disk";
	named.command = VOLUME_COMMAND_FLUSH;
	failure_log_add(&log, &named, -EIO, BEGIN_NS);
	memset(long_name, 'n', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = '\0';
	named.export_name = long_name;
	failure_log_add(&log, &named, -EIO, BEGIN_NS);
	text = said();
	cr_assert_eq(strncmp(text, first, strlen(first)), 0);
	cr_assert_not_null(strstr(text + strlen(first), "nnn: flush failed: Input/output error\n"));
}

Test(failure_log, writes_few_lines_a_minute_and_counts_the_rest, .init = cr_redirect_stderr)
{
	struct failure_log log = { 0 };
	const char *text;

	for (unsigned i = 0; i < 1000; i++)
		failure_log_add(&log, &request, -EIO, BEGIN_NS + i);
	failure_log_add(&log, &request, -EIO, BEGIN_NS + LOG_LIMIT_NS);
	text = said();
	cr_assert_eq(count_lines(text), LOG_LIMIT_LINES + 2);
	cr_assert_not_null(strstr(text, "/srv/x: 990 more requests failed that are not logged one "
					"by one\n"));
}
