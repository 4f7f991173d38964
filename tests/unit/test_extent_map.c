/* What an extent map remembers, and what it must not. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "disk/extent_map.h"

#define CELL EXTENT_MAP_CELL_BYTES_MIN
#define HOLE (VOLUME_EXTENT_HOLE | VOLUME_EXTENT_ZERO)

static void
examine(struct extent_map *map, uint64_t start, uint64_t end, uint32_t flags)
{
	extent_map_begin(map, start, end);
	extent_map_learn(map, start, end, flags);
	extent_map_end(map, start, end);
}

Test(extent_map, knows_nothing_at_first)
{
	struct extent_map map;
	uint32_t flags;

	cr_assert_eq(extent_map_init(&map, 10 * CELL), 0);
	cr_assert_eq(extent_map_run(&map, 0, 10 * CELL, &flags), 0);
	cr_assert_eq(extent_map_peek(&map, 0, 10 * CELL), VOLUME_PEEK_UNKNOWN);
	extent_map_fini(&map);
}

Test(extent_map, remembers_whole_cells_and_the_part_at_the_end)
{
	struct extent_map map;
	uint32_t flags = 99;

	cr_assert_eq(extent_map_init(&map, 3 * CELL + 5), 0);
	examine(&map, 1, 3 * CELL + 5, HOLE);
	cr_assert_eq(extent_map_peek(&map, 0, CELL), VOLUME_PEEK_UNKNOWN);
	cr_assert_eq(extent_map_peek(&map, CELL, 3 * CELL + 5), VOLUME_PEEK_ZERO);
	cr_assert_eq(extent_map_run(&map, CELL + 7, 3 * CELL + 5, &flags), 2 * CELL - 2);
	cr_assert_eq(flags, HOLE);
	examine(&map, CELL, 2 * CELL, VOLUME_EXTENT_ZERO);
	cr_assert_eq(extent_map_run(&map, CELL, 3 * CELL, &flags), CELL);
	cr_assert_eq(flags, VOLUME_EXTENT_ZERO);
	examine(&map, 2 * CELL, 3 * CELL, 0);
	cr_assert_eq(extent_map_peek(&map, 2 * CELL, 3 * CELL), VOLUME_PEEK_DATA);
	cr_assert_eq(extent_map_peek(&map, CELL, 3 * CELL), VOLUME_PEEK_MIXED);
	extent_map_fini(&map);
}

Test(extent_map, a_write_ends_what_was_known_unless_it_was_data)
{
	struct extent_map map;

	cr_assert_eq(extent_map_init(&map, 4 * CELL), 0);
	examine(&map, 0, 2 * CELL, HOLE);
	examine(&map, 2 * CELL, 4 * CELL, 0);
	extent_map_wrote(&map, CELL - 1, CELL + 1);
	cr_assert_eq(extent_map_peek(&map, 0, CELL), VOLUME_PEEK_UNKNOWN);
	cr_assert_eq(extent_map_peek(&map, CELL, 2 * CELL), VOLUME_PEEK_UNKNOWN);
	extent_map_wrote(&map, 2 * CELL, 2 * CELL + 1);
	cr_assert_eq(extent_map_peek(&map, 2 * CELL, 4 * CELL), VOLUME_PEEK_DATA);
	extent_map_wrote(&map, 0, CELL);
	cr_assert_eq(extent_map_peek(&map, 0, CELL), VOLUME_PEEK_DATA);
	extent_map_fini(&map);
}

Test(extent_map, a_write_beside_the_examiner_wins)
{
	struct extent_map map;

	cr_assert_eq(extent_map_init(&map, 2 * CELL), 0);
	extent_map_begin(&map, 0, 2 * CELL);
	extent_map_wrote(&map, 10, 20);
	extent_map_learn(&map, 0, 2 * CELL, HOLE);
	extent_map_end(&map, 0, 2 * CELL);
	cr_assert_eq(extent_map_peek(&map, 0, CELL), VOLUME_PEEK_UNKNOWN);
	cr_assert_eq(extent_map_peek(&map, CELL, 2 * CELL), VOLUME_PEEK_ZERO);
	extent_map_begin(&map, 0, 2 * CELL);
	extent_map_learn(&map, 0, 2 * CELL, HOLE);
	extent_map_wrote(&map, 10, 20);
	extent_map_end(&map, 0, 2 * CELL);
	cr_assert_eq(extent_map_peek(&map, 0, CELL), VOLUME_PEEK_UNKNOWN);
	extent_map_fini(&map);
}

Test(extent_map, is_bounded_however_large_the_volume)
{
	uint64_t size_bytes = (uint64_t)1 << 60;
	struct extent_map map;

	cr_assert_eq(extent_map_init(&map, size_bytes), 0);
	cr_assert_geq(extent_map_cell_end(&map, 0), size_bytes / EXTENT_MAP_CELLS_MAX);
	examine(&map, 0, size_bytes, HOLE);
	cr_assert_eq(extent_map_peek(&map, size_bytes - 1, size_bytes), VOLUME_PEEK_ZERO);
	extent_map_wrote(&map, size_bytes - 1, size_bytes);
	cr_assert_eq(extent_map_peek(&map, size_bytes - 1, size_bytes), VOLUME_PEEK_UNKNOWN);
	extent_map_fini(&map);
}

Test(extent_map, what_came_to_the_volume_is_not_known_and_then_learned)
{
	struct extent_map map;
	uint32_t flags;

	cr_assert_eq(extent_map_init(&map, 2 * CELL + 5), 0);
	examine(&map, 0, 2 * CELL + 5, HOLE);
	extent_map_grow(&map, 4 * CELL + 7);
	cr_assert_eq(extent_map_peek(&map, 0, 2 * CELL), VOLUME_PEEK_ZERO);
	cr_assert_eq(extent_map_peek(&map, 2 * CELL, 2 * CELL + 5), VOLUME_PEEK_UNKNOWN);
	cr_assert_eq(extent_map_run(&map, 2 * CELL, 4 * CELL, &flags), 0);
	cr_assert_eq(extent_map_peek(&map, 3 * CELL, 4 * CELL + 7), VOLUME_PEEK_UNKNOWN);
	cr_assert_eq(extent_map_cell_end(&map, 4 * CELL + 1), 4 * CELL + 7);
	examine(&map, 2 * CELL, 4 * CELL + 7, HOLE);
	cr_assert_eq(extent_map_peek(&map, 0, 4 * CELL + 7), VOLUME_PEEK_ZERO);
	extent_map_wrote(&map, 4 * CELL, 4 * CELL + 7);
	cr_assert_eq(extent_map_peek(&map, 4 * CELL, 4 * CELL + 7), VOLUME_PEEK_DATA);
	extent_map_fini(&map);
}

/* The examiner has asked for all that there was when it began; what is behind that it does not know. */
Test(extent_map, growing_beside_the_examiner_leaves_the_last_cell_unknown)
{
	struct extent_map map;

	cr_assert_eq(extent_map_init(&map, CELL + 5), 0);
	extent_map_begin(&map, 0, CELL + 5);
	extent_map_grow(&map, 3 * CELL);
	extent_map_learn(&map, 0, CELL + 5, HOLE);
	extent_map_end(&map, 0, CELL + 5);
	cr_assert_eq(extent_map_peek(&map, 0, CELL), VOLUME_PEEK_ZERO);
	cr_assert_eq(extent_map_peek(&map, CELL, CELL + 5), VOLUME_PEEK_UNKNOWN);
	extent_map_begin(&map, 0, 3 * CELL);
	extent_map_learn(&map, 0, 3 * CELL - 1, HOLE);
	extent_map_grow(&map, 3 * CELL + 9);
	extent_map_end(&map, 0, 3 * CELL);
	cr_assert_eq(extent_map_peek(&map, CELL, 2 * CELL), VOLUME_PEEK_ZERO);
	cr_assert_eq(extent_map_peek(&map, 2 * CELL, 3 * CELL), VOLUME_PEEK_UNKNOWN);
	extent_map_fini(&map);
}

