/* Requests that may be shared, to a file that does not know RWF_NOWAIT: a helper takes what would hold up the core. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/kernel_faults.h"
#include "tests/unit/volume_fixture.h"

#define BLOCK_BYTES 4096u
#define BLOCKS	    64u

static struct volume_fixture fixture;
static char path[] = "build/unit-shared-XXXXXX";
static uint8_t bytes[BLOCK_BYTES];

/* The file system knows the flag, this kernel does not. */
static long
refuse_nowait(io_context_t context, long count, struct iocb **iocbs)
{
	if (count > 0 && (iocbs[0]->aio_rw_flags & RWF_NOWAIT) != 0)
		return -EOPNOTSUPP;
	for (long i = 1; i < count; i++)
		if ((iocbs[i]->aio_rw_flags & RWF_NOWAIT) != 0)
			count = i;
	return kernel_submit_unchanged(context, count, iocbs);
}

static void
setup(void)
{
	struct volume_options options = { .path = path };
	int fd = mkstemp(path);

	cr_assert_geq(fd, 0);
	cr_assert_eq(ftruncate(fd, BLOCKS * BLOCK_BYTES), 0);
	close(fd);
	submit_fault = refuse_nowait;
	volume_fixture_start(&fixture, &options);
}

static void
teardown(void)
{
	volume_fixture_stop(&fixture);
	submit_fault = NULL;
	unlink(path);
}

TestSuite(file_shared, .init = setup, .fini = teardown, .timeout = 60);

static uint64_t
helped(void)
{
	struct reactor_counters counters;

	reactor_read_counters(fixture.cores.cores[0].reactor, &counters);
	return counters.ops_helped;
}

/* The block at INDEX, on core 0. */
static void
run(enum volume_command command, unsigned index, bool shared)
{
	struct trial trial = { .request = { .command = command,
					    .offset = (uint64_t)index * BLOCK_BYTES,
					    .length = BLOCK_BYTES,
					    .shared = shared } };

	memset(bytes, (int)index + 1, sizeof(bytes));
	trial_begin(&fixture, &trial, 0, command == VOLUME_COMMAND_WRITE ? bytes : NULL);
	cr_assert_eq(trial_wait(&trial), 0);
	cr_assert_arr_eq(trial_payload(&trial), bytes, BLOCK_BYTES);
	trial_end(&trial);
}

Test(file_shared, what_may_be_shared_goes_through_a_helper)
{
	/* The first write, and the first read, find out that the flag is not known. */
	run(VOLUME_COMMAND_WRITE, 0, true);
	run(VOLUME_COMMAND_READ, 0, true);
	cr_assert_eq(helped(), 0);
	for (unsigned i = 0; i < BLOCKS; i++) {
		run(VOLUME_COMMAND_WRITE, i, true);
		cr_assert_eq(helped(), i + 1);
	}
	for (unsigned i = 0; i < BLOCKS; i++) {
		run(VOLUME_COMMAND_READ, i, true);
		cr_assert_eq(helped(), BLOCKS + i + 1);
	}
}

Test(file_shared, what_may_not_stays_on_the_core)
{
	for (unsigned i = 0; i < BLOCKS; i++) {
		run(VOLUME_COMMAND_WRITE, i, false);
		run(VOLUME_COMMAND_READ, i, false);
	}
	cr_assert_eq(helped(), 0);
}
