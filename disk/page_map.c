/* An array of words in anonymous memory, which the kernel gives page by page as bits are set. */
#include "disk/page_map.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#define WORD_BITS 64u

struct page_map {
	uint64_t *words; /* atomic */
	size_t bytes;
};

int
page_map_create(uint64_t page_count, struct page_map **result)
{
	struct page_map *map = malloc(sizeof(*map));
	void *memory;

	if (map == NULL)
		return -ENOMEM;
	map->bytes = (size_t)((page_count + WORD_BITS - 1) / WORD_BITS) * sizeof(map->words[0]);
	memory = mmap(NULL, map->bytes, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (memory == MAP_FAILED) {
		free(map);
		return -ENOMEM;
	}
	/* A huge page would be taken for a single bit. */
	(void)madvise(memory, map->bytes, MADV_NOHUGEPAGE);
	map->words = memory;
	*result = map;
	return 0;
}

void
page_map_destroy(struct page_map *map)
{
	(void)munmap(map->words, map->bytes);
	free(map);
}

/* The bits of pages FIRST to END - 1 that are in FIRST's word; *next: the first page behind them. */
static uint64_t
mask_of(uint64_t first, uint64_t end, uint64_t *next)
{
	uint64_t word_end = (first / WORD_BITS + 1) * WORD_BITS;
	uint64_t mask = ~(uint64_t)0 << (first % WORD_BITS);

	if (end < word_end) {
		mask &= ~(~(uint64_t)0 << (end % WORD_BITS));
		word_end = end;
	}
	*next = word_end;
	return mask;
}

void
page_map_set(struct page_map *map, uint64_t first, uint64_t end)
{
	/* The bytes must be there before the bits are looked at: else a bit might be seen set that somebody clears before the
	 * bytes come, and drops the page, and then they would be there with the bit clear.  Partner: page_map_clear. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	while (first < end) {
		uint64_t *word = &map->words[first / WORD_BITS];
		uint64_t mask = mask_of(first, end, &first);

		/* Mostly they are set already, and the word stays shared in all caches. */
		if ((__atomic_load_n(word, __ATOMIC_RELAXED) & mask) != mask)
			__atomic_fetch_or(word, mask, __ATOMIC_RELEASE);
	}
}

void
page_map_clear(struct page_map *map, uint64_t first, uint64_t end)
{
	while (first < end) {
		uint64_t *word = &map->words[first / WORD_BITS];
		uint64_t mask = mask_of(first, end, &first);

		if ((__atomic_load_n(word, __ATOMIC_RELAXED) & mask) != 0)
			__atomic_fetch_and(word, ~mask, __ATOMIC_SEQ_CST);
	}
	/* Clear before the pages are dropped. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

uint64_t
page_map_run(const struct page_map *map, uint64_t first, uint64_t end, bool *set)
{
	uint64_t page = first;
	uint64_t flip;

	if (end - first > PAGE_MAP_LOOK_MAX)
		end = first + PAGE_MAP_LOOK_MAX;
	/* Acquire: partner of page_map_set's release. */
	*set = __atomic_load_n(&map->words[first / WORD_BITS], __ATOMIC_ACQUIRE) >>
		       (first % WORD_BITS) &
	       1;
	flip = *set ? ~(uint64_t)0 : 0;
	while (page < end) {
		uint64_t word = __atomic_load_n(&map->words[page / WORD_BITS], __ATOMIC_ACQUIRE);
		uint64_t start = page;
		/* The bits that differ from the first page's. */
		uint64_t others = (word ^ flip) & mask_of(start, end, &page);

		if (others != 0) {
			page = start / WORD_BITS * WORD_BITS + (unsigned)__builtin_ctzll(others);
			break;
		}
	}
	/* The first page's bit may have changed between the two looks at it. */
	return page > first ? page - first : 1;
}
