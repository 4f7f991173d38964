/* Volumes in files, on two real cores and a real file system, against a model in memory. */
#include <criterion/criterion.h>
#include <criterion/redirect.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/file_volume.h"
#include "tests/unit/image_fixture.h"
#include "tests/unit/kernel_faults.h"
#include "tests/unit/seed.h"

/* An image of SIZE zeros without a volume; in the build folder, since /tmp may be without direct I/O. */
static void
image_create(char path[64], uint64_t size_bytes)
{
	cr_assert_null(medium_create(MEDIUM_HERE, size_bytes, path));
}

static int
open_file(const char *path, bool read_only, struct volume **volume)
{
	struct volume_options options = { .path = path, .read_only = read_only };

	return volume_open(&options, volume);
}

/* Random writes of any alignment on both cores, several at a time where they do not overlap, then all is read back. */
static void
check_against_model(uint64_t size_bytes, unsigned rounds)
{
	enum {
		TOGETHER = 8
	};
	unsigned seed = (unsigned)test_seed();
	uint64_t share = size_bytes / TOGETHER;
	uint8_t *model = calloc(1, size_bytes), *read_back = malloc(size_bytes);
	struct trial *trials = calloc(TOGETHER, sizeof(*trials));
	struct image image;

	image_start(&image, MEDIUM_HERE, size_bytes);
	for (unsigned round = 0; round < rounds; round++) {
		for (unsigned i = 0; i < TOGETHER; i++) {
			/* Each has bytes of its own, in blocks that it shares with its neighbours. */
			uint64_t start = i * share + (unsigned)rand_r(&seed) % share;
			uint64_t end = (i == TOGETHER - 1 ? size_bytes : (i + 1) * share);
			uint32_t length = 1 + (uint32_t)rand_r(&seed) % 9000;

			if (rand_r(&seed) % 3 == 0)
				start = start / 512 * 512 < i * share ? start : start / 512 * 512;
			if (length > end - start)
				length = (uint32_t)(end - start);
			memset(model + start, (int)(round + i + 1), length);
			trials[i] = (struct trial){ .request = { .command = VOLUME_COMMAND_WRITE,
								 .offset = start,
								 .length = length } };
			trial_begin(&image.fixture, &trials[i], i % VOLUME_FIXTURE_CORES,
				    model + start);
		}
		for (unsigned i = 0; i < TOGETHER; i++) {
			cr_assert_eq(trial_wait(&trials[i]), 0);
			trial_end(&trials[i]);
		}
	}
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_READ, 0, size_bytes, read_back), 0);
	cr_assert(memcmp(model, read_back, size_bytes) == 0);
	cr_assert_eq(image_file_bytes(&image), size_bytes);
	image_stop(&image);
	free(model);
	free(read_back);
	free(trials);
}

Test(file, random_writes_leave_what_the_model_says, .timeout = 120)
{
	check_against_model(65536, 300);
}

Test(file, odd_size_keeps_its_last_byte_and_does_not_grow, .timeout = 120)
{
	check_against_model(70001, 200);
}

Test(file, image_smaller_than_a_block_works, .timeout = 120)
{
	check_against_model(100, 50);
}

/* The last sectors, of a block of the file system that is not whole, go another way: with no more room in the buffer than others. */
Test(file, whole_sectors_at_an_end_within_a_block_are_written)
{
	uint8_t bytes[4096 + 512], got[8192 + 512], wanted[8192 + 512];
	struct image image;

	memset(wanted, 0, sizeof(wanted));
	image_start(&image, MEDIUM_HERE, sizeof(wanted));
	for (uint32_t length = 512; length <= sizeof(bytes); length += 512) {
		memset(bytes, (int)length / 512, length);
		memcpy(wanted + sizeof(wanted) - length, bytes, length);
		cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_WRITE,
					sizeof(wanted) - length, length, bytes),
			     0);
		cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_READ, 0, sizeof(got), got),
			     0);
		cr_assert_arr_eq(got, wanted, sizeof(got));
	}
	cr_assert_eq(image_file_bytes(&image), sizeof(wanted));
	image_stop(&image);
}

Test(file, unaligned_read_returns_just_its_bytes)
{
	struct image image;
	uint8_t bytes[1000];
	int fd;

	image_start(&image, MEDIUM_HERE, 8192);
	fd = open(image.path, O_WRONLY);
	cr_assert_eq(pwrite(fd, "needle", 6, 4093), 6);
	(void)close(fd);
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_READ, 4093, 6, bytes), 0);
	cr_assert_arr_eq(bytes, "needle", 6);
	image_stop(&image);
}

static atomic_uint asked_reads;

