/* What is remembered of where a volume's data is: a byte for each cell of it, at most EXTENT_MAP_CELLS_MAX of them, however large it is.
 * A volume that grows gets more of them, up to EXTENT_MAP_CELLS_GROWN; then larger ones take their place, and all is learned anew.
 *
 * Nothing that holds data may ever be called zeros.  So who learns what a cell is like (the examiner) says so first, and what was learned
 * counts only if no write has ended in the cell meanwhile:
 *	examiner: begin -> ask the file system, or make zeros -> learn what came of it -> end
 *	writer, before its write is acknowledged: wrote
 * Any thread may call, but only one examiner is at work at one time: else one could take the other's beginning for its own.  The others
 * wait in the order in which they came. */
#ifndef DISK_EXTENT_MAP_H
#define DISK_EXTENT_MAP_H

#include <pthread.h>

#include "disk/volume.h"
#include "reactor/check.h"

#define EXTENT_MAP_CELLS_MAX	  ((uint64_t)1 << 20)
#define EXTENT_MAP_CELLS_GROWN	  (4 * EXTENT_MAP_CELLS_MAX)
#define EXTENT_MAP_CELL_BYTES_MIN ((uint64_t)1 << 16)

/* Private: cells of one size. */
struct extent_cells {
	unsigned shift;
	/* Atomic, relaxed: only extent_map_grow changes them. */
	uint64_t size_bytes; /* of the part that has cells */
	uint64_t count;
	/* Room for EXTENT_MAP_CELLS_GROWN, of which what was never written takes no memory.
	 * Atomic.  The kernel has the write before its owner stores here (release), and whoever sees the store (acquire) can read
	 * what was written. */
	uint8_t *cells;
	/* Smaller ones, all unknown: kept for who found them before they were replaced. */
	struct extent_cells *older;
};

struct extent_map {
	/* Private. */
	/* Atomic: who sees it (acquire) sees what is in it.  A writer that finds older ones though others were there has ended before
	 * the examiner of those asked. */
	struct extent_cells *current;
	bool doubted; /* atomic */
	pthread_mutex_t lock;
	pthread_cond_t turn;
	/* Under the lock: how many examiners have, those that wait for their turn included. */
	uint64_t begun, ended;
};

/* Create the map of a volume of SIZE_BYTES, of which nothing is known.  Returns 0 or -ENOMEM. */
int extent_map_init(struct extent_map *map, uint64_t size_bytes) MUST_USE;
void extent_map_fini(struct extent_map *map);

/* The volume has SIZE_BYTES now, more than before; nothing is known of the new part, nor of the cell that had the end in it.  Cells that
 * begin to be too many are replaced by larger ones, of which nothing is known; where there is no memory for these, nothing is remembered
 * of what is behind the last cell.  Before anybody may ask for what is behind the old end; one thread at a time. */
void extent_map_grow(struct extent_map *map, uint64_t size_bytes);

/* doubted: from now on others may write without saying so, or the volume's end is gone, and nothing is known; else that is not so any
 * more, and all is learned anew.  Before others can begin, and when they have ended; any thread. */
void extent_map_doubt(struct extent_map *map, bool doubted);

/* All ranges: bytes from START to END, within the volume and not empty. */

/* A write is over, whether it succeeded or not, and not yet acknowledged. */
void extent_map_wrote(struct extent_map *map, uint64_t start, uint64_t end);

/* The examiner begins, which waits until those that came before have ended; all of START to END is like FLAGS (VOLUME_EXTENT_) since; it
 * ends, with the range that it began with. */
void extent_map_begin(struct extent_map *map, uint64_t start, uint64_t end);
void extent_map_learn(struct extent_map *map, uint64_t start, uint64_t end, uint32_t flags);
void extent_map_end(struct extent_map *map, uint64_t start, uint64_t end);

/* Where the cell of OFFSET starts, and the one behind it. */
uint64_t extent_map_cell_start(const struct extent_map *map, uint64_t offset);
uint64_t extent_map_cell_end(const struct extent_map *map, uint64_t offset);

/* How many bytes from START on, up to END, are known to be like *flags; 0: it is not known. */
uint64_t extent_map_run(const struct extent_map *map, uint64_t start, uint64_t end,
			uint32_t *flags);

/* As volume_peek. */
enum volume_peek extent_map_peek(const struct extent_map *map, uint64_t start, uint64_t end);

#endif
