/* Opening and closing files and block devices: what they are, how large, in which unit, and that nobody else
 * writes them. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <unistd.h>

#include "disk/device_limits.h"
#include "disk/file_create.h"
#include "disk/file_volume.h"
#include "disk/image_format.h"
#include "disk/volume_kinds.h"
#include "reactor/log.h"

/* The page cache's unit on the common platforms with the smallest page; a larger page only makes the exclusive range
 * round up to itself less often than it could. */
#define GRAIN_BYTES_MIN	  4096u
#define BLOCK_BYTES_MIN	  512u
#define BLOCK_BYTES_MAX	  FILE_GRAIN_BYTES_MAX
#define SLACK_BYTES	  ((uint64_t)1 << 20)
#define BLOCK_BYTES_GUESS 4096u /* where the kernel does not say (statx before Linux 6.1) */

/* Larger ones are not waited for: slices may cut them. */
#define DISCARD_GRAIN_BYTES_MAX ((uint64_t)256 << 20)

/* Say why PATH can't be opened, and what helps. */
static int
log_open_error(const char *path, bool read_only, int error)
{
	const char *fix = "";

	switch (error) {
	case -ENOENT:
		fix = strncmp(path, "/dev/", 5) == 0
			      ? "; if the device is there, this process may not see it: in a unit "
				"set PrivateDevices=no and DeviceAllow="
			      : "; create it first, for example with truncate -s 10G, or set "
				"create "
				"and size";
		break;
	case -EACCES:
	case -EPERM:
	case -EROFS:
		fix = read_only ? "; give this user read permission"
				: "; give this user write permission, or set read-only = yes";
		break;
	case -EBUSY:
		fix = "; it is mounted, part of another device, or served by another process or "
		      "export: "
		      "stop that, or set read-only = yes";
		break;
	case -EINVAL:
		fix = " (its file system may not support O_DIRECT: use one that does, such as "
		      "ext4, XFS or btrfs; or set cache = host)";
		break;
	case -EFBIG:
		fix = "; no more than 8 EiB less 64 KiB can be served";
		break;
	default:
		break;
	}
	log_error("%s: cannot be opened for %s: %s%s", path,
		  read_only ? "reading" : "reading and writing", strerror(-error), fix);
	return error;
}

/* It is this process that has the image, for the export HOLDER: to stop others would not help. */
static int
log_held(const char *path, const char *holder)
{
	log_error("%s: this daemon has it open for export \"%s\", by another path or with other "
		  "settings: reload without any export of it and, when their clients have gone, "
		  "with them, or restart the daemon; two exports of one image must both be "
		  "read-only",
		  path, holder);
	return -EBUSY;
}

/* Find the unit of direct I/O for the opened file.  Source: statx(2), STATX_DIOALIGN. */
static int
find_block_bytes(const char *path, int fd, const struct stat *status, uint32_t *block_bytes)
{
	uint32_t bytes = BLOCK_BYTES_GUESS;

	if (S_ISBLK(status->st_mode)) {
		int logical_bytes;

		if (ioctl(fd, BLKSSZGET, &logical_bytes) == 0)
			bytes = (uint32_t)logical_bytes;
	} else {
#ifdef STATX_DIOALIGN
		struct statx extended;

		if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &extended) == 0 &&
		    (extended.stx_mask & STATX_DIOALIGN) != 0 &&
		    extended.stx_dio_offset_align != 0) {
			bytes = extended.stx_dio_offset_align;
			if (extended.stx_dio_mem_align > bytes)
				bytes = extended.stx_dio_mem_align;
		}
#endif
	}
	if (bytes < BLOCK_BYTES_MIN)
		bytes = BLOCK_BYTES_MIN;
	if (bytes > BLOCK_BYTES_MAX || (bytes & (bytes - 1)) != 0) {
		log_error("%s: its unit of direct I/O, %u bytes, is not a power of two up to %u",
			  path, bytes, BLOCK_BYTES_MAX);
		return -EINVAL;
	}
	*block_bytes = bytes;
	return 0;
}

static int
check_kind(const char *path, const struct stat *status)
{
	if (S_ISREG(status->st_mode) || S_ISBLK(status->st_mode))
		return 0;
	if (S_ISDIR(status->st_mode)) {
		log_error("%s: is a directory; name an image file or a block device", path);
		return -EISDIR;
	}
	log_error("%s: is neither a regular file nor a block device", path);
	return -EINVAL;
}

/* A loop device ends where its file does, which may be within a block: of that the kernel reads and writes nothing. */
static uint64_t
cut_to_blocks(int fd, uint64_t size_bytes)
{
	int block_bytes;

	if (ioctl(fd, BLKSSZGET, &block_bytes) != 0 || block_bytes <= 0)
		return size_bytes; /* UNTESTED: every block device knows it */
	return size_bytes - size_bytes % (uint64_t)block_bytes;
}

