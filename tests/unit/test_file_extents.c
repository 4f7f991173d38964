/* Where files say that their data is, while they are written, too. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "disk/file_volume.h"
#include "reactor/kernel.h"
#include "tests/unit/image_fixture.h"
#include "tests/unit/seed.h"

#define MIB ((uint64_t)1 << 20)

/* Ask for all of the volume, part by part.  Returns how many extents, of which the first MAX are at EXTENTS. */
static unsigned
ask_extents(struct image *image, struct volume_extent *extents, unsigned max)
{
	uint64_t size_bytes = image->fixture.volume->size_bytes;
	struct volume_extent part[3];
	unsigned count = 0;

	for (uint64_t offset = 0; offset < size_bytes;) {
		struct trial trial = { .request = { .command = VOLUME_COMMAND_EXTENTS,
						    .offset = offset,
						    .length = size_bytes - offset,
						    .extents = part,
						    .extents_max = 3 } };

		trial_begin(&image->fixture, &trial, 0, NULL);
		cr_assert_eq(trial_wait(&trial), 0);
		trial_end(&trial);
		for (unsigned i = 0; i < trial.request.extent_count; i++) {
			if (count > 0 && extents[count - 1].flags == part[i].flags)
				extents[count - 1].length += part[i].length;
			else if (count < max)
				extents[count++] = part[i];
			offset += part[i].length;
		}
	}
	return count;
}

static void
check_extents(enum medium_kind kind, enum volume_cache cache)
{
	enum {
		HOLE = VOLUME_EXTENT_HOLE | VOLUME_EXTENT_ZERO
	};
	static uint8_t data[MIB];
	const struct volume_extent wanted[] = { { MIB, HOLE },
						{ 64 << 10, 0 },
						{ 2 * MIB - (64 << 10), HOLE },
						{ MIB, VOLUME_EXTENT_ZERO },
						{ MIB, 0 },
						{ 3 * MIB, HOLE } };
	struct volume_extent got[8];
	struct image image;

	image_start_cached(&image, kind, cache, 8 * MIB);
	memset(data, 1, sizeof(data));
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_WRITE, MIB, 64 << 10, data), 0);
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_WRITE, 4 * MIB, MIB, data), 0);
	cr_assert_eq(
		image_run(&image, (struct volume_request){ .command = VOLUME_COMMAND_WRITE_ZEROES,
							   .no_hole = true,
							   .offset = 3 * MIB,
							   .length = MIB }),
		0);
	/* As the file system says, and as is remembered of that. */
	for (unsigned round = 0; round < 2; round++) {
		cr_assert_eq(ask_extents(&image, got, 8), 6);
		for (unsigned i = 0; i < 6; i++) {
			cr_assert_eq(got[i].length, wanted[i].length, "extent %u", i);
			cr_assert_eq(got[i].flags, wanted[i].flags, "extent %u", i);
		}
	}
	cr_assert_eq(volume_peek(image.fixture.volume, 0, MIB), VOLUME_PEEK_ZERO);
	cr_assert_eq(volume_peek(image.fixture.volume, 3 * MIB, MIB), VOLUME_PEEK_ZERO);
	cr_assert_eq(volume_peek(image.fixture.volume, 4 * MIB, MIB), VOLUME_PEEK_DATA);
	cr_assert_eq(volume_peek(image.fixture.volume, 0, 8 * MIB), VOLUME_PEEK_MIXED);
	cr_assert_eq(image_run(&image, (struct volume_request){ .command = VOLUME_COMMAND_TRIM,
								.offset = 4 * MIB,
								.length = MIB }),
		     0);
	cr_assert_eq(volume_peek(image.fixture.volume, 4 * MIB, 4 * MIB), VOLUME_PEEK_ZERO);
	image_stop(&image);
}

Test(file_extents, ext4)
{
	check_extents(MEDIUM_EXT4, VOLUME_CACHE_NONE);
	check_extents(MEDIUM_EXT4, VOLUME_CACHE_HOST);
}

Test(file_extents, xfs)
{
	check_extents(MEDIUM_XFS, VOLUME_CACHE_NONE);
	check_extents(MEDIUM_XFS, VOLUME_CACHE_HOST);
}

