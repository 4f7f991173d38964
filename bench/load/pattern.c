/* The generator is splitmix64; zipf's law is drawn by rejection-inversion (Hoermann and Derflinger, "Rejection-inversion to generate
 * variates from monotone discrete distributions", ACM TOMACS 1996), which is exact for every rank and needs no sum over them. */
#include "bench/load/pattern.h"

#include <math.h>

static uint64_t
next(uint64_t *state)
{
	uint64_t value = *state += 0x9e3779b97f4a7c15u;

	value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
	value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
	return value ^ (value >> 31);
}

uint64_t
pattern_random(uint64_t *state, uint64_t limit)
{
	return (uint64_t)(((unsigned __int128)next(state) * limit) >> 64);
}

/* From 0 to below 1. */
static double
random_fraction(uint64_t *state)
{
	return (double)(next(state) >> 11) * 0x1p-53;
}

/* The integral of x to the power of -THETA from 1 on, and its inverse. */
static double
zipf_integral(double x, double theta)
{
	return (pow(x, 1 - theta) - 1) / (1 - theta);
}

static double
zipf_integral_inverse(double area, double theta)
{
	return pow(1 + area * (1 - theta), 1 / (1 - theta));
}

static void
prepare_zipf(struct pattern *pattern)
{
	double theta = pattern->mix->zipf_theta;

	/* Of rank 1 only its own probability, 1, lies below 1.5. */
	pattern->zipf_begin = zipf_integral(1.5, theta) - 1;
	pattern->zipf_end = zipf_integral((double)pattern->slots + 0.5, theta);
	pattern->zipf_sure =
		2 - zipf_integral_inverse(zipf_integral(2.5, theta) - pow(2, -theta), theta);
}

/* From 0 on.  A point below the continuous curve is drawn, and taken if it also lies in the bar of the rank that is nearest. */
static uint64_t
zipf_rank(struct pattern *pattern)
{
	double theta = pattern->mix->zipf_theta;
	double width = pattern->zipf_end - pattern->zipf_begin;

	for (;;) {
		double area = pattern->zipf_end - random_fraction(&pattern->state) * width;
		double x = zipf_integral_inverse(area, theta);
		double rank = floor(x + 0.5);

		if (rank < 1)
			rank = 1;
		else if (rank > (double)pattern->slots)
			rank = (double)pattern->slots;
		if (rank - x <= pattern->zipf_sure ||
		    area >= zipf_integral(rank + 0.5, theta) - pow(rank, -theta))
			return (uint64_t)rank - 1;
	}
}

/* Where a rank is: a place of its own, the same for all connections that share the region, so that the popular blocks are no neighbours.
 * Each step can be undone, on as many bits as SLOTS needs; what falls behind the last slot goes round again. */
static uint64_t
scattered(uint64_t rank, uint64_t slots)
{
	unsigned bits = slots > 2 ? 64u - (unsigned)__builtin_clzll(slots - 1) : 1;
	uint64_t mask = UINT64_MAX >> (64 - bits), place = rank;

	do {
		place = (place + 0x9e3779b97f4a7c15u) & mask;
		for (unsigned round = 0; round < 3; round++) {
			place = place * 0xbf58476d1ce4e5b9u & mask;
			place ^= place >> (bits + 1) / 2;
		}
	} while (place >= slots);
	return place;
}

uint32_t
pattern_length_max(const struct pattern_mix *mix)
{
	uint32_t max = 0;

	for (unsigned i = 0; i < mix->size_count; i++) {
		if (mix->sizes[i].bytes > max)
			max = mix->sizes[i].bytes;
	}
	return max;
}

void
pattern_init(struct pattern *pattern, const struct pattern_mix *mix, uint64_t start, uint64_t bytes,
	     uint64_t seed)
{
	*pattern = (struct pattern){ .mix = mix, .start = start, .state = seed };
	CHECK(bytes >= pattern_length_max(mix));
	/* Any block fits behind any slot. */
	pattern->slots = (bytes - pattern_length_max(mix)) / mix->align_bytes + 1;
	pattern->share_sum = mix->read_share + mix->write_share + mix->trim_share +
			     mix->zeroes_share + mix->flush_share;
	for (unsigned i = 0; i < mix->size_count; i++)
		pattern->size_share_sum += mix->sizes[i].share;
	CHECK(pattern->share_sum > 0 && pattern->size_share_sum > 0);
	if (mix->order == PATTERN_ORDER_ZIPF)
		prepare_zipf(pattern);
}

void
pattern_skip(struct pattern *pattern, unsigned index, unsigned count)
{
	pattern->next_slot = (uint64_t)((unsigned __int128)pattern->slots * index / count);
}

static enum nbd_command
draw_command(struct pattern *pattern)
{
	const struct pattern_mix *mix = pattern->mix;
	uint64_t drawn;

	if (mix->read_share == pattern->share_sum)
		return NBD_CMD_READ;
	drawn = pattern_random(&pattern->state, pattern->share_sum);
	if (drawn < mix->read_share)
		return NBD_CMD_READ;
	drawn -= mix->read_share;
	if (drawn < mix->write_share)
		return NBD_CMD_WRITE;
	drawn -= mix->write_share;
	if (drawn < mix->trim_share)
		return NBD_CMD_TRIM;
	return drawn - mix->trim_share < mix->zeroes_share ? NBD_CMD_WRITE_ZEROES : NBD_CMD_FLUSH;
}

static uint32_t
draw_length(struct pattern *pattern)
{
	const struct pattern_mix *mix = pattern->mix;
	uint64_t drawn;
	unsigned i = 0;

	if (mix->size_count == 1)
		return mix->sizes[0].bytes;
	drawn = pattern_random(&pattern->state, pattern->size_share_sum);
	while (drawn >= mix->sizes[i].share)
		drawn -= mix->sizes[i++].share;
	return mix->sizes[i].bytes;
}

static uint64_t
draw_slot(struct pattern *pattern, uint32_t length)
{
	uint64_t slot;

	switch (pattern->mix->order) {
	case PATTERN_ORDER_RANDOM:
		return pattern_random(&pattern->state, pattern->slots);
	case PATTERN_ORDER_ZIPF:
		return scattered(zipf_rank(pattern), pattern->slots);
	case PATTERN_ORDER_SEQUENTIAL:
		break;
	}
	slot = pattern->next_slot < pattern->slots ? pattern->next_slot : 0;
	pattern->next_slot = slot + length / pattern->mix->align_bytes;
	return slot;
}

struct pattern_request
pattern_next(struct pattern *pattern)
{
	struct pattern_request request = { .command = draw_command(pattern) };

	if (request.command == NBD_CMD_FLUSH)
		return request;
	request.length = draw_length(pattern);
	request.offset =
		pattern->start + draw_slot(pattern, request.length) * pattern->mix->align_bytes;
	if (request.command == NBD_CMD_WRITE && pattern->mix->fua_percent > 0 &&
	    pattern_random(&pattern->state, 100) < pattern->mix->fua_percent)
		request.flags = NBD_CMD_FLAG_FUA;
	return request;
}
