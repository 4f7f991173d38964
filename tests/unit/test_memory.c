/* Volumes in RAM, on two real cores, against a model; and what memory they take. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/unit/seed.h"
#include "tests/unit/volume_fixture.h"

static struct volume_options
memory_options(uint64_t size_bytes)
{
	return (struct volume_options){ .kind = VOLUME_KIND_MEMORY, .size_bytes = size_bytes };
}

static void
start(struct volume_fixture *fixture, uint64_t size_bytes)
{
	struct volume_options options = memory_options(size_bytes);

	volume_fixture_start(fixture, &options);
}

/* Bytes in memory of the mapping that a volume of SIZE_BYTES has (with its map, where the kernel made one of both). */
static uint64_t
resident_bytes(uint64_t size_bytes)
{
	FILE *file = fopen("/proc/self/smaps", "re");
	unsigned long long kib, size_kib = 0, resident_kib = 0;
	char line[256];

	cr_assert_not_null(file);
	while (fgets(line, sizeof(line), file) != NULL) {
		if (sscanf(line, "Size: %llu kB", &kib) == 1)
			size_kib = kib;
		else if (sscanf(line, "Rss: %llu kB", &kib) == 1 && size_kib >= size_bytes >> 10 &&
			 size_kib <= (size_bytes >> 10) + (1 << 20))
			resident_kib += kib;
	}
	(void)fclose(file);
	return resident_kib << 10;
}

static int
zero(struct volume_fixture *fixture, uint64_t offset, uint64_t length, bool no_hole)
{
	struct trial trial = {
		.request = { .command = VOLUME_COMMAND_WRITE_ZEROES,
			     .offset = offset,
			     .length = length,
			     .no_hole = no_hole },
	};

	trial_begin(fixture, &trial, 1, NULL);
	return trial_wait(&trial);
}

/* The extents of LENGTH bytes at OFFSET, at most MAX of them.  Returns how many. */
static unsigned
extents(struct volume_fixture *fixture, uint64_t offset, uint64_t length,
	struct volume_extent *found, uint32_t max)
{
	struct trial trial = {
		.request = { .command = VOLUME_COMMAND_EXTENTS,
			     .offset = offset,
			     .length = length,
			     .extents = found,
			     .extents_max = max },
	};

	trial_begin(fixture, &trial, 0, NULL);
	cr_assert_eq(trial_wait(&trial), 0);
	cr_assert_geq(trial.request.extent_count, 1);
	cr_assert_leq(trial.request.extent_count, max);
	return trial.request.extent_count;
}

static bool
all_zero(const uint8_t *bytes, uint64_t count)
{
	return count == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, count - 1) == 0);
}

/* What EXTENTS and peek say of the whole must be true of MODEL. */
static void
check_extents(struct volume_fixture *fixture, const uint8_t *model, uint64_t size_bytes)
{
	struct volume_extent found[3];
	uint64_t offset = 0;

	while (offset < size_bytes) {
		unsigned count = extents(fixture, offset, size_bytes - offset, found, 3);

		for (unsigned i = 0; i < count; i++) {
			enum volume_peek peek =
				volume_peek(fixture->volume, offset, found[i].length);

			cr_assert_gt(found[i].length, 0);
			cr_assert_leq(found[i].length, size_bytes - offset);
			if ((found[i].flags & VOLUME_EXTENT_ZERO) != 0)
				cr_assert(all_zero(model + offset, found[i].length));
			cr_assert_eq(peek,
				     found[i].flags == 0 ? VOLUME_PEEK_DATA : VOLUME_PEEK_ZERO);
			if (i > 0)
				cr_assert_neq(found[i].flags, found[i - 1].flags);
			offset += found[i].length;
		}
	}
}

