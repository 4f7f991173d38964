/* reactor/slot_table.h: a tag finds its slot until that is released, and nothing ever after. */
#include "reactor/slot_table.h"

#include "reactor/op.h"
#include "reactor/op_queue.h"
#include <criterion/criterion.h>
#include <stdlib.h>

#include "tests/unit/seed.h"

#define SLOTS 50

static struct slot_table table;
static struct op ops[SLOTS];
static struct op_queue queue;

static void
setup(void)
{
	cr_assert_eq(slot_table_init(&table, SLOTS), 0);
}

static void
teardown(void)
{
	slot_table_fini(&table);
}

TestSuite(slot_table, .init = setup, .fini = teardown, .timeout = 60);

static uint64_t
take(unsigned i)
{
	return slot_take(&table, &ops[i], &queue, PRIORITY_BACKGROUND);
}

Test(slot_table, tag_finds_what_it_was_taken_for)
{
	uint64_t tag = slot_take(&table, &ops[3], &queue, PRIORITY_LATENCY);
	struct slot *slot = slot_find(&table, tag);

	cr_assert_not_null(slot);
	cr_assert_eq(slot->op, &ops[3]);
	cr_assert_eq(slot->queue, &queue);
	cr_assert_eq(slot->priority, PRIORITY_LATENCY);
	slot_release(&table, slot);
}

Test(slot_table, all_slots_can_be_taken_at_once)
{
	uint64_t tags[SLOTS];

	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < SLOTS; i++)
			tags[i] = take(i);
		for (unsigned i = 0; i < SLOTS; i++)
			cr_assert_eq(slot_find(&table, tags[i])->op, &ops[i]);
		for (unsigned i = 0; i < SLOTS; i++)
			slot_release(&table, slot_find(&table, tags[i]));
	}
}

Test(slot_table, released_tag_finds_nothing)
{
	uint64_t tag = take(0);

	slot_release(&table, slot_find(&table, tag));
	cr_assert_null(slot_find(&table, tag));
}

/* The slot is used again and again, and none of its former tags finds it. */
Test(slot_table, released_tag_finds_nothing_when_the_slot_is_used_again)
{
	uint64_t former[1000];

	for (unsigned i = 0; i < ARRAY_COUNT(former); i++) {
		uint64_t tag = take(i % SLOTS);

		for (unsigned j = 0; j < i; j++)
			cr_assert_null(slot_find(&table, former[j]));
		cr_assert_eq(slot_find(&table, tag)->op, &ops[i % SLOTS]);
		slot_release(&table, slot_find(&table, tag));
		former[i] = tag;
	}
}

Test(slot_table, abandoned_slot_is_found_without_an_operation)
{
	uint64_t tag = take(0);

	slot_find(&table, tag)->op = NULL;
	cr_assert_not_null(slot_find(&table, tag));
	cr_assert_null(slot_find(&table, tag)->op);
	slot_release(&table, slot_find(&table, tag));
}

Test(slot_table, tags_that_were_never_given_find_nothing)
{
	static const uint64_t never[] = {
		0, 1, SLOTS - 1, SLOTS, UINT32_MAX, UINT64_MAX, (uint64_t)1 << 32, (uint64_t)1 << 63
	};

	for (unsigned i = 0; i < ARRAY_COUNT(never); i++)
		cr_assert_null(slot_find(&table, never[i]));
}

/* Random taking and releasing, and numbers from nowhere: what is found is what was taken for that very tag. */
Test(slot_table, any_number_finds_what_it_names_or_nothing)
{
	unsigned seed = (unsigned)test_seed();
	uint64_t tags[SLOTS];
	bool taken[SLOTS] = { false };

	srandom(seed);
	for (unsigned round = 0; round < 200000; round++) {
		unsigned i = (unsigned)random() % SLOTS;
		uint64_t number = ((uint64_t)random() % 4096) << 32 | (uint64_t)random() % 64;
		struct slot *slot = slot_find(&table, number);
		bool named = false;

		for (unsigned j = 0; j < SLOTS; j++) {
			if (!taken[j] || tags[j] != number)
				continue;
			named = true;
			cr_assert_eq(slot->op, &ops[j]);
		}
		cr_assert(named || slot == NULL);
		if (taken[i])
			slot_release(&table, slot_find(&table, tags[i]));
		else
			tags[i] = take(i);
		taken[i] = !taken[i];
	}
}
