/* A buddy allocator whose bookkeeping stays outside the region, so that free memory is never touched.
 *
 * Every page of the region has a struct page; a block is known by its first one.  A block is either
 *	used	handed out, or
 *	cached	put back, but not merged: the newest CACHE_BLOCKS_MAX of each order, or
 *	free	on the list of its order, and its buddy is not free.
 * The cache is what makes the data path cheap: a core that gets and puts blocks of one size reuses the ones
 * that are still in the processor's caches, and nothing is split or merged.  It costs no capacity, because a
 * request that finds no free block merges all cached ones and looks again.  That work is paid for by the
 * puts that filled the cache, so the cost of a call stays logarithmic when averaged over the calls. */
#include "reactor/buffer_pool.h"

#include "reactor/list.h"
#include <errno.h>
#include <numa.h>
#include <numaif.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define HAVE_ADDRESS_SANITIZER
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define HAVE_ADDRESS_SANITIZER
#endif

/* With AddressSanitizer, a use of a block that is not handed out is reported where it happens. */
#ifdef HAVE_ADDRESS_SANITIZER
#include <sanitizer/asan_interface.h>
#define forbid_access(start, bytes) __asan_poison_memory_region((start), (bytes))
#define allow_access(start, bytes)  __asan_unpoison_memory_region((start), (bytes))
#else
#define forbid_access(start, bytes) ((void)(start), (void)(bytes))
#define allow_access(start, bytes)  ((void)(start), (void)(bytes))
#endif

#define PAGE_SHIFT	 12
#define ORDERS_MAX	 (64 - PAGE_SHIFT)
#define REGION_ALIGNMENT ((size_t)2 << 20) /* a huge page of x86-64 and of arm64 with 4 KiB pages */
#define NODES_MAX	 1024		   /* NUMA nodes the kernel can be built for */
#define WORD_BITS	 (8 * sizeof(unsigned long))

/* Per order.  Enough for the blocks that a busy connection returns at once. */
#define CACHE_BLOCKS_MAX 64

_Static_assert(BUFFER_BYTES_MIN == (size_t)1 << PAGE_SHIFT, "order 0 is one page");

enum page_state {
	PAGE_STATE_INSIDE, /* not the first page of a block; calloc's zero */
	PAGE_STATE_USED,
	PAGE_STATE_CACHED,
	PAGE_STATE_FREE,
};

struct page {
	struct list_node node; /* in cached[order] or free[order] */
	uint8_t state;	       /* enum page_state */
	uint8_t order;	       /* of the block this page is first of */
};

/* Blocks of one size. */
struct order_lists {
	struct list_node cached; /* newest first */
	struct list_node free;	 /* newest first */
	unsigned cached_count;
};

/* Owned by its creator, used by one core. */
struct buffer_pool {
	char *region;
	struct page *pages; /* one for each BUFFER_BYTES_MIN of the region */
	size_t total_bytes;
	size_t used_bytes;
	unsigned order_largest;
	struct order_lists orders[ORDERS_MAX]; /* up to order_largest */
};

static void init_lists(struct buffer_pool *pool);
static void *map_region(size_t bytes);
static void prefer_node(void *region, size_t bytes, int numa_node);
static unsigned order_of(const struct buffer_pool *pool, size_t bytes);
static size_t order_bytes(unsigned order);
static struct page *take_cached(struct buffer_pool *pool, unsigned order);
static struct page *take_free(struct buffer_pool *pool, unsigned order);
static void cache_block(struct buffer_pool *pool, struct page *page);
static void merge_oldest_cached(struct buffer_pool *pool, unsigned order);
static bool merge_all_cached(struct buffer_pool *pool);
static void free_and_merge(struct buffer_pool *pool, struct page *page, unsigned order);
static void push_free(struct buffer_pool *pool, struct page *page, unsigned order);

int
buffer_pool_create(size_t total_bytes, size_t largest_bytes, int numa_node,
		   struct buffer_pool **pool)
{
	struct buffer_pool *created;

	if (pool == NULL || largest_bytes < BUFFER_BYTES_MIN ||
	    (largest_bytes & (largest_bytes - 1)) != 0 || total_bytes < largest_bytes)
		return -EINVAL;
	if (total_bytes > SIZE_MAX / 2 - largest_bytes)
		return -ENOMEM;

