/* reactor/log.h and check_failed: what arrives on standard error, which is a pipe in packet mode here, so
 * that each write(2) is read back on its own (pipe(2), O_DIRECT). */
#include "reactor/log.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static int read_fd, stderr_saved;

static void
redirect_stderr(void)
{
	int fds[2];

	cr_assert_eq(pipe2(fds, O_DIRECT | O_NONBLOCK | O_CLOEXEC), 0);
	stderr_saved = dup(STDERR_FILENO);
	cr_assert_geq(stderr_saved, 0);
	cr_assert_geq(dup2(fds[1], STDERR_FILENO), 0);
	close(fds[1]);
	read_fd = fds[0];
}

static void
restore_stderr(void)
{
	dup2(stderr_saved, STDERR_FILENO);
	close(stderr_saved);
	close(read_fd);
}

TestSuite(log, .init = redirect_stderr, .fini = restore_stderr);

/* What one write(2) to standard error wrote, as a string; "" if there was none. */
static const char *
next_write(void)
{
	static char text[2 * LOG_LINE_BYTES_MAX];
	ssize_t bytes = read(read_fd, text, sizeof(text) - 1);

	text[bytes > 0 ? bytes : 0] = '\0';
	return text;
}

Test(log, each_level_has_its_prefix)
{
	log_set_level(LOG_LEVEL_DEBUG);
	log_error("disk %d: %s", 3, "gone");
	cr_assert_str_eq(next_write(), "error: disk 3: gone\n");
	log_warning("slow");
	cr_assert_str_eq(next_write(), "warning: slow\n");
	log_info("ready");
	cr_assert_str_eq(next_write(), "info: ready\n");
	log_debug("turn");
	cr_assert_str_eq(next_write(), "debug: turn\n");
}

Test(log, default_level_is_info)
{
	log_debug("unseen");
	log_info("seen");
	cr_assert_str_eq(next_write(), "info: seen\n");
}

Test(log, level_error_hides_the_rest)
{
	log_set_level(LOG_LEVEL_ERROR);
	log_warning("unseen");
	log_info("unseen");
	log_error("seen");
	cr_assert_str_eq(next_write(), "error: seen\n");
}

Test(log, line_that_just_fits_is_whole)
{
	char text[LOG_LINE_BYTES_MAX];
	size_t bytes = LOG_LINE_BYTES_MAX - strlen("info: \n");
	const char *line;

	memset(text, 'a', bytes);
	text[bytes - 1] = 'z';
	text[bytes] = '\0';
	log_info("%s", text);
	line = next_write();
	cr_assert_eq(strlen(line), LOG_LINE_BYTES_MAX);
	cr_assert_str_eq(line + LOG_LINE_BYTES_MAX - 3, "az\n");
}

