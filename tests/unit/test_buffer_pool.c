/* reactor/buffer_pool.h: sizes, alignment, exhaustion, merging, misuse, and a random run against a model
 * that knows which pages are handed out.  Random tests print their seed; SEED=n repeats one. */
#include "reactor/buffer_pool.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "tests/unit/seed.h"

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define UNDER_ADDRESS_SANITIZER
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define UNDER_ADDRESS_SANITIZER
#endif

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

static struct buffer_pool *
pool_of(size_t total_bytes, size_t largest_bytes)
{
	struct buffer_pool *pool = NULL;

	cr_assert_eq(buffer_pool_create(total_bytes, largest_bytes, -1, &pool), 0);
	cr_assert_not_null(pool);
	return pool;
}

static bool
aligned(const void *block, size_t bytes)
{
	return (uintptr_t)block % bytes == 0;
}

/* Bytes of the process's address space, and how many of them are in memory (proc(5), statm). */
static void
process_bytes(size_t *mapped, size_t *resident)
{
	FILE *file = fopen("/proc/self/statm", "r");
	size_t mapped_pages, resident_pages;

	cr_assert_not_null(file);
	cr_assert_eq(fscanf(file, "%zu %zu", &mapped_pages, &resident_pages), 2);
	fclose(file);
	*mapped = mapped_pages * (size_t)sysconf(_SC_PAGESIZE);
	*resident = resident_pages * (size_t)sysconf(_SC_PAGESIZE);
}

Test(buffer_pool, create_refuses_bad_sizes)
{
	struct buffer_pool *unchanged = (struct buffer_pool *)&unchanged, *pool = unchanged;

	cr_assert_eq(buffer_pool_create(MIB, 0, -1, &pool), -EINVAL);
	cr_assert_eq(buffer_pool_create(MIB, 2 * KIB, -1, &pool), -EINVAL);
	cr_assert_eq(buffer_pool_create(MIB, 12 * KIB, -1, &pool), -EINVAL);
	cr_assert_eq(buffer_pool_create(MIB - 1, MIB, -1, &pool), -EINVAL);
	cr_assert_eq(buffer_pool_create(0, 4 * KIB, -1, &pool), -EINVAL);
	cr_assert_eq(buffer_pool_create(MIB, 4 * KIB, -1, NULL), -EINVAL);
	cr_assert_eq(pool, unchanged);
}

Test(buffer_pool, create_reports_lack_of_address_space)
{
	struct buffer_pool *unchanged = (struct buffer_pool *)&unchanged, *pool = unchanged;

	cr_assert_eq(buffer_pool_create(SIZE_MAX, MIB, -1, &pool), -ENOMEM);
	cr_assert_eq(buffer_pool_create(SIZE_MAX / 4, MIB, -1, &pool), -ENOMEM);
	cr_assert_eq(pool, unchanged);
}

Test(buffer_pool, create_rounds_up_to_largest_blocks)
{
	struct buffer_pool *pool = pool_of(2 * MIB + 1, MIB);

	cr_assert_eq(buffer_pool_total_bytes(pool), 3 * MIB);
	cr_assert_eq(buffer_pool_used_bytes(pool), 0);
	cr_assert_eq(buffer_pool_free_bytes(pool), 3 * MIB);
	buffer_pool_destroy(pool);
}

Test(buffer_pool, create_works_for_any_node)
{
	const int nodes[] = { -2, 0, 1, 63, 64, 1023, 1024, 1 << 30 };

	for (size_t i = 0; i < ARRAY_COUNT(nodes); i++) {
		struct buffer_pool *pool;
		char *block;

		cr_assert_eq(buffer_pool_create(4 * MIB, MIB, nodes[i], &pool), 0);
		block = buffer_pool_get(pool, MIB);
		memset(block, 1, MIB);
		buffer_pool_put(pool, block, MIB);
		buffer_pool_destroy(pool);
	}
}

/* The address space is limited to ever a little more than is in use, so that each allocation fails in turn.
 * The bookkeeping of this pool is larger than what map_region gives back, so it fails too. */
