/* Trims, zeros and extents of files and devices, beside writes on two cores, against a model in memory. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/file_volume.h"
#include "tests/unit/image_fixture.h"
#include "tests/unit/seed.h"

#define MIB ((uint64_t)1 << 20)

static uint64_t
used_bytes(const struct image *image)
{
	struct stat status;

	cr_assert_eq(stat(image->path, &status), 0);
	return (uint64_t)status.st_blocks * 512;
}

/* ---- the model ---- */

#define TOGETHER 8

struct model {
	uint64_t size_bytes;
	uint8_t *bytes;
	uint8_t *trimmed; /* a byte that was trimmed reads as it was, or zero */
	uint8_t *read_back;
	struct trial trials[TOGETHER];
};

static struct model *
model_create(uint64_t size_bytes)
{
	struct model *model = calloc(1, sizeof(*model));

	model->size_bytes = size_bytes;
	model->bytes = calloc(1, size_bytes);
	model->trimmed = calloc(1, size_bytes);
	model->read_back = malloc(size_bytes);
	return model;
}

static void
model_destroy(struct model *model)
{
	free(model->bytes);
	free(model->trimmed);
	free(model->read_back);
	free(model);
}

/* One of TOGETHER requests of a round, in the I'th share of the volume: neighbours share blocks, but no bytes. */
static void
begin_random(struct image *image, struct model *model, unsigned i, unsigned *seed)
{
	static const enum volume_command commands[] = { VOLUME_COMMAND_WRITE, VOLUME_COMMAND_WRITE,
							VOLUME_COMMAND_WRITE_ZEROES,
							VOLUME_COMMAND_TRIM };
	uint64_t share = model->size_bytes / TOGETHER;
	uint64_t first = i * share, end = i == TOGETHER - 1 ? model->size_bytes : first + share;
	uint64_t start = first + (unsigned)rand_r(seed) % share;
	uint64_t length = 1 + (unsigned)rand_r(seed) % (rand_r(seed) % 4 == 0 ? 60000 : 9000);
	struct volume_request *request = &model->trials[i].request;

	if (rand_r(seed) % 3 == 0 && start / 4096 * 4096 >= first)
		start = start / 4096 * 4096;
	if (length > end - start)
		length = end - start;
	*request = (struct volume_request){
		.command = commands[(unsigned)rand_r(seed) % 4],
		.durable = rand_r(seed) % 16 == 0,
		.offset = start,
		.length = length,
	};
	request->no_hole = request->command == VOLUME_COMMAND_WRITE_ZEROES && rand_r(seed) % 2;
	if (request->command == VOLUME_COMMAND_TRIM) {
		memset(model->trimmed + start, 1, length);
	} else {
		int value = request->command == VOLUME_COMMAND_WRITE ? 1 + rand_r(seed) % 255 : 0;

		memset(model->bytes + start, value, length);
		memset(model->trimmed + start, 0, length);
	}
	trial_begin(&image->fixture, &model->trials[i], i % VOLUME_FIXTURE_CORES,
		    request->command == VOLUME_COMMAND_WRITE ? model->bytes + start : NULL);
}

static void
compare(struct image *image, struct model *model)
{
	cr_assert_eq(volume_run(&image->fixture, VOLUME_COMMAND_READ, 0, model->size_bytes,
				model->read_back),
		     0);
	for (uint64_t at = 0; at < model->size_bytes; at++) {
		uint8_t got = model->read_back[at];

		cr_assert(got == model->bytes[at] || (model->trimmed[at] && got == 0),
			  "byte %llu is %u, not %u", (unsigned long long)at, got, model->bytes[at]);
		/* What it reads as is what it will read as. */
		model->bytes[at] = got;
		model->trimmed[at] = 0;
	}
}

static void
check_zeros(const struct model *model, uint64_t offset, uint64_t length, const char *who)
{
	for (uint64_t at = offset; at < offset + length; at++)
		cr_assert(model->read_back[at] == 0, "%s says that byte %llu is zero", who,
			  (unsigned long long)at);
}