Test(log, longer_line_is_cut_and_still_ends)
{
	char text[3 * LOG_LINE_BYTES_MAX];
	const char *line;

	memset(text, 'a', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	log_info("%s", text);
	line = next_write();
	cr_assert_eq(strlen(line), LOG_LINE_BYTES_MAX);
	cr_assert_str_eq(line + LOG_LINE_BYTES_MAX - 3, "aa\n");
	cr_assert_str_eq(next_write(), "");
}

Test(log, text_cannot_forge_a_line_or_a_terminal_sequence)
{
	log_info("export \"%s\"", "a\nerror: b\x1b[2J\x7f");
	cr_assert_str_eq(next_write(), "info: export \"a?error: b?[2J?\"\n");
}

Test(log, commands_in_utf8_are_replaced)
{
	log_info("a\xc2\x9b[2J, \xe2\x80\xaexcod.exe, \xe2\x81\xa6");
	cr_assert_str_eq(next_write(), "info: a??[2J, ???xcod.exe, ???\n");
}

Test(log, what_is_no_utf8_is_replaced)
{
	log_info("%s", "\xff \xc3 \x9b \xe2\x82 \xc0\xaf \xed\xa0\x80 \xf4\x90\x80\x80 \xc3");
	cr_assert_str_eq(next_write(), "info: ? ? ? ?? ?? ??? ???? ?\n");
}

Test(log, utf8_text_is_kept)
{
	log_info("%s", "M\xc3\xbchle \xe2\x82\xac \xf0\x9f\x98\x80 \xc2\xa0");
	cr_assert_str_eq(next_write(),
			 "info: M\xc3\xbchle \xe2\x82\xac \xf0\x9f\x98\x80 \xc2\xa0\n");
}

Test(log, errno_can_be_printed_and_is_kept)
{
	errno = ENOSPC;
	log_error("%m");
	cr_assert_eq(errno, ENOSPC);
	cr_assert_str_eq(next_write(), "error: No space left on device\n");
}

Test(log, errno_is_kept_when_the_write_fails)
{
	close(STDERR_FILENO);
	errno = ENOSPC;
	log_error("lost");
	cr_assert_eq(errno, ENOSPC);
}

/* In a child of this test, whose standard error is the same pipe. */
Test(log, check_failed_prints_its_place_and_aborts)
{
	int status;
	pid_t child = fork();

	cr_assert_geq(child, 0);
	if (child == 0)
		check_failed("reactor/x.c", 12, "count > 0");
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFSIGNALED(status));
	cr_assert_eq(WTERMSIG(status), SIGABRT);
	cr_assert_str_eq(next_write(), "reactor/x.c:12: check failed: count > 0\n");
}

Test(log, check_that_holds_does_nothing)
{
	CHECK(1 + 1 == 2);
	cr_assert_str_eq(next_write(), "");
}

/* ---- a sink ---- */

static struct log_entry taken;
static char taken_text[LOG_LINE_BYTES_MAX];

static void
take(void *context, const struct log_entry *entry)
{
	cr_assert_eq(context, &taken);
	taken = *entry;
	snprintf(taken_text, sizeof(taken_text), "%s", entry->text);
}

Test(log, sink_gets_text_level_and_time_instead)
{
	log_set_sink(take, &taken);
	log_warning("disk %d: %s", 3, "a\nb");
	cr_assert_str_eq(next_write(), "");
	cr_assert_str_eq(taken_text, "disk 3: a?b");
	cr_assert_eq(taken.level, LOG_LEVEL_WARNING);
	cr_assert_eq(taken.fields.count, 0);
	/* time(2) may be behind by a tick. */
	cr_assert_lt((uint64_t)time(NULL) + 1 - taken.time_ns / 1000000000, 60);
	log_set_sink(NULL, NULL);
	log_warning("again");
	cr_assert_str_eq(next_write(), "warning: again\n");
}

Test(log, sink_gets_fields_and_the_core)
{
	struct log_fields fields = { .count = 0 };

	log_fields_add(&fields, "client", "10.0.0.1:7");
	log_fields_add_number(&fields, "offset", UINT64_MAX);
	log_set_core(5);
	log_set_sink(take, &taken);
	log_line_about(LOG_LEVEL_INFO, &fields, "x");
	cr_assert_eq(taken.fields.count, 3);
	cr_assert_str_eq(taken.fields.fields[0].key, "client");
	cr_assert_str_eq(taken.fields.fields[0].value, "10.0.0.1:7");
	cr_assert_null(taken.fields.fields[1].value);
	cr_assert_eq(taken.fields.fields[1].number, UINT64_MAX);
	cr_assert_str_eq(taken.fields.fields[2].key, "core");
	cr_assert_eq(taken.fields.fields[2].number, 5);
	log_set_sink(NULL, NULL);
}

Test(log, fields_are_not_in_the_text)
{
	struct log_fields fields = { .count = 0 };

	log_fields_add(&fields, "client", "10.0.0.1:7");
	log_line_about(LOG_LEVEL_INFO, &fields, "x");
	cr_assert_str_eq(next_write(), "info: x\n");
}

Test(log, sink_does_not_get_what_is_below_the_level)
{
	log_set_sink(take, &taken);
	log_debug("unseen");
	cr_assert_str_empty(taken_text);
	log_set_sink(NULL, NULL);
}
