/* reactor/pipe_pool.h: pipes are kept while they are empty, and what the kernel does not grant is done without. */
#include "reactor/pipe_pool.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define PAGE ((uint64_t)4096)

static struct pipe_pool pool;

static void
setup(void)
{
	pipe_pool_init(&pool);
}

static void
teardown(void)
{
	pipe_pool_fini(&pool);
}

TestSuite(pipe_pool, .init = setup, .fini = teardown, .timeout = 60);

static unsigned
open_files(void)
{
	unsigned count = 0;

	for (int fd = 0; fd < 1024; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

Test(pipe_pool, takes_ranges_of_as_many_pages_as_it_has_room_for)
{
	cr_assert(pipe_fits(0, 1));
	cr_assert(pipe_fits(3 * PAGE, PIPE_BYTES));
	cr_assert_not(pipe_fits(3 * PAGE, PIPE_BYTES + 1));
	cr_assert_not(pipe_fits(3 * PAGE + 1, PIPE_BYTES));
	cr_assert(pipe_fits(3 * PAGE + 1, PIPE_BYTES - 1));
	cr_assert_not(pipe_fits(3 * PAGE - 1, PIPE_BYTES - PAGE + 2));
	cr_assert(pipe_fits(3 * PAGE - 1, PIPE_BYTES - PAGE + 1));
	cr_assert_not(pipe_fits(0, UINT64_MAX));
}

Test(pipe_pool, is_open_only_when_it_was_asked_for_and_then_kept)
{
	unsigned before = open_files();
	struct pipe *first = pipe_pool_get(&pool);

	cr_assert_not_null(first);
	cr_assert_eq(open_files(), before + 2);
	cr_assert_geq(fcntl(first->write_fd, F_GETPIPE_SZ), (int)PIPE_BYTES);
	pipe_pool_put(&pool, first);
	cr_assert_eq(pipe_pool_get(&pool), first);
	cr_assert_eq(open_files(), before + 2);
	pipe_pool_put(&pool, first);
	cr_assert_eq(pipe_pool_free_count(&pool), PIPE_POOL_PIPES);
}

Test(pipe_pool, what_is_left_in_one_is_never_seen_again)
{
	struct pipe *pipe = pipe_pool_get(&pool);
	char byte;

	cr_assert_eq(write(pipe->write_fd, "x", 1), 1);
	pipe_pool_put(&pool, pipe);
	for (unsigned i = 0; i < PIPE_POOL_PIPES; i++) {
		pipe = pipe_pool_get(&pool);
		cr_assert_eq(read(pipe->read_fd, &byte, 1), -1);
	}
	cr_assert_null(pipe_pool_get(&pool));
	for (unsigned i = 0; i < PIPE_POOL_PIPES; i++)
		pipe_pool_put(&pool, &pool.pipes[i]);
	cr_assert_eq(pipe_pool_free_count(&pool), PIPE_POOL_PIPES);
}

Test(pipe_pool, all_are_closed_at_the_end)
{
	unsigned before = open_files();
	struct pipe *pipes[PIPE_POOL_PIPES];

	for (unsigned i = 0; i < PIPE_POOL_PIPES; i++)
		pipes[i] = pipe_pool_get(&pool);
	cr_assert_eq(open_files(), before + PIPE_POOL_FILES);
	for (unsigned i = 0; i < PIPE_POOL_PIPES; i++)
		pipe_pool_put(&pool, pipes[i]);
	pipe_pool_fini(&pool);
	cr_assert_eq(open_files(), before);
}

/* Room for three files more: one pipe, and half of another. */
Test(pipe_pool, without_more_files_there_are_those_that_are_open)
{
	struct rlimit limit = { 0, 0 };
	struct pipe *pipe;
	int highest = dup(0);

	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = (rlim_t)highest + 3;
	(void)close(highest);
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	pipe = pipe_pool_get(&pool);
	cr_assert_not_null(pipe);
	cr_assert_null(pipe_pool_get(&pool));
	cr_assert_eq(pipe_pool_free_count(&pool), 0);
	pipe_pool_put(&pool, pipe);
	cr_assert_eq(pipe_pool_free_count(&pool), 1);
	cr_assert_eq(pipe_pool_get(&pool), pipe);
	cr_assert_null(pipe_pool_get(&pool));
	pipe_pool_put(&pool, pipe);
}