static int
find_device_size(int fd, uint64_t *size_bytes)
{
	uint64_t all_bytes;

	if (ioctl(fd, BLKGETSIZE64, &all_bytes) != 0)
		return -errno;
	*size_bytes = cut_to_blocks(fd, all_bytes);
	return 0;
}

static void
warn_if_cut(const char *path, int fd, uint64_t size_bytes)
{
	uint64_t all_bytes;

	if (ioctl(fd, BLKGETSIZE64, &all_bytes) == 0 && all_bytes > size_bytes)
		log_warning("%s: its last %llu bytes are not served: they are less than one of its "
			    "blocks, which the kernel cannot read or write; make its image larger, "
			    "or its blocks smaller (losetup --sector-size 512)",
			    path, (unsigned long long)(all_bytes - size_bytes));
}

int
file_find_size(int fd, uint64_t *size_bytes)
{
	struct stat status;

	if (fstat(fd, &status) != 0)
		return -errno;
	if (S_ISBLK(status.st_mode))
		return find_device_size(fd, size_bytes);
	/* Whole blocks, and grains, are read and locked; the kernel takes no offset behind INT64_MAX. */
	if (status.st_size > INT64_MAX - (off_t)FILE_GRAIN_BYTES_MAX)
		return -EFBIG;
	*size_bytes = (uint64_t)status.st_size;
	return 0;
}

static int
find_size(const char *path, int fd, const struct stat *status, uint64_t *size_bytes)
{
	/* Again: the name may be another file's by now. */
	int error = check_kind(path, status);

	if (error < 0)
		return error;
	error = file_find_size(fd, size_bytes);
	if (error < 0)
		return log_open_error(path, true, error);
	if (S_ISBLK(status->st_mode))
		warn_if_cut(path, fd, *size_bytes);
	if (*size_bytes == 0) {
		log_error("%s: is empty; give it a size first, for example with truncate -s 10G",
			  path);
		return -EINVAL;
	}
	return 0;
}

/* Keep other processes, and other exports of this one, from writing what is served here.
 * HOLDER: as in volume_options.
 * The lock belongs to the open file: it ends with its last descriptor.  Source: fcntl(2), F_OFD_SETLK. */
static int
lock_file(const char *path, const char *holder, int fd, short type)
{
	struct flock whole = { .l_type = type, .l_whence = SEEK_SET };

	if (fcntl(fd, F_OFD_SETLK, &whole) == 0)
		return 0;
	if (errno == EAGAIN || errno == EACCES) {
		if (holder != NULL)
			return log_held(path, holder);
		log_error("%s: is in use by another process or export; stop that, or make both "
			  "read-only",
			  path);
		return -EBUSY;
	}
	log_warning("%s: cannot be locked (%s): nothing keeps others from writing it", path,
		    strerror(errno));
	return 0;
}

int
file_lock(struct volume *volume, bool locked)
{
	struct file_volume *file = file_of(volume);
	int error;

	/* A writer's volume of the same file has a map of its own, and this one hears nothing of its writes. */
	if (!locked)
		extent_map_doubt(&file->map, true);
	error = lock_file(volume->path, NULL, file->fd, locked ? F_RDLCK : F_UNLCK);
	if (locked && error == 0)
		extent_map_doubt(&file->map, false);
	return error;
}

/* Find what the file system, or the page cache, holds as a whole; UNIT_BYTES: the file's unit. */
static uint64_t
find_grain_bytes(const struct file_volume *file, uint32_t unit_bytes)
{
	uint64_t bytes = unit_bytes;
	struct statfs system;

	if (bytes < GRAIN_BYTES_MIN)
		bytes = GRAIN_BYTES_MIN;
	/* Some that are no local ones say what they would rather be asked for. */
	if (!file->is_device && fstatfs(file->fd, &system) == 0 &&
	    (uint64_t)system.f_bsize > bytes && system.f_bsize <= FILE_GRAIN_BYTES_MAX &&
	    (system.f_bsize & (system.f_bsize - 1)) == 0)
		bytes = (uint64_t)system.f_bsize;
	return bytes;
}

