/* How many syncs there are for flushes of two cores, and what each may serve. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "reactor/log.h"
#include "tests/unit/kernel_faults.h"
#include "tests/unit/medium.h"
#include "tests/unit/volume_fixture.h"

#define MANY 32

static atomic_uint syncs;
static atomic_bool hold, held;

/* Count the syncs; while `hold`, each stops its core just before the kernel gets it. */
static long
count_syncs(io_context_t context, long count, struct iocb **iocbs)
{
	for (long i = 0; i < count; i++) {
		if (iocbs[i]->aio_lio_opcode != IO_CMD_FDSYNC)
			continue;
		atomic_store(&held, true);
		while (atomic_load(&hold))
			usleep(100);
		atomic_fetch_add(&syncs, 1);
	}
	return kernel_submit_unchanged(context, count, iocbs);
}

static void
begin_flush(struct volume_fixture *fixture, struct trial *trial, unsigned core)
{
	memset(trial, 0, sizeof(*trial));
	trial->request.command = VOLUME_COMMAND_FLUSH;
	trial_begin(fixture, trial, core, NULL);
}

static void
start(struct volume_fixture *fixture, char path[64])
{
	cr_assert_null(medium_create(MEDIUM_HERE, 1 << 20, path));
	volume_fixture_start(fixture, &(struct volume_options){ .path = path });
	submit_fault = count_syncs;
}

static void
stop(struct volume_fixture *fixture, const char *path)
{
	submit_fault = NULL;
	volume_fixture_stop(fixture);
	medium_remove(MEDIUM_HERE, path);
}

/* The first sync has begun, so those behind it need another; but one is enough for them. */
Test(flush_group, those_that_come_later_share_the_next_sync, .timeout = 60)
{
	static struct trial trials[MANY];
	struct volume_fixture fixture;
	char path[64];

	start(&fixture, path);
	atomic_store(&hold, true);
	begin_flush(&fixture, &trials[0], 0);
	while (!atomic_load(&held))
		usleep(100);
	/* On the other core, which is not held up. */
	for (unsigned i = 1; i < MANY; i++)
		begin_flush(&fixture, &trials[i], 1);
	usleep(200000); /* it has taken them by then */
	for (unsigned i = 0; i < MANY; i++)
		cr_assert(!trial_finished(&trials[i]));
	atomic_store(&hold, false);
	for (unsigned i = 0; i < MANY; i++)
		cr_assert_eq(trial_wait(&trials[i]), 0);
	cr_assert_eq(atomic_load(&syncs), 2);
	stop(&fixture, path);
}

Test(flush_group, none_is_forgotten, .timeout = 60)
{
	static struct trial trials[MANY];
	struct volume_fixture fixture;
	char path[64];

	start(&fixture, path);
	for (unsigned round = 0; round < 300; round++) {
		for (unsigned i = 0; i < MANY; i++)
			begin_flush(&fixture, &trials[i], i % VOLUME_FIXTURE_CORES);
		for (unsigned i = 0; i < MANY; i++)
			cr_assert_eq(trial_wait(&trials[i]), 0);
	}
	printf("%u syncs for %u flushes\n", atomic_load(&syncs), 300 * MANY);
	cr_assert_lt(atomic_load(&syncs), 300 * MANY / 2);
	stop(&fixture, path);
}

static long
fail_syncs(io_context_t context, long count, struct iocb **iocbs)
{
	if (iocbs[0]->aio_lio_opcode == IO_CMD_FDSYNC)
		return -EIO;
	return kernel_submit_unchanged(context, count, iocbs);
}

Test(flush_group, all_that_a_failed_sync_served_fail, .timeout = 60)
{
	static struct trial trials[MANY];
	struct volume_fixture fixture;
	char path[64];

	start(&fixture, path);
	submit_fault = fail_syncs;
	for (unsigned i = 0; i < MANY; i++)
		begin_flush(&fixture, &trials[i], i % VOLUME_FIXTURE_CORES);
	for (unsigned i = 0; i < MANY; i++)
		cr_assert_eq(trial_wait(&trials[i]), -EIO);
	/* And it stays so. */
	submit_fault = NULL;
	cr_assert_eq(volume_run(&fixture, VOLUME_COMMAND_FLUSH, 0, 0, NULL), -EIO);
	stop(&fixture, path);
}

