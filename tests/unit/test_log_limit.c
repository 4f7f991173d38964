/* reactor/log_limit.h, with a clock of our own. */
#include "reactor/log_limit.h"

#include <criterion/criterion.h>

#define BEGIN_NS ((uint64_t)5000000000)

/* Ask for COUNT lines at NOW_NS.  Returns how many may be written; none may report anything but the first, *left_out. */
static unsigned
take(struct log_limit *limit, uint64_t now_ns, unsigned count, unsigned *left_out)
{
	unsigned taken = 0, more;

	*left_out = 0;
	for (unsigned i = 0; i < count; i++) {
		taken += log_limit_take(limit, now_ns, &more);
		if (i == 0)
			*left_out = more;
		else
			cr_assert_eq(more, 0);
	}
	return taken;
}

Test(log_limit, a_minute_has_so_many_lines)
{
	struct log_limit limit = { 0 };
	unsigned left_out;

	cr_assert_eq(take(&limit, BEGIN_NS, LOG_LIMIT_LINES - 1, &left_out), LOG_LIMIT_LINES - 1);
	cr_assert_eq(take(&limit, BEGIN_NS + LOG_LIMIT_NS - 1, 100, &left_out), 1);
	cr_assert_eq(left_out, 0);
	cr_assert_eq(log_limit_left_out(&limit), 99);
}

Test(log_limit, next_line_after_a_minute_reports_it)
{
	struct log_limit limit = { 0 };
	unsigned left_out;

	cr_assert_eq(take(&limit, BEGIN_NS, LOG_LIMIT_LINES + 7, &left_out), LOG_LIMIT_LINES);
	cr_assert_eq(take(&limit, BEGIN_NS + LOG_LIMIT_NS, LOG_LIMIT_LINES + 2, &left_out),
		     LOG_LIMIT_LINES);
	cr_assert_eq(left_out, 7);
	cr_assert_eq(take(&limit, BEGIN_NS + 5 * LOG_LIMIT_NS, 1, &left_out), 1);
	cr_assert_eq(left_out, 2);
	cr_assert_eq(take(&limit, BEGIN_NS + 9 * LOG_LIMIT_NS, 1, &left_out), 1);
	cr_assert_eq(left_out, 0);
}

Test(log_limit, flush_reports_once_and_only_what_is_over)
{
	struct log_limit limit = { 0 };
	unsigned left_out;

	cr_assert_eq(log_limit_flush(&limit, BEGIN_NS), 0);
	cr_assert_eq(take(&limit, BEGIN_NS, LOG_LIMIT_LINES + 7, &left_out), LOG_LIMIT_LINES);
	cr_assert_eq(log_limit_flush(&limit, BEGIN_NS + LOG_LIMIT_NS - 1), 0);
	cr_assert_eq(log_limit_left_out(&limit), 7);
	cr_assert_eq(log_limit_flush(&limit, BEGIN_NS + LOG_LIMIT_NS), 7);
	cr_assert_eq(log_limit_flush(&limit, BEGIN_NS + LOG_LIMIT_NS), 0);
	cr_assert_eq(log_limit_left_out(&limit), 0);
	cr_assert_eq(take(&limit, BEGIN_NS + LOG_LIMIT_NS + 1, 1, &left_out), 1);
	cr_assert_eq(left_out, 0);
}

Test(log_limit, after_a_flush_a_minute_begins_with_its_first_line)
{
	struct log_limit limit = { 0 };
	unsigned left_out;

	cr_assert_eq(take(&limit, BEGIN_NS, 1, &left_out), 1);
	cr_assert_eq(log_limit_flush(&limit, BEGIN_NS + LOG_LIMIT_NS), 0);
	cr_assert_eq(take(&limit, BEGIN_NS + 3 * LOG_LIMIT_NS / 2, LOG_LIMIT_LINES + 1, &left_out),
		     LOG_LIMIT_LINES);
	cr_assert_eq(take(&limit, BEGIN_NS + 2 * LOG_LIMIT_NS, 1, &left_out), 0);
}

/* Somebody else has begun the minute between this one's look at the clock and its question. */
Test(log_limit, a_look_at_the_clock_before_the_minute_ends_none)
{
	struct log_limit limit = { 0 };
	unsigned left_out;

	cr_assert_eq(take(&limit, BEGIN_NS, LOG_LIMIT_LINES + 3, &left_out), LOG_LIMIT_LINES);
	cr_assert_eq(take(&limit, BEGIN_NS - 1, 5, &left_out), 0);
	cr_assert_eq(left_out, 0);
	cr_assert_eq(log_limit_flush(&limit, BEGIN_NS - 1), 0);
	cr_assert_eq(log_limit_left_out(&limit), 8);
}
