/* What a load asks for: within its region, in the shares that were wanted, the same again for the same seed. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/load/pattern.h"

#define REGION_START 1048576ull
#define REGION_BYTES (1000ull * 4096 + 512)

static struct pattern_mix mix;
static struct pattern pattern;

static void
set_up(void)
{
	mix = (struct pattern_mix){ .order = PATTERN_ORDER_RANDOM,
				    .zipf_theta = 0.9,
				    .read_share = 1,
				    .size_count = 1,
				    .align_bytes = 4096 };
	mix.sizes[0].bytes = 4096;
	mix.sizes[0].share = 1;
}

TestSuite(pattern, .init = set_up);

static void
check_region(enum pattern_order order)
{
	mix.order = order;
	mix.size_count = 2;
	mix.sizes[1].bytes = 12288;
	mix.sizes[1].share = 1;
	pattern_init(&pattern, &mix, REGION_START, REGION_BYTES, 5);
	for (unsigned i = 0; i < 50000; i++) {
		struct pattern_request request = pattern_next(&pattern);

		cr_assert(request.offset >= REGION_START &&
			  request.offset + request.length <= REGION_START + REGION_BYTES);
		cr_assert_eq((request.offset - REGION_START) % 4096, 0);
	}
}

Test(pattern, random_blocks_are_aligned_and_within_the_region)
{
	check_region(PATTERN_ORDER_RANDOM);
}

Test(pattern, zipf_blocks_are_aligned_and_within_the_region)
{
	check_region(PATTERN_ORDER_ZIPF);
}

Test(pattern, sequential_blocks_are_aligned_and_within_the_region)
{
	check_region(PATTERN_ORDER_SEQUENTIAL);
}

Test(pattern, sequential_blocks_follow_each_other_and_begin_again)
{
	mix.order = PATTERN_ORDER_SEQUENTIAL;
	pattern_init(&pattern, &mix, 0, 3 * 4096, 1);
	for (uint64_t i = 0; i < 7; i++)
		cr_assert_eq(pattern_next(&pattern).offset, i % 3 * 4096);
}

Test(pattern, sequential_connections_begin_at_parts_of_their_own)
{
	mix.order = PATTERN_ORDER_SEQUENTIAL;
	pattern_init(&pattern, &mix, 0, 8 * 4096, 1);
	pattern_skip(&pattern, 3, 4);
	cr_assert_eq(pattern_next(&pattern).offset, 6 * 4096);
}

Test(pattern, random_blocks_reach_the_whole_region_evenly)
{
	static unsigned counts[10];

	pattern_init(&pattern, &mix, 0, 10 * 4096, 9);
	for (unsigned i = 0; i < 100000; i++)
		counts[pattern_next(&pattern).offset / 4096]++;
	for (unsigned i = 0; i < 10; i++)
		cr_assert(counts[i] > 9500 && counts[i] < 10500, "%u: %u", i, counts[i]);
}

static int
more_first(const void *left, const void *right)
{
	unsigned a = *(const unsigned *)left, b = *(const unsigned *)right;

	return a < b ? 1 : a > b ? -1 : 0;
}

/* The ranks are in the order of their frequency; neighbours of almost the same may have changed places, which moves no sum. */
static void
check_zipf(unsigned slots, double theta)
{
	static unsigned counts[1000];
	unsigned draws = 1000000;
	double sum = 0, wanted = 0, drawn = 0;

	memset(counts, 0, sizeof(counts));
	mix.order = PATTERN_ORDER_ZIPF;
	mix.zipf_theta = theta;
	pattern_init(&pattern, &mix, 0, slots * 4096ull, 9);
	for (unsigned i = 0; i < draws; i++)
		counts[pattern_next(&pattern).offset / 4096]++;
	qsort(counts, slots, sizeof(counts[0]), more_first);
	cr_assert(counts[slots - 1] > 0, "some of %u blocks never come", slots);
	for (unsigned i = 1; i <= slots; i++)
		sum += pow(i, -theta);
	for (unsigned i = 1; i <= slots; i++) {
		wanted += pow(i, -theta) / sum;
		drawn += (double)counts[i - 1] / draws;
		/* A fraction's standard deviation is at most 0.0005; sorting lifts the middle by a little more. */
		cr_assert(fabs(drawn - wanted) < 0.01, "theta %g: the first %u of %u: %g, not %g",
			  theta, i, slots, drawn, wanted);
		if (i <= 4 && slots > 100)
			cr_assert_float_eq((double)counts[i - 1] / draws, pow(i, -theta) / sum,
					   0.002, "theta %g: rank %u", theta, i);
	}
}

Test(pattern, zipf_gives_each_rank_its_share_and_a_block_of_its_own)
{
	static const double thetas[] = { 0.01, 0.5, 0.9, 0.99 };

	for (size_t i = 0; i < sizeof(thetas) / sizeof(thetas[0]); i++) {
		check_zipf(1, thetas[i]);
		check_zipf(2, thetas[i]);
		check_zipf(3, thetas[i]);
		check_zipf(64, thetas[i]);
		check_zipf(1000, thetas[i]);
	}
}

Test(pattern, commands_come_in_their_shares)
{
	unsigned counts[8] = { 0 }, fua = 0;

	mix = (struct pattern_mix){ .order = PATTERN_ORDER_RANDOM,
				    .read_share = 40,
				    .write_share = 30,
				    .trim_share = 10,
				    .zeroes_share = 15,
				    .flush_share = 5,
				    .fua_percent = 50,
				    .size_count = 1,
				    .align_bytes = 512 };
	mix.sizes[0].bytes = 512;
	mix.sizes[0].share = 1;
	pattern_init(&pattern, &mix, 0, 1 << 20, 4);
	for (unsigned i = 0; i < 100000; i++) {
		struct pattern_request request = pattern_next(&pattern);

		counts[request.command]++;
		fua += request.flags == NBD_CMD_FLAG_FUA;
		cr_assert(request.flags == 0 || request.command == NBD_CMD_WRITE);
		cr_assert_eq(request.length, request.command == NBD_CMD_FLUSH ? 0 : 512);
	}
	cr_assert_float_eq((double)counts[NBD_CMD_READ], 40000, 1000);
	cr_assert_float_eq((double)counts[NBD_CMD_WRITE], 30000, 1000);
	cr_assert_float_eq((double)counts[NBD_CMD_TRIM], 10000, 1000);
	cr_assert_float_eq((double)counts[NBD_CMD_WRITE_ZEROES], 15000, 1000);
	cr_assert_float_eq((double)counts[NBD_CMD_FLUSH], 5000, 1000);
	cr_assert_float_eq((double)fua, 15000, 1000);
}

Test(pattern, the_same_seed_repeats_and_another_does_not)
{
	struct pattern again, other;
	unsigned same = 0;

	pattern_init(&pattern, &mix, 0, 1 << 30, 11);
	pattern_init(&again, &mix, 0, 1 << 30, 11);
	pattern_init(&other, &mix, 0, 1 << 30, 12);
	for (unsigned i = 0; i < 1000; i++) {
		struct pattern_request one = pattern_next(&pattern);

		cr_assert_eq(one.offset, pattern_next(&again).offset);
		same += one.offset == pattern_next(&other).offset;
	}
	cr_assert_lt(same, 10);
}
