/* cachestat(2) counts the pages of a range that are there; the C library has no wrapper yet. */
#include "disk/page_cache.h"

#include <sys/syscall.h>
#include <unistd.h>

/* The same number on all architectures but alpha. */
#ifndef SYS_cachestat
#define SYS_cachestat 451
#endif

struct range {
	uint64_t offset, length;
};

struct counts {
	uint64_t cached, dirty, writeback, evicted, recently_evicted;
};

bool
page_cache_has(int fd, uint64_t offset, uint64_t length)
{
	uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t pages = (offset + length - 1) / page_bytes - offset / page_bytes + 1;
	struct range range = { offset, length };
	struct counts counts;

	if (syscall(SYS_cachestat, fd, &range, &counts, 0) != 0)
		return true;
	return counts.cached >= pages;
}
