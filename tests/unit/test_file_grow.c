/* Files that become larger while they are served. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/image_fixture.h"
#include "tests/unit/seed.h"

/* Change the file's size, and look.  Returns what volume_refresh does. */
static int
resize(struct image *image, uint64_t size_bytes, uint64_t *found_bytes)
{
	cr_assert_eq(truncate(image->path, (off_t)size_bytes), 0);
	return volume_refresh(image->fixture.volume, found_bytes);
}

Test(file_grow, what_came_to_the_file_can_be_used)
{
	uint8_t bytes[4096], wanted[4096];
	uint64_t found_bytes;
	struct image image;

	image_start(&image, MEDIUM_HERE, 8192);
	cr_assert_eq(resize(&image, 65536, &found_bytes), 0);
	cr_assert_eq(found_bytes, 65536);
	cr_assert_eq(volume_size(image.fixture.volume), 65536);
	memset(wanted, 'w', sizeof(wanted));
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_WRITE, 61440, 4096, wanted), 0);
	cr_assert_eq(volume_run_on(&image.fixture, 1, VOLUME_COMMAND_READ, 61440, 4096, bytes), 0);
	cr_assert_arr_eq(bytes, wanted, sizeof(bytes));
	image_stop(&image);
}

Test(file_grow, same_size_changes_nothing)
{
	uint64_t found_bytes = 0;
	struct image image;

	image_start(&image, MEDIUM_HERE, 8192);
	cr_assert_eq(resize(&image, 8192, &found_bytes), 0);
	cr_assert_eq(found_bytes, 8192);
	cr_assert_eq(volume_size(image.fixture.volume), 8192);
	image_stop(&image);
}

Test(file_grow, smaller_file_is_told_and_the_size_stays)
{
	uint8_t bytes[512];
	uint64_t found_bytes = 0;
	struct image image;

	image_start(&image, MEDIUM_HERE, 65536);
	cr_assert_eq(resize(&image, 8192, &found_bytes), 0);
	cr_assert_eq(found_bytes, 8192);
	cr_assert_eq(volume_size(image.fixture.volume), 65536);
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_READ, 8192, 512, bytes), -EIO);
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_READ, 7680, 512, bytes), 0);
	image_stop(&image);
}

/* What is written in the middle of the new part by somebody else, before anybody knows of it. */
Test(file_grow, data_behind_a_hole_that_had_the_end_is_found)
{
	struct volume_extent extents[4];
	struct trial trial = { .request = { .command = VOLUME_COMMAND_EXTENTS,
					    .extents = extents,
					    .extents_max = 4 } };
	static uint8_t data[8192];
	uint64_t found_bytes;
	struct image image;
	int fd;

	image_start(&image, MEDIUM_HERE, 65536 + 4096);
	trial.request.length = 65536 + 4096;
	trial_begin(&image.fixture, &trial, 0, NULL);
	cr_assert_eq(trial_wait(&trial), 0);
	cr_assert_eq(volume_peek(image.fixture.volume, 65536, 4096), VOLUME_PEEK_ZERO);
	fd = open(image.path, O_WRONLY | O_CLOEXEC);
	memset(data, 'd', sizeof(data));
	cr_assert_eq(pwrite(fd, data, sizeof(data), 65536 + 8192), sizeof(data));
	cr_assert_eq(fsync(fd), 0);
	(void)close(fd);
	cr_assert_eq(resize(&image, 4 * 65536, &found_bytes), 0);
	cr_assert_eq(volume_peek(image.fixture.volume, 0, 65536), VOLUME_PEEK_ZERO);
	cr_assert_eq(volume_peek(image.fixture.volume, 65536, 16384), VOLUME_PEEK_UNKNOWN);
	trial.request.length = 4 * 65536;
	trial.request.offset = 0;
	for (uint64_t offset = 0; offset < 4 * 65536;) {
		trial.request.offset = offset;
		trial.request.length = 4 * 65536 - offset;
		trial_begin(&image.fixture, &trial, 1, NULL);
		cr_assert_eq(trial_wait(&trial), 0);
		for (unsigned i = 0; i < trial.request.extent_count; i++) {
			uint64_t end = offset + extents[i].length;

			if (offset < 65536 + 16384 && end > 65536 + 8192)
				cr_assert_eq(extents[i].flags, 0, "at %llu",
					     (unsigned long long)offset);
			offset = end;
		}
	}
	cr_assert_eq(volume_peek(image.fixture.volume, 2 * 65536, 2 * 65536), VOLUME_PEEK_ZERO);
	image_stop(&image);
}

