/* Images that are made because they are missing. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/volume.h"
#include "tests/unit/medium.h"

#define MIB ((uint64_t)1 << 20)

static char path[80], image[64];
static enum medium_kind used;
static struct stat made;

/* A name that nothing has, beside an image on KIND. */
static void
begin(enum medium_kind kind)
{
	const char *missing = medium_create(kind, MIB, image);

	if (missing != NULL)
		cr_skip_test("%s: %s", medium_names[kind], missing);
	(void)snprintf(path, sizeof(path), "%s.new", image);
	used = kind;
}

static void
finish(void)
{
	(void)unlink(path);
	medium_remove(used, image);
}

static int
open_missing(enum volume_create create, uint64_t size_bytes)
{
	struct volume_options options = { .path = path,
					  .create = create,
					  .size_bytes = size_bytes };
	struct volume *volume;
	int error = volume_open(&options, &volume);

	if (error < 0)
		return error;
	cr_assert_eq(volume->size_bytes, size_bytes);
	cr_assert_eq(volume_close(volume), 0);
	cr_assert_eq(stat(path, &made), 0);
	return 0;
}

static void
check_zeros(uint64_t size_bytes)
{
	uint8_t *bytes = malloc(size_bytes);
	int fd = open(path, O_RDONLY);

	cr_assert_eq(read(fd, bytes, size_bytes), (ssize_t)size_bytes);
	for (uint64_t i = 0; i < size_bytes; i++)
		cr_assert_eq(bytes[i], 0);
	(void)close(fd);
	free(bytes);
}

static void
check_all_kinds(enum medium_kind kind)
{
	const uint64_t size_bytes = 5 * MIB + 12345;

	begin(kind);
	cr_assert_eq(open_missing(VOLUME_CREATE_SPARSE, size_bytes), 0);
	cr_assert_lt((uint64_t)made.st_blocks * 512, MIB);
	cr_assert_eq(made.st_mode & 07777, 0600);
	(void)unlink(path);
	cr_assert_eq(open_missing(VOLUME_CREATE_FALLOC, size_bytes), 0);
	cr_assert_geq((uint64_t)made.st_blocks * 512, size_bytes);
	(void)unlink(path);
	cr_assert_eq(open_missing(VOLUME_CREATE_WRITTEN, size_bytes), 0);
	cr_assert_geq((uint64_t)made.st_blocks * 512, size_bytes);
	check_zeros(size_bytes);
	finish();
}

Test(file_create, on_ext4)
{
	check_all_kinds(MEDIUM_EXT4);
}

Test(file_create, on_xfs)
{
	check_all_kinds(MEDIUM_XFS);
}

Test(file_create, on_btrfs)
{
	check_all_kinds(MEDIUM_BTRFS);
}

Test(file_create, what_was_written_is_no_hole_to_the_file_system)
{
	int fd;

	begin(MEDIUM_HERE);
	cr_assert_eq(open_missing(VOLUME_CREATE_FALLOC, MIB), 0);
	fd = open(path, O_RDONLY);
	cr_assert_eq(lseek(fd, 0, SEEK_DATA), -1);
	(void)close(fd);
	(void)unlink(path);
	cr_assert_eq(open_missing(VOLUME_CREATE_WRITTEN, MIB), 0);
	fd = open(path, O_RDONLY);
	cr_assert_eq(lseek(fd, 0, SEEK_DATA), 0);
	cr_assert_eq(lseek(fd, 0, SEEK_HOLE), (off_t)MIB);
	(void)close(fd);
	finish();
}

Test(file_create, what_exists_is_left_as_it_is)
{
	struct volume_options options = { .path = path,
					  .create = VOLUME_CREATE_WRITTEN,
					  .size_bytes = 4 * MIB };
	struct volume *volume;
	char needle[7] = "";
	int fd;

	begin(MEDIUM_HERE);
	fd = open(path, O_RDWR | O_CREAT, 0644);
	cr_assert_eq(ftruncate(fd, 8192), 0);
	cr_assert_eq(pwrite(fd, "needle", 6, 4096), 6);
	cr_assert_eq(volume_open(&options, &volume), 0);
	cr_assert_eq(volume->size_bytes, 8192);
	cr_assert_eq(volume_close(volume), 0);
	cr_assert_eq(pread(fd, needle, 6, 4096), 6);
	cr_assert_str_eq(needle, "needle");
	(void)close(fd);
	finish();
}

Test(file_create, checking_makes_nothing)
{
	struct volume_options options = { .path = path,
					  .create = VOLUME_CREATE_FALLOC,
					  .size_bytes = 4 * MIB };
	uint64_t size_bytes = 0;

	begin(MEDIUM_HERE);
	cr_assert_eq(volume_check(&options, &size_bytes), 0);
	cr_assert_eq(size_bytes, 4 * MIB);
	cr_assert_eq(access(path, F_OK), -1);
	options.size_bytes = (uint64_t)1 << 50;
	cr_assert_eq(volume_check(&options, &size_bytes), -ENOSPC);
	options.path = "build/no-such-directory/image";
	options.size_bytes = MIB;
	cr_assert_eq(volume_check(&options, &size_bytes), -ENOENT);
	finish();
}

/* Nothing has the name afterwards, and all the room is there again. */
Test(file_create, too_little_room_leaves_nothing)
{
	begin(MEDIUM_EXT4);
	cr_assert_eq(open_missing(VOLUME_CREATE_FALLOC, (uint64_t)1 << 40), -ENOSPC);
	cr_assert_eq(open_missing(VOLUME_CREATE_WRITTEN, (uint64_t)1 << 40), -ENOSPC);
	cr_assert_eq(access(path, F_OK), -1);
	cr_assert_eq(open_missing(VOLUME_CREATE_SPARSE, (uint64_t)1 << 40), 0);
	(void)unlink(path);
	cr_assert_eq(open_missing(VOLUME_CREATE_SPARSE, (uint64_t)1 << 50), -EFBIG);
	cr_assert_eq(access(path, F_OK), -1);
	finish();
}

Test(file_create, options_that_make_no_sense_are_refused)
{
	struct volume_mistake mistake;
	struct volume_options options = { .path = "a", .create = VOLUME_CREATE_SPARSE };

	cr_assert(volume_options_mistake(&options, &mistake));
	cr_assert(strstr(mistake.text, "needs a size") != NULL);
	options.size_bytes = 1;
	cr_assert_not(volume_options_mistake(&options, &mistake));
	options.read_only = true;
	cr_assert(volume_options_mistake(&options, &mistake));
	options = (struct volume_options){ .path = "a", .size_bytes = 1 };
	cr_assert(volume_options_mistake(&options, &mistake));
	options = (struct volume_options){ .kind = VOLUME_KIND_MEMORY,
					   .create = VOLUME_CREATE_SPARSE,
					   .size_bytes = 1 };
	cr_assert(volume_options_mistake(&options, &mistake));
}