Test(memory, random_requests_leave_what_the_model_says, .timeout = 120)
{
	const uint64_t size_bytes = 1000001;
	unsigned seed = (unsigned)test_seed();
	uint8_t *model = calloc(1, size_bytes), *bytes = malloc(size_bytes);
	struct volume_fixture fixture;

	start(&fixture, size_bytes);
	for (unsigned round = 0; round < 3000; round++) {
		uint64_t offset = (uint64_t)rand_r(&seed) % size_bytes;
		uint64_t length = 1 + (uint64_t)rand_r(&seed) % (size_bytes - offset);
		unsigned core = round % 2;

		if (rand_r(&seed) % 4 != 0 && length > 20000)
			length = 1 + length % 20000;
		switch (rand_r(&seed) % 6) {
		case 0:
		case 1:
			memset(bytes, (int)(round % 255 + 1), length);
			cr_assert_eq(volume_run_on(&fixture, core, VOLUME_COMMAND_WRITE, offset,
						   length, bytes),
				     0);
			memcpy(model + offset, bytes, length);
			break;
		case 2:
			cr_assert_eq(volume_run_on(&fixture, core, VOLUME_COMMAND_TRIM, offset,
						   length, NULL),
				     0);
			/* Trimmed bytes are zeros here, all of them. */
			memset(model + offset, 0, length);
			break;
		case 3:
			cr_assert_eq(zero(&fixture, offset, length, rand_r(&seed) % 2 == 0), 0);
			memset(model + offset, 0, length);
			break;
		default:
			cr_assert_eq(volume_run_on(&fixture, core, VOLUME_COMMAND_READ, offset,
						   length, bytes),
				     0);
			cr_assert(memcmp(bytes, model + offset, length) == 0);
		}
		if (round % 20 == 0)
			check_extents(&fixture, model, size_bytes);
	}
	volume_fixture_stop(&fixture);
	free(model);
	free(bytes);
}

Test(memory, takes_what_is_written_and_gives_it_back, .timeout = 60)
{
	const uint64_t size_bytes = (uint64_t)1 << 40, written_bytes = (uint64_t)64 << 20;
	uint8_t *bytes = malloc(1 << 20);
	struct volume_fixture fixture;

	memset(bytes, 7, 1 << 20);
	start(&fixture, size_bytes);
	cr_assert_eq(resident_bytes(size_bytes), 0);
	for (uint64_t offset = 0; offset < written_bytes; offset += 1 << 20)
		cr_assert_eq(volume_run(&fixture, VOLUME_COMMAND_WRITE, size_bytes / 2 + offset,
					1 << 20, bytes),
			     0);
	cr_assert_geq(resident_bytes(size_bytes), written_bytes);
	cr_assert_leq(resident_bytes(size_bytes), written_bytes + (1 << 20));
	/* Reading what is not there takes none. */
	for (uint64_t offset = 0; offset < written_bytes; offset += 1 << 20)
		cr_assert_eq(volume_run(&fixture, VOLUME_COMMAND_READ, offset, 1 << 20, bytes), 0);
	cr_assert_leq(resident_bytes(size_bytes), written_bytes + (1 << 20));
	cr_assert_eq(volume_run(&fixture, VOLUME_COMMAND_TRIM, 0, size_bytes, NULL), 0);
	cr_assert_leq(resident_bytes(size_bytes), 1 << 20);
	volume_fixture_stop(&fixture);
	free(bytes);
}