static long
count_asked_reads(io_context_t context, long count, struct iocb **iocbs)
{
	for (long i = 0; i < count; i++)
		asked_reads += iocbs[i]->aio_lio_opcode == IO_CMD_PREAD &&
			       (iocbs[i]->aio_rw_flags & RWF_NOWAIT) != 0;
	return kernel_submit_unchanged(context, count, iocbs);
}

/* What is read of the first block, and of the last: where the file's lock is taken, a helper waits and not the core. */
Test(file, unaligned_write_reads_without_blocking_the_core)
{
	static const uint64_t offsets[] = { 100, 0 };
	uint8_t bytes[5000] = { 1 };
	struct image image;

	for (unsigned i = 0; i < ARRAY_COUNT(offsets); i++) {
		image_start(&image, MEDIUM_HERE, 1 << 20);
		asked_reads = 0;
		submit_fault = count_asked_reads;
		cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_WRITE, offsets[i],
					sizeof(bytes), bytes),
			     0);
		submit_fault = NULL;
		cr_assert_geq(asked_reads, 1, "offset %llu", (unsigned long long)offsets[i]);
		image_stop(&image);
	}
}

Test(file, durable_write_and_flush_succeed)
{
	struct image image;
	uint8_t bytes[4096] = { 1, 2, 3 };
	struct trial trial = { .request = { .command = VOLUME_COMMAND_WRITE,
					    .offset = 4096,
					    .length = sizeof(bytes),
					    .durable = true } };

	image_start(&image, MEDIUM_HERE, 1 << 20);
	trial_begin(&image.fixture, &trial, 1, bytes);
	cr_assert_eq(trial_wait(&trial), 0);
	trial_end(&trial);
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_FLUSH, 0, 0, NULL), 0);
	image_stop(&image);
}

/* What is behind the last block goes by the page cache and is synced at once: of earlier writes, too, such a sync may have been told that
 * they are lost. */
static void
check_tail_that_is_not_synced(enum volume_command command, int fault, int flush_error)
{
	const uint64_t size_bytes = 8192 + 5;
	uint8_t bytes[4096] = { 1 };
	struct image image;

	image_start(&image, MEDIUM_HERE, size_bytes);
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_WRITE, 0, sizeof(bytes), bytes), 0);
	sync_write_fault = fault;
	cr_assert_eq(volume_run(&image.fixture, command, size_bytes - 3, 3, bytes), -fault);
	sync_write_fault = 0;
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_FLUSH, 0, 0, NULL), flush_error);
	image_stop(&image);
}

Test(file, tail_that_is_not_synced_fails_later_flushes)
{
	check_tail_that_is_not_synced(VOLUME_COMMAND_WRITE, EIO, -EIO);
	check_tail_that_is_not_synced(VOLUME_COMMAND_WRITE, ETIMEDOUT, -EIO);
	check_tail_that_is_not_synced(VOLUME_COMMAND_WRITE_ZEROES, EIO, -EIO);
}

Test(file, tail_that_there_is_no_room_for_fails_alone)
{
	check_tail_that_is_not_synced(VOLUME_COMMAND_WRITE, ENOSPC, 0);
	check_tail_that_is_not_synced(VOLUME_COMMAND_WRITE_ZEROES, EDQUOT, 0);
}

Test(file, read_behind_a_cut_file_fails_and_others_go_on)
{
	struct image image;
	uint8_t bytes[4096];

	image_start(&image, MEDIUM_HERE, 1 << 20);
	cr_assert_eq(truncate(image.path, 8192 + 100), 0);
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_READ, 65536, 4096, bytes), -EIO);
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_READ, 8192, 4096, bytes), -EIO);
	cr_assert_eq(volume_run(&image.fixture, VOLUME_COMMAND_READ, 4096, 4096, bytes), 0);
	image_stop(&image);
}

Test(file, buffer_has_room_for_the_blocks_beside_an_unaligned_write)
{
	struct volume volume = { .size_bytes = 1 << 20, .block_bytes = 4096 };

	cr_assert_eq(volume_buffer_bytes(&volume, VOLUME_COMMAND_READ, 0, 4096), 4096);
	cr_assert_eq(volume_buffer_bytes(&volume, VOLUME_COMMAND_WRITE, 0, 4096), 4096);
	cr_assert_eq(volume_buffer_bytes(&volume, VOLUME_COMMAND_READ, 4095, 2), 8192);
	cr_assert_eq(volume_buffer_bytes(&volume, VOLUME_COMMAND_WRITE, 4095, 2), 8192 + 2 * 4096);
	cr_assert_eq(volume_buffer_bytes(&volume, VOLUME_COMMAND_WRITE, 1, 1), 4096 + 2 * 4096);
}

