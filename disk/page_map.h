/* Which pages of a volume in memory hold something: a bit for each, shared by all cores without a lock.
 *
 * The rule that keeps a page from being forgotten, or its old content from coming back: who writes a page sets its bit after the
 * bytes are there, and who drops pages clears their bits before.  A page whose bit is clear reads as zeros, whatever it still
 * holds.  So between requests, a page that holds anything but zeros has its bit set: its last writer set it, and whoever cleared
 * it later has dropped the bytes after that. */
#ifndef DISK_PAGE_MAP_H
#define DISK_PAGE_MAP_H

#include "reactor/check.h"
#include <stdbool.h>
#include <stdint.h>

struct page_map;

/* Create the map of PAGE_COUNT pages, at least 1, all clear.  Takes memory only where bits were set: at most a bit per page.
 * Returns 0 or -ENOMEM; then *map is unchanged. */
int page_map_create(uint64_t page_count, struct page_map **map) MUST_USE;

/* No other thread may be using MAP. */
void page_map_destroy(struct page_map *map);

/* Set, or clear, the bits of pages FIRST to END - 1.  Any thread. */
void page_map_set(struct page_map *map, uint64_t first, uint64_t end);
void page_map_clear(struct page_map *map, uint64_t first, uint64_t end);

/* How many pages from FIRST on have the same bit as it, END (above FIRST) being the last asked for, plus 1.  *set: that bit.
 * Looks at no more than PAGE_MAP_LOOK_MAX pages, so a longer run comes in parts.  Any thread. */
uint64_t page_map_run(const struct page_map *map, uint64_t first, uint64_t end, bool *set);

#define PAGE_MAP_LOOK_MAX ((uint64_t)1 << 20) /* 128 KiB of the map: some 10 us */

#endif