/* The name may be another file's by now. */
static int
reopen_for_tail(const struct file_volume *file)
{
	struct stat opened, known;
	int fd = open(file->volume.path, O_WRONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return -errno;
	if (fstat(fd, &opened) == 0 && fstat(file->fd, &known) == 0 &&
	    opened.st_ino == known.st_ino && opened.st_dev == known.st_dev)
		return fd;
	(void)close(fd);
	return -ESTALE;
}

int
file_open_tail(struct file_volume *file, uint64_t size_bytes, uint64_t *tail_start)
{
	uint64_t unit_bytes =
		file->is_device || file->cached ? file->volume.block_bytes : file->grain_bytes;

	*tail_start = size_bytes;
	if (size_bytes % unit_bytes == 0 || file->volume.read_only)
		return 0;
	*tail_start = file_grain_floor(file, size_bytes);
	if (file->tail_fd < 0)
		file->tail_fd = reopen_for_tail(file);
	return file->tail_fd < 0 ? file->tail_fd : 0;
}

/* See the top of file_rmw.c. */
static int
find_tail(struct file_volume *file)
{
	int error;

	file->tail_fd = -1;
	error = file_open_tail(file, file->volume.size_bytes, &file->tail_start);
	return error < 0 ? log_open_error(file->volume.path, false, error) : 0;
}

/* Whether a regular file can have holes: ask for one behind its end, which changes nothing. */
static bool
can_punch(const struct file_volume *file)
{
	uint64_t behind = (file->volume.size_bytes / SLACK_BYTES + 1) * SLACK_BYTES;

	return fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)behind,
			 (off_t)SLACK_BYTES) == 0;
}

/* What FILE can do beside reading and writing. */
static int
find_abilities(struct file_volume *file)
{
	struct device_limits limits;
	struct stat status;

	if (fstat(file->fd, &status) != 0)
		return log_open_error(file->volume.path, file->volume.read_only, -errno);
	file->is_device = S_ISBLK(status.st_mode);
	if (!file->is_device) {
		slice_pace_init(&file->pace, false, 0);
		file->zeroes_fast = true;
		file->volume.trims = !file->volume.read_only && can_punch(file);
		return 0;
	}
	device_limits_find(status.st_rdev, &limits);
	file->zeroes_fast = limits.write_zeroes_bytes_max > 0;
	file->volume.trims = limits.discard_bytes_max > 0;
	if (limits.discard_grain_bytes > DISCARD_GRAIN_BYTES_MAX ||
	    (limits.discard_grain_bytes & (limits.discard_grain_bytes - 1)) != 0)
		limits.discard_grain_bytes = 0;
	slice_pace_init(&file->pace, true, limits.discard_grain_bytes);
	return 0;
}

/* Open what OPTIONS say and find its size and unit; claimed: nobody else may write it.  Returns the descriptor, or a negative errno, logged. */
static int
open_image(const struct volume_options *options, bool claimed, uint64_t *size_bytes,
	   uint32_t *unit_bytes)
{
	const char *path = options->path;
	bool read_only = options->read_only;
	struct stat status;
	int fd, error, flags = O_CLOEXEC | O_NONBLOCK;

	/* Before opening: what is no image often refuses O_DIRECT, which would be the wrong thing to say. */
	if (stat(path, &status) != 0)
		return log_open_error(path, read_only, -errno);
	error = check_kind(path, &status);
	if (error < 0)
		return error;
	/* O_NONBLOCK: whatever takes the name's place meanwhile must not hold the daemon up. */
	flags |= read_only ? O_RDONLY : O_RDWR;
	if (options->cache == VOLUME_CACHE_NONE)
		flags |= O_DIRECT;
	/* A device has several names, and what is mounted takes no lock: it is claimed.  Source: open(2), O_EXCL. */
	if (S_ISBLK(status.st_mode) && claimed && !read_only)
		flags |= O_EXCL;
	fd = open(path, flags);
	if (fd < 0 && errno == EBUSY && options->holder != NULL)
		return log_held(path, options->holder);
	if (fd < 0)
		return log_open_error(path, read_only, -errno);
	if (fstat(fd, &status) != 0)
		error = log_open_error(path, read_only, -errno);
	else
		error = find_size(path, fd, &status, size_bytes);
	if (error == 0)
		error = find_block_bytes(path, fd, &status, unit_bytes);
	if (error < 0) {
		(void)close(fd);
		return error;
	}
	/* Not of a device: of one that hangs all can be found out but what is in it. */
	if (S_ISREG(status.st_mode))
		image_format_warn(path, fd, *unit_bytes);
	return fd;
}

int
file_check(const struct volume_options *options, uint64_t *size_bytes)
{
	uint32_t unit_bytes;
	int fd, missing = file_create_check(options);

	if (missing < 0)
		return missing;
	if (missing > 0) {
		*size_bytes = options->size_bytes;
		return 0;
	}
	fd = open_image(options, false, size_bytes, &unit_bytes);
	if (fd < 0)
		return fd;
	(void)close(fd);
	return 0;
}

/* Some file systems can't, and what shuts the daemon in may forbid it. */
static bool
can_splice(int fd)
{
	loff_t offset = 0;
	int fds[2];
	bool can;

	if (pipe2(fds, O_CLOEXEC) != 0)
		return false;
	can = splice(fd, &offset, fds[1], NULL, 1, 0) == 1;
	(void)close(fds[0]);
	(void)close(fds[1]);
	return can;
}