Test(buffer_pool, create_unwinds_wherever_memory_ends)
{
	struct buffer_pool *unchanged = (struct buffer_pool *)&unchanged, *pool = unchanged;
	size_t mapped, mapped_after, resident;
	struct rlimit limit = { .rlim_max = RLIM_INFINITY };
	unsigned failures = 0;
	int status;

#ifdef UNDER_ADDRESS_SANITIZER
	cr_skip_test("AddressSanitizer needs address space itself and ends the process without");
#endif
	process_bytes(&mapped, &resident);
	for (size_t more = 0;; more += 256 * KIB) {
		limit.rlim_cur = mapped + 512 * MIB + more;
		cr_assert_eq(setrlimit(RLIMIT_AS, &limit), 0);
		status = buffer_pool_create(512 * MIB, 32 * MIB, -1, &pool);
		if (status == 0)
			break;
		cr_assert_eq(status, -ENOMEM);
		cr_assert_eq(pool, unchanged);
		failures++;
	}
	buffer_pool_destroy(pool);
	cr_assert_gt(failures, 2 * MIB / (256 * KIB));
	process_bytes(&mapped_after, &resident);
	cr_assert_lt(mapped_after, mapped + 64 * MIB);
}

/* The bound leaves room for the bookkeeping, and for a sanitizer's shadow of the region. */
Test(buffer_pool, create_does_not_touch_the_region)
{
	size_t mapped, resident_before, resident;
	struct buffer_pool *pool;

	process_bytes(&mapped, &resident_before);
	pool = pool_of(256 * MIB, 32 * MIB);
	process_bytes(&mapped, &resident);
	cr_assert_lt(resident, resident_before + 64 * MIB);
	buffer_pool_destroy(pool);
}

Test(buffer_pool, smallest_pool_is_one_page)
{
	struct buffer_pool *pool = pool_of(4 * KIB, 4 * KIB);
	void *block = buffer_pool_get(pool, 1);

	cr_assert_not_null(block);
	cr_assert_null(buffer_pool_get(pool, 1));
	buffer_pool_put(pool, block, 1);
	cr_assert_eq(buffer_pool_get(pool, 4 * KIB), block);
	buffer_pool_put(pool, block, 4 * KIB);
	buffer_pool_destroy(pool);
}

Test(buffer_pool, blocks_are_aligned_to_their_size_up_to_2_mib)
{
	struct buffer_pool *pool = pool_of(64 * MIB, 16 * MIB);

	for (size_t bytes = 4 * KIB; bytes <= 16 * MIB; bytes *= 2) {
		void *blocks[3];

		for (int i = 0; i < 3; i++) {
			blocks[i] = buffer_pool_get(pool, bytes);
			cr_assert_not_null(blocks[i]);
			cr_assert(aligned(blocks[i], bytes < 2 * MIB ? bytes : 2 * MIB));
		}
		for (int i = 0; i < 3; i++)
			buffer_pool_put(pool, blocks[i], bytes);
	}
	buffer_pool_destroy(pool);
}

/* The kernel aligns mappings of whole huge pages by itself, but not these. */
Test(buffer_pool, blocks_are_aligned_in_pools_of_odd_sizes)
{
	struct buffer_pool *pools[8];
	void *blocks[ARRAY_COUNT(pools)];

	for (size_t i = 0; i < ARRAY_COUNT(pools); i++) {
		pools[i] = pool_of((2 * i + 3) * 64 * KIB, 64 * KIB);
		blocks[i] = buffer_pool_get(pools[i], 64 * KIB);
		cr_assert(aligned(blocks[i], 64 * KIB));
	}
	for (size_t i = 0; i < ARRAY_COUNT(pools); i++) {
		buffer_pool_put(pools[i], blocks[i], 64 * KIB);
		buffer_pool_destroy(pools[i]);
	}
}

Test(buffer_pool, sizes_are_rounded_up_to_powers_of_two)
{
	struct buffer_pool *pool = pool_of(4 * MIB, MIB);
	const struct {
		size_t asked, used;
	} sizes[] = { { 1, 4 * KIB },
		      { 4 * KIB, 4 * KIB },
		      { 4 * KIB + 1, 8 * KIB },
		      { 8 * KIB, 8 * KIB },
		      { 8 * KIB + 1, 16 * KIB },
		      { 12 * KIB, 16 * KIB },
		      { 512 * KIB + 1, MIB },
		      { MIB, MIB } };

	for (size_t i = 0; i < ARRAY_COUNT(sizes); i++) {
		void *block = buffer_pool_get(pool, sizes[i].asked);

		cr_assert_not_null(block);
		cr_assert_eq(buffer_pool_used_bytes(pool), sizes[i].used);
		buffer_pool_put(pool, block, sizes[i].asked);
		cr_assert_eq(buffer_pool_used_bytes(pool), 0);
	}
	buffer_pool_destroy(pool);
}

