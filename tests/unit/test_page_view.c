/* disk/page_view.h on a file of the build's own file system. */
#include "disk/page_view.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/medium.h"

#define PAGE  ((uint64_t)4096)
#define PAGES 512u

static char path[64];
static int fd;
static struct page_view view;

static void
setup(void)
{
	static char bytes[PAGES * PAGE];

	cr_assert_null(medium_create(MEDIUM_HERE, sizeof(bytes), path));
	fd = open(path, O_RDWR);
	cr_assert_geq(fd, 0);
	memset(bytes, 7, sizeof(bytes));
	cr_assert_eq(pwrite(fd, bytes, sizeof(bytes), 0), (ssize_t)sizeof(bytes));
	cr_assert_eq(fdatasync(fd), 0);
	page_view_init(&view);
	cr_assert_not(page_view_has(&view, 0, 1));
	cr_assert(page_view_extend(&view, fd, PAGES * PAGE));
}

static void
teardown(void)
{
	page_view_fini(&view);
	(void)close(fd);
	medium_remove(MEDIUM_HERE, path);
}

TestSuite(page_view, .init = setup, .fini = teardown, .timeout = 60);

/* Nothing but COUNT pages from FIRST on is in the cache; the kernel reads no others ahead. */
static void
make_cached(uint64_t first, uint64_t count)
{
	char byte;

	cr_assert_eq(posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM), 0);
	cr_assert_eq(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	for (uint64_t i = first; i < first + count; i++)
		cr_assert_eq(pread(fd, &byte, 1, (off_t)(i * PAGE)), 1);
}

Test(page_view, has_what_is_cached_to_the_byte)
{
	make_cached(10, 3);
	cr_assert(page_view_has(&view, 10 * PAGE, 3 * PAGE));
	cr_assert(page_view_has(&view, 10 * PAGE, 1));
	cr_assert(page_view_has(&view, 13 * PAGE - 1, 1));
	cr_assert_not(page_view_has(&view, 10 * PAGE - 1, 2));
	cr_assert_not(page_view_has(&view, 13 * PAGE - 1, 2));
	cr_assert_not(page_view_has(&view, 100 * PAGE, PAGE));
}

Test(page_view, has_no_more_than_can_be_asked_for_nor_what_is_behind_it)
{
	make_cached(0, PAGES);
	cr_assert(page_view_has(&view, 0, PAGE_VIEW_PAGES * PAGE));
	cr_assert(page_view_has(&view, (PAGES - PAGE_VIEW_PAGES) * PAGE, PAGE_VIEW_PAGES * PAGE));
	cr_assert_not(page_view_has(&view, 0, PAGE_VIEW_PAGES * PAGE + 1));
	cr_assert_not(page_view_has(&view, PAGES * PAGE - 1, 2));
}

Test(page_view, is_extended_to_what_has_been_added)
{
	static char more[PAGE];

	cr_assert_eq(pwrite(fd, more, PAGE, PAGES * PAGE), (ssize_t)PAGE);
	cr_assert_not(page_view_has(&view, PAGES * PAGE, PAGE));
	cr_assert(page_view_extend(&view, fd, (PAGES + 1) * PAGE));
	cr_assert(page_view_has(&view, PAGES * PAGE, PAGE));
}

/* Behind the end, which the file had when it was opened, there is nothing. */
Test(page_view, file_that_was_truncated_has_not_what_is_gone)
{
	make_cached(0, PAGES);
	cr_assert_eq(ftruncate(fd, PAGE), 0);
	cr_assert(page_view_has(&view, 0, PAGE));
	cr_assert_not(page_view_has(&view, PAGE, PAGE));
}

/* Who neither owns nor may write it is told by mincore that everything is there. */
Test(page_view, others_see_nothing)
{
	struct page_view other;
	int read_only;

	if (geteuid() != 0)
		cr_skip_test("only root can become another user");
	cr_assert_eq(chmod(path, 0644), 0);
	read_only = open(path, O_RDONLY);
	cr_assert_geq(read_only, 0);
	cr_assert_eq(seteuid(65534), 0);
	page_view_init(&other);
	cr_assert_not(page_view_extend(&other, read_only, PAGES * PAGE));
	cr_assert_eq(seteuid(0), 0);
	cr_assert_not(page_view_has(&other, 0, 1));
	page_view_fini(&other);
	(void)close(read_only);
}
