/* One byte per cell.  A cell of data stays one when a part of it is written: the common case is a load. */
#include "disk/extent_map.h"

#include <errno.h>
#include <sys/mman.h>

enum cell {
	CELL_UNKNOWN, /* also: some of this and some of that */
	CELL_DATA,
	CELL_HOLE,
	CELL_ZERO,
	CELL_EXAMINED,
};

static const uint32_t flags_of[] = {
	[CELL_DATA] = 0,
	[CELL_HOLE] = VOLUME_EXTENT_HOLE | VOLUME_EXTENT_ZERO,
	[CELL_ZERO] = VOLUME_EXTENT_ZERO,
};

static uint64_t
size_of(const struct extent_map *map)
{
	return __atomic_load_n(&map->size_bytes, __ATOMIC_RELAXED);
}

static uint64_t
count_of(const struct extent_map *map)
{
	return __atomic_load_n(&map->cell_count, __ATOMIC_RELAXED);
}

static void
set(struct extent_map *map, uint64_t cell, uint8_t value)
{
	__atomic_store_n(&map->cells[cell], value, __ATOMIC_RELEASE);
}

int
extent_map_init(struct extent_map *map, uint64_t size_bytes)
{
	void *cells = mmap(NULL, EXTENT_MAP_CELLS_GROWN, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (cells == MAP_FAILED)
		return -ENOMEM;
	/* A huge page would be taken for a few bytes. */
	(void)madvise(cells, EXTENT_MAP_CELLS_GROWN, MADV_NOHUGEPAGE);
	map->cells = cells;
	map->examined = false;
	map->size_bytes = size_bytes;
	map->cell_shift = (unsigned)__builtin_ctzll(EXTENT_MAP_CELL_BYTES_MIN);
	while (((size_bytes - 1) >> map->cell_shift) >= EXTENT_MAP_CELLS_MAX)
		map->cell_shift++;
	map->cell_count = ((size_bytes - 1) >> map->cell_shift) + 1;
	return 0;
}

void
extent_map_fini(struct extent_map *map)
{
	if (map->cells != NULL)
		(void)munmap(map->cells, EXTENT_MAP_CELLS_GROWN);
}

void
extent_map_grow(struct extent_map *map, uint64_t size_bytes)
{
	uint64_t size_max = EXTENT_MAP_CELLS_GROWN << map->cell_shift;
	uint64_t last = map->cell_count - 1;

	if (size_bytes > size_max)
		size_bytes = size_max;
	if (size_bytes <= map->size_bytes)
		return;
	__atomic_store_n(&map->size_bytes, size_bytes, __ATOMIC_RELAXED);
	/* An examiner that began before this learns nothing of the cell; one that begins behind it sees the new size: what it finds up to the
	 * old one does not cover the cell.  Pairs with the fence in extent_map_begin. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	set(map, last, CELL_UNKNOWN);
	__atomic_store_n(&map->cell_count, ((size_bytes - 1) >> map->cell_shift) + 1,
			 __ATOMIC_RELAXED);
}

uint64_t
extent_map_cell_start(const struct extent_map *map, uint64_t offset)
{
	return offset >> map->cell_shift << map->cell_shift;
}

uint64_t
extent_map_cell_end(const struct extent_map *map, uint64_t offset)
{
	uint64_t end = ((offset >> map->cell_shift) + 1) << map->cell_shift;
	uint64_t size_bytes = size_of(map);

	return end < size_bytes ? end : size_bytes;
}

static uint8_t
get(const struct extent_map *map, uint64_t cell)
{
	return __atomic_load_n(&map->cells[cell], __ATOMIC_ACQUIRE);
}

/* Whether START to END has all of CELL. */
static bool
covers(const struct extent_map *map, uint64_t start, uint64_t end, uint64_t cell)
{
	uint64_t cell_start = cell << map->cell_shift;

	return start <= cell_start && end >= extent_map_cell_end(map, cell_start);
}

/* The cell behind that of the last byte before END; behind the last cell nothing is remembered. */
static uint64_t
cells_end(const struct extent_map *map, uint64_t end)
{
	uint64_t cell = ((end - 1) >> map->cell_shift) + 1, count = count_of(map);

	return cell < count ? cell : count;
}

void
extent_map_wrote(struct extent_map *map, uint64_t start, uint64_t end)
{
	for (uint64_t cell = start >> map->cell_shift; cell < cells_end(map, end); cell++) {
		uint8_t was = get(map, cell);

		if (was == CELL_DATA)
			continue;
		if (covers(map, start, end, cell))
			set(map, cell, CELL_DATA);
		else if (was != CELL_UNKNOWN)
			set(map, cell, CELL_UNKNOWN);
	}
}

void
extent_map_begin(struct extent_map *map, uint64_t start, uint64_t end)
{
	CHECK(!__atomic_exchange_n(&map->examined, true, __ATOMIC_ACQUIRE));
	for (uint64_t cell = start >> map->cell_shift; cell < cells_end(map, end); cell++)
		set(map, cell, CELL_EXAMINED);
	/* A write that ended before it could see this is seen by what the examiner asks next. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void
replace(struct extent_map *map, uint64_t cell, uint8_t value)
{
	uint8_t expected = CELL_EXAMINED;

	(void)__atomic_compare_exchange_n(&map->cells[cell], &expected, value, false,
					  __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

void
extent_map_learn(struct extent_map *map, uint64_t start, uint64_t end, uint32_t flags)
{
	uint8_t value = (flags & VOLUME_EXTENT_ZERO) == 0   ? CELL_DATA
			: (flags & VOLUME_EXTENT_HOLE) != 0 ? CELL_HOLE
							    : CELL_ZERO;

	for (uint64_t cell = start >> map->cell_shift; cell < cells_end(map, end); cell++) {
		if (covers(map, start, end, cell))
			replace(map, cell, value);
	}
}

void
extent_map_end(struct extent_map *map, uint64_t start, uint64_t end)
{
	for (uint64_t cell = start >> map->cell_shift; cell < cells_end(map, end); cell++)
		replace(map, cell, CELL_UNKNOWN);
	__atomic_store_n(&map->examined, false, __ATOMIC_RELEASE);
}

static bool
is_known(uint8_t cell)
{
	return cell != CELL_UNKNOWN && cell != CELL_EXAMINED;
}

uint64_t
extent_map_run(const struct extent_map *map, uint64_t start, uint64_t end, uint32_t *flags)
{
	uint64_t cell = start >> map->cell_shift, stop = cells_end(map, end), run_end;
	uint8_t first;

	if (cell >= stop)
		return 0;
	first = get(map, cell);
	if (!is_known(first))
		return 0;
	while (cell < stop && get(map, cell) == first)
		cell++;
	run_end = extent_map_cell_end(map, (cell - 1) << map->cell_shift);
	*flags = flags_of[first];
	return (run_end < end ? run_end : end) - start;
}

enum volume_peek
extent_map_peek(const struct extent_map *map, uint64_t start, uint64_t end)
{
	bool data = false, zero = false;

	if (((end - 1) >> map->cell_shift) >= count_of(map))
		return VOLUME_PEEK_UNKNOWN;
	for (uint64_t cell = start >> map->cell_shift; cell < cells_end(map, end); cell++) {
		uint8_t is = get(map, cell);

		if (!is_known(is))
			return VOLUME_PEEK_UNKNOWN;
		if (is == CELL_DATA)
			data = true;
		else
			zero = true;
	}
	if (data && zero)
		return VOLUME_PEEK_MIXED;
	return data ? VOLUME_PEEK_DATA : VOLUME_PEEK_ZERO;
}
