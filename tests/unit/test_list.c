/* reactor/list.h: every operation, on lists of none, one and several elements. */
#include "reactor/list.h"

#include "reactor/check.h"
#include <criterion/criterion.h>

struct item {
	int value;
	struct list_node node;
};

static struct list_node list;
static struct item items[4];

static void
setup(void)
{
	list_init(&list);
	for (int i = 0; i < (int)ARRAY_COUNT(items); i++) {
		items[i].value = i;
		list_init(&items[i].node);
	}
}

TestSuite(list, .init = setup);

/* HEAD's values as decimal digits, first to last; and the same read backwards must agree. */
static int
digits(const struct list_node *head)
{
	const struct list_node *node;
	int forwards = 0, backwards = 0, scale = 1;

	list_for_each(node, head)
		forwards = forwards * 10 + container_of(node, const struct item, node)->value;
	for (node = head->prev; node != head; node = node->prev) {
		backwards += scale * container_of(node, const struct item, node)->value;
		scale *= 10;
	}
	cr_assert_eq(forwards, backwards);
	return forwards;
}

Test(list, is_empty_after_init)
{
	cr_assert(list_empty(&list));
	cr_assert(list_empty(&items[0].node));
}

Test(list, append_keeps_order)
{
	list_append(&list, &items[1].node);
	list_append(&list, &items[2].node);
	list_append(&list, &items[3].node);
	cr_assert_eq(digits(&list), 123);
	cr_assert_not(list_empty(&list));
	cr_assert_not(list_empty(&items[1].node));
}

Test(list, prepend_reverses_order)
{
	list_prepend(&list, &items[1].node);
	list_prepend(&list, &items[2].node);
	list_prepend(&list, &items[3].node);
	cr_assert_eq(digits(&list), 321);
}

Test(list, remove_unlinks_from_the_middle)
{
	for (int i = 1; i < 4; i++)
		list_append(&list, &items[i].node);
	list_remove(&items[2].node);
	cr_assert_eq(digits(&list), 13);
	cr_assert(list_empty(&items[2].node));
}

Test(list, remove_of_the_only_element_leaves_it_empty)
{
	list_append(&list, &items[1].node);
	list_remove(&items[1].node);
	cr_assert(list_empty(&list));
}

Test(list, remove_of_an_unlinked_element_is_harmless)
{
	list_remove(&items[1].node);
	list_remove(&items[1].node);
	cr_assert(list_empty(&items[1].node));
}

Test(list, take_first_returns_elements_in_order_then_null)
{
	list_append(&list, &items[1].node);
	list_append(&list, &items[2].node);
	cr_assert_eq(list_take_first(&list), &items[1].node);
	cr_assert(list_empty(&items[1].node));
	cr_assert_eq(list_take_first(&list), &items[2].node);
	cr_assert_null(list_take_first(&list));
	cr_assert(list_empty(&list));
}

Test(list, move_all_appends_and_empties_the_source)
{
	struct list_node from;

	list_init(&from);
	list_append(&list, &items[1].node);
	list_append(&from, &items[2].node);
	list_append(&from, &items[3].node);
	list_move_all(&list, &from);
	cr_assert_eq(digits(&list), 123);
	cr_assert(list_empty(&from));
}

Test(list, move_all_of_an_empty_list_changes_nothing)
{
	struct list_node from;

	list_init(&from);
	list_append(&list, &items[1].node);
	list_move_all(&list, &from);
	cr_assert_eq(digits(&list), 1);
	cr_assert(list_empty(&from));
}

Test(list, for_each_safe_allows_removal)
{
	struct list_node *node, *after;

	for (int i = 0; i < 4; i++)
		list_append(&list, &items[i].node);
	list_for_each_safe(node, after, &list)
		if (container_of(node, struct item, node)->value % 2 == 0)
			list_remove(node);
	cr_assert_eq(digits(&list), 13);
}