int
file_open(const struct volume_options *options, struct volume **result)
{
	const char *path = options->path;
	bool read_only = options->read_only;
	uint32_t unit_bytes;
	struct file_volume *file = calloc(1, sizeof(*file));
	struct volume *volume;
	int error = -ENOMEM;

	if (file == NULL)
		return error;
	volume = &file->volume;
	volume->ops = &file_volume_ops;
	volume->read_only = read_only;
	volume->path = strdup(path);
	if (volume->path == NULL)
		goto err_after_file;
	error = file_create(options);
	if (error < 0)
		goto err_after_path;
	file->fd = open_image(options, true, &volume->size_bytes, &unit_bytes);
	error = file->fd;
	if (error < 0)
		goto err_after_path;
	if (options->create != VOLUME_CREATE_NO && volume->size_bytes != options->size_bytes)
		log_info("%s: exists, and keeps its size of %llu bytes: size is for creating it",
			 path, (unsigned long long)volume->size_bytes);
	file->cached = options->cache == VOLUME_CACHE_HOST;
	volume->block_bytes = file->cached ? 1 : unit_bytes;
	volume->prefetches = file->cached;
	error = lock_file(path, options->holder, file->fd, read_only ? F_RDLCK : F_WRLCK);
	if (error == 0)
		error = find_abilities(file);
	file->grain_bytes = find_grain_bytes(file, unit_bytes);
	if (error == 0)
		error = find_tail(file);
	if (error < 0)
		goto err_after_open;
	volume->splices = file->cached && can_splice(file->fd);
	page_view_init(&file->view);
	*result = volume;
	return 0;

err_after_open:
	(void)close(file->fd);
err_after_path:
	free(volume->path);
err_after_file:
	free(file);
	return error;
}

int
file_start(struct volume *volume, struct cores *cores, unsigned home_index, struct call_pool *calls)
{
	struct file_volume *file = file_of(volume);
	void *memory;

	if (posix_memalign(&memory, _Alignof(struct file_core),
			   cores->count * sizeof(struct file_core)) != 0)
		return -ENOMEM;
	file->cores = memory;
	file->core_count = cores->count;
	for (unsigned i = 0; i < cores->count; i++) {
		file->cores[i].leaders[0] = file->cores[i].leaders[1] = NULL;
		nowait_init(&file->cores[i].reads);
		nowait_init(&file->cores[i].writes);
		file_cached_init(&file->cores[i]);
		file_cached_write_init(file, &file->cores[i]);
		file_share_init(&file->cores[i]);
	}
	file->calls = calls;
	call_share_init(&file->call_share);
	if (file_zeroes_start(file) < 0 || extent_map_init(&file->map, file->volume.size_bytes) < 0)
		return -ENOMEM;
	return range_lock_create(cores, home_index, &file->lock);
}

/* Say so if the core had to be kept from blocking: that costs more than direct I/O should. */
static void
log_helped(const struct file_volume *file)
{
	uint64_t reads = 0, writes = 0;

	for (unsigned i = 0; i < file->core_count; i++) {
		reads += file->cores[i].reads.refused + file->cores[i].reads.helped;
		writes += file->cores[i].writes.refused + file->cores[i].writes.helped;
	}
	if (reads + writes > 0)
		log_info("%s: %llu reads and %llu writes would have blocked a core and went "
			 "through a "
			 "helper thread (writes to an image that is written in full do not)",
			 file->volume.path, (unsigned long long)reads, (unsigned long long)writes);
}

static void
log_last_flush(struct volume *volume, int error)
{
	struct volume_request last = { .volume = volume, .export_name = volume->export_name };
	struct log_fields fields = failure_log_fields(&last);
	char where[FAILURE_LOG_WHERE_BYTES];

	failure_log_where(&last, where, sizeof(where));
	log_line_about(
		LOG_LEVEL_ERROR, &fields,
		"%s: the last flush, when closing, failed: %s; acknowledged writes may be lost",
		where, strerror(-error));
}

int
file_close(struct volume *volume)
{
	struct file_volume *file = file_of(volume);
	int error = 0;

	if (!volume->read_only && fdatasync(file->fd) != 0) {
		error = -errno;
		log_last_flush(volume, error);
	}
	if (file->lock != NULL)
		range_lock_destroy(file->lock);
	file_zeroes_stop(file);
	extent_map_fini(&file->map);
	log_helped(file);
	free(file->cores);
	if (file->tail_fd >= 0)
		(void)close(file->tail_fd);
	page_view_fini(&file->view);
	(void)close(file->fd);
	free(volume->path);
	free(file);
	return error;
}
