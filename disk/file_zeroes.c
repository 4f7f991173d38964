/* TRIM and WRITE_ZEROES, by system calls that a helper thread makes:
 *	whole grains, slice by slice -> the parts of a grain before and behind them -> (sync)
 * A slice is locked as a plain write is, and so short that neither the lock nor the file system's own keeps others waiting: slice_pace.c
 * knows how short, and when the next may begin.  One slice of a volume runs at a time: the file system would make more of them wait for each
 * other, in threads that other volumes need.
 *
 * Parts of a grain are read, changed and written under an exclusive lock, with direct I/O if everything else is: fallocate would
 * leave dirty pages behind.  A TRIM leaves them as they are. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "disk/file_volume.h"

#define ZEROS_BYTES ((size_t)1 << 20)

enum step {
	STEP_WHOLE,
	STEP_HEAD,
	STEP_TAIL,
	STEP_SYNC,
	STEP_END,
};

static void take_step(struct volume_request *request);

int
file_zeroes_start(struct file_volume *file)
{
	/* Never written, so all of it is the kernel's page of zeros and takes no memory. */
	void *zeros = mmap(NULL, ZEROS_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (zeros == MAP_FAILED)
		return -ENOMEM;
	file->zeros = zeros;
	return 0;
}

void
file_zeroes_stop(struct file_volume *file)
{
	if (file->zeros != NULL)
		(void)munmap(file->zeros, ZEROS_BYTES);
}

/* ---- the parts of a request ---- */

static uint64_t
request_end(const struct volume_request *request)
{
	return request->offset + request->length;
}

static uint64_t
min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t
whole_start(const struct volume_request *request)
{
	const struct file_volume *file = file_of(request->volume);

	return min_u64(file_grain_ceil(file, request->offset), request_end(request));
}

/* At least whole_start. */
static uint64_t
whole_end(const struct volume_request *request)
{
	const struct file_volume *file = file_of(request->volume);
	uint64_t end = file_grain_floor(file, min_u64(request_end(request), request->tail_start));

	return end > whole_start(request) ? end : whole_start(request);
}

/* Set the slice to the rest of the request's current part.  Returns false if there is none. */
static bool
find_slice(struct volume_request *request)
{
	request->slice_start = request->slice_end = 0;
	switch ((enum step)request->step) {
	case STEP_WHOLE:
		request->slice_start = whole_start(request) + request->progress_bytes;
		request->slice_end = whole_end(request);
		break;
	case STEP_HEAD:
		request->slice_start = request->offset;
		request->slice_end = whole_start(request);
		break;
	case STEP_TAIL:
		request->slice_start = whole_end(request);
		request->slice_end = request_end(request);
		break;
	case STEP_SYNC:
	case STEP_END:
		break;
	}
	return request->slice_start < request->slice_end;
}

static bool
is_trim(const struct volume_request *request)
{
	return request->command == VOLUME_COMMAND_TRIM;
}

static void
next_step(struct volume_request *request)
{
	request->step++;
	if (is_trim(request) && request->step < STEP_SYNC)
		request->step = STEP_SYNC;
	if (request->step == STEP_SYNC && !request->durable)
		request->step = STEP_END;
}

/* ---- on a helper thread ---- */

/* Write zeros in multiples of the block. */
static int
write_zeros(const struct file_volume *file, uint64_t start, uint64_t end)
{
	while (start < end) {
		ssize_t result = pwrite(file->fd, file->zeros, min_u64(end - start, ZEROS_BYTES),
					(off_t)start);

		if (result < 0 && errno == EINTR)
			continue;
		if (result <= 0)
			return result < 0 ? -errno : -EIO;
		start += (uint64_t)result;
	}
	return 0;
}

/* Source: fallocate(2).  On a block device, PUNCH_HOLE is refused where it would have to write; ZERO_RANGE writes then. */
static int
allocate(const struct file_volume *file, int mode, uint64_t start, uint64_t end)
{
	int result;

	do {
		result = fallocate(file->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)start,
				   (off_t)(end - start));
	} while (result != 0 && errno == EINTR);
	return result == 0 ? 0 : -errno;
}

