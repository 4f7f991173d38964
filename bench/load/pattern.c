/* The generator is splitmix64; zipf's law is drawn as Gray and others describe it ("Quickly generating billion-record synthetic
 * databases", SIGMOD 1994), and its ranks are scattered over the region, so that the popular blocks are not neighbours. */
#include "bench/load/pattern.h"

#include <math.h>

/* Terms of zipf's zeta that are summed one by one; the rest is an integral, which is exact enough from there on. */
#define ZETA_TERMS_MAX 100000u

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

static double
zeta(uint64_t count, double theta)
{
	uint64_t terms = count < ZETA_TERMS_MAX ? count : ZETA_TERMS_MAX;
	double sum = 0;

	for (uint64_t i = 1; i <= terms; i++)
		sum += pow((double)i, -theta);
	if (count > terms)
		sum += (pow((double)count, 1 - theta) - pow((double)terms, 1 - theta)) /
		       (1 - theta);
	return sum;
}

static void
prepare_zipf(struct pattern *pattern)
{
	double theta = pattern->mix->zipf_theta, count = (double)pattern->slots;

	pattern->zipf_zeta = zeta(pattern->slots, theta);
	pattern->zipf_alpha = 1 / (1 - theta);
	pattern->zipf_eta =
		(1 - pow(2 / count, 1 - theta)) / (1 - zeta(2, theta) / pattern->zipf_zeta);
}

static uint64_t
zipf_rank(struct pattern *pattern)
{
	double fraction = random_fraction(&pattern->state);
	double scaled = fraction * pattern->zipf_zeta;
	uint64_t rank;

	if (scaled < 1)
		return 0;
	if (scaled < 1 + pow(0.5, pattern->mix->zipf_theta))
		return pattern->slots > 1 ? 1 : 0;
	rank = (uint64_t)((double)pattern->slots *
			  pow(pattern->zipf_eta * fraction - pattern->zipf_eta + 1,
			      pattern->zipf_alpha));
	return rank < pattern->slots ? rank : pattern->slots - 1;
}

/* Where a rank is: the same place for all connections that share the region. */
static uint64_t
scattered(uint64_t rank, uint64_t slots)
{
	uint64_t state = rank;

	return pattern_random(&state, slots);
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