static long
fail_reads(io_context_t context, long count, struct iocb **iocbs)
{
	if (iocbs[0]->aio_lio_opcode == IO_CMD_PREAD)
		return -EIO;
	return kernel_submit_unchanged(context, count, iocbs);
}

/* A part of a block, of which the rest can't be read: nothing was written, and nothing synced. */
Test(flush_group, durable_write_that_ends_before_its_sync_fails_alone, .timeout = 60)
{
	static uint8_t part[1000];
	struct trial trial = { .request = { .command = VOLUME_COMMAND_WRITE,
					    .offset = 100,
					    .length = sizeof(part),
					    .durable = true } };
	struct volume_fixture fixture;
	char path[64];

	start(&fixture, path);
	submit_fault = fail_reads;
	trial_begin(&fixture, &trial, 0, part);
	cr_assert_eq(trial_wait(&trial), -EIO);
	trial_end(&trial);
	submit_fault = NULL;
	cr_assert_eq(volume_run(&fixture, VOLUME_COMMAND_FLUSH, 0, 0, NULL), 0);
	stop(&fixture, path);
}

/* Zeros with FUA end in such a sync, too: a failed one is theirs, and stays. */
Test(flush_group, durable_zeros_share_the_sync_and_its_failure, .timeout = 60)
{
	struct trial trial = { .request = { .command = VOLUME_COMMAND_WRITE_ZEROES,
					    .length = 65536,
					    .durable = true } };
	struct volume_fixture fixture;
	unsigned before;
	char path[64];

	start(&fixture, path);
	before = atomic_load(&syncs);
	trial_begin(&fixture, &trial, 0, NULL);
	cr_assert_eq(trial_wait(&trial), 0);
	cr_assert_eq(atomic_load(&syncs), before + 1);
	submit_fault = fail_syncs;
	trial_begin(&fixture, &trial, 1, NULL);
	cr_assert_eq(trial_wait(&trial), -EIO);
	submit_fault = NULL;
	cr_assert_eq(volume_run(&fixture, VOLUME_COMMAND_FLUSH, 0, 0, NULL), -EIO);
	trial_begin(&fixture, &trial, 0, NULL);
	cr_assert_eq(trial_wait(&trial), -EIO);
	stop(&fixture, path);
}

static atomic_bool failing, told;

static long
fail_while_told(io_context_t context, long count, struct iocb **iocbs)
{
	if (iocbs[0]->aio_lio_opcode == IO_CMD_FDSYNC && atomic_exchange(&failing, false))
		return -EIO;
	return kernel_submit_unchanged(context, count, iocbs);
}

/* The core that says what failed stops there for a while. */
static void
hold_first_line(void *context, const struct log_entry *entry)
{
	(void)entry;
	(void)context;
	if (atomic_exchange(&told, true))
		return;
	while (atomic_load(&hold))
		usleep(100);
}

/* The kernel tells of a loss once: another core's flush, meanwhile, could be told that all is well. */
Test(flush_group, none_succeeds_beside_one_that_has_failed, .timeout = 60)
{
	struct volume_fixture fixture;
	struct trial failed, beside;
	char path[64];

	start(&fixture, path);
	submit_fault = fail_while_told;
	atomic_store(&failing, true);
	atomic_store(&hold, true);
	log_set_sink(hold_first_line, NULL);
	begin_flush(&fixture, &failed, 0);
	while (!atomic_load(&told))
		usleep(100);
	begin_flush(&fixture, &beside, 1);
	usleep(50000);
	cr_assert(!trial_finished(&beside) || trial_wait(&beside) == -EIO);
	atomic_store(&hold, false);
	cr_assert_eq(trial_wait(&failed), -EIO);
	cr_assert_eq(trial_wait(&beside), -EIO);
	log_set_sink(NULL, NULL);
	stop(&fixture, path);
}
