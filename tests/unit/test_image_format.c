/* What is said of files by how they begin. */
#include "disk/image_format.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "reactor/log.h"

#define UNIT_BYTES 4096u

static unsigned warnings;
static char last[1024];

static void
keep(void *context, const struct log_entry *entry)
{
	(void)context;
	warnings += entry->level == LOG_LEVEL_WARNING;
	snprintf(last, sizeof(last), "%s", entry->text);
}

/* What is said of a file that begins with BYTES and is LENGTH long, opened with FLAGS; "": none. */
static const char *
said_of(const char *bytes, size_t count, off_t length, int flags)
{
	char path[] = "build/unit-format-XXXXXX";
	int fd = mkstemp(path);

	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, bytes, count), (ssize_t)count);
	cr_assert_eq(ftruncate(fd, length), 0);
	(void)close(fd);
	fd = open(path, O_RDONLY | O_CLOEXEC | flags);
	cr_assert_geq(fd, 0);
	warnings = 0;
	last[0] = '\0';
	log_set_sink(keep, NULL);
	image_format_warn("the-path", fd, UNIT_BYTES);
	log_set_sink(NULL, NULL);
	cr_assert_eq(warnings, last[0] != '\0');
	(void)close(fd);
	(void)unlink(path);
	return last;
}

Test(image_format, what_is_not_raw_is_named_whatever_its_size)
{
	cr_assert(strstr(said_of("QFI\xfb", 4, 1 << 20, O_DIRECT), "the-path: looks like a qcow2"));
	cr_assert(strstr(said_of("QFI\xfb", 4, 1 << 20, 0), "looks like a qcow2 image"));
	cr_assert(strstr(said_of("QFI\xfb", 4, 512, O_DIRECT), "looks like a qcow2 image"));
	cr_assert(strstr(said_of("KDMV", 4, 4, O_DIRECT), "looks like a VMDK image"));
	cr_assert(strstr(said_of("vhdxfile", 8, 1 << 20, O_DIRECT), "looks like a VHDX image"));
}

Test(image_format, nothing_is_said_of_what_may_be_raw)
{
	cr_assert_str_empty(said_of("", 0, 1 << 20, O_DIRECT));
	cr_assert_str_empty(said_of("", 0, 0, O_DIRECT));
	cr_assert_str_empty(said_of("QFI", 3, 3, O_DIRECT));
	cr_assert_str_empty(said_of("QFI\xfa", 4, 1 << 20, O_DIRECT));
	cr_assert_str_empty(said_of("vhdxfil", 7, 1 << 20, 0));
	cr_assert_str_empty(said_of("\0QFI\xfb", 5, 1 << 20, 0));
}
