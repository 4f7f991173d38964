/* A file without a name is made, filled, brought to stable storage, and only then linked under its name; then the directory is brought
 * there, too.  Source: open(2), O_TMPFILE. */
#include "disk/file_create.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "reactor/log.h"

#define PIECE_BYTES ((uint64_t)4 << 20)
/* After so many bytes they are brought to the disk and out of the page cache, which others need. */
#define SYNC_BYTES ((uint64_t)256 << 20)

/* Say why the file can't be made, and what helps. */
static int
log_create_error(const struct volume_options *options, int error)
{
	const char *how = volume_create_names[options->create];
	unsigned long long bytes = options->size_bytes;

	switch (error) {
	case -EDQUOT:
		log_error("%s: cannot be created: the quota does not allow %llu bytes (size, "
			  "create = %s); raise it, or choose a smaller size",
			  options->path, bytes, how);
		break;
	case -EFBIG:
		log_error("%s: cannot be created: a file of %llu bytes (size) is too large for "
			  "its file system; choose a smaller size",
			  options->path, bytes);
		break;
	case -ENOENT:
		log_error("%s: cannot be created: there is no such directory; make it first",
			  options->path);
		break;
	case -EEXIST:
		log_error("%s: cannot be created: it is a symbolic link to a file that does not "
			  "exist, or was made meanwhile; set path to what the link names",
			  options->path);
		break;
	case -EACCES:
	case -EPERM:
	case -EROFS:
		log_error("%s: cannot be created: %s; give this user write permission for its "
			  "directory",
			  options->path, strerror(-error));
		break;
	case -ECANCELED:
		log_error("%s: not created: told to stop meanwhile", options->path);
		break;
	case -EOPNOTSUPP:
	case -EISDIR:
		log_error("%s: cannot be created: its file system has no files without a name, or "
			  "cannot allocate ahead (create = %s); make it with truncate -s or dd, "
			  "or use ext4, XFS or btrfs",
			  options->path, how);
		break;
	default:
		log_error("%s: cannot be created with %llu bytes (size, create = %s): %s",
			  options->path, bytes, how, strerror(-error));
		break;
	}
	return error;
}

/* Not enough room: asked beforehand, since trying would take all there is from others for a while. */
static int
check_room(const struct volume_options *options, const char *directory)
{
	struct statvfs system;
	uint64_t free_bytes;

	if (options->create == VOLUME_CREATE_SPARSE || statvfs(directory, &system) != 0)
		return 0;
	free_bytes = (uint64_t)system.f_bavail * system.f_frsize;
	if (free_bytes >= options->size_bytes)
		return 0;
	log_error("%s: cannot be created: it needs %llu bytes (size, create = %s), and its file "
		  "system has %llu free; make room, choose a smaller size, or create = sparse",
		  options->path, (unsigned long long)options->size_bytes,
		  volume_create_names[options->create], (unsigned long long)free_bytes);
	return -ENOSPC;
}

/* The directory of PATH; to be freed. */
static char *
directory_of(const char *path)
{
	char *copy = strdup(path), *directory;

	if (copy == NULL)
		return NULL;
	directory = strdup(dirname(copy));
	free(copy);
	return directory;
}

static int
allocate(int fd, uint64_t bytes)
{
	int result;

	do {
		result = fallocate(fd, 0, 0, (off_t)bytes);
	} while (result != 0 && errno == EINTR);
	return result == 0 ? 0 : -errno;
}

/* Bring what was written of FD to the disk, and out of the page cache. */
static int
settle(int fd)
{
	if (fdatasync(fd) != 0)
		return -errno;
	(void)posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	return 0;
}

static int
write_zeros(int fd, const struct volume_options *options, const void *zeros)
{
	uint64_t offset = 0, settled = 0;
	int error = 0;

	while (offset < options->size_bytes && error == 0) {
		uint64_t left = options->size_bytes - offset;
		ssize_t result =
			pwrite(fd, zeros, left < PIECE_BYTES ? left : PIECE_BYTES, (off_t)offset);

		if (result < 0 && errno == EINTR)
			continue;
		if (result <= 0)
			return result < 0 ? -errno : -EIO;
		offset += (uint64_t)result;
		if (offset - settled >= SYNC_BYTES) {
			error = settle(fd);
			settled = offset;
			if (error == 0 && options->progress != NULL &&
			    !options->progress(options, offset))
				error = -ECANCELED;
		}
	}
	return error;
}

static int
fill(int fd, const struct volume_options *options)
{
	void *zeros;
	int error;

	if (options->create == VOLUME_CREATE_SPARSE)
		return ftruncate(fd, (off_t)options->size_bytes) == 0 ? 0 : -errno;
	/* Before writing: in one piece where that is possible, and no room is found out at once. */
	error = allocate(fd, options->size_bytes);
	if (options->create == VOLUME_CREATE_FALLOC || (error < 0 && error != -EOPNOTSUPP))
		return error;
	zeros = mmap(NULL, PIECE_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (zeros == MAP_FAILED)
		return -ENOMEM;
	error = write_zeros(fd, options, zeros);
	(void)munmap(zeros, PIECE_BYTES);
	return error;
}

/* Give FD, which has no name, that of OPTIONS.  Whatever has got it meanwhile keeps it. */
static int
name_file(int fd, const struct volume_options *options, const char *directory)
{
	char self[32];
	int directory_fd, error = 0;

	(void)snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	if (linkat(AT_FDCWD, self, AT_FDCWD, options->path, AT_SYMLINK_FOLLOW) != 0)
		return -errno;
	directory_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (directory_fd < 0)
		return -errno;
	if (fsync(directory_fd) != 0)
		error = -errno;
	(void)close(directory_fd);
	return error;
}

static int
create_in(const struct volume_options *options, const char *directory)
{
	int error = check_room(options, directory);
	int fd;

	if (error < 0)
		return error;
	fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		return log_create_error(options, -errno);
	error = fill(fd, options);
	if (error == 0 && fsync(fd) != 0)
		error = -errno;
	if (error == 0)
		error = name_file(fd, options, directory);
	(void)close(fd);
	if (error < 0)
		return log_create_error(options, error);
	log_info("%s: created, %llu bytes, %s", options->path,
		 (unsigned long long)options->size_bytes, volume_create_names[options->create]);
	return 0;
}

/* Whether there is something to make. */
static bool
is_missing(const struct volume_options *options)
{
	struct stat status;

	return options->create != VOLUME_CREATE_NO && stat(options->path, &status) != 0 &&
	       errno == ENOENT;
}

/* Have ACT, which returns 0 or a negative errno, see to what is missing, in the directory where it belongs.
 * Returns 0: nothing is missing; 1: ACT has succeeded; or a negative errno. */
static int
if_missing(const struct volume_options *options,
	   int (*act)(const struct volume_options *options, const char *directory))
{
	char *directory;
	int error;

	if (!is_missing(options))
		return 0;
	directory = directory_of(options->path);
	if (directory == NULL)
		return -ENOMEM;
	error = act(options, directory);
	free(directory);
	return error < 0 ? error : 1;
}

int
file_create(const struct volume_options *options)
{
	int result = if_missing(options, create_in);

	return result < 0 ? result : 0;
}

static int
check_in(const struct volume_options *options, const char *directory)
{
	struct stat status;

	if (lstat(options->path, &status) == 0)
		return log_create_error(options, -EEXIST);
	if (access(directory, W_OK | X_OK) != 0)
		return log_create_error(options, -errno);
	return check_room(options, directory);
}

int
file_create_check(const struct volume_options *options)
{
	return if_missing(options, check_in);
}