Test(buffer_pool, last_put_is_next_got)
{
	struct buffer_pool *pool = pool_of(4 * MIB, MIB);
	void *first = buffer_pool_get(pool, 4 * KIB), *second = buffer_pool_get(pool, 4 * KIB);

	buffer_pool_put(pool, second, 4 * KIB);
	buffer_pool_put(pool, first, 4 * KIB);
	cr_assert_eq(buffer_pool_get(pool, 4 * KIB), first);
	cr_assert_eq(buffer_pool_get(pool, 4 * KIB), second);
	buffer_pool_put(pool, first, 4 * KIB);
	buffer_pool_put(pool, second, 4 * KIB);
	buffer_pool_destroy(pool);
}

Test(buffer_pool, full_pool_returns_null_until_a_put)
{
	struct buffer_pool *pool = pool_of(4 * MIB, MIB);
	void *blocks[4];

	for (int i = 0; i < 4; i++) {
		blocks[i] = buffer_pool_get(pool, MIB);
		cr_assert_not_null(blocks[i]);
	}
	cr_assert_eq(buffer_pool_used_bytes(pool), buffer_pool_total_bytes(pool));
	cr_assert_null(buffer_pool_get(pool, MIB));
	cr_assert_null(buffer_pool_get(pool, 1));
	buffer_pool_put(pool, blocks[2], MIB);
	cr_assert_eq(buffer_pool_get(pool, 1), blocks[2]);
	cr_assert_null(buffer_pool_get(pool, MIB));
	buffer_pool_put(pool, blocks[2], 1);
	for (int i = 0; i < 4; i++)
		if (i != 2)
			buffer_pool_put(pool, blocks[i], MIB);
	buffer_pool_destroy(pool);
}

/* Fill POOL with blocks of BYTES into BLOCKS (at most MAX), each marked by its index. */
static size_t
fill(struct buffer_pool *pool, size_t bytes, unsigned char **blocks, size_t max)
{
	size_t count = 0;

	while (count < max && (blocks[count] = buffer_pool_get(pool, bytes)) != NULL) {
		memset(blocks[count], (int)(count % 251), bytes);
		count++;
	}
	return count;
}

Test(buffer_pool, every_page_can_be_handed_out_once)
{
	enum {
		PAGES = 1024
	};
	struct buffer_pool *pool = pool_of(4 * MIB, MIB);
	unsigned char *blocks[PAGES + 1];

	cr_assert_eq(fill(pool, 4 * KIB, blocks, PAGES + 1), PAGES);
	for (size_t i = 0; i < PAGES; i++)
		for (size_t byte = 0; byte < 4 * KIB; byte++)
			cr_assert_eq(blocks[i][byte], i % 251, "block %zu was overwritten", i);
	for (size_t i = 0; i < PAGES; i++)
		buffer_pool_put(pool, blocks[i], 4 * KIB);
	buffer_pool_destroy(pool);
}

Test(buffer_pool, small_blocks_merge_to_largest_in_any_order_of_puts)
{
	enum {
		PAGES = 1024
	};
	struct buffer_pool *pool = pool_of(4 * MIB, 2 * MIB);
	unsigned char *small[PAGES], *large[3];

	/* 7 has no factor in common with PAGES, so every index comes once. */
	for (size_t step = 1; step <= 7; step += 2) {
		cr_assert_eq(fill(pool, 4 * KIB, small, PAGES), PAGES);
		for (size_t i = 0; i < PAGES; i++)
			buffer_pool_put(pool, small[i * step % PAGES], 4 * KIB);
		cr_assert_eq(buffer_pool_used_bytes(pool), 0);
		cr_assert_eq(fill(pool, 2 * MIB, large, 3), 2);
		buffer_pool_put(pool, large[0], 2 * MIB);
		buffer_pool_put(pool, large[1], 2 * MIB);
	}
	buffer_pool_destroy(pool);
}

Test(buffer_pool, one_used_page_keeps_only_its_own_largest_block)
{
	struct buffer_pool *pool = pool_of(4 * MIB, MIB);
	void *page = buffer_pool_get(pool, 1);
	unsigned char *large[4];

	cr_assert_eq(fill(pool, MIB, large, 4), 3);
	buffer_pool_put(pool, page, 1);
	large[3] = buffer_pool_get(pool, MIB);
	cr_assert_not_null(large[3]);
	for (int i = 0; i < 4; i++)
		buffer_pool_put(pool, large[i], MIB);
	buffer_pool_destroy(pool);
}

/* Programmer errors end the process. */

