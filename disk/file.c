/* Volumes in regular files and block devices, with direct I/O or through the page cache: which way a request goes. */
#include <errno.h>

#include "disk/file_volume.h"
#include "disk/volume_kinds.h"

static void
completed(struct op *op, long result)
{
	volume_finish(container_of(op, struct volume_request, op), (int)result);
}

void
file_complete(struct volume_request *request, int error)
{
	file_prepare_op(request, completed);
	reactor_complete(request->core->reactor, &request->op, error);
}

static bool
is_whole_blocks(const struct file_volume *file, const struct volume_request *request)
{
	return ((request->offset | request->length) & (file->volume.block_bytes - 1)) == 0 &&
	       request->offset + request->length <= request->tail_start;
}

static void
find_tail(struct volume_request *request)
{
	request->tail_start =
		__atomic_load_n(&file_of(request->volume)->tail_start, __ATOMIC_ACQUIRE);
}

void
file_begin(struct volume_request *request)
{
	if (request->command == VOLUME_COMMAND_READ)
		file_begin_read(request);
	else if (is_whole_blocks(file_of(request->volume), request))
		file_begin_plain_write(request);
	else
		file_begin_rmw(request);
}

static void
file_submit(struct volume *volume, struct volume_request *request)
{
	struct file_volume *file = file_of(volume);

	find_tail(request);
	switch (request->command) {
	case VOLUME_COMMAND_READ:
	case VOLUME_COMMAND_WRITE:
		slice_pace_note_use(&file->pace);
		if (file->cached && request->command == VOLUME_COMMAND_READ)
			file_submit_cached_read(request);
		else if (file->cached)
			file_submit_cached_write(request);
		else if (request->command == VOLUME_COMMAND_READ)
			file_share_enter(request);
		else if (is_whole_blocks(file, request))
			file_submit_plain_write(request);
		else
			file_submit_rmw(request);
		break;
	case VOLUME_COMMAND_FLUSH:
		flush_group_submit(&file->flushes, file->fd, request);
		break;
	case VOLUME_COMMAND_TRIM:
	case VOLUME_COMMAND_WRITE_ZEROES:
		file_submit_zeroes(request);
		break;
	case VOLUME_COMMAND_CACHE:
		/* Only advice; what is read directly is kept by nobody. */
		if (file->cached)
			file_submit_prefetch(request);
		else
			file_complete(request, 0);
		break;
	case VOLUME_COMMAND_EXTENTS:
		file_submit_extents(request);
		break;
	}
}

/* The kernel says of what is behind the end of a device, which it has not any more when the device is gone, that there is no room, or that
 * the request makes no sense; a client could think that it can do something about that. */
static int
file_translate(const struct volume_request *request, int error)
{
	const struct file_volume *file = file_of(request->volume);
	uint64_t size_bytes;

	if (!file->is_device || (error != -ENOSPC && error != -EINVAL))
		return error;
	if (file_find_size(file->fd, &size_bytes) == 0 &&
	    request->offset + request->length <= size_bytes)
		return error;
	return -EIO;
}

const struct volume_ops file_volume_ops = {
	.kind = "file",
	.open = file_open,
	.check = file_check,
	.start = file_start,
	.submit = file_submit,
	.refresh = file_refresh,
	.lock = file_lock,
	.translate = file_translate,
	.peek = file_peek,
	.close = file_close,
};