Test(file, what_is_no_image_is_refused)
{
	struct volume *volume = NULL;
	char path[64];

	cr_assert_eq(open_file("build/there-is-no-such-image", false, &volume), -ENOENT);
	cr_assert_eq(open_file("build", true, &volume), -EISDIR);
	image_create(path, 0);
	cr_assert_eq(open_file(path, false, &volume), -EINVAL);
	(void)unlink(path);
	cr_assert_eq(mkfifo(path, 0600), 0);
	cr_assert_lt(open_file(path, false, &volume), 0);
	(void)unlink(path);
	cr_assert_null(volume);
}

Test(file, one_writer_excludes_everybody)
{
	struct volume *first, *second = NULL;
	char path[64];

	image_create(path, 4096);
	cr_assert_eq(open_file(path, false, &first), 0);
	cr_assert_eq(open_file(path, false, &second), -EBUSY);
	cr_assert_eq(open_file(path, true, &second), -EBUSY);
	cr_assert_null(second);
	cr_assert_eq(volume_close(first), 0);
	(void)unlink(path);
}

/* A pipe, which can't be synced, in the place of the file. */
Test(file, last_flush_that_fails_is_told_with_export_and_path, .init = cr_redirect_stderr)
{
	char path[64], expected[256], said[1024];
	struct volume *volume;
	int ends[2];
	size_t bytes;

	image_create(path, 4096);
	cr_assert_eq(open_file(path, false, &volume), 0);
	volume->export_name = "disk";
	cr_assert_eq(pipe(ends), 0);
	cr_assert_geq(dup2(ends[0], file_of(volume)->fd), 0);
	cr_assert_eq(volume_close(volume), -EINVAL);
	fflush(stderr);
	bytes = fread(said, 1, sizeof(said) - 1, cr_get_redirected_stderr());
	said[bytes] = '\0';
	(void)snprintf(expected, sizeof(expected),
		       "error: export \"disk\": %s: the last flush, when closing, failed: Invalid "
		       "argument; acknowledged writes may be lost\n",
		       path);
	cr_assert_not_null(strstr(said, expected), "%s", said);
	(void)unlink(path);
}

Test(file, another_name_of_the_same_file_is_no_way_round)
{
	struct volume *first, *second = NULL;
	char path[64], other[80];

	image_create(path, 4096);
	(void)snprintf(other, sizeof(other), "%s.other", path);
	cr_assert_eq(link(path, other), 0);
	cr_assert_eq(open_file(path, false, &first), 0);
	cr_assert_eq(open_file(other, false, &second), -EBUSY);
	cr_assert_eq(open_file(other, true, &second), -EBUSY);
	cr_assert_null(second);
	cr_assert_eq(volume_close(first), 0);
	(void)unlink(path);
	(void)unlink(other);
}

Test(file, another_node_of_the_same_device_is_no_way_round)
{
	struct volume *first, *second = NULL;
	char path[64], node[64] = "build/unit-node-XXXXXX";
	struct stat status;
	const char *missing = medium_create(MEDIUM_LOOP512, 1 << 20, path);
	int made;

	if (missing != NULL)
		cr_skip_test("%s", missing);
	cr_assert_eq(stat(path, &status), 0);
	cr_assert_geq(mkstemp(node), 0);
	(void)unlink(node);
	made = mknod(node, S_IFBLK | 0600, status.st_rdev);
	if (made != 0)
		cr_skip_test("no device node can be made here");
	cr_assert_eq(open_file(path, false, &first), 0);
	cr_assert_eq(open_file(node, false, &second), -EBUSY);
	cr_assert_null(second);
	cr_assert_eq(volume_close(first), 0);
	cr_assert_eq(open_file(node, false, &second), 0);
	cr_assert_eq(volume_close(second), 0);
	(void)unlink(node);
}

Test(file, readers_share)
{
	struct volume *first, *second;
	char path[64];

	image_create(path, 4096);
	cr_assert_eq(open_file(path, true, &first), 0);
	cr_assert_eq(open_file(path, true, &second), 0);
	cr_assert_eq(volume_close(first), 0);
	cr_assert_eq(volume_close(second), 0);
	(void)unlink(path);
}

Test(file, check_finds_the_size_and_locks_nothing)
{
	struct volume *volume;
	uint64_t size_bytes = 0;
	char path[64];

	image_create(path, 12345);
	cr_assert_eq(open_file(path, false, &volume), 0);
	cr_assert_eq(volume_check(&(struct volume_options){ .path = path }, &size_bytes), 0);
	cr_assert_eq(size_bytes, 12345);
	cr_assert_eq(volume_close(volume), 0);
	(void)unlink(path);
}
