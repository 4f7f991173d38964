/* reactor/spin.h: how long a spin grows and shrinks. */
#include "reactor/spin.h"

#include <criterion/criterion.h>

#define US	   ((uint64_t)1000)
#define NS_MAX	   (200 * US)
#define LONG_AFTER (10000 * US)

static struct spin spin;

static void
setup(void)
{
	spin_init(&spin, NS_MAX);
}

TestSuite(spin, .init = setup);

/* Grown to the most. */
static void
grow(void)
{
	for (unsigned i = 0; i < 20; i++)
		spin_adapt(&spin, NS_MAX);
	cr_assert_eq(spin.ns, NS_MAX);
}

Test(spin, starts_without)
{
	cr_assert_eq(spin.ns, 0);
}

Test(spin, never_spins_with_a_maximum_of_0)
{
	spin_init(&spin, 0);
	for (uint64_t waited_ns = 1; waited_ns < LONG_AFTER; waited_ns *= 3) {
		spin_adapt(&spin, waited_ns);
		cr_assert_eq(spin.ns, 0);
	}
}

Test(spin, grows_where_a_longer_one_would_have_saved_the_sleep)
{
	uint64_t before_ns;

	do {
		before_ns = spin.ns;
		spin_adapt(&spin, NS_MAX - 1);
		cr_assert_leq(spin.ns, NS_MAX);
		cr_assert(spin.ns > before_ns || before_ns >= NS_MAX - 1);
	} while (spin.ns < NS_MAX - 1);
}

Test(spin, stays_when_it_was_long_enough)
{
	uint64_t before_ns;

	spin_adapt(&spin, US);
	spin_adapt(&spin, 100 * US);
	before_ns = spin.ns;
	cr_assert_gt(before_ns, 0);
	spin_adapt(&spin, before_ns);
	spin_adapt(&spin, 1);
	cr_assert_eq(spin.ns, before_ns);
}

Test(spin, shrinks_to_nothing_when_it_is_in_vain)
{
	unsigned steps = 0;

	grow();
	while (spin.ns > 0) {
		uint64_t before_ns = spin.ns;

		spin_adapt(&spin, LONG_AFTER);
		cr_assert_lt(spin.ns, before_ns);
		cr_assert_lt(++steps, 10);
	}
	spin_adapt(&spin, LONG_AFTER);
	cr_assert_eq(spin.ns, 0);
}

Test(spin, comes_back_after_it_was_given_up)
{
	grow();
	while (spin.ns > 0)
		spin_adapt(&spin, LONG_AFTER);
	spin_adapt(&spin, 20 * US);
	cr_assert_gt(spin.ns, 0);
	cr_assert_leq(spin.ns, 20 * US);
}

/* Smaller than where a spin starts: still never more. */
Test(spin, small_maximum_is_kept)
{
	spin_init(&spin, US);
	for (unsigned i = 0; i < 10; i++) {
		spin_adapt(&spin, US / 2 + i * 50);
		cr_assert_leq(spin.ns, US);
	}
	cr_assert_gt(spin.ns, 0);
}