/* What is called zero is zero, in both ways of asking. */
static void
compare_extents(struct image *image, struct model *model, uint64_t offset, unsigned core)
{
	struct volume_extent extents[5];

	while (offset < model->size_bytes) {
		struct trial trial = { .request = { .command = VOLUME_COMMAND_EXTENTS,
						    .offset = offset,
						    .length = model->size_bytes - offset,
						    .extents = extents,
						    .extents_max = 5 } };

		trial_begin(&image->fixture, &trial, core, NULL);
		cr_assert_eq(trial_wait(&trial), 0);
		cr_assert_gt(trial.request.extent_count, 0);
		for (unsigned i = 0; i < trial.request.extent_count; i++) {
			uint64_t length = extents[i].length;

			cr_assert(length > 0 && length <= model->size_bytes - offset);
			if (i > 0)
				cr_assert_neq(extents[i].flags, extents[i - 1].flags);
			if (extents[i].flags & VOLUME_EXTENT_ZERO)
				check_zeros(model, offset, length, "EXTENTS");
			offset += length;
		}
		trial_end(&trial);
	}
	for (offset = 0; offset < model->size_bytes; offset += 65536) {
		uint64_t left = model->size_bytes - offset, length = left < 65536 ? left : 65536;

		if (volume_peek(image->fixture.volume, offset, length) == VOLUME_PEEK_ZERO)
			check_zeros(model, offset, length, "volume_peek");
	}
}

static void
check_model(enum medium_kind kind, enum volume_cache cache, uint64_t size_bytes, unsigned rounds)
{
	struct model *model = model_create(size_bytes);
	unsigned seed = (unsigned)test_seed();
	struct image image;

	image_start_cached(&image, kind, cache, size_bytes);
	for (unsigned round = 0; round < rounds; round++) {
		for (unsigned i = 0; i < TOGETHER; i++)
			begin_random(&image, model, i, &seed);
		for (unsigned i = 0; i < TOGETHER; i++) {
			cr_assert_eq(trial_wait(&model->trials[i]), 0);
			trial_end(&model->trials[i]);
		}
		if (round % 8 == 7) {
			compare(&image, model);
			compare_extents(&image, model, (unsigned)rand_r(&seed) % size_bytes,
					round / 8 % 2);
		}
	}
	compare(&image, model);
	if (kind < MEDIUM_LOOP512)
		cr_assert_eq(image_file_bytes(&image), size_bytes);
	image_stop(&image);
	model_destroy(model);
}

static void
check_against_model(enum medium_kind kind, uint64_t size_bytes, unsigned rounds)
{
	check_model(kind, VOLUME_CACHE_NONE, size_bytes, rounds);
}

Test(file_zeroes, model_here, .timeout = 120)
{
	check_against_model(MEDIUM_HERE, 2 * MIB, 300);
}

Test(file_zeroes, model_here_with_an_odd_size, .timeout = 120)
{
	check_against_model(MEDIUM_HERE, 700001, 300);
}

Test(file_zeroes, model_here_smaller_than_a_block, .timeout = 120)
{
	check_against_model(MEDIUM_HERE, 100, 40);
}

Test(file_zeroes, model_of_neighbours_in_the_same_blocks, .timeout = 120)
{
	check_against_model(MEDIUM_HERE, 11 * 512, 700);
}

/* A write of a part of a block beside zeros of all of it: what was there before may not come back. */
Test(file_zeroes, zeros_are_not_undone_by_a_write_beside_them, .timeout = 120)
{
	enum {
		BYTES = 65536
	};
	struct volume_request zeros = { .command = VOLUME_COMMAND_WRITE_ZEROES, .length = BYTES };
	static uint8_t old[BYTES], got[BYTES];
	unsigned seed = (unsigned)test_seed();
	struct trial trials[2];
	struct image image;

	image_start(&image, MEDIUM_HERE, BYTES);
	memset(old, 0x5a, BYTES);
	for (unsigned round = 0; round < 500; round++) {
		uint64_t offset = (unsigned)rand_r(&seed) % (BYTES - 100);

		cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_WRITE, 0, BYTES, old), 0);
		memset(trials, 0, sizeof(trials));
		trials[0].request = zeros;
		trials[1].request = (struct volume_request){ .command = VOLUME_COMMAND_WRITE,
							     .offset = offset,
							     .length = 100 };
		for (unsigned i = 0; i < 2; i++)
			trial_begin(&image.fixture, &trials[(i + round) % 2], (i + round / 2) % 2,
				    (i + round) % 2 == 1 ? old : NULL);
		for (unsigned i = 0; i < 2; i++) {
			cr_assert_eq(trial_wait(&trials[i]), 0);
			trial_end(&trials[i]);
		}
		cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_READ, 0, BYTES, got), 0);
		for (uint64_t at = 0; at < BYTES; at++)
			cr_assert(got[at] == 0 || (at >= offset && at < offset + 100),
				  "byte %llu is old", (unsigned long long)at);
	}
	image_stop(&image);
}

Test(file_zeroes, model_ext4, .timeout = 120)
{
	check_against_model(MEDIUM_EXT4, 2 * MIB + 512, 300);
}

