/* An arena of jemalloc's for a thread's own: what the thread allocates is not mixed with what others allocate, no lock
 * is contended for it, and because the thread is the first to touch it, it comes from the thread's NUMA node.
 * malloc and free are used as ever; any thread may free it, also after the thread has left the arena.
 * Where malloc is not jemalloc's (a sanitizer's, or a program's that links another), there is none: memory is shared. */
#ifndef REACTOR_ARENA_H
#define REACTOR_ARENA_H

#include "reactor/check.h"
#include <stdbool.h>

#define ARENAS_MAX 512 /* of one process; jemalloc itself ends at 4095 */

/* Owned and embedded by whoever owns the thread. */
struct arena {
	/* Private. */
	bool entered;
	unsigned index;	 /* jemalloc's */
	unsigned before; /* the arena that the thread had */
	int numa_node;
};

/* Have the calling thread allocate from an arena that no other thread is in, until it calls arena_leave.
 * numa_node: where the thread runs, or -1.  An arena that was left there is used again, because its pages are there.
 * ARENA needs no preparation.  What the thread has allocated before stays where it is.
 * Returns 0, or a negative errno; then the thread allocates as before, and arena_leave may be called but does nothing.
 * Errors: -ENOTSUP malloc is not jemalloc's; -EAGAIN there are ARENAS_MAX, and none was left on the node; those of
 * mallctl(3).
 * Source: jemalloc(3), arenas.create, thread.arena, thread.tcache.flush. */
int arena_enter(struct arena *arena, int numa_node) MUST_USE;

/* Have the calling thread, which entered ARENA, allocate as it did before; another may enter the arena from now on.
 * What was allocated there stays valid, and whoever frees it gives it back to the arena. */
void arena_leave(struct arena *arena);

#endif
