/* reactor/log.h and check_failed: what arrives on standard error, which is a pipe in packet mode here, so
 * that each write(2) is read back on its own (pipe(2), O_DIRECT). */
#include "reactor/log.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
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

Test(log, utf8_text_is_kept)
{
	log_info("%s", "M\xc3\xbchle");
	cr_assert_str_eq(next_write(), "info: M\xc3\xbchle\n");
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
