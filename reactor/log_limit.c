/* Minutes that begin with a line: so many in each, and a count of the others.
 * All accesses are relaxed: nothing is published by them.  Whoever moves began_ns on is the one who reports the minute. */
#include "reactor/log_limit.h"

static unsigned
left_out_of(unsigned line_count)
{
	return line_count > LOG_LIMIT_LINES ? line_count - LOG_LIMIT_LINES : 0;
}

/* End the minute if it is over by NOW_NS; the next begins at BEGIN_NS (0: with the next line).  Returns whether this caller did,
 * and then how many lines were *left_out. */
static bool
end_minute(struct log_limit *limit, uint64_t now_ns, uint64_t begin_ns, unsigned *left_out)
{
	uint64_t began_ns = __atomic_load_n(&limit->began_ns, __ATOMIC_RELAXED);

	if (began_ns != 0 && now_ns - began_ns < LOG_LIMIT_NS)
		return false;
	if (!__atomic_compare_exchange_n(&limit->began_ns, &began_ns, begin_ns, false,
					 __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		return false;
	*left_out = left_out_of(__atomic_exchange_n(&limit->line_count, 0, __ATOMIC_RELAXED));
	return true;
}

bool
log_limit_take(struct log_limit *limit, uint64_t now_ns, unsigned *left_out)
{
	*left_out = 0;
	(void)end_minute(limit, now_ns, now_ns, left_out);
	return __atomic_add_fetch(&limit->line_count, 1, __ATOMIC_RELAXED) <= LOG_LIMIT_LINES;
}

unsigned
log_limit_flush(struct log_limit *limit, uint64_t now_ns)
{
	unsigned left_out = 0;

	(void)end_minute(limit, now_ns, 0, &left_out);
	return left_out;
}

unsigned
log_limit_left_out(const struct log_limit *limit)
{
	return left_out_of(__atomic_load_n(&limit->line_count, __ATOMIC_RELAXED));
}