static int
trim_slice(const struct file_volume *file, uint64_t start, uint64_t end)
{
	uint64_t range[2] = { start, end - start };

	if (!file->is_device)
		return allocate(file, FALLOC_FL_PUNCH_HOLE, start, end);
	return ioctl(file->fd, BLKDISCARD, range) == 0 ? 0 : -errno;
}

static int
zero_slice(const struct file_volume *file, const struct volume_request *request)
{
	uint64_t start = request->slice_start, end = request->slice_end;
	int error = -EOPNOTSUPP;

	if (!request->no_hole)
		error = allocate(file, FALLOC_FL_PUNCH_HOLE, start, end);
	if (error != -EOPNOTSUPP)
		return error;
	if (!request->fast_only || file->zeroes_fast)
		error = allocate(file, FALLOC_FL_ZERO_RANGE, start, end);
	/* What has begun is ended. */
	if (error == -EOPNOTSUPP && (!request->fast_only || request->progress_bytes > 0))
		error = write_zeros(file, start, end);
	return error;
}

/* What zeros are like afterwards.  A device that has made a hole does not say so. */
static uint32_t
extent_flags(const struct file_volume *file, const struct volume_request *request)
{
	bool is_hole = !file->is_device && file->volume.trims && !request->no_hole;

	return is_hole ? VOLUME_EXTENT_ZERO | VOLUME_EXTENT_HOLE : VOLUME_EXTENT_ZERO;
}

static void
whole_run(struct call *call)
{
	struct volume_request *request = container_of(call, struct volume_request, call);
	struct file_volume *file = file_of(request->volume);
	uint64_t start = request->slice_start, end = request->slice_end;
	struct slice slice;

	slice_wait(&file->pace, &slice);
	extent_map_begin(&file->map, start, end);
	slice_begin(&slice);
	request->error =
		is_trim(request) ? trim_slice(file, start, end) : zero_slice(file, request);
	/* A device may read as anything where it was trimmed. */
	if (request->error == 0 && !(file->is_device && is_trim(request)))
		extent_map_learn(&file->map, start, end, extent_flags(file, request));
	extent_map_end(&file->map, start, end);
	slice_end(&file->pace, &slice, end - start);
}

/* Read, change and write the blocks of the slice, which is within a grain; the page cache does that by itself. */
static int
zero_part(const struct file_volume *file, const struct volume_request *request)
{
	_Alignas(FILE_GRAIN_BYTES_MAX) uint8_t grain[FILE_GRAIN_BYTES_MAX];
	uint64_t start = file_block_floor(request, request->slice_start);
	size_t bytes = file_block_ceil(request, request->slice_end) - start;
	ssize_t result;

	if (file->cached)
		return write_zeros(file, request->slice_start, request->slice_end);
	result = pread(file->fd, grain, bytes, (off_t)start);
	if (result != (ssize_t)bytes)
		return result < 0 ? -errno : -EIO;
	memset(grain + (request->slice_start - start), 0,
	       request->slice_end - request->slice_start);
	result = pwrite(file->fd, grain, bytes, (off_t)start);
	if (result != (ssize_t)bytes)
		return result < 0 ? -errno : -EIO;
	return 0;
}

/* See the top of file_rmw.c. */
static int
zero_file_tail(const struct file_volume *file, const struct volume_request *request)
{
	return file_write_tail(request, file->zeros, request->slice_start, request->slice_end);
}

static void
part_run(struct call *call)
{
	struct volume_request *request = container_of(call, struct volume_request, call);
	struct file_volume *file = file_of(request->volume);

	if (request->slice_start >= request->tail_start)
		request->error = zero_file_tail(file, request);
	else
		request->error = zero_part(file, request);
}

/* ---- on the request's core ---- */

static void
step_done(struct volume_request *request, int error)
{
	if (error < 0)
		file_complete(request, error);
	else
		take_step(request);
}

