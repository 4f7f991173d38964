/* Writes that are not whole blocks are read-modify-writes under an exclusive range:
 *	read the first block -> read the last -> merge -> write -> (write the tail) -> release
 * The tail: a file whose size is not a multiple of the block ends in a part of a block, which direct I/O can't write
 * without growing the file.  The same goes for a part of a grain: whoever makes the file larger has the file system fill the rest of it
 * with zeros in the page cache, and a direct write there at that moment would fail all later syncs (the kernel's "page cache
 * invalidation failure"), if not be lost.  Bytes from tail_start on are written through the page cache by a helper thread, durably,
 * so that no dirty page is left for a direct read to wait for; the exclusive range keeps direct writes off the pages.  It also keeps
 * requests from before the file grew, which go by the tail it had, apart from those that go by the new one. */
#include <errno.h>
#include <string.h>
#include <sys/uio.h>

#include "disk/file_volume.h"

/* Where the part that direct I/O writes ends. */
static uint64_t
direct_end(const struct volume_request *request)
{
	uint64_t end = request->offset + request->length;

	return end < request->tail_start ? end : request->tail_start;
}

/* The two blocks behind the payload's. */
static uint8_t *
scratch_block(const struct volume_request *request, unsigned index)
{
	uint64_t start = file_block_floor(request, request->offset);
	uint64_t end = file_block_ceil(request, request->offset + request->length);

	return (uint8_t *)request->buffer + (end - start) + index * request->volume->block_bytes;
}

static void
rmw_finish(struct volume_request *request, int error)
{
	extent_map_wrote(&file_of(request->volume)->map, request->offset,
			 request->offset + request->length);
	range_exclusive_end(&request->range.exclusive);
	file_finish(request, error);
}

int
file_write_tail(const struct volume_request *request, const uint8_t *bytes, uint64_t offset,
		uint64_t end)
{
	const struct file_volume *file = file_of(request->volume);

	while (offset < end) {
		struct iovec part = { .iov_base = (void *)(uintptr_t)bytes,
				      .iov_len = end - offset };
		ssize_t result = pwritev2(file->tail_fd, &part, 1, (off_t)offset, RWF_DSYNC);

		if (result < 0 && errno == EINTR)
			continue;
		if (result <= 0) {
			int error = result < 0 ? -errno : -EIO;

			volume_synced_write_failed(request, error);
			return error;
		}
		offset += (uint64_t)result;
		bytes += result;
	}
	return 0;
}

static void
tail_run(struct call *call)
{
	struct volume_request *request = container_of(call, struct volume_request, call);
	const uint8_t *bytes = volume_payload(request->volume, request->buffer, request->offset);
	uint64_t offset = request->offset, end = offset + request->length;

	if (offset < request->tail_start)
		offset = request->tail_start;
	request->error = file_write_tail(request, bytes + (offset - request->offset), offset, end);
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

	if (request->offset + request->length <= request->tail_start) {
		rmw_finish(request, 0);
		return;
	}
	request->call.run = tail_run;
	request->call.done = tail_done;
	call_submit_keyed(file->calls, request->core->reactor, &request->call, 0,
			  &file->call_share);
}

static void
rmw_write_done(struct op *op, long result)
{
	struct volume_request *request = container_of(op, struct volume_request, op);
	uint64_t start = file_block_floor(request, request->offset);
	uint64_t end = file_block_ceil(request, direct_end(request));
	int status = file_progress(request, result, start, end);

	if (status < 0 && request->durable)
		volume_synced_write_failed(request, status);
	if (status == 0)
		file_submit_rest(request, true, request->buffer, start, end);
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
	uint64_t start = file_block_floor(request, request->offset);
	uint64_t end = direct_end(request);
	uint64_t last_start = file_block_floor(request, end);
	uint8_t *buffer = request->buffer;

	memcpy(buffer, scratch_block(request, 0), request->offset - start);
	if (end != last_start) {
		uint32_t used_bytes = (uint32_t)(end - last_start);
		const uint8_t *last = scratch_block(request, last_start == start ? 0 : 1);

		memcpy(buffer + (end - start), last + used_bytes, block_bytes - used_bytes);
	}
	file_prepare_op(request, rmw_write_done);
	request->progress_bytes = 0;
	file_submit_rest(request, true, buffer, start, file_block_ceil(request, end));
}

/* Read the block at START to TO.  As other reads it must not block the core: behind a TRIM it would wait for the file's lock. */
static void
rmw_read(struct volume_request *request, uint8_t *to, uint64_t start,
	 void (*done)(struct op *op, long result))
{
	struct file_volume *file = file_of(request->volume);

	file_prepare_op(request, done);
	op_read(&request->op, file->fd, to, request->volume->block_bytes, start);
	op_nowait(&request->op, &file_core_of(request)->reads, false);
	reactor_start(request->core->reactor, &request->op);
}

/* Why a read ended with RESULT, which is not the whole block. */
static int
read_error(const struct volume_request *request, long result)
{
	return result < 0 ? (int)result : file_found_short(file_of(request->volume));
}

static void
rmw_last_done(struct op *op, long result)
{
	struct volume_request *request = container_of(op, struct volume_request, op);

	if (result != (long)request->volume->block_bytes)
		rmw_finish(request, read_error(request, result));
	else
		rmw_merge(request);
}

/* Read the last block of the direct part, if the payload ends within it and it is not the first one. */
static void
rmw_read_last(struct volume_request *request)
{
	uint64_t last_start = file_block_floor(request, direct_end(request));

	if (last_start == direct_end(request) ||
	    last_start == file_block_floor(request, request->offset)) {
		rmw_merge(request);
		return;
	}
	rmw_read(request, scratch_block(request, 1), last_start, rmw_last_done);
}

static void
rmw_first_done(struct op *op, long result)
{
	struct volume_request *request = container_of(op, struct volume_request, op);

	if (result != (long)request->volume->block_bytes)
		rmw_finish(request, read_error(request, result));
	else
		rmw_read_last(request);
}

static void
rmw_granted(struct range_exclusive *exclusive)
{
	file_share_enter(container_of(exclusive, struct volume_request, range.exclusive));
}

void
file_begin_rmw(struct volume_request *request)
{
	uint64_t start = file_block_floor(request, request->offset);

	if (request->offset >= request->tail_start) {
		rmw_write_tail(request);
		return;
	}
	if (request->offset == start && file_block_floor(request, direct_end(request)) != start) {
		rmw_read_last(request);
		return;
	}
	rmw_read(request, scratch_block(request, 0), start, rmw_first_done);
}

void
file_submit_rmw(struct volume_request *request)
{
	struct file_volume *file = file_of(request->volume);
	struct range_exclusive *exclusive = &request->range.exclusive;
	uint64_t end = request->offset + request->length;

	exclusive->start = file_grain_floor(file, request->offset);
	exclusive->end = file_grain_ceil(file, end);
	exclusive->granted = rmw_granted;
	range_exclusive_begin(file->lock, request->core, exclusive);
}
