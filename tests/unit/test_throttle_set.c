/* Throttles by name. */
#include "daemon/throttle_set.h"

#include <criterion/criterion.h>

static const struct throttle_limits limits = { .requests_per_s = 5, .burst_ms = 1 };

Test(throttle_set, exports_of_one_name_have_one_throttle_until_the_last_is_gone)
{
	struct cores cores = { .count = 0 };
	struct throttle_entry *first, *second, *other, *again;
	struct throttle_set set;

	throttle_set_init(&set);
	throttle_set_start(&set, &cores);
	cr_assert_eq(throttle_set_acquire(&set, "a", &limits, &first), 0);
	cr_assert_eq(throttle_set_acquire(&set, "", &limits, &other), 0);
	cr_assert_eq(throttle_set_acquire(&set, "a", &limits, &second), 0);
	cr_assert_eq(first, second);
	cr_assert_neq(first->throttle, other->throttle);
	throttle_set_release(first);
	cr_assert_eq(throttle_set_acquire(&set, "a", &limits, &again), 0);
	cr_assert_eq(again, second);
	throttle_set_release(second);
	throttle_set_release(again);
	throttle_set_release(other);
	cr_assert(list_empty(&set.entries));
}