/* The last part of a block needs a second descriptor, by the file's name. */
Test(file_grow, odd_size_is_refused_where_its_tail_cannot_be_opened)
{
	uint64_t found_bytes;
	struct image image;
	char away[80];
	int fd;

	image_start(&image, MEDIUM_HERE, 8192);
	(void)snprintf(away, sizeof(away), "%s.away", image.path);
	cr_assert_eq(rename(image.path, away), 0);
	cr_assert_eq(truncate(away, 9000), 0);
	cr_assert_eq(volume_refresh(image.fixture.volume, &found_bytes), -ENOENT);
	fd = open(image.path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	cr_assert_geq(fd, 0);
	(void)close(fd);
	cr_assert_eq(volume_refresh(image.fixture.volume, &found_bytes), -ESTALE);
	cr_assert_eq(volume_size(image.fixture.volume), 8192);
	cr_assert_eq(truncate(away, 65536), 0);
	cr_assert_eq(volume_refresh(image.fixture.volume, &found_bytes), 0);
	cr_assert_eq(volume_size(image.fixture.volume), 65536);
	cr_assert_eq(unlink(away), 0);
	image_stop(&image);
}

/* A volume of faults is as large as what is in it. */
Test(file_grow, grows_behind_faults)
{
	struct volume_options options = { .kind = VOLUME_KIND_FAULT, .fault = "read-error=0" };
	uint64_t found_bytes;
	struct image image;
	uint8_t byte = 1;

	image_start_with(&image, MEDIUM_HERE, 4096, options);
	cr_assert_eq(resize(&image, 8192, &found_bytes), 0);
	cr_assert_eq(volume_size(image.fixture.volume), 8192);
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_WRITE, 8191, 1, &byte), 0);
	image_stop(&image);
}

/* ---- again and again, with requests that began before and after ---- */

#define SLOT_BYTES  997u /* no two requests of a round are in one, but in one block */
#define TOGETHER    8
#define MODEL_BYTES ((size_t)4 << 20)

struct growth {
	struct image image;
	struct trial trials[TOGETHER];
	unsigned count;
	uint8_t *model;
	unsigned seed;
};

/* Begin to write data or zeros to SLOT, if it is in a volume of SIZE_BYTES. */
static void
begin_one(struct growth *growth, int64_t slot, uint64_t size_bytes)
{
	struct trial *trial = &growth->trials[growth->count];
	bool zeros = rand_r(&growth->seed) % 4 == 0;
	uint64_t start = (uint64_t)slot * SLOT_BYTES, end = start + SLOT_BYTES;

	if (slot < 0 || start >= size_bytes)
		return;
	if (end > size_bytes)
		end = size_bytes;
	memset(growth->model + start, zeros ? 0 : 1 + rand_r(&growth->seed) % 255, end - start);
	*trial = (struct trial){ .request = { .command = zeros ? VOLUME_COMMAND_WRITE_ZEROES
							       : VOLUME_COMMAND_WRITE,
					      .offset = start,
					      .length = end - start } };
	trial_begin(&growth->image.fixture, trial, growth->count % 2,
		    zeros ? NULL : growth->model + start);
	growth->count++;
}

/* Wait for all, and compare. */
static void
check_model(struct growth *growth, uint64_t size_bytes)
{
	uint8_t *got = malloc(size_bytes);

	while (growth->count > 0) {
		cr_assert_eq(trial_wait(&growth->trials[--growth->count]), 0);
		trial_end(&growth->trials[growth->count]);
	}
	cr_assert_eq(volume_run(&growth->image.fixture, VOLUME_COMMAND_READ, 0, size_bytes, got),
		     0);
	cr_assert_eq(memcmp(got, growth->model, size_bytes), 0);
	cr_assert_eq(image_file_bytes(&growth->image), size_bytes);
	free(got);
}

/* From FIRST_BYTES on, by up to STEP_MAX bytes in each round, to multiples of MULTIPLE. */
static void
check_growth(uint64_t first_bytes, unsigned rounds, unsigned step_max, uint64_t multiple)
{
	struct growth *growth = calloc(1, sizeof(*growth));
	uint64_t size_bytes = first_bytes, found_bytes;

	growth->seed = (unsigned)test_seed();
	growth->model = calloc(1, MODEL_BYTES);
	image_start(&growth->image, MEDIUM_HERE, size_bytes);
	for (unsigned round = 0; round < rounds; round++) {
		int64_t last = (int64_t)((size_bytes - 1) / SLOT_BYTES), new_last;

		for (int64_t slot = last; slot > last - TOGETHER; slot -= 2)
			begin_one(growth, slot, size_bytes);
		size_bytes += 1 + (unsigned)rand_r(&growth->seed) % step_max;
		size_bytes = (size_bytes + multiple - 1) / multiple * multiple;
		cr_assert_leq(size_bytes, MODEL_BYTES);
		cr_assert_eq(resize(&growth->image, size_bytes, &found_bytes), 0);
		new_last = (int64_t)((size_bytes - 1) / SLOT_BYTES);
		begin_one(growth, last - 1, size_bytes);
		begin_one(growth, last - 3, size_bytes);
		begin_one(growth, last + 1, size_bytes);
		if (new_last > last + 1)
			begin_one(growth, new_last, size_bytes);
		check_model(growth, size_bytes);
	}
	image_stop(&growth->image);
	free(growth->model);
	free(growth);
}

Test(file_grow, by_any_number_of_bytes_beside_writes, .timeout = 120)
{
	check_growth(100, 400, 6000, 1);
}

Test(file_grow, by_a_few_bytes_beside_writes, .timeout = 120)
{
	check_growth(8192, 400, 40, 1);
}

Test(file_grow, by_sectors_beside_writes, .timeout = 120)
{
	check_growth(8704, 400, 5000, 512);
}