	created = malloc(sizeof(*created));
	if (created == NULL)
		return -ENOMEM;
	created->total_bytes = (total_bytes + largest_bytes - 1) & ~(largest_bytes - 1);
	created->used_bytes = 0;
	created->order_largest = (unsigned)__builtin_ctzll(largest_bytes) - PAGE_SHIFT;

	created->region = map_region(created->total_bytes);
	if (created->region == NULL)
		goto err_after_pool;
	/* Both are wishes: without huge pages or the right node the pool is slower, not wrong. */
	prefer_node(created->region, created->total_bytes, numa_node);
	(void)madvise(created->region, created->total_bytes, MADV_HUGEPAGE);
	/* Data of clients, which is nobody's business when the process is looked at. */
	(void)madvise(created->region, created->total_bytes, MADV_DONTDUMP);

	created->pages = calloc(created->total_bytes >> PAGE_SHIFT, sizeof(*created->pages));
	if (created->pages == NULL)
		goto err_after_region;
	init_lists(created);
	forbid_access(created->region, created->total_bytes);
	*pool = created;
	return 0;

err_after_region:
	munmap(created->region, created->total_bytes);
err_after_pool:
	free(created);
	return -ENOMEM;
}

void
buffer_pool_destroy(struct buffer_pool *pool)
{
	CHECK(pool->used_bytes == 0);
	allow_access(pool->region, pool->total_bytes);
	munmap(pool->region, pool->total_bytes);
	free(pool->pages);
	free(pool);
}

void *
buffer_pool_get(struct buffer_pool *pool, size_t bytes)
{
	unsigned order = order_of(pool, bytes);
	struct page *page = take_cached(pool, order);
	void *block;

	if (page == NULL)
		page = take_free(pool, order);
	if (page == NULL && merge_all_cached(pool))
		page = take_free(pool, order);
	if (page == NULL)
		return NULL;

	page->state = PAGE_STATE_USED;
	page->order = (uint8_t)order;
	pool->used_bytes += order_bytes(order);
	block = pool->region + ((size_t)(page - pool->pages) << PAGE_SHIFT);
	allow_access(block, order_bytes(order));
	return block;
}

void
buffer_pool_put(struct buffer_pool *pool, void *block, size_t bytes)
{
	unsigned order = order_of(pool, bytes);
	/* A block below the region wraps round to a huge offset. */
	size_t offset = (size_t)((uintptr_t)block - (uintptr_t)pool->region);
	struct page *page;

	CHECK(offset < pool->total_bytes);
	CHECK(offset % BUFFER_BYTES_MIN == 0);
	page = &pool->pages[offset >> PAGE_SHIFT];
	CHECK(page->state == PAGE_STATE_USED);
	CHECK(page->order == order);

	forbid_access(block, order_bytes(order));
	pool->used_bytes -= order_bytes(order);
	if (pool->orders[order].cached_count == CACHE_BLOCKS_MAX)
		merge_oldest_cached(pool, order);
	cache_block(pool, page);
}

size_t
buffer_pool_total_bytes(const struct buffer_pool *pool)
{
	return pool->total_bytes;
}

size_t
buffer_pool_used_bytes(const struct buffer_pool *pool)
{
	return pool->used_bytes;
}

size_t
buffer_pool_free_bytes(const struct buffer_pool *pool)
{
	return pool->total_bytes - pool->used_bytes;
}

/* All of the region is free, in largest blocks, the lowest address first. */
static void
init_lists(struct buffer_pool *pool)
{
	size_t page_count = pool->total_bytes >> PAGE_SHIFT;
	size_t step = (size_t)1 << pool->order_largest;

	for (unsigned order = 0; order <= pool->order_largest; order++) {
		list_init(&pool->orders[order].cached);
		list_init(&pool->orders[order].free);
		pool->orders[order].cached_count = 0;
	}
	for (size_t index = page_count; index > 0; index -= step)
		push_free(pool, &pool->pages[index - step], pool->order_largest);
}

/* BYTES of zeroed, untouched memory, aligned to REGION_ALIGNMENT; NULL if there is none.
 * mmap(2) aligns to pages only, so more is mapped and what stands out at either end is given back.  Where
 * the kernel refuses that (too many mappings, munmap(2)), a little address space stays reserved. */
