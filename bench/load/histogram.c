/* Buckets: a latency below 2 * 128 is its own bucket; above, its highest seven bits below the leading one say which of the 128 buckets of
 * its power of two it is in. */
#include "bench/load/histogram.h"

#include <string.h>

#define SUB_COUNT (1u << HISTOGRAM_SUB_BITS)

void
histogram_init(struct histogram *histogram)
{
	memset(histogram, 0, sizeof(*histogram));
}

unsigned
histogram_bucket(uint64_t ns)
{
	unsigned shift;

	if (ns > HISTOGRAM_NS_MAX)
		ns = HISTOGRAM_NS_MAX;
	if (ns < 2 * SUB_COUNT)
		return (unsigned)ns;
	shift = 63u - (unsigned)__builtin_clzll(ns) - HISTOGRAM_SUB_BITS;
	return shift * SUB_COUNT + (unsigned)(ns >> shift);
}

uint64_t
histogram_bucket_start_ns(unsigned bucket)
{
	unsigned shift;

	if (bucket < 2 * SUB_COUNT)
		return bucket;
	shift = bucket / SUB_COUNT - 1;
	return (uint64_t)(bucket - shift * SUB_COUNT) << shift;
}

void
histogram_add(struct histogram *histogram, uint64_t ns)
{
	if (histogram->count == 0 || ns < histogram->min_ns)
		histogram->min_ns = ns;
	if (ns > histogram->max_ns)
		histogram->max_ns = ns;
	histogram->count++;
	histogram->sum_ns += (double)ns;
	histogram->buckets[histogram_bucket(ns)]++;
}

void
histogram_merge(struct histogram *histogram, const struct histogram *from)
{
	if (from->count == 0)
		return;
	if (histogram->count == 0 || from->min_ns < histogram->min_ns)
		histogram->min_ns = from->min_ns;
	if (from->max_ns > histogram->max_ns)
		histogram->max_ns = from->max_ns;
	histogram->count += from->count;
	histogram->sum_ns += from->sum_ns;
	for (unsigned i = 0; i < HISTOGRAM_BUCKET_COUNT; i++)
		histogram->buckets[i] += from->buckets[i];
}

uint64_t
histogram_percentile_ns(const struct histogram *histogram, unsigned per_million)
{
	uint64_t seen = 0, wanted;

	if (histogram->count == 0)
		return 0;
	/* Rounded up: the smallest latency that so many did not exceed. */
	wanted = (uint64_t)(((unsigned __int128)histogram->count * per_million + 999999) / 1000000);
	if (wanted == 0)
		return histogram->min_ns;
	for (unsigned i = 0; i < HISTOGRAM_BUCKET_COUNT; i++) {
		seen += histogram->buckets[i];
		if (seen >= wanted) {
			uint64_t end = histogram_bucket_start_ns(i + 1) - 1;

			return end < histogram->max_ns ? end : histogram->max_ns;
		}
	}
	return histogram->max_ns;
}

double
histogram_mean_ns(const struct histogram *histogram)
{
	return histogram->count == 0 ? 0 : histogram->sum_ns / (double)histogram->count;
}
