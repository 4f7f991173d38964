/* What a server has done, in a file that it and bench/loops/load.c map: the one writes, the other reads the two ends of
 * its window. */
#ifndef BENCH_LOOPS_COUNTERS_H
#define BENCH_LOOPS_COUNTERS_H

#include <stdint.h>

struct counters {
	/* Atomic, relaxed: nothing is ordered by them. */
	uint64_t reads;	 /* blocks read from the disk */
	uint64_t tokens; /* tokens received, which is ready events */
};

/* Map the file at PATH, which has room for them.  Exits if that fails. */
struct counters *counters_map(const char *path);

static inline void
counters_add(uint64_t *counter, uint64_t count)
{
	/* One writer: no locked instruction. */
	__atomic_store_n(counter, *counter + count, __ATOMIC_RELAXED);
}

static inline uint64_t
counters_get(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

#endif
