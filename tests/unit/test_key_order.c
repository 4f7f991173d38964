/* reactor/key_order.h, against a model that lists everybody in order of entry.  The random test prints its seed; SEED=n
 * repeats it. */
#include "reactor/key_order.h"

#include "reactor/check.h"
#include <criterion/criterion.h>
#include <stdlib.h>

#include "tests/unit/seed.h"

static struct key_order order;

static void
setup(void)
{
	key_order_init(&order);
}

TestSuite(key_order, .init = setup, .timeout = 60);

Test(key_order, first_holds_its_key)
{
	struct key_entry first;

	cr_assert(key_order_enter(&order, &first, 1));
	cr_assert_null(key_order_leave(&first));
}

Test(key_order, others_hold_it_in_order_of_entry)
{
	struct key_entry entries[4];

	for (unsigned i = 0; i < 4; i++)
		cr_assert_eq(key_order_enter(&order, &entries[i], 1), i == 0);
	for (unsigned i = 0; i < 3; i++)
		cr_assert_eq(key_order_leave(&entries[i]), &entries[i + 1]);
	cr_assert_null(key_order_leave(&entries[3]));
}

Test(key_order, one_that_waits_can_leave)
{
	struct key_entry first, second, third;

	key_order_enter(&order, &first, 1);
	key_order_enter(&order, &second, 1);
	key_order_enter(&order, &third, 1);
	cr_assert_null(key_order_leave(&second));
	cr_assert_eq(key_order_leave(&first), &third);
}

Test(key_order, key_that_all_left_is_held_at_once)
{
	struct key_entry first, second;

	key_order_enter(&order, &first, 1);
	cr_assert_null(key_order_leave(&first));
	cr_assert(key_order_enter(&order, &second, 1));
}

/* More keys than buckets: some share one. */
Test(key_order, keys_do_not_hold_up_each_other)
{
	static struct key_entry holders[2 * KEY_ORDER_BUCKETS], waiters[2 * KEY_ORDER_BUCKETS];

	for (unsigned i = 0; i < ARRAY_COUNT(holders); i++)
		cr_assert(key_order_enter(&order, &holders[i], i * 64));
	for (unsigned i = 0; i < ARRAY_COUNT(waiters); i++)
		cr_assert_not(key_order_enter(&order, &waiters[i], i * 64));
	for (unsigned i = 0; i < ARRAY_COUNT(holders); i++)
		cr_assert_eq(key_order_leave(&holders[i]), &waiters[i]);
}

/* Looking a key up must not become slow with keys that are alike in their low or high bits. */
Test(key_order, addresses_spread_over_the_buckets)
{
	static struct key_entry holders[KEY_ORDER_BUCKETS];

	for (unsigned shift = 0; shift < 32; shift += 4) {
		unsigned used = 0;

		key_order_init(&order);
		for (uintptr_t i = 0; i < ARRAY_COUNT(holders); i++)
			key_order_enter(&order, &holders[i], 0x7f0000000000 + (i << shift));
		for (unsigned i = 0; i < KEY_ORDER_BUCKETS; i++)
			used += !list_empty(&order.buckets[i]);
		cr_assert_gt(used, KEY_ORDER_BUCKETS / 3, "shift %u: %u", shift, used);
	}
}

/* ---- The random test. */

#define ENTRIES 64
#define KEYS	5
#define STEPS	200000

static unsigned short random_state[3];

static unsigned
random_below(unsigned limit)
{
	return (unsigned)nrand48(random_state) % limit;
}

static void
seed_random(void)
{
	uint64_t seed = test_seed();

	random_state[0] = (unsigned short)seed;
	random_state[1] = (unsigned short)(seed >> 16);
	random_state[2] = (unsigned short)(seed >> 32);
}

static struct key_entry entries[ENTRIES];
static uint64_t entered[ENTRIES]; /* when, or 0: not in the order */

/* The entry that has been there longest of those with KEY; NULL if there is none. */
static struct key_entry *
model_holder(uintptr_t key)
{
	struct key_entry *holder = NULL;

	for (unsigned i = 0; i < ENTRIES; i++)
		if (entered[i] != 0 && entries[i].key == key &&
		    (holder == NULL || entered[i] < entered[holder - entries]))
			holder = &entries[i];
	return holder;
}

static void
leave_one(unsigned i)
{
	bool held = model_holder(entries[i].key) == &entries[i];
	struct key_entry *next;

	entered[i] = 0;
	next = held ? model_holder(entries[i].key) : NULL;
	cr_assert_eq(key_order_leave(&entries[i]), next);
}

Test(key_order, random_ones_agree_with_the_model)
{
	seed_random();
	for (uint64_t step = 1; step <= STEPS; step++) {
		unsigned i = random_below(ENTRIES);
		uintptr_t key = random_below(KEYS);
		bool holds;

		if (entered[i] != 0) {
			leave_one(i);
			continue;
		}
		holds = model_holder(key) == NULL;
		cr_assert_eq(key_order_enter(&order, &entries[i], key), holds);
		entered[i] = step;
	}
}
