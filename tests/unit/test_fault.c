/* Volumes that go wrong, over memory and over a file. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/seed.h"
#include "tests/unit/volume_fixture.h"

#define SIZE_BYTES ((uint64_t)1 << 20)

static void
start(struct volume_fixture *fixture, const char *fault)
{
	struct volume_options options = {
		.kind = VOLUME_KIND_FAULT,
		.size_bytes = SIZE_BYTES,
		.fault = fault,
	};

	volume_fixture_start(fixture, &options);
}

static int
request(struct volume_fixture *fixture, enum volume_command command, uint64_t offset)
{
	uint8_t bytes[4096] = { 1 };

	return volume_run(fixture, command, offset,
			  command == VOLUME_COMMAND_FLUSH ? 0 : sizeof(bytes), bytes);
}

/* How many of COUNT reads fail. */
static unsigned
count_failures(const char *fault, unsigned count, uint64_t *which)
{
	struct volume_fixture fixture;
	unsigned failures = 0;

	*which = 0;
	start(&fixture, fault);
	for (unsigned i = 0; i < count; i++) {
		if (request(&fixture, VOLUME_COMMAND_READ, 0) == 0)
			continue;
		failures++;
		*which = *which * 31 + i;
	}
	volume_fixture_stop(&fixture);
	return failures;
}

Test(fault, fails_as_often_as_told_and_repeats_by_its_seed, .timeout = 60)
{
	uint64_t first, again, other;
	unsigned failures = count_failures("seed=5 read-error=0.25", 2000, &first);

	cr_assert_gt(failures, 400);
	cr_assert_lt(failures, 600);
	cr_assert_eq(count_failures("seed=5 read-error=0.25", 2000, &again), failures);
	cr_assert_eq(first, again);
	(void)count_failures("seed=6 read-error=0.25", 2000, &other);
	cr_assert_neq(first, other);
}

Test(fault, fails_only_what_and_where_it_is_told)
{
	struct volume_fixture fixture;

	start(&fixture, "write-error=1 error=ENOSPC range=64K-128K");
	cr_assert_eq(request(&fixture, VOLUME_COMMAND_READ, 65536), 0);
	cr_assert_eq(request(&fixture, VOLUME_COMMAND_WRITE, 65536), -ENOSPC);
	cr_assert_eq(request(&fixture, VOLUME_COMMAND_WRITE, 65535 - 4094), -ENOSPC);
	cr_assert_eq(request(&fixture, VOLUME_COMMAND_WRITE, 65536 - 4096), 0);
	cr_assert_eq(request(&fixture, VOLUME_COMMAND_WRITE, 131071), -ENOSPC);
	cr_assert_eq(request(&fixture, VOLUME_COMMAND_WRITE, 131072), 0);
	cr_assert_eq(request(&fixture, VOLUME_COMMAND_FLUSH, 0), 0);
	cr_assert_eq(request(&fixture, VOLUME_COMMAND_TRIM, 65536), 0);
	volume_fixture_stop(&fixture);
}

Test(fault, failed_write_leaves_what_was_there)
{
	struct volume_fixture fixture;
	uint8_t bytes[4096];

	start(&fixture, "write-error=1");
	cr_assert_eq(request(&fixture, VOLUME_COMMAND_WRITE, 0), -EIO);
	cr_assert_eq(volume_run(&fixture, VOLUME_COMMAND_READ, 0, sizeof(bytes), bytes), 0);
	cr_assert_eq(bytes[0], 0);
	volume_fixture_stop(&fixture);
}

/* Once one flush of several has failed all later ones do, though nothing is wrong with them. */
Test(fault, flushes_fail_for_ever_after_one_has)
{
	struct volume_fixture fixture;
	unsigned successes = 0;
	int error = 0;

	start(&fixture, "seed=3 flush-error=0.2");
	while (error == 0 && successes < 1000) {
		error = request(&fixture, VOLUME_COMMAND_FLUSH, 0);
		successes += error == 0;
	}
	cr_assert_eq(error, -EIO);
	cr_assert_gt(successes, 0);
	for (unsigned i = 0; i < 50; i++)
		cr_assert_eq(volume_run_on(&fixture, i % 2, VOLUME_COMMAND_FLUSH, 0, 0, NULL),
			     -EIO);
	cr_assert_eq(request(&fixture, VOLUME_COMMAND_WRITE, 0), 0);
	cr_assert_eq(request(&fixture, VOLUME_COMMAND_READ, 0), 0);
	volume_fixture_stop(&fixture);
}

static void
check_flush_behind_durable_write(const char *fault, int write_error, int flush_error)
{
	struct trial trial = {
		.request = { .command = VOLUME_COMMAND_WRITE, .length = 4096, .durable = true }
	};
	struct volume_fixture fixture;

	start(&fixture, fault);
	cr_assert_eq(request(&fixture, VOLUME_COMMAND_WRITE, 0), write_error);
	cr_assert_eq(request(&fixture, VOLUME_COMMAND_FLUSH, 0), 0);
	trial_begin(&fixture, &trial, 0, NULL);
	cr_assert_eq(trial_wait(&trial), write_error);
	trial_end(&trial);
	cr_assert_eq(request(&fixture, VOLUME_COMMAND_FLUSH, 0), flush_error);
	volume_fixture_stop(&fixture);
}

Test(fault, durable_write_that_fails_fails_later_flushes)
{
	check_flush_behind_durable_write("write-error=1", -EIO, -EIO);
}

Test(fault, durable_write_that_times_out_fails_later_flushes)
{
	check_flush_behind_durable_write("write-error=1 error=ETIMEDOUT", -ETIMEDOUT, -EIO);
}

