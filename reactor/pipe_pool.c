/* Pipes in two lists: those that are open, and those that are not. */
#include "reactor/pipe_pool.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <unistd.h>

bool
pipe_fits(uint64_t offset, uint64_t length)
{
	uint64_t page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);

	return length <= PIPE_BYTES &&
	       (offset + length - 1) / page_bytes - offset / page_bytes < PIPE_BYTES / page_bytes;
}

static void
push(struct pipe **list, struct pipe *pipe)
{
	pipe->next = *list;
	*list = pipe;
}

static struct pipe *
pop(struct pipe **list)
{
	struct pipe *pipe = *list;

	if (pipe != NULL)
		*list = pipe->next;
	return pipe;
}

static void
close_pipe(const struct pipe *pipe)
{
	(void)close(pipe->read_fd);
	(void)close(pipe->write_fd);
}

/* Returns whether PIPE is open now, and large enough. */
static bool
open_pipe(struct pipe *pipe)
{
	int fds[2];

	if (pipe2(fds, O_NONBLOCK | O_CLOEXEC) != 0)
		return false;
	pipe->read_fd = fds[0];
	pipe->write_fd = fds[1];
	if (fcntl(fds[0], F_SETPIPE_SZ, (int)PIPE_BYTES) >= (int)PIPE_BYTES)
		return true;
	close_pipe(pipe);
	return false;
}

void
pipe_pool_init(struct pipe_pool *pool)
{
	pool->unused = NULL;
	pool->unmade = NULL;
	for (unsigned i = 0; i < PIPE_POOL_PIPES; i++)
		push(&pool->unmade, &pool->pipes[i]);
	pool->free_count = PIPE_POOL_PIPES;
}

void
pipe_pool_fini(struct pipe_pool *pool)
{
	const struct pipe *pipe;

	while ((pipe = pop(&pool->unused)) != NULL)
		close_pipe(pipe);
	pool->unmade = NULL;
	pool->free_count = 0;
}

/* The kernel grants no more than are open: what is not open is never asked for again. */
static void
forget_unmade(struct pipe_pool *pool)
{
	while (pop(&pool->unmade) != NULL)
		pool->free_count--;
}

struct pipe *
pipe_pool_get(struct pipe_pool *pool)
{
	struct pipe *pipe = pop(&pool->unused);

	if (pipe == NULL && pool->unmade != NULL) {
		if (open_pipe(pool->unmade))
			pipe = pop(&pool->unmade);
		else
			forget_unmade(pool);
	}
	if (pipe != NULL)
		pool->free_count--;
	return pipe;
}

static bool
is_empty(const struct pipe *pipe)
{
	int bytes;

	return ioctl(pipe->read_fd, FIONREAD, &bytes) == 0 && bytes == 0;
}

void
pipe_pool_put(struct pipe_pool *pool, struct pipe *pipe)
{
	if (is_empty(pipe)) {
		push(&pool->unused, pipe);
	} else {
		close_pipe(pipe);
		push(&pool->unmade, pipe);
	}
	pool->free_count++;
}
