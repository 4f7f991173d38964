/* One byte per cell.  A cell of data stays one when a part of it is written: the common case is a load. */
#include "disk/extent_map.h"

#include <errno.h>
#include <stdlib.h>
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

static struct extent_cells *
cells_of(const struct extent_map *map)
{
	return __atomic_load_n(&map->current, __ATOMIC_ACQUIRE);
}

static uint64_t
size_of(const struct extent_cells *cells)
{
	return __atomic_load_n(&cells->size_bytes, __ATOMIC_RELAXED);
}

static uint64_t
count_of(const struct extent_cells *cells)
{
	return __atomic_load_n(&cells->count, __ATOMIC_RELAXED);
}

static uint8_t
get(const struct extent_cells *cells, uint64_t cell)
{
	return __atomic_load_n(&cells->cells[cell], __ATOMIC_ACQUIRE);
}

static void
set(struct extent_cells *cells, uint64_t cell, uint8_t value)
{
	__atomic_store_n(&cells->cells[cell], value, __ATOMIC_RELEASE);
}

/* Cells for SIZE_BYTES, of which nothing is known; NULL: no memory. */
static struct extent_cells *
cells_create(uint64_t size_bytes)
{
	struct extent_cells *cells = calloc(1, sizeof(*cells));

	if (cells == NULL)
		return NULL;
	cells->cells = mmap(NULL, EXTENT_MAP_CELLS_GROWN, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (cells->cells == MAP_FAILED) {
		free(cells);
		return NULL;
	}
	/* A huge page would be taken for a few bytes. */
	(void)madvise(cells->cells, EXTENT_MAP_CELLS_GROWN, MADV_NOHUGEPAGE);
	cells->size_bytes = size_bytes;
	cells->shift = (unsigned)__builtin_ctzll(EXTENT_MAP_CELL_BYTES_MIN);
	while (((size_bytes - 1) >> cells->shift) >= EXTENT_MAP_CELLS_MAX)
		cells->shift++;
	cells->count = ((size_bytes - 1) >> cells->shift) + 1;
	return cells;
}

int
extent_map_init(struct extent_map *map, uint64_t size_bytes)
{
	map->doubted = false;
	map->begun = map->ended = 0;
	map->current = cells_create(size_bytes);
	if (map->current == NULL)
		return -ENOMEM;
	pthread_mutex_init(&map->lock, NULL);
	pthread_cond_init(&map->turn, NULL);
	return 0;
}

void
extent_map_fini(struct extent_map *map)
{
	struct extent_cells *cells = map->current;

	if (cells == NULL)
		return;
	pthread_mutex_destroy(&map->lock);
	pthread_cond_destroy(&map->turn);
	while (cells != NULL) {
		struct extent_cells *older = cells->older;

		(void)munmap(cells->cells, EXTENT_MAP_CELLS_GROWN);
		free(cells);
		cells = older;
	}
	map->current = NULL;
}

/* The same cells and more of them, up to SIZE_BYTES. */
static void
add_cells(struct extent_cells *cells, uint64_t size_bytes)
{
	uint64_t last = cells->count - 1;

	__atomic_store_n(&cells->size_bytes, size_bytes, __ATOMIC_RELAXED);
	/* An examiner that began before this learns nothing of the cell; one that begins behind it sees the new size: what it finds up to the
	 * old one does not cover the cell.  Pairs with the fence in extent_map_begin. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	set(cells, last, CELL_UNKNOWN);
	__atomic_store_n(&cells->count, ((size_bytes - 1) >> cells->shift) + 1, __ATOMIC_RELAXED);
}

void
extent_map_grow(struct extent_map *map, uint64_t size_bytes)
{
	struct extent_cells *cells = map->current, *larger = NULL;
	uint64_t size_max = EXTENT_MAP_CELLS_GROWN << cells->shift;

	if (size_bytes > size_max)
		larger = cells_create(size_bytes);
	if (larger == NULL) {
		if (size_bytes > size_max)
			size_bytes = size_max;
		if (size_bytes > cells->size_bytes)
			add_cells(cells, size_bytes);
		return;
	}
	larger->older = cells;
	__atomic_store_n(&map->current, larger, __ATOMIC_RELEASE);
	/* All unknown, and no memory but for what late writers touch: an examiner that goes on with the larger learns nothing, for it has not
	 * begun there. */
	(void)madvise(cells->cells, EXTENT_MAP_CELLS_GROWN, MADV_DONTNEED);
}

void
extent_map_doubt(struct extent_map *map, bool doubted)
{
	struct extent_cells *cells = cells_of(map);

	/* What an examiner asked before counts no more: its cells are taken from it. */
	for (uint64_t cell = 0; !doubted && cell < count_of(cells); cell++)
		set(cells, cell, CELL_UNKNOWN);
	/* Who doubts goes on, to whoever writes then, by way of locks and messages. */
	__atomic_store_n(&map->doubted, doubted, __ATOMIC_RELEASE);
}

static bool
is_doubted(const struct extent_map *map)
{
	return __atomic_load_n(&map->doubted, __ATOMIC_ACQUIRE);
}

static uint64_t
end_of(const struct extent_cells *cells, uint64_t offset)
{
	uint64_t end = ((offset >> cells->shift) + 1) << cells->shift;
	uint64_t size_bytes = size_of(cells);

	return end < size_bytes ? end : size_bytes;
}

uint64_t
extent_map_cell_start(const struct extent_map *map, uint64_t offset)
{
	unsigned shift = cells_of(map)->shift;

	return offset >> shift << shift;
}

uint64_t
extent_map_cell_end(const struct extent_map *map, uint64_t offset)
{
	return end_of(cells_of(map), offset);
}

/* Whether START to END has all of CELL. */
static bool
covers(const struct extent_cells *cells, uint64_t start, uint64_t end, uint64_t cell)
{
	uint64_t cell_start = cell << cells->shift;

	return start <= cell_start && end >= end_of(cells, cell_start);
}

/* The cell behind that of the last byte before END; behind the last cell nothing is remembered. */
static uint64_t
cells_end(const struct extent_cells *cells, uint64_t end)
{
	uint64_t cell = ((end - 1) >> cells->shift) + 1, count = count_of(cells);

	return cell < count ? cell : count;
}

void
extent_map_wrote(struct extent_map *map, uint64_t start, uint64_t end)
{
	struct extent_cells *cells = cells_of(map);

	for (uint64_t cell = start >> cells->shift; cell < cells_end(cells, end); cell++) {
		uint8_t was = get(cells, cell);

		if (was == CELL_DATA)
			continue;
		if (covers(cells, start, end, cell))
			set(cells, cell, CELL_DATA);
		else if (was != CELL_UNKNOWN)
			set(cells, cell, CELL_UNKNOWN);
	}
}

static void
wait_for_turn(struct extent_map *map)
{
	uint64_t turn;

	pthread_mutex_lock(&map->lock);
	turn = map->begun++;
	while (map->ended != turn)
		pthread_cond_wait(&map->turn, &map->lock);
	pthread_mutex_unlock(&map->lock);
}

static void
end_turn(struct extent_map *map)
{
	pthread_mutex_lock(&map->lock);
	map->ended++;
	pthread_cond_broadcast(&map->turn);
	pthread_mutex_unlock(&map->lock);
}

void
extent_map_begin(struct extent_map *map, uint64_t start, uint64_t end)
{
	struct extent_cells *cells;

	wait_for_turn(map);
	cells = cells_of(map);
	for (uint64_t cell = start >> cells->shift; cell < cells_end(cells, end); cell++)
		set(cells, cell, CELL_EXAMINED);
	/* A write that ended before it could see this is seen by what the examiner asks next. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void
replace(struct extent_cells *cells, uint64_t cell, uint8_t value)
{
	uint8_t expected = CELL_EXAMINED;

	(void)__atomic_compare_exchange_n(&cells->cells[cell], &expected, value, false,
					  __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
}

void
extent_map_learn(struct extent_map *map, uint64_t start, uint64_t end, uint32_t flags)
{
	struct extent_cells *cells = cells_of(map);
	uint8_t value = (flags & VOLUME_EXTENT_ZERO) == 0   ? CELL_DATA
			: (flags & VOLUME_EXTENT_HOLE) != 0 ? CELL_HOLE
							    : CELL_ZERO;

	for (uint64_t cell = start >> cells->shift; cell < cells_end(cells, end); cell++) {
		if (covers(cells, start, end, cell))
			replace(cells, cell, value);
	}
}

void
extent_map_end(struct extent_map *map, uint64_t start, uint64_t end)
{
	struct extent_cells *cells = cells_of(map);

	for (uint64_t cell = start >> cells->shift; cell < cells_end(cells, end); cell++)
		replace(cells, cell, CELL_UNKNOWN);
	end_turn(map);
}

static bool
is_known(uint8_t cell)
{
	return cell != CELL_UNKNOWN && cell != CELL_EXAMINED;
}

uint64_t
extent_map_run(const struct extent_map *map, uint64_t start, uint64_t end, uint32_t *flags)
{
	const struct extent_cells *cells = cells_of(map);
	uint64_t cell = start >> cells->shift, stop = cells_end(cells, end), run_end;
	uint8_t first;

	if (cell >= stop || is_doubted(map))
		return 0;
	first = get(cells, cell);
	if (!is_known(first))
		return 0;
	while (cell < stop && get(cells, cell) == first)
		cell++;
	run_end = end_of(cells, (cell - 1) << cells->shift);
	*flags = flags_of[first];
	return (run_end < end ? run_end : end) - start;
}

enum volume_peek
extent_map_peek(const struct extent_map *map, uint64_t start, uint64_t end)
{
	const struct extent_cells *cells = cells_of(map);
	bool data = false, zero = false;

	if (((end - 1) >> cells->shift) >= count_of(cells) || is_doubted(map))
		return VOLUME_PEEK_UNKNOWN;
	for (uint64_t cell = start >> cells->shift; cell < cells_end(cells, end); cell++) {
		uint8_t is = get(cells, cell);

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