Test(file_extents, btrfs)
{
	check_extents(MEDIUM_BTRFS, VOLUME_CACHE_NONE);
	check_extents(MEDIUM_BTRFS, VOLUME_CACHE_HOST);
}

Test(file_extents, of_a_device_are_data_but_for_zeros_made_here)
{
	struct volume_extent got[4];
	uint8_t byte = 1;
	struct image image;

	image_start(&image, MEDIUM_LOOP512, 4 * MIB);
	cr_assert_eq(ask_extents(&image, got, 4), 1);
	cr_assert_eq(got[0].flags, 0);
	cr_assert_eq(
		image_run(&image, (struct volume_request){ .command = VOLUME_COMMAND_WRITE_ZEROES,
							   .offset = MIB,
							   .length = 2 * MIB }),
		0);
	cr_assert_eq(ask_extents(&image, got, 4), 3);
	cr_assert_eq(got[1].flags, VOLUME_EXTENT_ZERO);
	cr_assert_eq(got[1].length, 2 * MIB);
	cr_assert_eq(image_run(&image, (struct volume_request){ .command = VOLUME_COMMAND_TRIM,
								.offset = MIB,
								.length = MIB }),
		     0);
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_WRITE, 3 * MIB - 1, 1, &byte), 0);
	cr_assert_eq(ask_extents(&image, got, 4), 3);
	cr_assert_eq(got[1].length, MIB - (64 << 10));
	image_stop(&image);
}

/* A read asks only to be spared work: it would wait for each slice and its pause. */
Test(file_extents, who_can_do_without_an_answer_waits_for_no_trim)
{
	struct volume_extent got[2];
	struct trial trials[3] = {
		{ .request = { .command = VOLUME_COMMAND_TRIM, .offset = MIB, .length = MIB } },
		{ .request = { .command = VOLUME_COMMAND_EXTENTS,
			       .answer_optional = true,
			       .length = MIB,
			       .extents = &got[0],
			       .extents_max = 1 } },
		{ .request = { .command = VOLUME_COMMAND_EXTENTS,
			       .length = MIB,
			       .extents = &got[1],
			       .extents_max = 1 } },
	};
	struct image image;

	image_start(&image, MEDIUM_HERE, 4 * MIB);
	/* By one message: no slice has ended when the others come. */
	trials_begin(&image.fixture, trials, 3, 0, 0);
	cr_assert_eq(trial_wait(&trials[0]), 0);
	cr_assert_eq(trial_wait(&trials[1]), -EBUSY);
	cr_assert_eq(trial_wait(&trials[2]), 0);
	cr_assert_eq(got[1].length, MIB);
	trials[1].request.offset = 2 * MIB;
	trial_begin(&image.fixture, &trials[1], 0, NULL);
	cr_assert_eq(trial_wait(&trials[1]), 0, "nothing is under way any more");
	cr_assert_eq(got[0].flags, VOLUME_EXTENT_HOLE | VOLUME_EXTENT_ZERO);
	image_stop(&image);
}

/* Nor behind what others ask, of whole images perhaps; one question is soon answered. */
Test(file_extents, who_can_do_without_an_answer_does_not_wait_behind_many)
{
	enum {
		ASKED = 4
	};
	struct volume_extent got[ASKED + 1];
	struct trial trials[ASKED + 1];
	struct image image;

	image_start(&image, MEDIUM_HERE, 64 * MIB);
	for (unsigned i = 0; i <= ASKED; i++)
		trials[i] = (struct trial){ .request = { .command = VOLUME_COMMAND_EXTENTS,
							 .offset = 4 * i * MIB,
							 .length = MIB,
							 .answer_optional = i == ASKED,
							 .extents = &got[i],
							 .extents_max = 1 } };
	trials_begin(&image.fixture, trials, ASKED + 1, 0, 0);
	for (unsigned i = 0; i < ASKED; i++)
		cr_assert_eq(trial_wait(&trials[i]), 0);
	cr_assert_eq(trial_wait(&trials[ASKED]), -EBUSY);
	trials[0].request.offset = 40 * MIB;
	trials[ASKED].request.offset = 50 * MIB;
	trial_begin(&image.fixture, &trials[0], 0, NULL);
	trial_begin(&image.fixture, &trials[ASKED], 0, NULL);
	cr_assert_eq(trial_wait(&trials[0]), 0);
	cr_assert_eq(trial_wait(&trials[ASKED]), 0, "only one was before it");
	image_stop(&image);
}