/* As with lock-memory.  The sanitizers do not lock. */
Test(memory, locked_pages_are_given_back_and_do_not_come_back, .timeout = 60)
{
	static const enum volume_command commands[] = { VOLUME_COMMAND_TRIM,
							VOLUME_COMMAND_WRITE_ZEROES };
	const uint64_t size_bytes = (uint64_t)1 << 40, bytes_count = 1 << 20;
	uint8_t *bytes = malloc(bytes_count);
	struct volume_fixture fixture;

	start(&fixture, size_bytes);
	if (mlockall(MCL_CURRENT | MCL_ONFAULT) != 0)
		cr_skip("memory may not be locked here");
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		memset(bytes, 7, bytes_count);
		cr_assert_eq(volume_run(&fixture, VOLUME_COMMAND_WRITE, 0, bytes_count, bytes), 0);
		cr_assert_eq(volume_run(&fixture, commands[i], 0, bytes_count, NULL), 0);
		cr_assert_leq(resident_bytes(size_bytes), 1 << 16);
		/* A byte into a page: the rest of it is zeros. */
		cr_assert_eq(volume_run(&fixture, VOLUME_COMMAND_WRITE, 4096, 1, bytes), 0);
		cr_assert_eq(volume_run(&fixture, VOLUME_COMMAND_READ, 0, bytes_count, bytes), 0);
		cr_assert_eq(bytes[4096], 7);
		bytes[4096] = 0;
		cr_assert(all_zero(bytes, bytes_count));
	}
	volume_fixture_stop(&fixture);
	free(bytes);
}

/* Calls that a write of LENGTH bytes at OFFSET makes. */
static uint64_t
calls_of_write(struct volume_fixture *fixture, uint64_t offset, uint64_t length, uint8_t *bytes)
{
	struct call_counters before, after;

	call_pool_counters(fixture->calls, &before);
	cr_assert_eq(volume_run(fixture, VOLUME_COMMAND_WRITE, offset, length, bytes), 0);
	call_pool_counters(fixture->calls, &after);
	return after.submitted - before.submitted;
}

Test(memory, large_writes_get_new_pages_from_a_helper, .timeout = 60)
{
	const uint64_t size_bytes = ((uint64_t)1 << 40) + 5, bytes_max = 256 << 10;
	uint8_t *bytes = malloc(bytes_max), *found = malloc(bytes_max);
	struct volume_fixture fixture;

	memset(bytes, 7, bytes_max);
	start(&fixture, size_bytes);
	cr_assert_eq(calls_of_write(&fixture, 0, bytes_max, bytes), 1);
	cr_assert_eq(resident_bytes(size_bytes) >> 16, bytes_max >> 16);
	cr_assert_eq(calls_of_write(&fixture, 0, bytes_max, bytes), 0);
	/* Some of them there, some not; the last page of the volume; too small. */
	cr_assert_eq(calls_of_write(&fixture, bytes_max / 2 + 1, bytes_max, bytes), 1);
	cr_assert_eq(calls_of_write(&fixture, size_bytes - bytes_max, bytes_max, bytes), 1);
	cr_assert_eq(calls_of_write(&fixture, 4 * bytes_max, 32 << 10, bytes), 0);
	cr_assert_eq(volume_run(&fixture, VOLUME_COMMAND_TRIM, 0, bytes_max, NULL), 0);
	cr_assert_eq(calls_of_write(&fixture, 1, bytes_max - 1, bytes), 1);
	cr_assert_eq(volume_run(&fixture, VOLUME_COMMAND_READ, 0, bytes_max, found), 0);
	cr_assert_eq(found[0], 0);
	cr_assert(memcmp(found + 1, bytes, bytes_max - 1) == 0);
	cr_assert_eq(
		volume_run(&fixture, VOLUME_COMMAND_READ, size_bytes - bytes_max, bytes_max, found),
		0);
	cr_assert(memcmp(found, bytes, bytes_max) == 0);
	volume_fixture_stop(&fixture);
	free(bytes);
	free(found);
}

Test(memory, zeros_without_a_hole_keep_their_room, .timeout = 60)
{
	struct volume_extent found[1];
	struct volume_fixture fixture;

	start(&fixture, 1 << 20);
	cr_assert_eq(zero(&fixture, 8192, 65536, true), 0);
	cr_assert_eq(extents(&fixture, 8192, 65536, found, 1), 1);
	cr_assert_eq(found[0].length, 65536);
	cr_assert_eq(found[0].flags, 0);
	cr_assert_eq(zero(&fixture, 8192, 65536, false), 0);
	cr_assert_eq(extents(&fixture, 0, 1 << 20, found, 1), 1);
	cr_assert_eq(found[0].length, 1 << 20);
	cr_assert_eq(found[0].flags, VOLUME_EXTENT_HOLE | VOLUME_EXTENT_ZERO);
	volume_fixture_stop(&fixture);
}

