/* What an extent map remembers, and what it must not. */
#include <criterion/criterion.h>

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

Test(extent_map, remembers_nothing_behind_its_last_cell)
{
	uint64_t end = EXTENT_MAP_CELLS_GROWN * CELL;
	struct extent_map map;
	uint32_t flags;

	cr_assert_eq(extent_map_init(&map, CELL), 0);
	for (unsigned i = 1; i <= 2; i++) {
		extent_map_grow(&map, end * 2 * i);
		cr_assert_eq(extent_map_cell_end(&map, 0), CELL);
		examine(&map, end - CELL, end + CELL, HOLE);
		cr_assert_eq(extent_map_peek(&map, end - CELL, end), VOLUME_PEEK_ZERO);
		cr_assert_eq(extent_map_peek(&map, end - CELL, end + 1), VOLUME_PEEK_UNKNOWN);
		cr_assert_eq(extent_map_peek(&map, end, end + 1), VOLUME_PEEK_UNKNOWN);
		cr_assert_eq(extent_map_run(&map, end, end + 1, &flags), 0);
		extent_map_wrote(&map, end - 1, end + 1);
		cr_assert_eq(extent_map_peek(&map, end - CELL, end), VOLUME_PEEK_UNKNOWN);
	}
	extent_map_fini(&map);
}