Test(fault, durable_write_that_is_refused_fails_alone)
{
	check_flush_behind_durable_write("write-error=1 error=ENOSPC", -ENOSPC, 0);
}

/* A torn write is a prefix of whole sectors, some of it new, the rest as it was. */
static void
check_torn(struct volume_fixture *fixture, uint32_t sector_bytes)
{
	uint8_t bytes[16384];
	unsigned parts = 0;

	for (unsigned round = 1; round <= 100; round++) {
		size_t torn = 0;

		memset(bytes, 0, sizeof(bytes));
		cr_assert_eq(
			volume_run(fixture, VOLUME_COMMAND_WRITE, 131072, sizeof(bytes), bytes), 0);
		memset(bytes, (int)round, sizeof(bytes));
		cr_assert_eq(volume_run(fixture, VOLUME_COMMAND_WRITE, 8192, sizeof(bytes), bytes),
			     -EIO);
		cr_assert_eq(volume_run(fixture, VOLUME_COMMAND_READ, 8192, sizeof(bytes), bytes),
			     0);
		while (torn < sizeof(bytes) && bytes[torn] == round)
			torn++;
		cr_assert_eq(torn % sector_bytes, 0);
		cr_assert_lt(torn, sizeof(bytes));
		for (size_t i = torn; i < sizeof(bytes); i++)
			cr_assert_neq(bytes[i], round);
		parts += torn > 0;
	}
	cr_assert_gt(parts, 50);
}

Test(fault, torn_write_is_done_in_part, .timeout = 60)
{
	struct volume_fixture fixture;

	start(&fixture, "torn-write=1 range=0-64K");
	check_torn(&fixture, 512);
	volume_fixture_stop(&fixture);
}

static void
image_create(char *path)
{
	int fd;

	(void)strcpy(path, "build/unit-image-XXXXXX");
	fd = mkstemp(path);
	cr_assert_geq(fd, 0);
	cr_assert_eq(ftruncate(fd, (off_t)SIZE_BYTES), 0);
	(void)close(fd);
}

Test(fault, torn_write_of_a_file_is_done_in_part, .timeout = 60)
{
	struct volume_fixture fixture;
	char path[64];
	struct volume_options options = {
		.kind = VOLUME_KIND_FAULT,
		.path = path,
		.fault = "torn-write=1 range=0-64K",
	};

	image_create(path);
	volume_fixture_start(&fixture, &options);
	check_torn(&fixture, fixture.volume->block_bytes);
	volume_fixture_stop(&fixture);
	(void)unlink(path);
}

/* In two parts, late, and with others at the same time: the bytes are the same. */
static void
check_against_model(const struct volume_options *options)
{
	enum {
		TOGETHER = 8
	};
	unsigned seed = (unsigned)test_seed();
	uint64_t share = SIZE_BYTES / TOGETHER;
	uint8_t *model = calloc(1, SIZE_BYTES), *read_back = malloc(SIZE_BYTES);
	struct volume_fixture fixture;

	volume_fixture_start(&fixture, options);
	for (unsigned round = 0; round < 150; round++) {
		struct trial trials[TOGETHER] = { 0 };

		for (unsigned i = 0; i < TOGETHER; i++) {
			uint64_t start_in = (uint64_t)rand_r(&seed) % share;
			uint64_t length = 1 + (uint64_t)rand_r(&seed) % (share - start_in);

			if (rand_r(&seed) % 2 == 0) {
				start_in = start_in / 4096 * 4096;
				length = (length + 4095) / 4096 * 4096;
			}
			trials[i].request.command = VOLUME_COMMAND_WRITE;
			trials[i].request.offset = i * share + start_in;
			trials[i].request.length = length;
			for (uint64_t j = 0; j < length; j++)
				model[i * share + start_in + j] = (uint8_t)rand_r(&seed);
			trial_begin(&fixture, &trials[i], i % 2, model + trials[i].request.offset);
		}
		for (unsigned i = 0; i < TOGETHER; i++) {
			cr_assert_eq(trial_wait(&trials[i]), 0);
			trial_end(&trials[i]);
		}
		cr_assert_eq(
			volume_run(&fixture, VOLUME_COMMAND_READ, 1, SIZE_BYTES - 1, read_back), 0);
		cr_assert(memcmp(model + 1, read_back, SIZE_BYTES - 1) == 0);
	}
	volume_fixture_stop(&fixture);
	free(model);
	free(read_back);
}

Test(fault, parts_make_up_the_whole_in_memory, .timeout = 120)
{
	struct volume_options options = { .kind = VOLUME_KIND_FAULT,
					  .size_bytes = SIZE_BYTES,
					  .fault = "short-io=0.7 delay=0.3 delay-ms=2" };

	check_against_model(&options);
}

Test(fault, parts_make_up_the_whole_in_a_file, .timeout = 120)
{
	char path[64];
	struct volume_options options = { .kind = VOLUME_KIND_FAULT,
					  .path = path,
					  .fault = "short-io=0.7 delay=0.3 delay-ms=2" };

	image_create(path);
	check_against_model(&options);
	(void)unlink(path);
}

Test(fault, more_requests_than_it_holds_wait, .timeout = 60)
{
	enum {
		COUNT = 1000
	};
	struct trial *trials = calloc(COUNT, sizeof(*trials));
	struct volume_fixture fixture;

	start(&fixture, "delay-ms=20");
	for (unsigned i = 0; i < COUNT; i++) {
		trials[i].request.command = VOLUME_COMMAND_TRIM;
		trials[i].request.length = 4096;
		trial_begin(&fixture, &trials[i], 0, NULL);
	}
	for (unsigned i = 0; i < COUNT; i++)
		cr_assert_eq(trial_wait(&trials[i]), 0);
	volume_fixture_stop(&fixture);
	free(trials);
}