/* SHORT_ONE is asked for behind zeros of a whole volume, and must pass them. */
static void
check_passes_long_zeros(struct trial *short_one)
{
	struct trial long_one = {
		.request = { .command = VOLUME_COMMAND_WRITE_ZEROES,
			     .length = (uint64_t)128 << 20,
			     .no_hole = true },
	};
	struct volume_fixture fixture;

	start(&fixture, (uint64_t)128 << 20);
	trial_begin(&fixture, &long_one, 0, NULL);
	trial_begin(&fixture, short_one, 0, NULL);
	cr_assert_eq(trial_wait(short_one), 0);
	cr_assert_not(trial_finished(&long_one));
	cr_assert_eq(trial_wait(&long_one), 0);
	trial_end(short_one);
	trial_end(&long_one);
	volume_fixture_stop(&fixture);
}

/* No further slice of them is begun. */
Test(memory, zeros_that_are_abandoned_end_early)
{
	static const bool abandoned = true;
	const uint64_t size_bytes = (uint64_t)256 << 20;
	struct trial trial = { .request = { .command = VOLUME_COMMAND_WRITE_ZEROES,
					    .length = size_bytes,
					    .no_hole = true,
					    .abandoned = &abandoned } };
	struct volume_fixture fixture;
	uint64_t before;

	start(&fixture, size_bytes);
	before = resident_bytes(size_bytes);
	trial_begin(&fixture, &trial, 0, NULL);
	cr_assert_eq(trial_wait(&trial), 0);
	cr_assert_lt(resident_bytes(size_bytes) - before, size_bytes / 2);
	trial_end(&trial);
	volume_fixture_stop(&fixture);
}

Test(memory, long_request_holds_no_core_up, .timeout = 60)
{
	struct trial read = { .request = { .command = VOLUME_COMMAND_READ, .length = 512 } };

	check_passes_long_zeros(&read);
}

/* Of several that are long each has its turn. */
Test(memory, short_zeros_pass_long_ones, .timeout = 60)
{
	struct trial trim = { .request = { .command = VOLUME_COMMAND_TRIM, .length = 4096 } };

	check_passes_long_zeros(&trim);
}

/* Writers and trimmers of the same pages, on both cores at once: whatever comes out of that, a page that was trimmed last is zeros
 * and stays so when a part of it is written. */
Test(memory, trimmed_pages_do_not_come_back, .timeout = 120)
{
	enum {
		PAGES = 16,
		PAGE = 4096,
		BYTES = PAGES * PAGE
	};
	uint8_t *bytes = malloc(BYTES);
	struct volume_fixture fixture;

	start(&fixture, BYTES);
	for (unsigned round = 0; round < 500; round++) {
		struct trial writer = { .request = { .command = VOLUME_COMMAND_WRITE,
						     .length = BYTES } };
		struct trial trimmer = { .request = { .command = VOLUME_COMMAND_TRIM,
						      .length = BYTES } };
		uint8_t mark = (uint8_t)(round % 200 + 1);

		memset(bytes, mark, BYTES);
		trial_begin(&fixture, &writer, round % 2, bytes);
		trial_begin(&fixture, &trimmer, 1 - round % 2, NULL);
		cr_assert_eq(trial_wait(&writer), 0);
		cr_assert_eq(trial_wait(&trimmer), 0);
		trial_end(&writer);
		/* A byte into each page that reads as zeros must change nothing else there. */
		cr_assert_eq(volume_run(&fixture, VOLUME_COMMAND_READ, 0, BYTES, bytes), 0);
		for (unsigned page = 0; page < PAGES; page++) {
			uint8_t one = 255, whole[PAGE];

			if (!all_zero(bytes + (size_t)page * PAGE, PAGE))
				continue;
			cr_assert_eq(volume_run(&fixture, VOLUME_COMMAND_WRITE,
						(uint64_t)page * PAGE + 1, 1, &one),
				     0);
			cr_assert_eq(volume_run(&fixture, VOLUME_COMMAND_READ,
						(uint64_t)page * PAGE, PAGE, whole),
				     0);
			cr_assert_eq(whole[1], 255);
			whole[1] = 0;
			cr_assert(all_zero(whole, PAGE));
		}
	}
	volume_fixture_stop(&fixture);
	free(bytes);
}

