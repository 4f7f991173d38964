/* Which pages of a file could be read from the page cache without waiting.
 * cachestat (disk/page_cache.h) counts pages that are still being read, too; this does not. */
#ifndef DISK_PAGE_VIEW_H
#define DISK_PAGE_VIEW_H

#include "reactor/check.h"
#include <stdbool.h>
#include <stdint.h>

struct page_view;

/* A view of the first BYTES (at least 1) of FD, the caller's until page_view_destroy; or NULL: there is no memory, or the kernel does not tell
 * this process, which neither owns the file nor may write it.  OLDER: the view of fewer bytes that it takes the place of, which others may
 * be using still; it is destroyed with this one.  NULL: there is none. */
struct page_view *page_view_create(int fd, uint64_t bytes, struct page_view *older) MUST_USE;
void page_view_destroy(struct page_view *view);

/* Pages that can be asked for at one time. */
#define PAGE_VIEW_PAGES 256u

/* Whether all of LENGTH bytes (at least 1) at OFFSET is there now; false if that is more than PAGE_VIEW_PAGES, or VIEW does not reach so far.
 * It may be gone in the next moment, where memory is short.  Any thread; does not block.
 * Source: mincore(2). */
bool page_view_has(const struct page_view *view, uint64_t offset, uint64_t length);

#endif
