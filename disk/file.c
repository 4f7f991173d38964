/* Volumes in regular files and block devices, with direct I/O on the core's own AIO context.
 *
 * Whole blocks go straight to the device.  Other writes are read-modify-writes under an exclusive range:
 *	read the first block -> read the last -> merge -> write -> (write the tail) -> release
 * The tail: a file whose size is not a multiple of the block ends in a part of a block, which direct I/O can't write
 * without growing the file.  Bytes from tail_start on are written through the page cache by a helper thread, durably,
 * so that no dirty page is left for a direct read to wait for; the exclusive range keeps direct writes off the pages. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/volume.h"
#include "disk/volume_kinds.h"
#include "reactor/log.h"

/* The page cache's unit on the common platforms with the smallest page; a larger page only makes the exclusive range
 * round up to itself less often than it could. */
#define GRAIN_BYTES_MIN	  4096u
#define BLOCK_BYTES_MIN	  512u
#define BLOCK_BYTES_MAX	  65536u
#define BLOCK_BYTES_GUESS 4096u /* where the kernel does not say (statx before Linux 6.1) */

/* What one core learned of a volume's file: see reactor/nowait.h. */
struct file_core {
	struct nowait reads, writes;
} __attribute__((aligned(64)));

struct file_volume {
	struct volume volume;
	int fd;	     /* O_DIRECT */
	int tail_fd; /* page cache; -1 where there is no tail, or it is not written */
	uint64_t tail_start;
	uint64_t grain_bytes; /* exclusive ranges are multiples of it */
	struct call_pool *calls;
	struct range_lock *lock;
	struct file_core *cores; /* [core_count] */
	unsigned core_count;
};

static struct file_volume *
file_of(struct volume *volume)
{
	return container_of(volume, struct file_volume, volume);
}

/* ---- opening ---- */

