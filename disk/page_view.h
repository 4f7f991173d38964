/* Which pages of a file could be read from the page cache without waiting.
 * cachestat (disk/page_cache.h) counts pages that are still being read, too; this does not. */
#ifndef DISK_PAGE_VIEW_H
#define DISK_PAGE_VIEW_H

#include "reactor/check.h"
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct page_view {
	/* Private. */
	struct page_view_mapping *newest; /* atomic; the older ones may be in use still */
	pthread_mutex_t lock;		  /* for those who extend it */
};

/* VIEW sees nothing at first. */
void page_view_init(struct page_view *view);
void page_view_fini(struct page_view *view);

/* Have VIEW see the first BYTES (at least 1) of FD, always the same file, or more.  Returns false if it can't: there is no memory, or the kernel does
 * not tell this process, which neither owns the file nor may write it.  Any thread that may wait for another.
 * Not before the process is what it will be: a user that it becomes is told less, and memory is locked (mlockall) by what is mapped. */
bool page_view_extend(struct page_view *view, int fd, uint64_t bytes) MUST_USE;

/* Pages that can be asked for at one time. */
#define PAGE_VIEW_PAGES 256u

/* Whether all of LENGTH bytes (at least 1) at OFFSET is there now; false if that is more than PAGE_VIEW_PAGES, or VIEW does not see so far.
 * It may be gone in the next moment, where memory is short.  Any thread; does not block.
 * Source: mincore(2). */
bool page_view_has(const struct page_view *view, uint64_t offset, uint64_t length);

#endif
