/* reactor/nowait.h: when it asks, and when it stops asking. */
#include "reactor/nowait.h"

#include <criterion/criterion.h>

static struct nowait nowait;

static void
setup(void)
{
	nowait_init(&nowait);
}

TestSuite(nowait, .init = setup);

/* COUNT operations, which are refused if they are asked.  Returns how many were asked. */
static unsigned
refuse(unsigned count)
{
	unsigned asked = 0;

	for (unsigned i = 0; i < count; i++) {
		if (nowait_choose(&nowait, false) != NOWAIT_WAY_ASK)
			continue;
		asked++;
		nowait_refused(&nowait);
	}
	return asked;
}

Test(nowait, asks_at_first)
{
	cr_assert_eq(nowait_choose(&nowait, false), NOWAIT_WAY_ASK);
	cr_assert_eq(nowait.asked, 1);
}

Test(nowait, never_asks_again_where_it_is_unknown)
{
	cr_assert_eq(nowait_choose(&nowait, false), NOWAIT_WAY_ASK);
	nowait_unsupported(&nowait);
	for (unsigned i = 0; i < 1000; i++)
		cr_assert_eq(nowait_choose(&nowait, false), NOWAIT_WAY_BLOCKING);
	cr_assert_eq(nowait.asked, 1);
	cr_assert_eq(nowait.refused + nowait.helped, 0);
}

Test(nowait, helper_shares_what_would_block_where_it_is_unknown)
{
	cr_assert_eq(nowait_choose(&nowait, true), NOWAIT_WAY_ASK);
	nowait_unsupported(&nowait);
	cr_assert_eq(nowait_choose(&nowait, true), NOWAIT_WAY_HELPER);
	cr_assert_eq(nowait_choose(&nowait, false), NOWAIT_WAY_BLOCKING);
	cr_assert_eq(nowait.refused + nowait.helped, 0);
}

Test(nowait, a_few_refusals_among_successes_change_nothing)
{
	for (unsigned i = 0; i < 10000; i++) {
		cr_assert_eq(nowait_choose(&nowait, false), NOWAIT_WAY_ASK);
		if (i % 8 == 0)
			nowait_refused(&nowait);
		else
			nowait_succeeded(&nowait);
	}
	cr_assert_eq(nowait.refused, 1250);
}

Test(nowait, stops_asking_where_all_is_refused)
{
	unsigned asked = refuse(10000);

	cr_assert_lt(asked, 500);
	cr_assert_eq(nowait.asked, asked);
	cr_assert_eq(nowait.refused, asked);
	cr_assert_eq(nowait.helped, 10000 - asked);
}

Test(nowait, notices_when_nothing_is_refused_any_more)
{
	unsigned helped = 0;

	(void)refuse(10000);
	for (unsigned i = 0; i < 1000; i++) {
		if (nowait_choose(&nowait, false) == NOWAIT_WAY_ASK)
			nowait_succeeded(&nowait);
		else
			helped++;
	}
	cr_assert_lt(helped, 40);
}