/* Writes into holes while the file system is asked about these, again and again. */
static void
write_while_asked(enum volume_cache cache)
{
	enum {
		SIZE = 1 << 20,
		ASKING = 4
	};
	unsigned seed = (unsigned)test_seed();
	struct volume_extent extents[ASKING][8];
	static uint8_t data[65536];
	struct trial asking[ASKING];
	struct image image;

	memset(data, 7, sizeof(data));
	image_start_cached(&image, MEDIUM_HERE, cache, SIZE);
	for (unsigned round = 0; round < 3000; round++) {
		uint64_t at = (unsigned)rand_r(&seed) % (SIZE / 4096 - 16) * 4096;
		uint64_t length = rand_r(&seed) % 2 == 0 ? 4096 : 4095;

		memset(asking, 0, sizeof(asking));
		for (unsigned i = 0; i < ASKING; i++) {
			asking[i].request = (struct volume_request){
				.command = VOLUME_COMMAND_EXTENTS,
				.length = SIZE,
				.extents = extents[i],
				.extents_max = 8,
			};
			if (i == ASKING - 1 && rand_r(&seed) % 4 == 0)
				asking[i].request.command = VOLUME_COMMAND_TRIM;
			trial_begin(&image.fixture, &asking[i], 1, NULL);
		}
		if (asking[ASKING - 1].request.command == VOLUME_COMMAND_TRIM) {
			cr_assert_eq(trial_wait(&asking[ASKING - 1]), 0);
			asking[ASKING - 1].request.command = VOLUME_COMMAND_EXTENTS;
			trial_begin(&image.fixture, &asking[ASKING - 1], 1, NULL);
		}
		cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_WRITE, at, length, data), 0);
		cr_assert_neq(volume_peek(image.fixture.volume, at, length), VOLUME_PEEK_ZERO);
		for (unsigned i = 0; i < ASKING; i++) {
			cr_assert_eq(trial_wait(&asking[i]), 0);
			trial_end(&asking[i]);
		}
		cr_assert_neq(volume_peek(image.fixture.volume, at, length), VOLUME_PEEK_ZERO);
	}
	image_stop(&image);
}

Test(file_extents, what_is_written_while_asked_is_no_hole, .timeout = 120)
{
	write_while_asked(VOLUME_CACHE_NONE);
}

Test(file_extents, what_is_written_to_the_cache_while_asked_is_no_hole, .timeout = 120)
{
	write_while_asked(VOLUME_CACHE_HOST);
}

/* The slices of a TRIM have pauses before them, and slices of other TRIMs. */
Test(file_extents, who_needs_an_answer_waits_for_no_pause)
{
	struct volume_extent got;
	struct trial trials[3] = {
		{ .request = { .command = VOLUME_COMMAND_TRIM, .offset = MIB, .length = MIB } },
		{ .request = { .command = VOLUME_COMMAND_TRIM, .offset = 2 * MIB, .length = MIB } },
		{ .request = { .command = VOLUME_COMMAND_EXTENTS,
			       .length = MIB,
			       .extents = &got,
			       .extents_max = 1 } },
	};
	uint64_t pause_end_ns;
	struct image image;

	image_start(&image, MEDIUM_HERE, 4 * MIB);
	pause_end_ns = kernel_clock_ns() + 900000000;
	file_of(image.fixture.volume)->pace.free_ns = pause_end_ns;
	trials_begin(&image.fixture, trials, 3, 0, 0);
	cr_assert_eq(trial_wait(&trials[2]), 0);
	cr_assert_lt(kernel_clock_ns(), pause_end_ns);
	cr_assert_eq(got.flags, VOLUME_EXTENT_HOLE | VOLUME_EXTENT_ZERO);
	for (unsigned i = 0; i < 2; i++)
		cr_assert_eq(trial_wait(&trials[i]), 0);
	image_stop(&image);
}
