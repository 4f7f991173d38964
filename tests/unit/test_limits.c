/* Each core's share of the host's slots. */
#include "daemon/limits.h"

#include <criterion/criterion.h>

/* What is left of 200 and 100 slots for each of two cores of a host with this BUDGET. */
static struct reactor_config
shared(struct aio_budget budget)
{
	struct reactor_config reactor = { .disk_slots = 200, .poll_slots = 100 };

	limits_share_aio(&reactor, &budget, 2);
	return reactor;
}

static void
assert_slots(struct aio_budget budget, unsigned disk_slots, unsigned poll_slots)
{
	struct reactor_config reactor = shared(budget);

	cr_assert_eq(reactor.disk_slots, disk_slots);
	cr_assert_eq(reactor.poll_slots, poll_slots);
}

Test(limits, slots_that_are_there_are_not_shared)
{
	uint64_t both = 2 * (300 + REACTOR_OWN_SLOTS);

	assert_slots((struct aio_budget){ .known = true, .limit = both }, 200, 100);
	assert_slots((struct aio_budget){ .known = true, .limit = both + 7, .used_by_others = 7 },
		     200, 100);
}

Test(limits, of_too_few_slots_each_core_has_its_share_but_not_too_few)
{
	uint64_t half = 2 * (150 + REACTOR_OWN_SLOTS);

	assert_slots((struct aio_budget){ .known = true, .limit = half }, 100, 50);
	assert_slots((struct aio_budget){ .known = true, .limit = half + 9, .used_by_others = 9 },
		     100, 50);
	assert_slots((struct aio_budget){ .known = true, .limit = 9, .used_by_others = 99 },
		     REACTOR_SLOTS_MIN, REACTOR_SLOTS_MIN);
	assert_slots((struct aio_budget){ .known = true }, REACTOR_SLOTS_MIN, REACTOR_SLOTS_MIN);
}

Test(limits, where_the_limit_is_unknown_all_slots_are_asked_for)
{
	assert_slots((struct aio_budget){ .known = false }, 200, 100);
}