Test(buffer_pool, check_catches_double_put, .signal = SIGABRT)
{
	struct buffer_pool *pool = pool_of(MIB, MIB);
	void *block = buffer_pool_get(pool, 4 * KIB);

	buffer_pool_put(pool, block, 4 * KIB);
	buffer_pool_put(pool, block, 4 * KIB);
}

/* Enough puts for the block to have left the cache and been merged into a neighbour. */
Test(buffer_pool, check_catches_double_put_after_merge, .signal = SIGABRT)
{
	enum {
		PAGES = 256
	};
	struct buffer_pool *pool = pool_of(MIB, MIB);
	unsigned char *blocks[PAGES];

	fill(pool, 4 * KIB, blocks, PAGES);
	for (size_t i = 0; i < PAGES; i++)
		buffer_pool_put(pool, blocks[i], 4 * KIB);
	buffer_pool_put(pool, blocks[1], 4 * KIB);
}

Test(buffer_pool, check_catches_put_of_wrong_size, .signal = SIGABRT)
{
	struct buffer_pool *pool = pool_of(MIB, MIB);

	buffer_pool_put(pool, buffer_pool_get(pool, 8 * KIB), 4 * KIB);
}

Test(buffer_pool, check_catches_put_inside_a_block, .signal = SIGABRT)
{
	struct buffer_pool *pool = pool_of(MIB, MIB);
	char *block = buffer_pool_get(pool, 8 * KIB);

	buffer_pool_put(pool, block + 4 * KIB, 4 * KIB);
}

Test(buffer_pool, check_catches_put_of_unaligned_pointer, .signal = SIGABRT)
{
	struct buffer_pool *pool = pool_of(MIB, MIB);
	char *block = buffer_pool_get(pool, 4 * KIB);

	buffer_pool_put(pool, block + 512, 4 * KIB);
}

Test(buffer_pool, check_catches_put_of_foreign_memory, .signal = SIGABRT)
{
	struct buffer_pool *pool = pool_of(MIB, MIB);
	char local[1];

	buffer_pool_put(pool, local, 1);
}

Test(buffer_pool, check_catches_put_just_past_the_end, .signal = SIGABRT)
{
	struct buffer_pool *pool = pool_of(MIB, MIB);
	char *block = buffer_pool_get(pool, MIB);

	buffer_pool_put(pool, block + MIB, 4 * KIB);
}

Test(buffer_pool, check_catches_get_of_nothing, .signal = SIGABRT)
{
	cr_assert_null(buffer_pool_get(pool_of(MIB, MIB), 0));
}

Test(buffer_pool, check_catches_get_beyond_the_largest, .signal = SIGABRT)
{
	cr_assert_null(buffer_pool_get(pool_of(4 * MIB, MIB), MIB + 1));
}

Test(buffer_pool, check_catches_destroy_while_in_use, .signal = SIGABRT)
{
	struct buffer_pool *pool = pool_of(MIB, MIB);

	cr_assert_not_null(buffer_pool_get(pool, 1));
	buffer_pool_destroy(pool);
}

/* The model: an owner for each page. */

#define MODEL_BYTES   (16 * MIB)
#define MODEL_PAGES   (MODEL_BYTES / BUFFER_BYTES_MIN)
#define MODEL_LARGEST (2 * MIB)

struct model_block {
	unsigned char *start;
	size_t bytes;
	unsigned stamp; /* written at both ends of every page */
};

struct model {
	struct buffer_pool *pool;
	unsigned char *lowest; /* address of the region, learned from the blocks */
	bool page_used[MODEL_PAGES];
	struct model_block blocks[MODEL_PAGES];
	size_t count, used_bytes;
	unsigned stamp_next;
};

static unsigned short random_state[3];

static void
seed_random(void)
{
	uint64_t seed = test_seed();

	random_state[0] = (unsigned short)seed;
	random_state[1] = (unsigned short)(seed >> 16);
	random_state[2] = (unsigned short)(seed >> 32);
}

static size_t
random_below(size_t limit)
{
	return (size_t)nrand48(random_state) % limit;
}

/* Any size, but as many small as large ones; half of them whole powers of two. */
static size_t
random_bytes(void)
{
	size_t bytes = (size_t)1 << random_below(22);

	return random_below(2) == 0 ? bytes : bytes - random_below(bytes / 2 + 1);
}

static size_t
block_bytes(size_t bytes)
{
	size_t whole = BUFFER_BYTES_MIN;

	while (whole < bytes)
		whole *= 2;
	return whole;
}