Test(memory, one_byte_is_enough)
{
	struct volume_fixture fixture;
	uint8_t byte = 9;

	start(&fixture, 1);
	cr_assert_eq(volume_run(&fixture, VOLUME_COMMAND_WRITE, 0, 1, &byte), 0);
	byte = 0;
	cr_assert_eq(volume_run(&fixture, VOLUME_COMMAND_READ, 0, 1, &byte), 0);
	cr_assert_eq(byte, 9);
	cr_assert_eq(volume_run(&fixture, VOLUME_COMMAND_TRIM, 0, 1, NULL), 0);
	cr_assert_eq(volume_run(&fixture, VOLUME_COMMAND_READ, 0, 1, &byte), 0);
	cr_assert_eq(byte, 0);
	cr_assert_eq(volume_run(&fixture, VOLUME_COMMAND_FLUSH, 0, 0, NULL), 0);
	volume_fixture_stop(&fixture);
}

Test(memory, more_than_there_can_be_is_refused)
{
	struct volume_options options = memory_options((uint64_t)1 << 50);
	struct volume *volume = NULL;

	cr_assert_eq(volume_open(&options, &volume), -ENOMEM);
	cr_assert_null(volume);
}

Test(null, reads_zeros_and_forgets)
{
	struct volume_options options = { .kind = VOLUME_KIND_NULL,
					  .size_bytes = (uint64_t)1 << 50 };
	struct volume_fixture fixture;
	struct volume_extent found[1];
	uint8_t bytes[3000];

	volume_fixture_start(&fixture, &options);
	memset(bytes, 5, sizeof(bytes));
	cr_assert_eq(volume_run(&fixture, VOLUME_COMMAND_WRITE, 1001, sizeof(bytes), bytes), 0);
	cr_assert_eq(volume_run(&fixture, VOLUME_COMMAND_FLUSH, 0, 0, NULL), 0);
	cr_assert_eq(volume_run(&fixture, VOLUME_COMMAND_READ, 1001, sizeof(bytes), bytes), 0);
	cr_assert(all_zero(bytes, sizeof(bytes)));
	cr_assert_eq(extents(&fixture, 0, options.size_bytes, found, 1), 1);
	cr_assert_eq(found[0].length, options.size_bytes);
	cr_assert_eq(volume_peek(fixture.volume, 0, options.size_bytes), VOLUME_PEEK_ZERO);
	volume_fixture_stop(&fixture);
}

Test(volume_options, each_kind_says_what_it_lacks)
{
	struct volume_mistake mistake;
	struct volume_options options = { .kind = VOLUME_KIND_FILE };

	cr_assert(volume_options_mistake(&options, &mistake));
	options.path = "x";
	cr_assert_not(volume_options_mistake(&options, &mistake));
	options.size_bytes = 1;
	cr_assert(volume_options_mistake(&options, &mistake));
	options = memory_options(0);
	cr_assert(volume_options_mistake(&options, &mistake));
	options.size_bytes = 1;
	cr_assert_not(volume_options_mistake(&options, &mistake));
	options.path = "x";
	cr_assert(volume_options_mistake(&options, &mistake));
}
