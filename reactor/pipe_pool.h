/* Pipes, for bytes that go from the page cache to a socket without being copied: splice(2) puts references to pages into a pipe, and
 * takes them out of it.
 * A pool belongs to one core.  Its pipes are made when they are first asked for, and kept. */
#ifndef REACTOR_PIPE_POOL_H
#define REACTOR_PIPE_POOL_H

#include "reactor/check.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Room in each pipe, for as many pages as so many bytes have.  Of the pages that fs.pipe-user-pages-soft leaves a user without privileges,
 * 16,384 by default, each takes that. */
#define PIPE_BYTES ((uint64_t)512 << 10)

/* Whether an empty pipe takes the pages of LENGTH bytes (at least 1) at OFFSET of a file. */
bool pipe_fits(uint64_t offset, uint64_t length);

/* Pipes of a pool, and the descriptors that these need. */
#define PIPE_POOL_PIPES 32u
#define PIPE_POOL_FILES (2 * PIPE_POOL_PIPES)

struct pipe {
	int read_fd, write_fd; /* non-blocking, close-on-exec; owned by the pool */
	/* Private. */
	struct pipe *next;
};

struct pipe_pool {
	/* Private. */
	struct pipe pipes[PIPE_POOL_PIPES];
	struct pipe *unused; /* that are open, and empty */
	struct pipe *unmade; /* that are not */
	unsigned free_count; /* of both */
};

void pipe_pool_init(struct pipe_pool *pool);

/* Close all.  Every pipe must have been put back. */
void pipe_pool_fini(struct pipe_pool *pool);

/* An empty pipe, the caller's until pipe_pool_put; or NULL: all are in use, or the kernel grants no more, which is not asked again then. */
struct pipe *pipe_pool_get(struct pipe_pool *pool) MUST_USE;

/* Give PIPE back.  If something is in it, it is closed. */
void pipe_pool_put(struct pipe_pool *pool, struct pipe *pipe);

/* How many pipe_pool_get would still give, unless the kernel refuses. */
static inline unsigned
pipe_pool_free_count(const struct pipe_pool *pool)
{
	return pool->free_count;
}

#endif