/* Mark the pages of BLOCK as USED; they must not be so already. */
static void
model_mark(struct model *model, const struct model_block *block, bool used)
{
	size_t first = (size_t)(block->start - model->lowest) / BUFFER_BYTES_MIN;
	size_t count = block_bytes(block->bytes) / BUFFER_BYTES_MIN;

	cr_assert_geq(block->start, model->lowest);
	cr_assert_leq(first + count, MODEL_PAGES);
	for (size_t page = first; page < first + count; page++) {
		cr_assert_neq(model->page_used[page], used, "blocks overlap");
		model->page_used[page] = used;
	}
}

static void
model_stamp(const struct model_block *block)
{
	for (size_t at = 0; at < block_bytes(block->bytes); at += BUFFER_BYTES_MIN) {
		memcpy(block->start + at, &block->stamp, sizeof(block->stamp));
		memcpy(block->start + at + BUFFER_BYTES_MIN - sizeof(block->stamp), &block->stamp,
		       sizeof(block->stamp));
	}
}

static void
model_assert_stamp(const struct model_block *block)
{
	for (size_t at = 0; at < block_bytes(block->bytes); at += BUFFER_BYTES_MIN) {
		cr_assert_eq(memcmp(block->start + at, &block->stamp, sizeof(block->stamp)), 0);
		cr_assert_eq(memcmp(block->start + at + BUFFER_BYTES_MIN - sizeof(block->stamp),
				    &block->stamp, sizeof(block->stamp)),
			     0);
	}
}

/* Whether some aligned run of BYTES is unused: a buddy allocator then has to find one. */
static bool
model_has_room(const struct model *model, size_t bytes)
{
	size_t step = block_bytes(bytes) / BUFFER_BYTES_MIN;

	for (size_t first = 0; first < MODEL_PAGES; first += step) {
		size_t page = first;

		while (page < first + step && !model->page_used[page])
			page++;
		if (page == first + step)
			return true;
	}
	return false;
}

static void
model_get(struct model *model)
{
	struct model_block *block = &model->blocks[model->count];

	block->bytes = random_bytes();
	block->start = buffer_pool_get(model->pool, block->bytes);
	cr_assert_eq(block->start != NULL, model_has_room(model, block->bytes));
	if (block->start == NULL)
		return;
	cr_assert(aligned(block->start, block_bytes(block->bytes)));
	block->stamp = model->stamp_next++;
	model_mark(model, block, true);
	model_stamp(block);
	model->used_bytes += block_bytes(block->bytes);
	model->count++;
}

static void
model_put(struct model *model)
{
	struct model_block *block;

	if (model->count == 0)
		return;
	block = &model->blocks[random_below(model->count)];
	model_assert_stamp(block);
	model_mark(model, block, false);
	buffer_pool_put(model->pool, block->start, block->bytes);
	model->used_bytes -= block_bytes(block->bytes);
	*block = model->blocks[--model->count];
}

/* Hand out all of the region as largest blocks, which must be possible now, and learn where it starts. */
static void
model_assert_all_free(struct model *model)
{
	unsigned char *large[MODEL_BYTES / MODEL_LARGEST + 1];
	size_t count = 0;

	cr_assert_eq(buffer_pool_used_bytes(model->pool), 0);
	model->lowest = NULL;
	while ((large[count] = buffer_pool_get(model->pool, MODEL_LARGEST)) != NULL) {
		if (model->lowest == NULL || large[count] < model->lowest)
			model->lowest = large[count];
		count++;
	}
	cr_assert_eq(count, MODEL_BYTES / MODEL_LARGEST);
	while (count > 0)
		buffer_pool_put(model->pool, large[--count], MODEL_LARGEST);
}

Test(buffer_pool, model_of_random_gets_and_puts)
{
	static struct model model;

	seed_random();
	model.pool = pool_of(MODEL_BYTES, MODEL_LARGEST);
	model_assert_all_free(&model);
	for (unsigned round = 0; round < 40; round++) {
		/* Rounds lean towards full or towards empty. */
		size_t gets_percent = 30 + random_below(41);

		for (unsigned i = 0; i < 3000; i++) {
			if (random_below(100) < gets_percent)
				model_get(&model);
			else
				model_put(&model);
			cr_assert_eq(buffer_pool_used_bytes(model.pool), model.used_bytes);
		}
		if (round % 4 == 3) {
			while (model.count > 0)
				model_put(&model);
			model_assert_all_free(&model);
		}
	}
	buffer_pool_destroy(model.pool);
}
