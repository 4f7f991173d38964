/* Latencies, counted in buckets of a relative width: exact up to 255 ns, above within 0.8 % (each power of two is divided into
 * 128 buckets), up to HISTOGRAM_NS_MAX, where what is longer is counted, too.  Not thread-safe: one for each core, added up when
 * the cores have stopped. */
#ifndef BENCH_LOAD_HISTOGRAM_H
#define BENCH_LOAD_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_SUB_BITS     7
#define HISTOGRAM_TOP_BITS     40 /* 18 minutes */
#define HISTOGRAM_NS_MAX       (((uint64_t)1 << HISTOGRAM_TOP_BITS) - 1)
#define HISTOGRAM_BUCKET_COUNT ((HISTOGRAM_TOP_BITS - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS)

struct histogram {
	uint64_t count;
	uint64_t min_ns, max_ns; /* exact; only if count > 0 */
	double sum_ns;
	uint64_t buckets[HISTOGRAM_BUCKET_COUNT];
};

/* Empty it. */
void histogram_init(struct histogram *histogram);

void histogram_add(struct histogram *histogram, uint64_t ns);

/* Add all that is in FROM. */
void histogram_merge(struct histogram *histogram, const struct histogram *from);

/* The latency that PER_MILLION of 1,000,000 did not exceed: the upper end of its bucket, but at most the maximum.  0 if empty. */
uint64_t histogram_percentile_ns(const struct histogram *histogram, unsigned per_million);

/* 0 if empty. */
double histogram_mean_ns(const struct histogram *histogram);

/* The bucket of NS, and the first latency of a bucket. */
unsigned histogram_bucket(uint64_t ns);
uint64_t histogram_bucket_start_ns(unsigned bucket);

#endif
