/* What the kernel's page cache has of a file. */
#ifndef DISK_PAGE_CACHE_H
#define DISK_PAGE_CACHE_H

#include <stdbool.h>
#include <stdint.h>

/* Whether all of LENGTH bytes (at least 1) at OFFSET of FD is in the page cache, or on its way there.  True also where the kernel does
 * not tell: before Linux 6.5, and of a file that this process neither owns nor may write.  Does not block.
 * Source: the kernel's mm/filemap.c, cachestat. */
bool page_cache_has(int fd, uint64_t offset, uint64_t length);

#endif
