/* mincore(2) tells, of a mapping that nobody ever touches. */
#include "disk/page_view.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct page_view {
	uint8_t *start;
	uint64_t bytes;
	struct page_view *older;
};

/* To others mincore says that all is there, so that nobody learns what they read.  Source: the kernel's mm/mincore.c, can_do_mincore. */
static bool
is_told(int fd)
{
	struct stat status;

	return (fstat(fd, &status) == 0 && status.st_uid == geteuid()) ||
	       faccessat(fd, "", W_OK, AT_EMPTY_PATH | AT_EACCESS) == 0;
}

struct page_view *
page_view_create(int fd, uint64_t bytes, struct page_view *older)
{
	struct page_view *view;
	unsigned char page;
	void *start;

	if (!is_told(fd))
		return NULL;
	view = malloc(sizeof(*view));
	if (view == NULL)
		return NULL;
	start = mmap(NULL, bytes, PROT_NONE, MAP_SHARED, fd, 0);
	if (start == MAP_FAILED) {
		free(view);
		return NULL;
	}
	*view = (struct page_view){ .start = start, .bytes = bytes, .older = older };
	if (mincore(start, 1, &page) == 0)
		return view;
	view->older = NULL;
	page_view_destroy(view);
	return NULL;
}

void
page_view_destroy(struct page_view *view)
{
	while (view != NULL) {
		struct page_view *older = view->older;

		(void)munmap(view->start, view->bytes);
		free(view);
		view = older;
	}
}

bool
page_view_has(const struct page_view *view, uint64_t offset, uint64_t length)
{
	uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t first = offset / page_bytes, last = (offset + length - 1) / page_bytes;
	unsigned char pages[PAGE_VIEW_PAGES];
	uint64_t count = last - first + 1;

	if (count > PAGE_VIEW_PAGES || offset + length > view->bytes)
		return false;
	if (mincore(view->start + first * page_bytes, count * page_bytes, pages) != 0)
		return false;
	for (uint64_t i = 0; i < count; i++)
		if ((pages[i] & 1) == 0)
			return false;
	return true;
}