Test(file_zeroes, model_xfs, .timeout = 120)
{
	check_against_model(MEDIUM_XFS, 2 * MIB + 512, 300);
}

Test(file_zeroes, model_btrfs, .timeout = 120)
{
	check_against_model(MEDIUM_BTRFS, 2 * MIB + 4096, 300);
}

Test(file_zeroes, model_loop512, .timeout = 120)
{
	check_against_model(MEDIUM_LOOP512, 2 * MIB + 512, 300);
}

Test(file_zeroes, model_loop4096, .timeout = 120)
{
	check_against_model(MEDIUM_LOOP4096, 2 * MIB, 300);
}

/* The same through the page cache. */

Test(file_zeroes, cached_model_here_with_an_odd_size, .timeout = 120)
{
	check_model(MEDIUM_HERE, VOLUME_CACHE_HOST, 700001, 300);
}

Test(file_zeroes, cached_model_of_neighbours_in_the_same_blocks, .timeout = 120)
{
	check_model(MEDIUM_HERE, VOLUME_CACHE_HOST, 11 * 512, 2000);
}

Test(file_zeroes, cached_model_xfs, .timeout = 120)
{
	check_model(MEDIUM_XFS, VOLUME_CACHE_HOST, 2 * MIB + 13, 300);
}

Test(file_zeroes, cached_model_btrfs, .timeout = 120)
{
	check_model(MEDIUM_BTRFS, VOLUME_CACHE_HOST, 2 * MIB + 13, 300);
}

Test(file_zeroes, cached_model_loop512, .timeout = 120)
{
	check_model(MEDIUM_LOOP512, VOLUME_CACHE_HOST, 2 * MIB + 512, 300);
}

Test(file_zeroes, cached_model_loop4096, .timeout = 120)
{
	check_model(MEDIUM_LOOP4096, VOLUME_CACHE_HOST, 2 * MIB, 300);
}

/* ---- room ---- */

static void
fill(struct image *image, uint64_t bytes)
{
	uint8_t *data = malloc(bytes);

	memset(data, 0x5a, bytes);
	cr_assert_eq(volume_run(&image->fixture, VOLUME_COMMAND_WRITE, 0, bytes, data), 0);
	cr_assert_eq(volume_run(&image->fixture, VOLUME_COMMAND_FLUSH, 0, 0, NULL), 0);
	free(data);
}

Test(file_zeroes, trim_and_zeros_give_room_back_unless_told_not_to)
{
	struct image image;

	image_start(&image, MEDIUM_HERE, 8 * MIB);
	cr_assert(image.fixture.volume->trims);
	fill(&image, 8 * MIB);
	cr_assert_geq(used_bytes(&image), 8 * MIB);
	cr_assert_eq(
		image_run(&image, (struct volume_request){ .command = VOLUME_COMMAND_WRITE_ZEROES,
							   .no_hole = true,
							   .length = 2 * MIB }),
		0);
	cr_assert_geq(used_bytes(&image), 8 * MIB);
	cr_assert_eq(image_run(&image, (struct volume_request){ .command = VOLUME_COMMAND_TRIM,
								.length = 4 * MIB }),
		     0);
	cr_assert_lt(used_bytes(&image), 5 * MIB);
	cr_assert_eq(
		image_run(&image, (struct volume_request){ .command = VOLUME_COMMAND_WRITE_ZEROES,
							   .fast_only = true,
							   .durable = true,
							   .length = 8 * MIB }),
		0);
	cr_assert_lt(used_bytes(&image), MIB);
	image_stop(&image);
}

Test(file_zeroes, zeros_of_less_than_a_grain_are_not_fast)
{
	uint8_t bytes[4096];
	struct image image;

	image_start(&image, MEDIUM_HERE, MIB);
	fill(&image, MIB);
	cr_assert_eq(
		image_run(&image, (struct volume_request){ .command = VOLUME_COMMAND_WRITE_ZEROES,
							   .fast_only = true,
							   .offset = 100,
							   .length = 1000 }),
		-EOPNOTSUPP);
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_READ, 0, 4096, bytes), 0);
	cr_assert_eq(bytes[500], 0x5a);
	image_stop(&image);
}

Test(file_zeroes, a_trim_of_terabytes_ends, .timeout = 60)
{
	struct image image;

	image_start(&image, MEDIUM_HERE, (uint64_t)8 << 40);
	fill(&image, MIB);
	cr_assert_eq(image_run(&image, (struct volume_request){ .command = VOLUME_COMMAND_TRIM,
								.length = (uint64_t)8 << 40 }),
		     0);
	cr_assert_lt(used_bytes(&image), MIB / 2);
	image_stop(&image);
}

