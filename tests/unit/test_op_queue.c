/* reactor/op_queue.h: which operations go to the kernel next, and how many. */
#include "reactor/op_queue.h"

#include <criterion/criterion.h>
#include <limits.h>

#define OPS   40
#define SLOTS 16

static struct op_queue queue;
static struct op ops[PRIORITY_COUNT][OPS];
static struct iocb *batch[PRIORITY_COUNT * OPS];

static void
setup(void)
{
	op_queue_init(&queue, SLOTS);
	for (unsigned i = 0; i < PRIORITY_COUNT; i++) {
		for (unsigned j = 0; j < OPS; j++) {
			op_init(&ops[i][j], NULL);
			ops[i][j].priority = (enum priority)i;
		}
	}
}

TestSuite(op_queue, .init = setup);

static void
append(enum priority class, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		op_queue_append(&queue, &ops[class][i]);
}

static void
take_slots(enum priority class, unsigned count)
{
	while (count-- > 0)
		op_queue_take_slot(&queue, class);
}

/* The batch is the first LATENCY, NORMAL and BACKGROUND operations of their classes, in this order. */
static void
assert_listed(unsigned lower_max, unsigned latency, unsigned normal, unsigned background)
{
	const unsigned counts[PRIORITY_COUNT] = { latency, normal, background };
	unsigned count = op_queue_list(&queue, batch, lower_max), next = 0;

	cr_assert_eq(count, latency + normal + background, "%u are listed", count);
	for (unsigned i = 0; i < PRIORITY_COUNT; i++) {
		for (unsigned j = 0; j < counts[i]; j++)
			cr_assert_eq(batch[next++], &ops[i][j].iocb);
	}
}

Test(op_queue, is_empty_at_first)
{
	cr_assert_eq(op_queue_waiting(&queue), 0);
	cr_assert_eq(op_queue_free(&queue), SLOTS);
	assert_listed(UINT_MAX, 0, 0, 0);
}

Test(op_queue, listed_operations_stay)
{
	append(PRIORITY_NORMAL, 3);
	assert_listed(UINT_MAX, 0, 3, 0);
	assert_listed(UINT_MAX, 0, 3, 0);
	cr_assert_eq(op_queue_waiting(&queue), 3);
	cr_assert_eq(op_queue_free(&queue), SLOTS);
}

Test(op_queue, higher_classes_go_first_and_each_in_order)
{
	append(PRIORITY_BACKGROUND, 2);
	append(PRIORITY_NORMAL, 5);
	append(PRIORITY_LATENCY, 3);
	assert_listed(UINT_MAX, 3, 5, 2);
}

Test(op_queue, no_more_go_than_there_are_slots)
{
	append(PRIORITY_BACKGROUND, OPS);
	append(PRIORITY_NORMAL, OPS);
	assert_listed(UINT_MAX, 0, SLOTS, 0);
	append(PRIORITY_LATENCY, 10);
	assert_listed(UINT_MAX, 10, SLOTS - 10, 0);
	take_slots(PRIORITY_NORMAL, SLOTS - 1);
	assert_listed(UINT_MAX, 1, 0, 0);
	take_slots(PRIORITY_LATENCY, 1);
	assert_listed(UINT_MAX, 0, 0, 0);
	op_queue_give_slot(&queue, PRIORITY_NORMAL);
	cr_assert_eq(op_queue_free(&queue), 1);
	assert_listed(UINT_MAX, 1, 0, 0);
}

Test(op_queue, background_has_a_quarter_of_the_slots)
{
	append(PRIORITY_BACKGROUND, OPS);
	assert_listed(UINT_MAX, 0, 0, SLOTS / 4);
	take_slots(PRIORITY_BACKGROUND, SLOTS / 4 - 1);
	assert_listed(UINT_MAX, 0, 0, 1);
	take_slots(PRIORITY_BACKGROUND, 1);
	assert_listed(UINT_MAX, 0, 0, 0);
	op_queue_give_slot(&queue, PRIORITY_BACKGROUND);
	assert_listed(UINT_MAX, 0, 0, 1);
}

/* As when the latency class is about: a few of the lower ones at a time, and more are there always. */
Test(op_queue, background_has_its_turn_beside_others_without_an_end)
{
	unsigned normal = 0, passed = 0;

	append(PRIORITY_BACKGROUND, 1);
	append(PRIORITY_NORMAL, OPS);
	for (unsigned turn = 0; turn < 100 && op_queue_waiting(&queue) > OPS; turn++) {
		unsigned count = op_queue_list(&queue, batch, 4);

		cr_assert_eq(count, 4);
		for (unsigned i = 0; i < count; i++) {
			struct op *op = container_of(batch[i], struct op, iocb);

			op_queue_remove(&queue, op);
			if (op->priority == PRIORITY_BACKGROUND)
				continue;
			op_queue_append(&queue, op);
			normal++;
		}
		passed = op_queue_waiting(&queue) > OPS ? normal : passed;
	}
	cr_assert_eq(op_queue_waiting(&queue), OPS, "the one of the background still waits");
	cr_assert_eq(passed, 8);
}

