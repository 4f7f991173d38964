/* The map of touched pages, against an array of bytes. */
#include "disk/page_map.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/seed.h"

#define PAGES 1000u

Test(page_map, does_what_an_array_does)
{
	unsigned seed = (unsigned)test_seed();
	struct page_map *map;
	bool model[PAGES] = { false };

	cr_assert_eq(page_map_create(PAGES, &map), 0);
	for (unsigned round = 0; round < 20000; round++) {
		unsigned first = (unsigned)rand_r(&seed) % PAGES;
		unsigned end = first + 1 + (unsigned)rand_r(&seed) % (PAGES - first);
		unsigned expected = 1;
		bool set;

		if (rand_r(&seed) % 4 == 0 && end > first + 3)
			end = first + 3;
		switch (rand_r(&seed) % 3) {
		case 0:
			page_map_set(map, first, end);
			memset(model + first, 1, end - first);
			break;
		case 1:
			page_map_clear(map, first, end);
			memset(model + first, 0, end - first);
			break;
		default:
			while (first + expected < end && model[first + expected] == model[first])
				expected++;
			cr_assert_eq(page_map_run(map, first, end, &set), expected);
			cr_assert_eq(set, model[first]);
		}
	}
	page_map_destroy(map);
}

Test(page_map, looks_at_a_long_run_in_parts)
{
	struct page_map *map;
	bool set;

	cr_assert_eq(page_map_create((uint64_t)1 << 40, &map), 0);
	page_map_set(map, ((uint64_t)1 << 39) + 5, ((uint64_t)1 << 39) + 6);
	cr_assert_eq(page_map_run(map, 0, (uint64_t)1 << 40, &set), PAGE_MAP_LOOK_MAX);
	cr_assert_not(set);
	cr_assert_eq(page_map_run(map, (uint64_t)1 << 39, (uint64_t)1 << 40, &set), 5);
	cr_assert_eq(page_map_run(map, ((uint64_t)1 << 39) + 5, (uint64_t)1 << 40, &set), 1);
	cr_assert(set);
	page_map_destroy(map);
}
