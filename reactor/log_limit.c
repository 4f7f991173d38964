/* Minutes that begin with a line: so many in each, and a count of the others.
 * Both are in one word, so that who ends a minute takes the lines of just that one.  All accesses are relaxed: nothing is published by
 * it. */
#include "reactor/log_limit.h"

#define COUNT_BITS \
	24 /* beyond that lines are left out uncounted; above are milliseconds, for 34 years */
#define COUNT_MAX (((uint64_t)1 << COUNT_BITS) - 1)
#define NS_PER_MS 1000000u

_Static_assert(LOG_LIMIT_NS % NS_PER_MS == 0, "a minute is told by milliseconds");

static unsigned
left_out_of(uint64_t minute)
{
	unsigned line_count = (unsigned)(minute & COUNT_MAX);

	return line_count > LOG_LIMIT_LINES ? line_count - LOG_LIMIT_LINES : 0;
}

/* Whether MINUTE, which may be none, is over by NOW_NS.  Who has looked at the clock before another began it is in it, too. */
static bool
is_over(uint64_t minute, uint64_t now_ns)
{
	uint64_t began_ms = minute >> COUNT_BITS, now_ms = now_ns / NS_PER_MS;

	return began_ms == 0 ||
	       (now_ms > began_ms && now_ms - began_ms >= LOG_LIMIT_NS / NS_PER_MS);
}

static bool
replace(struct log_limit *limit, uint64_t *minute, uint64_t next)
{
	return __atomic_compare_exchange_n(&limit->minute, minute, next, false, __ATOMIC_RELAXED,
					   __ATOMIC_RELAXED);
}

bool
log_limit_take(struct log_limit *limit, uint64_t now_ns, unsigned *left_out)
{
	uint64_t minute = __atomic_load_n(&limit->minute, __ATOMIC_RELAXED), next;
	bool over;

	do {
		over = is_over(minute, now_ns);
		if (over)
			next = (now_ns / NS_PER_MS) << COUNT_BITS | 1;
		else
			next = minute + ((minute & COUNT_MAX) < COUNT_MAX);
	} while (!replace(limit, &minute, next));
	*left_out = over ? left_out_of(minute) : 0;
	return (next & COUNT_MAX) <= LOG_LIMIT_LINES;
}

unsigned
log_limit_flush(struct log_limit *limit, uint64_t now_ns)
{
	uint64_t minute = __atomic_load_n(&limit->minute, __ATOMIC_RELAXED);

	do {
		if (!is_over(minute, now_ns))
			return 0;
	} while (!replace(limit, &minute, 0));
	return left_out_of(minute);
}

unsigned
log_limit_left_out(const struct log_limit *limit)
{
	return left_out_of(__atomic_load_n(&limit->minute, __ATOMIC_RELAXED));
}