static void
whole_done(struct call *call)
{
	struct volume_request *request = container_of(call, struct volume_request, call);
	int error = request->error;

	__atomic_sub_fetch(&file_of(request->volume)->slices, 1, __ATOMIC_RELAXED);
	range_write_end(file_of(request->volume)->lock, request->core, &request->range.write);
	request->progress_bytes += request->slice_end - request->slice_start;
	if (is_trim(request) && error == -EOPNOTSUPP) {
		request->progress_bytes = whole_end(request) - whole_start(request);
		error = 0;
	}
	step_done(request, error);
}

static void
part_done(struct call *call)
{
	struct volume_request *request = container_of(call, struct volume_request, call);

	extent_map_wrote(&file_of(request->volume)->map, request->slice_start, request->slice_end);
	range_exclusive_end(&request->range.exclusive);
	next_step(request);
	step_done(request, request->error);
}

static void
start_call(struct volume_request *request, void (*run)(struct call *call),
	   void (*done)(struct call *call), uintptr_t key)
{
	request->call.run = run;
	request->call.done = done;
	call_submit_keyed(file_of(request->volume)->calls, request->core->reactor, &request->call,
			  key, &file_of(request->volume)->call_share);
}

static void
whole_granted(struct range_write *write)
{
	struct volume_request *request = container_of(write, struct volume_request, range.write);

	/* Relaxed: only a number of those to wait for. */
	__atomic_add_fetch(&file_of(request->volume)->slices, 1, __ATOMIC_RELAXED);
	start_call(request, whole_run, whole_done, file_key(request->volume, FILE_KEY_SLICES));
}

static void
part_granted(struct range_exclusive *exclusive)
{
	struct volume_request *request =
		container_of(exclusive, struct volume_request, range.exclusive);

	uint64_t grain = exclusive->start / file_of(request->volume)->grain_bytes;

	/* A few at a time: of a device that does not answer, not all helpers wait. */
	start_call(request, part_run, part_done,
		   file_key(request->volume, FILE_KEY_PARTS + grain % FILE_PART_LANES));
}

/* Slices end where multiples of their size are, so that what a device can give back only as a whole is not cut. */
static void
start_whole(struct file_volume *file, struct volume_request *request)
{
	uint64_t limit = slice_pace_bytes(&file->pace);
	uint64_t boundary = (request->slice_start / limit + 1) * limit;

	request->slice_end = min_u64(request->slice_end, boundary);
	request->range.write = (struct range_write){
		.start = request->slice_start,
		.end = request->slice_end,
		.granted = whole_granted,
	};
	if (range_write_begin(file->lock, request->core, &request->range.write))
		whole_granted(&request->range.write);
}

static void
start_part(struct file_volume *file, struct volume_request *request)
{
	uint64_t grain_start = file_grain_floor(file, request->slice_start);

	request->range.exclusive = (struct range_exclusive){
		.start = grain_start,
		.end = grain_start + file->grain_bytes,
		.granted = part_granted,
	};
	range_exclusive_begin(file->lock, request->core, &request->range.exclusive);
}

/* Begin what is to be done next of REQUEST. */
static void
take_step(struct volume_request *request)
{
	struct file_volume *file = file_of(request->volume);

	if (volume_abandoned(request)) {
		file_complete(request, 0);
		return;
	}
	while (request->step < STEP_SYNC && !find_slice(request))
		next_step(request);
	switch ((enum step)request->step) {
	case STEP_WHOLE:
		start_whole(file, request);
		break;
	case STEP_HEAD:
	case STEP_TAIL:
		start_part(file, request);
		break;
	case STEP_SYNC:
		flush_group_submit(&file->flushes, file->fd, request);
		break;
	case STEP_END:
		file_complete(request, 0);
		break;
	}
}

void
file_submit_zeroes(struct volume_request *request)
{
	request->step = STEP_WHOLE;
	request->progress_bytes = 0;
	if (request->fast_only && !is_trim(request) && whole_start(request) == whole_end(request))
		file_complete(request, -EOPNOTSUPP);
	else
		take_step(request);
}