/* Of a request that nobody waits for no further slice is begun. */
Test(file_zeroes, what_is_abandoned_ends_between_slices)
{
	static const bool abandoned = true;
	struct image image;

	image_start(&image, MEDIUM_HERE, (uint64_t)8 << 40);
	fill(&image, MIB);
	cr_assert_eq(image_run(&image, (struct volume_request){ .command = VOLUME_COMMAND_TRIM,
								.length = (uint64_t)8 << 40,
								.abandoned = &abandoned }),
		     0);
	cr_assert_geq(used_bytes(&image), MIB);
	image_stop(&image);
}

/* Whether the file system refuses to make holes in IMAGE.  Returns false if it can't be told to: only root may, and not everywhere. */
static bool
set_refusing(const struct image *image, bool refusing)
{
	int fd = open(image->path, O_RDONLY | O_CLOEXEC), flags;
	bool done;

	cr_assert_geq(fd, 0);
	done = ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0;
	flags = refusing ? flags | FS_APPEND_FL : flags & ~FS_APPEND_FL;
	done = done && ioctl(fd, FS_IOC_SETFLAGS, &flags) == 0;
	cr_assert_eq(close(fd), 0);
	return done;
}

/* What could not be zeroed is not remembered as zeros. */
Test(file_zeroes, zeros_that_fail_are_data_still)
{
	uint8_t bytes[4096];
	struct image image;
	int error;

	image_start(&image, MEDIUM_HERE, MIB);
	fill(&image, MIB);
	if (!set_refusing(&image, true)) {
		image_stop(&image);
		cr_skip_test("this file system can't be told to refuse, or by root only");
	}
	error = image_run(&image, (struct volume_request){ .command = VOLUME_COMMAND_WRITE_ZEROES,
							   .length = MIB });
	cr_assert(set_refusing(&image, false));
	cr_assert_eq(error, -EPERM);
	cr_assert_neq(volume_peek(image.fixture.volume, 0, MIB), VOLUME_PEEK_ZERO);
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_READ, 0, 4096, bytes), 0);
	cr_assert_eq(bytes[500], 0x5a);
	image_stop(&image);
}

/* Whether the file system of IMAGE keeps whoever writes.  Returns false if it can't be told to: only root may. */
static bool
set_frozen(const struct image *image, bool frozen)
{
	return ioctl(file_of(image->fixture.volume)->fd, frozen ? FIFREEZE : FITHAW, 0) == 0;
}

/* Give the volume of IMAGE the helpers of CALLS, more than the fixture's. */
static void
start_again(struct image *image, struct call_pool *calls)
{
	struct volume_options options = { .kind = VOLUME_KIND_FILE, .path = image->path };

	cr_assert_eq(volume_close(image->fixture.volume), 0);
	cr_assert_eq(volume_open(&options, &image->fixture.volume), 0);
	cr_assert_eq(volume_start(image->fixture.volume, &image->fixture.cores, 1, calls), 0);
}

/* Parts of blocks on a device that does not answer keep a few of the helpers, not one each. */
Test(file_zeroes, parts_that_hang_leave_helpers)
{
	enum {
		PARTS = 32,
		HELPERS = 8 * CALL_SHARE_DIVISOR /* of which one file alone has eight */
	};
	static struct trial trials[PARTS];
	struct call_counters counters;
	struct call_pool *calls;
	struct image image;

	image_start(&image, MEDIUM_XFS, 64 * PARTS * 1024);
	cr_assert_eq(call_pool_create(HELPERS, &calls), 0);
	start_again(&image, calls);
	if (!set_frozen(&image, true)) {
		call_pool_destroy(calls);
		image_stop(&image);
		cr_skip_test("this file system can't be frozen, or by root only");
	}
	for (unsigned i = 0; i < PARTS; i++) {
		trials[i].request.command = VOLUME_COMMAND_WRITE_ZEROES;
		trials[i].request.offset = 64 * 1024 * (uint64_t)i + 100;
		trials[i].request.length = 1000;
	}
	trials_begin(&image.fixture, trials, PARTS, 0, 0);
	do {
		usleep(1000);
		call_pool_counters(calls, &counters);
	} while (counters.submitted < PARTS);
	usleep(100000);
	call_pool_counters(calls, &counters);
	cr_assert(set_frozen(&image, false));
	for (unsigned i = 0; i < PARTS; i++)
		cr_assert_eq(trial_wait(&trials[i]), 0);
	cr_assert_eq(counters.completed, 0);
	cr_assert_leq(counters.threads, FILE_PART_LANES, "%llu",
		      (unsigned long long)counters.threads);
	call_pool_destroy(calls);
	image_stop(&image);
}