/* Growth a thousandfold, in steps: nothing is known after a step that changes the cells, and all can be learned. */
Test(extent_map, larger_cells_replace_those_that_become_too_many)
{
	uint64_t room = EXTENT_MAP_CELLS_GROWN * CELL, cell_bytes = CELL;
	struct extent_map map;
	uint32_t flags;

	cr_assert_eq(extent_map_init(&map, CELL), 0);
	extent_map_grow(&map, room);
	cr_assert_eq(extent_map_cell_end(&map, 0), CELL);
	examine(&map, 0, room, HOLE);
	for (unsigned i = 1; i <= 5; i++) {
		uint64_t size_bytes = room << 3 * i;

		extent_map_grow(&map, size_bytes);
		cr_assert_gt(extent_map_cell_end(&map, 0), cell_bytes);
		cell_bytes = extent_map_cell_end(&map, 0);
		cr_assert_leq(size_bytes / cell_bytes, EXTENT_MAP_CELLS_MAX);
		cr_assert_eq(extent_map_run(&map, 0, size_bytes, &flags), 0);
		cr_assert_eq(extent_map_peek(&map, 0, 1), VOLUME_PEEK_UNKNOWN);
		examine(&map, 0, size_bytes, HOLE);
		cr_assert_eq(extent_map_run(&map, 0, size_bytes, &flags), size_bytes);
		extent_map_wrote(&map, size_bytes - 1, size_bytes);
		cr_assert_eq(extent_map_peek(&map, size_bytes - 1, size_bytes),
			     VOLUME_PEEK_UNKNOWN);
	}
	extent_map_fini(&map);
}

