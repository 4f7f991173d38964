/* Entering and leaving arenas, and keeping those that were left.
 * An arena is never destroyed: the memory in it outlives the thread, as a core's reactor does that another thread frees.
 * So they are kept and used again, and there are no more of them than were in use at one time on each node. */
#include "reactor/arena.h"

#include <errno.h>
#include <jemalloc/jemalloc.h>
#include <pthread.h>
#include <stddef.h>

/* NULL where malloc is not jemalloc's: the archive works in programs that are not linked with it. */
#pragma weak mallctl

struct left_arena {
	unsigned index;
	int numa_node;
};

/* The one global of this file, because jemalloc's arenas are the process's and not an object's. */
static struct {
	pthread_mutex_t lock; /* for all below; only taken where threads start and end */
	unsigned created_count;
	unsigned left_count;
	struct left_arena left[ARENAS_MAX];
} arenas = { .lock = PTHREAD_MUTEX_INITIALIZER };

static int arena_get(int numa_node, unsigned *index);
static void arena_put(unsigned index, int numa_node);
static bool take_left(int numa_node, unsigned *index);
static int create(unsigned *index);
static int switch_to(unsigned index, unsigned *before);

int
arena_enter(struct arena *arena, int numa_node)
{
	int error;

	*arena = (struct arena){ .numa_node = numa_node };
	if (mallctl == NULL)
		return -ENOTSUP;
	error = arena_get(numa_node, &arena->index);
	if (error < 0)
		return error;
	error = switch_to(arena->index, &arena->before);
	if (error < 0) {
		/* UNTESTED: jemalloc refuses only arenas that it has not made. */
		arena_put(arena->index, numa_node);
		return error;
	}
	arena->entered = true;
	return 0;
}

void
arena_leave(struct arena *arena)
{
	unsigned index;

	if (!arena->entered)
		return;
	arena->entered = false;
	/* With jemalloc's own percpu_arena there is no way back (EPERM).  Then the arena is shared until the thread
	 * ends, which is slower, not wrong. */
	(void)switch_to(arena->before, &index);
	arena_put(arena->index, arena->numa_node);
}

/* An arena that nobody is in. */
static int
arena_get(int numa_node, unsigned *index)
{
	int error = 0;

	pthread_mutex_lock(&arenas.lock);
	if (!take_left(numa_node, index))
		error = create(index);
	pthread_mutex_unlock(&arenas.lock);
	return error;
}

static void
arena_put(unsigned index, int numa_node)
{
	pthread_mutex_lock(&arenas.lock);
	CHECK(arenas.left_count < arenas.created_count);
	arenas.left[arenas.left_count++] = (struct left_arena){ index, numa_node };
	pthread_mutex_unlock(&arenas.lock);
}

/* Called with the lock held. */
static bool
take_left(int numa_node, unsigned *index)
{
	for (unsigned i = 0; i < arenas.left_count; i++) {
		if (arenas.left[i].numa_node != numa_node)
			continue;
		*index = arenas.left[i].index;
		arenas.left[i] = arenas.left[--arenas.left_count];
		return true;
	}
	return false;
}

/* Called with the lock held. */
static int
create(unsigned *index)
{
	size_t index_bytes = sizeof(*index);
	int error;

	if (arenas.created_count == ARENAS_MAX)
		return -EAGAIN;
	error = -mallctl("arenas.create", index, &index_bytes, NULL, 0);
	if (error == 0)
		arenas.created_count++;
	return error;
}

/* Have the calling thread allocate from arena INDEX; *before: where it did until now.
 * Its cache is emptied, for it would go on handing out memory of the arena before. */
static int
switch_to(unsigned index, unsigned *before)
{
	size_t before_bytes = sizeof(*before);

	/* EFAULT: MALLOC_CONF says tcache:false, and there is nothing to empty. */
	(void)mallctl("thread.tcache.flush", NULL, NULL, NULL, 0);
	return -mallctl("thread.arena", before, &before_bytes, &index, sizeof(index));
}
