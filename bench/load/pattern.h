/* What is asked for next: operations, block sizes and offsets, drawn from a seeded generator.  Pure but for its state; one for each
 * connection, so that a run can be repeated whatever the timing. */
#ifndef BENCH_LOAD_PATTERN_H
#define BENCH_LOAD_PATTERN_H

#include "net/nbd.h"
#include "reactor/check.h"
#include <stdbool.h>
#include <stdint.h>

enum pattern_order {
	PATTERN_ORDER_SEQUENTIAL,
	PATTERN_ORDER_RANDOM,
	PATTERN_ORDER_ZIPF, /* some blocks much more often than others */
};

#define PATTERN_SIZES_MAX 8

/* Shares are relative to each other; what a workload is made of, the same for all connections. */
struct pattern_mix {
	enum pattern_order order;
	double zipf_theta;   /* above 0, below 1: the higher, the more uneven */
	unsigned read_share; /* of the requests */
	unsigned write_share;
	unsigned trim_share;
	unsigned zeroes_share;
	unsigned flush_share;
	unsigned fua_percent; /* of the writes */
	unsigned size_count;
	struct {
		uint32_t bytes; /* a multiple of align_bytes */
		unsigned share;
	} sizes[PATTERN_SIZES_MAX];
	uint32_t align_bytes; /* offsets are multiples of it */
};

struct pattern_request {
	enum nbd_command command;
	uint16_t flags;
	uint64_t offset;
	uint32_t length;
};

struct pattern {
	/* Private. */
	const struct pattern_mix *mix;
	uint64_t state;
	uint64_t start, slots; /* the region: SLOTS times align_bytes from START on */
	uint64_t next_slot;    /* of a sequential one */
	unsigned share_sum, size_share_sum;
	double zipf_begin, zipf_end; /* what is drawn from; see zipf_rank */
	double zipf_sure;	     /* so near to its rank a point always lies in its bar */
};

/* The largest block size of MIX. */
uint32_t pattern_length_max(const struct pattern_mix *mix);

/* Draw from MIX, which must outlive PATTERN, in the BYTES at START; at least as many as pattern_length_max says.
 * SEED repeats the same requests. */
void pattern_init(struct pattern *pattern, const struct pattern_mix *mix, uint64_t start,
		  uint64_t bytes, uint64_t seed);

/* Begin a sequential pattern at part INDEX of COUNT of the region. */
void pattern_skip(struct pattern *pattern, unsigned index, unsigned count);

struct pattern_request pattern_next(struct pattern *pattern);

/* A number that is evenly distributed from 0 to LIMIT - 1; LIMIT is above 0. */
uint64_t pattern_random(uint64_t *state, uint64_t limit);

#endif