static void *
map_region(size_t bytes)
{
	char *mapped = mmap(NULL, bytes + REGION_ALIGNMENT, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	size_t before;

	if (mapped == MAP_FAILED)
		return NULL;
	before = -(uintptr_t)mapped & (REGION_ALIGNMENT - 1);
	if (before > 0)
		munmap(mapped, before);
	munmap(mapped + before + bytes, REGION_ALIGNMENT - before);
	return mapped + before;
}

/* Preferred, not bound: a full node should give slower memory, not end the process (mbind(2)).
 * Failures are ignored; a container's seccomp filter may refuse mbind altogether. */
static void
prefer_node(void *region, size_t bytes, int numa_node)
{
	unsigned long mask[NODES_MAX / WORD_BITS] = { 0 };

	if (numa_node < 0 || numa_node >= NODES_MAX || numa_available() < 0)
		return;
	mask[(size_t)numa_node / WORD_BITS] = 1UL << (size_t)numa_node % WORD_BITS;
	/* The kernel reads one bit less than it is told to. */
	(void)mbind(region, bytes, MPOL_PREFERRED, mask, NODES_MAX + 1, 0);
}

/* The order of the smallest block that holds BYTES. */
static unsigned
order_of(const struct buffer_pool *pool, size_t bytes)
{
	size_t pages_beyond_first = (bytes - 1) >> PAGE_SHIFT;
	unsigned order = 0;

	CHECK(bytes > 0);
	if (pages_beyond_first > 0)
		order = 64 - (unsigned)__builtin_clzll(pages_beyond_first);
	CHECK(order <= pool->order_largest);
	return order;
}

static size_t
order_bytes(unsigned order)
{
	return BUFFER_BYTES_MIN << order;
}

/* The cached block of ORDER that was put last, or NULL. */
static struct page *
take_cached(struct buffer_pool *pool, unsigned order)
{
	struct order_lists *lists = &pool->orders[order];
	struct list_node *node = list_take_first(&lists->cached);

	if (node == NULL)
		return NULL;
	lists->cached_count--;
	return container_of(node, struct page, node);
}

/* A free block of ORDER, split off the smallest free one that is large enough, or NULL. */
static struct page *
take_free(struct buffer_pool *pool, unsigned order)
{
	unsigned found = order;
	struct page *page;

	while (found <= pool->order_largest && list_empty(&pool->orders[found].free))
		found++;
	if (found > pool->order_largest)
		return NULL;

	page = container_of(list_take_first(&pool->orders[found].free), struct page, node);
	/* The lower half goes on being split, the upper one is free. */
	while (found > order) {
		found--;
		push_free(pool, page + ((size_t)1 << found), found);
	}
	return page;
}

static void
cache_block(struct buffer_pool *pool, struct page *page)
{
	struct order_lists *lists = &pool->orders[page->order];

	page->state = PAGE_STATE_CACHED;
	list_prepend(&lists->cached, &page->node);
	lists->cached_count++;
}

static void
merge_oldest_cached(struct buffer_pool *pool, unsigned order)
{
	struct order_lists *lists = &pool->orders[order];
	struct list_node *node = lists->cached.prev;

	list_remove(node);
	lists->cached_count--;
	free_and_merge(pool, container_of(node, struct page, node), order);
}

/* Empty the cache.  Returns whether there was anything in it. */
static bool
merge_all_cached(struct buffer_pool *pool)
{
	bool merged = false;

	for (unsigned order = 0; order <= pool->order_largest; order++) {
		while (pool->orders[order].cached_count > 0) {
			merge_oldest_cached(pool, order);
			merged = true;
		}
	}
	return merged;
}

/* Make the block at PAGE free, as part of the largest block whose parts are all free. */
static void
free_and_merge(struct buffer_pool *pool, struct page *page, unsigned order)
{
	while (order < pool->order_largest) {
		size_t index = (size_t)(page - pool->pages);
		size_t buddy_index = index ^ (size_t)1 << order;
		struct page *buddy = &pool->pages[buddy_index];

		if (buddy->state != PAGE_STATE_FREE || buddy->order != order)
			break;
		list_remove(&buddy->node);
		page->state = PAGE_STATE_INSIDE;
		buddy->state = PAGE_STATE_INSIDE;
		page = buddy_index < index ? buddy : page;
		order++;
	}
	push_free(pool, page, order);
}

static void
push_free(struct buffer_pool *pool, struct page *page, unsigned order)
{
	page->state = PAGE_STATE_FREE;
	page->order = (uint8_t)order;
	list_prepend(&pool->orders[order].free, &page->node);
}