/* Say why PATH can't be opened, and what helps. */
static int
log_open_error(const char *path, bool read_only, int error)
{
	const char *fix = "";

	switch (error) {
	case -ENOENT:
		fix = "; create it first, for example with truncate -s 10G";
		break;
	case -EACCES:
	case -EPERM:
	case -EROFS:
		fix = read_only ? "; give this user read permission"
				: "; give this user write permission, or set read-only = yes";
		break;
	case -EINVAL:
		fix = " (its file system may not support O_DIRECT: use one that does, such as "
		      "ext4, XFS or btrfs)";
		break;
	default:
		break;
	}
	log_error("%s: cannot be opened for %s: %s%s", path,
		  read_only ? "reading" : "reading and writing", strerror(-error), fix);
	return error;
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

static int
find_size(const char *path, int fd, const struct stat *status, uint64_t *size_bytes)
{
	/* Again: the name may be another file's by now. */
	int error = check_kind(path, status);

	if (error < 0)
		return error;
	*size_bytes = (uint64_t)status->st_size;
	if (S_ISBLK(status->st_mode) && ioctl(fd, BLKGETSIZE64, size_bytes) != 0)
		return log_open_error(path, true, -errno);
	if (*size_bytes == 0) {
		log_error("%s: is empty; give it a size first, for example with truncate -s 10G",
			  path);
		return -EINVAL;
	}
	return 0;
}

/* Keep other processes, and other exports of this one, from writing what is served here.
 * The lock belongs to the open file: it ends with its last descriptor.  Source: fcntl(2), F_OFD_SETLK. */
static int
lock_file(const char *path, int fd, bool read_only)
{
	struct flock whole = { .l_type = read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET };

	if (fcntl(fd, F_OFD_SETLK, &whole) == 0)
		return 0;
	if (errno == EAGAIN || errno == EACCES) {
		log_error("%s: is in use by another process or export; stop that, or make both "
			  "read-only",
			  path);
		return -EBUSY;
	}
	log_warning("%s: cannot be locked (%s): nothing keeps others from writing it", path,
		    strerror(errno));
	return 0;
}

/* The parts of FILE that depend on its size: see the top of this file. */
static int
open_tail(struct file_volume *file)
{
	struct volume *volume = &file->volume;

	file->grain_bytes =
		volume->block_bytes > GRAIN_BYTES_MIN ? volume->block_bytes : GRAIN_BYTES_MIN;
	file->tail_start = volume->size_bytes;
	file->tail_fd = -1;
	if (volume->size_bytes % volume->block_bytes == 0 || volume->read_only)
		return 0;
	file->tail_start = volume->size_bytes / file->grain_bytes * file->grain_bytes;
	file->tail_fd = open(volume->path, O_WRONLY | O_CLOEXEC);
	return file->tail_fd < 0 ? log_open_error(volume->path, false, -errno) : 0;
}

/* Open PATH for direct I/O and find its size and block.  Returns the descriptor, or a negative errno, logged. */
static int
open_image(const char *path, bool read_only, uint64_t *size_bytes, uint32_t *block_bytes)
{
	struct stat status;
	int fd, error;

	/* Before opening: what is no image often refuses O_DIRECT, which would be the wrong thing to say. */
	if (stat(path, &status) != 0)
		return log_open_error(path, read_only, -errno);
	error = check_kind(path, &status);
	if (error < 0)
		return error;
	/* O_NONBLOCK: whatever takes the name's place meanwhile must not hold the daemon up. */
	fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_DIRECT | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return log_open_error(path, read_only, -errno);
	if (fstat(fd, &status) != 0)
		error = log_open_error(path, read_only, -errno);
	else
		error = find_size(path, fd, &status, size_bytes);
	if (error == 0)
		error = find_block_bytes(path, fd, &status, block_bytes);
	if (error == 0)
		return fd;
	(void)close(fd);
	return error;
}

static int
file_check(const struct volume_options *options, uint64_t *size_bytes)
{
	uint32_t block_bytes;
	int fd = open_image(options->path, options->read_only, size_bytes, &block_bytes);

	if (fd < 0)
		return fd;
	(void)close(fd);
	return 0;
}

static int
file_open(const struct volume_options *options, struct volume **result)
{
	const char *path = options->path;
	bool read_only = options->read_only;
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
	file->fd = open_image(path, read_only, &volume->size_bytes, &volume->block_bytes);
	error = file->fd;
	if (error < 0)
		goto err_after_path;
	error = lock_file(path, file->fd, read_only);
	if (error == 0)
		error = open_tail(file);
	if (error < 0)
		goto err_after_open;
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

static int
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
		nowait_init(&file->cores[i].reads);
		nowait_init(&file->cores[i].writes);
	}
	file->calls = calls;
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

static int
file_close(struct volume *volume)
{
	struct file_volume *file = file_of(volume);
	int error = 0;

	if (!volume->read_only && fdatasync(file->fd) != 0) {
		error = -errno;
		log_error("%s: the last flush failed: %s; writes may be lost", volume->path,
			  strerror(-error));
	}
	if (file->lock != NULL)
		range_lock_destroy(file->lock);
	log_helped(file);
	free(file->cores);
	if (file->tail_fd >= 0)
		(void)close(file->tail_fd);
	(void)close(file->fd);
	free(volume->path);
	free(file);
	return error;
}

/* ---- reading ---- */

static void
prepare_op(struct volume_request *request, void (*done)(struct op *op, long result))
{
	op_init(&request->op, done);
	request->op.priority = request->priority;
}

static uint64_t
block_floor(const struct volume_request *request, uint64_t offset)
{
	return offset & ~(uint64_t)(request->volume->block_bytes - 1);
}

static uint64_t
block_ceil(const struct volume_request *request, uint64_t offset)
{
	return block_floor(request, offset + request->volume->block_bytes - 1);
}

/* Read or write the rest of the blocks from START to END, which are at BUFFER. */
static void
submit_rest(struct volume_request *request, bool write, uint8_t *buffer, uint64_t start,
	    uint64_t end)
{
	struct file_core *learned = &file_of(request->volume)->cores[request->core->index];
	int fd = file_of(request->volume)->fd;
	uint64_t offset = start + request->progress_bytes;
	size_t bytes = end - offset;

	buffer += request->progress_bytes;
	if (write) {
		op_write(&request->op, fd, buffer, bytes, offset, request->durable);
		op_nowait(&request->op, &learned->writes);
	} else {
		op_read(&request->op, fd, buffer, bytes, offset);
		op_nowait(&request->op, &learned->reads);
	}
	reactor_start(request->core->reactor, &request->op);
}

/* Account for a RESULT of the blocks from START on, of which everything up to NEEDED_END matters.
 * Returns 1 if that is all there, 0 if the rest must be submitted, or a negative errno. */
static int
progress(struct volume_request *request, long result, uint64_t start, uint64_t needed_end)
{
	if (result < 0)
		return (int)result;
	request->progress_bytes += (uint32_t)result;
	if (start + request->progress_bytes >= needed_end)
		return 1;
	/* The file ends here, though it was longer when it was opened. */
	if (result == 0 || result % request->volume->block_bytes != 0)
		return -EIO;
	return 0;
}

static void
read_done(struct op *op, long result)
{
	struct volume_request *request = container_of(op, struct volume_request, op);
	uint64_t start = block_floor(request, request->offset);
	uint64_t needed_end = request->offset + request->length;
	int status = progress(request, result, start, needed_end);

	if (status == 0)
		submit_rest(request, false, request->buffer, start,
			    block_ceil(request, needed_end));
	else
		volume_finish(request, status < 0 ? status : 0);
}

static void
submit_read(struct volume_request *request)
{
	prepare_op(request, read_done);
	request->progress_bytes = 0;
	submit_rest(request, false, request->buffer, block_floor(request, request->offset),
		    block_ceil(request, request->offset + request->length));
}

/* ---- writing whole blocks ---- */

static void
plain_write_done(struct op *op, long result)
{
	struct volume_request *request = container_of(op, struct volume_request, op);
	uint64_t end = request->offset + request->length;
	int status = progress(request, result, request->offset, end);

	if (status == 0) {
		submit_rest(request, true, request->buffer, request->offset, end);
		return;
	}
	range_write_end(file_of(request->volume)->lock, request->core, &request->range.write);
	volume_finish(request, status < 0 ? status : 0);
}

static void
plain_write_granted(struct range_write *write)
{
	struct volume_request *request = container_of(write, struct volume_request, range.write);

	prepare_op(request, plain_write_done);
	request->progress_bytes = 0;
	submit_rest(request, true, request->buffer, request->offset,
		    request->offset + request->length);
}

static void
submit_plain_write(struct file_volume *file, struct volume_request *request)
{
	struct range_write *write = &request->range.write;

	write->start = request->offset;
	write->end = request->offset + request->length;
	write->granted = plain_write_granted;
	if (range_write_begin(file->lock, request->core, write))
		plain_write_granted(write);
}

/* ---- read-modify-write ---- */

/* Where the part that direct I/O writes ends. */
static uint64_t
direct_end(const struct volume_request *request)
{
	uint64_t end = request->offset + request->length;
	uint64_t tail_start = file_of(request->volume)->tail_start;

	return end < tail_start ? end : tail_start;
}

/* The two blocks behind the payload's. */
static uint8_t *
scratch_block(const struct volume_request *request, unsigned index)
{
	uint64_t start = block_floor(request, request->offset);
	uint64_t end = block_ceil(request, request->offset + request->length);

	return (uint8_t *)request->buffer + (end - start) + index * request->volume->block_bytes;
}

static void
rmw_finish(struct volume_request *request, int error)
{
	range_exclusive_end(&request->range.exclusive);
	volume_finish(request, error);
}

static void
tail_run(struct call *call)
{
	struct volume_request *request = container_of(call, struct volume_request, call);
	struct file_volume *file = file_of(request->volume);
	uint64_t end = request->offset + request->length;
	uint64_t offset = request->offset > file->tail_start ? request->offset : file->tail_start;
	const uint8_t *bytes = volume_payload(request->volume, request->buffer, request->offset);

	request->error = 0;
	bytes += offset - request->offset;
	while (offset < end) {
		struct iovec part = { .iov_base = (void *)(uintptr_t)bytes,
				      .iov_len = end - offset };
		ssize_t result = pwritev2(file->tail_fd, &part, 1, (off_t)offset, RWF_DSYNC);

		if (result < 0 && errno == EINTR)
			continue;
		if (result <= 0) {
			request->error = result < 0 ? -errno : -EIO;
			return;
		}
		offset += (uint64_t)result;
		bytes += result;
	}
}

static void
tail_done(struct call *call)
{
	struct volume_request *request = container_of(call, struct volume_request, call);

	rmw_finish(request, request->error);
}

/* The direct part is written, or there is none. */
static void
rmw_write_tail(struct volume_request *request)
{
	struct file_volume *file = file_of(request->volume);

	if (request->offset + request->length <= file->tail_start) {
		rmw_finish(request, 0);
		return;
	}
	request->call.run = tail_run;
	request->call.done = tail_done;
	call_submit(file->calls, request->core->reactor, &request->call);
}

static void
rmw_write_done(struct op *op, long result)
{
	struct volume_request *request = container_of(op, struct volume_request, op);
	uint64_t start = block_floor(request, request->offset);
	uint64_t end = block_ceil(request, direct_end(request));
	int status = progress(request, result, start, end);

	if (status == 0)
		submit_rest(request, true, request->buffer, start, end);
	else if (status < 0)
		rmw_finish(request, status);
	else
		rmw_write_tail(request);
}

/* What surrounds the payload in its first and last block is read: put it round the payload, and write. */
static void
rmw_merge(struct volume_request *request)
{
	uint32_t block_bytes = request->volume->block_bytes;
	uint64_t start = block_floor(request, request->offset);
	uint64_t end = direct_end(request);
	uint64_t last_start = block_floor(request, end);
	uint8_t *buffer = request->buffer;

	memcpy(buffer, scratch_block(request, 0), request->offset - start);
	if (end != last_start) {
		uint32_t used_bytes = (uint32_t)(end - last_start);
		const uint8_t *last = scratch_block(request, last_start == start ? 0 : 1);

		memcpy(buffer + (end - start), last + used_bytes, block_bytes - used_bytes);
	}
	prepare_op(request, rmw_write_done);
	request->progress_bytes = 0;
	submit_rest(request, true, buffer, start, block_ceil(request, end));
}

static void
rmw_last_done(struct op *op, long result)
{
	struct volume_request *request = container_of(op, struct volume_request, op);

	if (result != (long)request->volume->block_bytes)
		rmw_finish(request, result < 0 ? (int)result : -EIO);
	else
		rmw_merge(request);
}

/* Read the last block of the direct part, if the payload ends within it and it is not the first one. */
static void
rmw_read_last(struct volume_request *request)
{
	uint64_t last_start = block_floor(request, direct_end(request));

	if (last_start == direct_end(request) ||
	    last_start == block_floor(request, request->offset)) {
		rmw_merge(request);
		return;
	}
	prepare_op(request, rmw_last_done);
	op_read(&request->op, file_of(request->volume)->fd, scratch_block(request, 1),
		request->volume->block_bytes, last_start);
	reactor_start(request->core->reactor, &request->op);
}

static void
rmw_first_done(struct op *op, long result)
{
	struct volume_request *request = container_of(op, struct volume_request, op);

	if (result != (long)request->volume->block_bytes)
		rmw_finish(request, result < 0 ? (int)result : -EIO);
	else
		rmw_read_last(request);
}

static void
rmw_granted(struct range_exclusive *exclusive)
{
	struct volume_request *request =
		container_of(exclusive, struct volume_request, range.exclusive);
	struct file_volume *file = file_of(request->volume);
	uint64_t start = block_floor(request, request->offset);

	if (request->offset >= file->tail_start) {
		rmw_write_tail(request);
		return;
	}
	if (request->offset == start && block_floor(request, direct_end(request)) != start) {
		rmw_read_last(request);
		return;
	}
	prepare_op(request, rmw_first_done);
	op_read(&request->op, file->fd, scratch_block(request, 0), request->volume->block_bytes,
		start);
	reactor_start(request->core->reactor, &request->op);
}

static void
submit_rmw(struct file_volume *file, struct volume_request *request)
{
	struct range_exclusive *exclusive = &request->range.exclusive;
	uint64_t end = request->offset + request->length;

	exclusive->start = request->offset / file->grain_bytes * file->grain_bytes;
	exclusive->end = (end + file->grain_bytes - 1) / file->grain_bytes * file->grain_bytes;
	exclusive->granted = rmw_granted;
	range_exclusive_begin(file->lock, request->core, exclusive);
}

/* ---- submitting ---- */

static void
flush_done(struct op *op, long result)
{
	struct volume_request *request = container_of(op, struct volume_request, op);

	volume_finish(request, result < 0 ? (int)result : 0);
}

static void
submit_flush(struct file_volume *file, struct volume_request *request)
{
	prepare_op(request, flush_done);
	op_fdatasync(&request->op, file->fd);
	reactor_start(request->core->reactor, &request->op);
}

static void
completed(struct op *op, long result)
{
	volume_finish(container_of(op, struct volume_request, op), (int)result);
}

static void
complete(struct volume_request *request, int error)
{
	prepare_op(request, completed);
	reactor_complete(request->core->reactor, &request->op, error);
}

static bool
is_whole_blocks(const struct file_volume *file, const struct volume_request *request)
{
	return ((request->offset | request->length) & (file->volume.block_bytes - 1)) == 0 &&
	       request->offset + request->length <= file->tail_start;
}

static void
file_submit(struct volume *volume, struct volume_request *request)
{
	struct file_volume *file = file_of(volume);

	switch (request->command) {
	case VOLUME_COMMAND_READ:
		submit_read(request);
		break;
	case VOLUME_COMMAND_WRITE:
		if (is_whole_blocks(file, request))
			submit_plain_write(file, request);
		else
			submit_rmw(file, request);
		break;
	case VOLUME_COMMAND_FLUSH:
		submit_flush(file, request);
		break;
	case VOLUME_COMMAND_TRIM:
	case VOLUME_COMMAND_CACHE:
		/* Only advice. */
		complete(request, 0);
		break;
	case VOLUME_COMMAND_WRITE_ZEROES:
		complete(request, -EOPNOTSUPP);
		break;
	case VOLUME_COMMAND_EXTENTS:
		request->extents[0] = (struct volume_extent){ .length = request->length };
		request->extent_count = 1;
		complete(request, 0);
		break;
	}
}

const struct volume_ops file_volume_ops = {
	.kind = "file",
	.open = file_open,
	.check = file_check,
	.start = file_start,
	.submit = file_submit,
	.close = file_close,
};
