/* mincore(2) tells, of mappings that nobody ever touches. */
#include "disk/page_view.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct page_view_mapping {
	uint8_t *start;
	uint64_t bytes;
	struct page_view_mapping *older;
};

void
page_view_init(struct page_view *view)
{
	view->newest = NULL;
	pthread_mutex_init(&view->lock, NULL);
}

void
page_view_fini(struct page_view *view)
{
	struct page_view_mapping *mapping;

	while ((mapping = view->newest) != NULL) {
		view->newest = mapping->older;
		(void)munmap(mapping->start, mapping->bytes);
		free(mapping);
	}
	pthread_mutex_destroy(&view->lock);
}

/* To others mincore says that all is there, so that nobody learns what they read.  Source: the kernel's mm/mincore.c, can_do_mincore. */
static bool
is_told(int fd)
{
	struct stat status;

	return (fstat(fd, &status) == 0 && status.st_uid == geteuid()) ||
	       faccessat(fd, "", W_OK, AT_EMPTY_PATH | AT_EACCESS) == 0;
}

/* Returns NULL if it can't be had. */
static struct page_view_mapping *
map(int fd, uint64_t bytes)
{
	struct page_view_mapping *mapping = malloc(sizeof(*mapping));
	unsigned char page;

	if (mapping == NULL)
		return NULL;
	mapping->bytes = bytes;
	mapping->start = mmap(NULL, bytes, PROT_NONE, MAP_SHARED, fd, 0);
	if (mapping->start == MAP_FAILED) {
		free(mapping);
		return NULL;
	}
	if (mincore(mapping->start, 1, &page) == 0)
		return mapping;
	(void)munmap(mapping->start, bytes); /* what shuts the process in may forbid it */
	free(mapping);
	return NULL;
}

bool
page_view_extend(struct page_view *view, int fd, uint64_t bytes)
{
	struct page_view_mapping *mapping, *older;

	pthread_mutex_lock(&view->lock);
	older = view->newest;
	if (older != NULL && older->bytes >= bytes) {
		pthread_mutex_unlock(&view->lock);
		return true;
	}
	mapping = is_told(fd) ? map(fd, bytes) : NULL;
	if (mapping != NULL) {
		mapping->older = older;
		__atomic_store_n(&view->newest, mapping, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&view->lock);
	return mapping != NULL;
}

bool
page_view_has(const struct page_view *view, uint64_t offset, uint64_t length)
{
	const struct page_view_mapping *mapping = __atomic_load_n(&view->newest, __ATOMIC_ACQUIRE);
	uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t first = offset / page_bytes, last = (offset + length - 1) / page_bytes;
	uint64_t count = last - first + 1;
	unsigned char pages[PAGE_VIEW_PAGES];

	if (mapping == NULL || count > PAGE_VIEW_PAGES || offset + length > mapping->bytes)
		return false;
	if (mincore(mapping->start + first * page_bytes, count * page_bytes, pages) != 0)
		return false;
	for (uint64_t i = 0; i < count; i++)
		if ((pages[i] & 1) == 0)
			return false;
	return true;
}