Test(op_queue, background_that_has_been_passed_goes_before_the_others_once)
{
	append(PRIORITY_NORMAL, 20);
	append(PRIORITY_BACKGROUND, 3);
	for (unsigned i = 0; i < 8; i++)
		op_queue_remove(&queue, &ops[PRIORITY_NORMAL][i]);
	cr_assert_eq(op_queue_list(&queue, batch, UINT_MAX), 15);
	cr_assert_eq(batch[0], &ops[PRIORITY_BACKGROUND][0].iocb);
	cr_assert_eq(batch[1], &ops[PRIORITY_NORMAL][8].iocb);
	cr_assert_eq(batch[13], &ops[PRIORITY_BACKGROUND][1].iocb);
	cr_assert_eq(op_queue_list(&queue, batch, 1), 1);
	cr_assert_eq(batch[0], &ops[PRIORITY_BACKGROUND][0].iocb);
	op_queue_remove(&queue, &ops[PRIORITY_BACKGROUND][0]);
	cr_assert_eq(op_queue_list(&queue, batch, 1), 1);
	cr_assert_eq(batch[0], &ops[PRIORITY_NORMAL][8].iocb);
}

/* Slots of other classes are not counted against it, except that there must be one. */
Test(op_queue, background_may_use_its_part_beside_the_others)
{
	append(PRIORITY_BACKGROUND, OPS);
	take_slots(PRIORITY_NORMAL, SLOTS - 2);
	assert_listed(UINT_MAX, 0, 0, 2);
	append(PRIORITY_LATENCY, 1);
	assert_listed(UINT_MAX, 1, 0, 1);
}

Test(op_queue, background_has_at_least_one_slot)
{
	for (unsigned slots = 1; slots <= 5; slots++) {
		op_queue_init(&queue, slots);
		append(PRIORITY_BACKGROUND, OPS);
		assert_listed(UINT_MAX, 0, 0, slots == 5 ? 2 : 1);
		for (unsigned i = 0; i < OPS; i++)
			op_queue_remove(&queue, &ops[PRIORITY_BACKGROUND][i]);
	}
}

Test(op_queue, room_is_what_a_class_may_have_beside_those_that_wait)
{
	cr_assert_eq(op_queue_room(&queue, PRIORITY_NORMAL), SLOTS);
	cr_assert_eq(op_queue_room(&queue, PRIORITY_BACKGROUND), SLOTS / 4);
	take_slots(PRIORITY_BACKGROUND, 1);
	append(PRIORITY_BACKGROUND, 2);
	cr_assert_eq(op_queue_room(&queue, PRIORITY_NORMAL), SLOTS - 3);
	cr_assert_eq(op_queue_room(&queue, PRIORITY_BACKGROUND), SLOTS / 4 - 3);
	take_slots(PRIORITY_NORMAL, SLOTS - 3);
	cr_assert_eq(op_queue_room(&queue, PRIORITY_LATENCY), 0);
	cr_assert_eq(op_queue_room(&queue, PRIORITY_BACKGROUND), 0);
	op_queue_remove(&queue, &ops[PRIORITY_BACKGROUND][0]);
	cr_assert_eq(op_queue_room(&queue, PRIORITY_BACKGROUND), 1);
}

Test(op_queue, lower_max_bounds_all_but_the_latency_class)
{
	append(PRIORITY_LATENCY, 6);
	append(PRIORITY_NORMAL, 3);
	append(PRIORITY_BACKGROUND, OPS);
	assert_listed(0, 6, 0, 0);
	assert_listed(2, 6, 2, 0);
	assert_listed(5, 6, 3, 2);
	assert_listed(UINT_MAX, 6, 3, 4);
}

Test(op_queue, removed_is_not_listed)
{
	append(PRIORITY_NORMAL, 2);
	append(PRIORITY_LATENCY, 1);
	op_queue_remove(&queue, &ops[PRIORITY_NORMAL][0]);
	cr_assert_eq(op_queue_waiting(&queue), 2);
	cr_assert_eq(op_queue_list(&queue, batch, UINT_MAX), 2);
	cr_assert_eq(batch[0], &ops[PRIORITY_LATENCY][0].iocb);
	cr_assert_eq(batch[1], &ops[PRIORITY_NORMAL][1].iocb);
}
