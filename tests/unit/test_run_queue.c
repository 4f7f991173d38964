/* reactor/run_queue.h: order within a class, and the shares of several. */
#include "reactor/run_queue.h"

#include <criterion/criterion.h>

#define OPS 200

static const unsigned shares[PRIORITY_COUNT] = {
	[PRIORITY_LATENCY] = 8,
	[PRIORITY_NORMAL] = 4,
	[PRIORITY_BACKGROUND] = 1,
};

static struct run_queue queue;
static struct op ops[PRIORITY_COUNT][OPS];

static void
setup(void)
{
	run_queue_init(&queue, shares);
	for (unsigned i = 0; i < PRIORITY_COUNT; i++) {
		for (unsigned j = 0; j < OPS; j++) {
			op_init(&ops[i][j], NULL);
			ops[i][j].priority = (enum priority)i;
		}
	}
}

TestSuite(run_queue, .init = setup);

/* The first COUNT of CLASS. */
static void
append(enum priority class, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		run_queue_append(&queue, &ops[class][i]);
}

/* Take COUNT, and count how many are of each class. */
static void
take(unsigned count, unsigned taken[PRIORITY_COUNT])
{
	for (unsigned i = 0; i < PRIORITY_COUNT; i++)
		taken[i] = 0;
	while (count-- > 0) {
		struct op *op = run_queue_take(&queue);

		cr_assert_not_null(op);
		taken[op->priority]++;
	}
}

Test(run_queue, is_empty_at_first)
{
	cr_assert_eq(run_queue_count(&queue), 0);
	cr_assert_null(run_queue_take(&queue));
}

Test(run_queue, keeps_the_order_within_each_class)
{
	unsigned next[PRIORITY_COUNT] = { 0 };
	struct op *op;

	for (unsigned i = 0; i < OPS; i++) {
		for (unsigned j = 0; j < PRIORITY_COUNT; j++)
			run_queue_append(&queue, &ops[(i + j) % PRIORITY_COUNT][i]);
	}
	cr_assert_eq(run_queue_count(&queue), PRIORITY_COUNT * OPS);
	while ((op = run_queue_take(&queue)) != NULL)
		cr_assert_eq(op, &ops[op->priority][next[op->priority]++]);
	for (unsigned i = 0; i < PRIORITY_COUNT; i++)
		cr_assert_eq(next[i], OPS);
	cr_assert_eq(run_queue_count(&queue), 0);
}

Test(run_queue, higher_classes_come_first)
{
	append(PRIORITY_BACKGROUND, 1);
	append(PRIORITY_NORMAL, 1);
	append(PRIORITY_LATENCY, 1);
	cr_assert_eq(run_queue_take(&queue), &ops[PRIORITY_LATENCY][0]);
	cr_assert_eq(run_queue_take(&queue), &ops[PRIORITY_NORMAL][0]);
	cr_assert_eq(run_queue_take(&queue), &ops[PRIORITY_BACKGROUND][0]);
}

Test(run_queue, each_round_has_the_share_of_every_class)
{
	unsigned taken[PRIORITY_COUNT];

	for (unsigned i = 0; i < PRIORITY_COUNT; i++)
		append((enum priority)i, 100);
	for (unsigned round = 0; round < 10; round++) {
		take(8, taken);
		cr_assert_eq(taken[PRIORITY_LATENCY], 8);
		take(4, taken);
		cr_assert_eq(taken[PRIORITY_NORMAL], 4);
		take(1, taken);
		cr_assert_eq(taken[PRIORITY_BACKGROUND], 1);
	}
}

/* The higher classes never run empty. */
Test(run_queue, lower_classes_do_not_starve)
{
	unsigned taken[PRIORITY_COUNT] = { 0 };

	append(PRIORITY_LATENCY, OPS);
	append(PRIORITY_NORMAL, OPS);
	append(PRIORITY_BACKGROUND, OPS);
	for (unsigned i = 0; i < 1300; i++) {
		struct op *op = run_queue_take(&queue);

		taken[op->priority]++;
		run_queue_append(&queue, op);
	}
	cr_assert_eq(taken[PRIORITY_LATENCY], 800);
	cr_assert_eq(taken[PRIORITY_NORMAL], 400);
	cr_assert_eq(taken[PRIORITY_BACKGROUND], 100);
}

Test(run_queue, class_that_is_alone_gets_all)
{
	unsigned taken[PRIORITY_COUNT];

	append(PRIORITY_BACKGROUND, OPS);
	take(OPS, taken);
	cr_assert_eq(taken[PRIORITY_BACKGROUND], OPS);
	cr_assert_null(run_queue_take(&queue));
}

/* What a class leaves of its share is nobody's debt: the next round begins when no one who has something has credit. */
Test(run_queue, credit_is_filled_up_when_those_who_need_it_have_none)
{
	unsigned taken[PRIORITY_COUNT];

	append(PRIORITY_LATENCY, 3);
	append(PRIORITY_NORMAL, 100);
	take(3 + 4, taken);
	cr_assert_eq(taken[PRIORITY_LATENCY], 3);
	cr_assert_eq(taken[PRIORITY_NORMAL], 4);
	take(1, taken); /* starts a round */
	append(PRIORITY_LATENCY, 100);
	take(8 + 3, taken);
	cr_assert_eq(taken[PRIORITY_LATENCY], 8);
	cr_assert_eq(taken[PRIORITY_NORMAL], 3);
	take(8, taken);
	cr_assert_eq(taken[PRIORITY_LATENCY], 8);
}

/* A class whose credit is used up waits for the round's end, not longer. */
Test(run_queue, unused_credit_is_not_saved_up)
{
	unsigned taken[PRIORITY_COUNT];

	append(PRIORITY_NORMAL, 100);
	take(60, taken); /* 15 rounds */
	append(PRIORITY_LATENCY, 100);
	append(PRIORITY_BACKGROUND, 100);
	take(8 + 1, taken);
	cr_assert_eq(taken[PRIORITY_NORMAL], 0);
	take(8 + 4 + 1, taken);
	cr_assert_eq(taken[PRIORITY_LATENCY], 8);
	cr_assert_eq(taken[PRIORITY_NORMAL], 4);
	cr_assert_eq(taken[PRIORITY_BACKGROUND], 1);
}

Test(run_queue, removed_is_not_taken)
{
	append(PRIORITY_NORMAL, 3);
	run_queue_remove(&queue, &ops[PRIORITY_NORMAL][1]);
	cr_assert_eq(run_queue_count(&queue), 2);
	cr_assert_eq(run_queue_take(&queue), &ops[PRIORITY_NORMAL][0]);
	cr_assert_eq(run_queue_take(&queue), &ops[PRIORITY_NORMAL][2]);
	cr_assert_null(run_queue_take(&queue));
}

Test(run_queue, only_one_may_be_removed_and_appended_again)
{
	append(PRIORITY_BACKGROUND, 1);
	run_queue_remove(&queue, &ops[PRIORITY_BACKGROUND][0]);
	cr_assert_null(run_queue_take(&queue));
	append(PRIORITY_BACKGROUND, 1);
	cr_assert_eq(run_queue_take(&queue), &ops[PRIORITY_BACKGROUND][0]);
}