/* What it has asked for may have been written since, by who told it the larger cells only, or neither. */
Test(extent_map, an_examiner_whose_cells_are_replaced_learns_nothing)
{
	uint64_t size_bytes = 2 * EXTENT_MAP_CELLS_GROWN * CELL;
	struct extent_map map;
	uint32_t flags;

	cr_assert_eq(extent_map_init(&map, 4 * CELL), 0);
	extent_map_begin(&map, 0, 4 * CELL);
	extent_map_grow(&map, size_bytes);
	extent_map_wrote(&map, CELL, CELL + 1);
	extent_map_learn(&map, 0, 4 * CELL, HOLE);
	extent_map_end(&map, 0, 4 * CELL);
	cr_assert_eq(extent_map_run(&map, 0, size_bytes, &flags), 0);
	examine(&map, 0, size_bytes, HOLE);
	cr_assert_eq(extent_map_run(&map, 0, size_bytes, &flags), size_bytes);
	extent_map_fini(&map);
}

/* What others do is not heard of: not even what they undo. */
Test(extent_map, doubted_it_knows_nothing_and_then_learns_anew)
{
	struct extent_map map;
	uint32_t flags;

	cr_assert_eq(extent_map_init(&map, 2 * CELL), 0);
	examine(&map, 0, 2 * CELL, HOLE);
	extent_map_doubt(&map, true);
	cr_assert_eq(extent_map_peek(&map, 0, CELL), VOLUME_PEEK_UNKNOWN);
	cr_assert_eq(extent_map_run(&map, 0, 2 * CELL, &flags), 0);
	examine(&map, 0, CELL, HOLE);
	cr_assert_eq(extent_map_peek(&map, 0, CELL), VOLUME_PEEK_UNKNOWN);
	extent_map_begin(&map, CELL, 2 * CELL);
	extent_map_doubt(&map, false);
	extent_map_learn(&map, CELL, 2 * CELL, HOLE);
	extent_map_end(&map, CELL, 2 * CELL);
	cr_assert_eq(extent_map_peek(&map, 0, CELL), VOLUME_PEEK_UNKNOWN);
	cr_assert_eq(extent_map_peek(&map, CELL, 2 * CELL), VOLUME_PEEK_UNKNOWN);
	examine(&map, 0, 2 * CELL, HOLE);
	cr_assert_eq(extent_map_peek(&map, 0, 2 * CELL), VOLUME_PEEK_ZERO);
	extent_map_fini(&map);
}

/* ---- examiners that wait ---- */

struct examiner {
	struct extent_map *map;
	char name, *order;
};

static void *
examiner_main(void *argument)
{
	const struct examiner *examiner = argument;

	extent_map_begin(examiner->map, 0, CELL);
	strncat(examiner->order, &examiner->name, 1);
	extent_map_end(examiner->map, 0, CELL);
	return NULL;
}

static void
wait_until_begun(struct extent_map *map, uint64_t count)
{
	uint64_t begun = 0;

	while (begun < count) {
		pthread_mutex_lock(&map->lock);
		begun = map->begun;
		pthread_mutex_unlock(&map->lock);
		usleep(100);
	}
}

/* Who has just ended comes behind who waits, though nothing would have to wake him up. */
Test(extent_map, examiners_have_their_turns_in_order, .timeout = 20)
{
	struct extent_map map;
	char order[4] = "";
	struct examiner examiners[2] = { { &map, 'a', order }, { &map, 'b', order } };
	pthread_t threads[2];

	cr_assert_eq(extent_map_init(&map, CELL), 0);
	extent_map_begin(&map, 0, CELL);
	for (unsigned i = 0; i < 2; i++) {
		cr_assert_eq(pthread_create(&threads[i], NULL, examiner_main, &examiners[i]), 0);
		wait_until_begun(&map, i + 2);
	}
	cr_assert_str_eq(order, "");
	extent_map_end(&map, 0, CELL);
	extent_map_begin(&map, 0, CELL);
	cr_assert_str_eq(order, "ab");
	extent_map_end(&map, 0, CELL);
	for (unsigned i = 0; i < 2; i++)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
	extent_map_fini(&map);
}
