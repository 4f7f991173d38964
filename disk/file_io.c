/* Reads, and writes of whole blocks: straight to the device, on the core's own AIO context. */
#include <errno.h>

#include "disk/file_volume.h"

void
file_prepare_op(struct volume_request *request, void (*done)(struct op *op, long result))
{
	op_init(&request->op, done);
	request->op.priority = request->priority;
}

void
file_submit_rest(struct volume_request *request, bool write, uint8_t *buffer, uint64_t start,
		 uint64_t end)
{
	struct file_core *learned = file_core_of(request);
	int fd = file_of(request->volume)->fd;
	uint64_t offset = start + request->progress_bytes;
	size_t bytes = end - offset;

	buffer += request->progress_bytes;
	if (write) {
		op_write(&request->op, fd, buffer, bytes, offset, request->durable);
		op_nowait(&request->op, &learned->writes, request->shared);
	} else {
		op_read(&request->op, fd, buffer, bytes, offset);
		op_nowait(&request->op, &learned->reads, request->shared);
	}
	reactor_start(request->core->reactor, &request->op);
}

int
file_found_short(struct file_volume *file)
{
	extent_map_doubt(&file->map, true);
	return -EIO;
}

int
file_progress(struct volume_request *request, long result, uint64_t start, uint64_t needed_end)
{
	if (result < 0)
		return (int)result;
	request->progress_bytes += (uint32_t)result;
	if (start + request->progress_bytes >= needed_end)
		return 1;
	if (result == 0 || result % request->volume->block_bytes != 0)
		return file_found_short(file_of(request->volume));
	return 0;
}

static void
read_done(struct op *op, long result)
{
	struct volume_request *request = container_of(op, struct volume_request, op);
	uint64_t start = file_block_floor(request, request->offset);
	uint64_t needed_end = request->offset + request->length;
	int status = file_progress(request, result, start, needed_end);

	if (status == 0)
		file_submit_rest(request, false, request->buffer, start,
				 file_block_ceil(request, needed_end));
	else
		file_finish(request, status < 0 ? status : 0);
}

/* REQUEST, of whole blocks, is prepared.  Returns whether it has gone with another. */
static bool
merge(struct volume_request *request)
{
	if (file_merge_join(request))
		return true;
	file_merge_lead(request);
	return false;
}

void
file_begin_read(struct volume_request *request)
{
	uint64_t mask = request->volume->block_bytes - 1;

	file_prepare_op(request, read_done);
	request->progress_bytes = 0;
	if (((request->offset | request->length) & mask) == 0 && merge(request))
		return;
	file_submit_rest(request, false, request->buffer,
			 file_block_floor(request, request->offset),
			 file_block_ceil(request, request->offset + request->length));
}

/* ---- writing whole blocks ---- */

static void
plain_write_done(struct op *op, long result)
{
	struct volume_request *request = container_of(op, struct volume_request, op);
	uint64_t end = request->offset + request->length;
	int status = file_progress(request, result, request->offset, end);

	if (status == 0) {
		file_submit_rest(request, true, request->buffer, request->offset, end);
		return;
	}
	if (status < 0 && request->durable)
		volume_synced_write_failed(request, status);
	extent_map_wrote(&file_of(request->volume)->map, request->offset, end);
	range_write_end(file_of(request->volume)->lock, request->core, &request->range.write);
	file_finish(request, status < 0 ? status : 0);
}

static void
plain_write_granted(struct range_write *write)
{
	file_share_enter(container_of(write, struct volume_request, range.write));
}

void
file_begin_plain_write(struct volume_request *request)
{
	file_prepare_op(request, plain_write_done);
	request->progress_bytes = 0;
	if (merge(request))
		return;
	file_submit_rest(request, true, request->buffer, request->offset,
			 request->offset + request->length);
}

void
file_submit_plain_write(struct volume_request *request)
{
	struct range_write *write = &request->range.write;

	write->start = request->offset;
	write->end = request->offset + request->length;
	write->granted = plain_write_granted;
	if (range_write_begin(file_of(request->volume)->lock, request->core, write))
		plain_write_granted(write);
}
