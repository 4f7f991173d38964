/* Counting latencies: what a bucket holds, and percentiles against a sorted list. */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "bench/load/histogram.h"
#include "bench/load/pattern.h"

static struct histogram histogram;

static void
set_up(void)
{
	histogram_init(&histogram);
}

TestSuite(histogram, .init = set_up);

Test(histogram, short_latencies_have_buckets_of_their_own)
{
	for (uint64_t ns = 0; ns < 256; ns++) {
		cr_assert_eq(histogram_bucket(ns), ns);
		cr_assert_eq(histogram_bucket_start_ns((unsigned)ns), ns);
	}
}

Test(histogram, every_latency_lies_in_its_bucket_and_none_is_wider_than_a_128th)
{
	uint64_t state = 7;

	for (unsigned i = 0; i < 100000; i++) {
		uint64_t ns = pattern_random(&state, (uint64_t)1 << (1 + i % HISTOGRAM_TOP_BITS));
		unsigned bucket = histogram_bucket(ns);
		uint64_t start = histogram_bucket_start_ns(bucket);
		uint64_t end = histogram_bucket_start_ns(bucket + 1);

		cr_assert(start <= ns && ns < end, "%lu in %lu..%lu", ns, start, end);
		cr_assert(end - start <= start / 128 + 1, "%lu..%lu", start, end);
		cr_assert_lt(bucket, HISTOGRAM_BUCKET_COUNT);
	}
}

Test(histogram, the_longest_are_counted_in_the_last_bucket)
{
	histogram_add(&histogram, UINT64_MAX);
	cr_assert_eq(histogram.buckets[HISTOGRAM_BUCKET_COUNT - 1], 1);
	cr_assert_eq(histogram.max_ns, UINT64_MAX);
}

static int
compare(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return a < b ? -1 : a > b;
}

Test(histogram, percentiles_are_those_of_the_sorted_list_within_one_percent)
{
	static uint64_t all[10000];
	static const unsigned asked[] = { 1, 100000, 500000, 900000, 990000, 999900, 1000000 };
	uint64_t state = 3;

	for (size_t i = 0; i < 10000; i++) {
		all[i] = 1 + pattern_random(&state, (uint64_t)1 << (10 + i % 20));
		histogram_add(&histogram, all[i]);
	}
	qsort(all, 10000, sizeof(all[0]), compare);
	for (size_t i = 0; i < sizeof(asked) / sizeof(asked[0]); i++) {
		size_t rank = ((size_t)asked[i] * 10000 + 999999) / 1000000;
		double right = (double)all[rank == 0 ? 0 : rank - 1];
		double found = (double)histogram_percentile_ns(&histogram, asked[i]);

		cr_assert(found >= right && found <= right * 1.01, "%u: %f, right is %f", asked[i],
			  found, right);
	}
	cr_assert_eq(histogram_percentile_ns(&histogram, 1000000), all[9999]);
}

Test(histogram, an_empty_one_has_only_zeros)
{
	cr_assert_eq(histogram_percentile_ns(&histogram, 500000), 0);
	cr_assert_eq(histogram_mean_ns(&histogram), 0);
}

Test(histogram, merging_is_adding_all_of_both)
{
	static struct histogram other;

	histogram_init(&other);
	histogram_add(&histogram, 1000);
	histogram_add(&other, 10);
	histogram_add(&other, 5000);
	histogram_merge(&histogram, &other);
	cr_assert_eq(histogram.count, 3);
	cr_assert_eq(histogram.min_ns, 10);
	cr_assert_eq(histogram.max_ns, 5000);
	cr_assert_float_eq(histogram_mean_ns(&histogram), 6010.0 / 3, 1e-9);
	histogram_init(&other);
	histogram_merge(&histogram, &other);
	cr_assert_eq(histogram.min_ns, 10);
}
