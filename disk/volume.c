/* The wrappers around a volume's operations, and the ends of requests.
 *
 * After a failed sync the kernel forgets what it could not write, and the next sync succeeds: so the volume
 * remembers, and every later flush fails until it is opened again. */
#include "disk/volume.h"

#include <errno.h>

#include "disk/volume_kinds.h"
#include "reactor/log.h"

static const struct volume_ops *const kinds[VOLUME_KIND_COUNT] = {
	[VOLUME_KIND_FILE] = &file_volume_ops,
	[VOLUME_KIND_MEMORY] = &memory_volume_ops,
	[VOLUME_KIND_NULL] = &null_volume_ops,
	[VOLUME_KIND_FAULT] = &fault_volume_ops,
};

int
volume_open(const struct volume_options *options, struct volume **volume)
{
	struct volume_mistake mistake;

	CHECK(!volume_options_mistake(options, &mistake));
	return kinds[options->kind]->open(options, volume);
}

int
volume_check(const struct volume_options *options, uint64_t *size_bytes)
{
	struct volume_mistake mistake;

	CHECK(!volume_options_mistake(options, &mistake));
	return kinds[options->kind]->check(options, size_bytes);
}

int
volume_start(struct volume *volume, struct cores *cores, unsigned home_index,
	     struct call_pool *calls)
{
	CHECK(home_index < cores->count);
	return volume->ops->start == NULL ? 0
					  : volume->ops->start(volume, cores, home_index, calls);
}

int
volume_refresh(struct volume *volume, uint64_t *found_bytes)
{
	uint64_t before = volume_size(volume);
	int error = 0;

	*found_bytes = before;
	if (volume->ops->refresh != NULL)
		error = volume->ops->refresh(volume, found_bytes);
	CHECK(volume_size(volume) >= before);
	return error;
}

int
volume_lock(struct volume *volume, bool locked)
{
	CHECK(volume->read_only);
	return volume->ops->lock == NULL ? 0 : volume->ops->lock(volume, locked);
}

int
volume_close(struct volume *volume)
{
	bool lost = __atomic_load_n(&volume->sync_failed, __ATOMIC_RELAXED);
	int error;

	if (lost)
		log_error("%s: closed behind a flush that failed: acknowledged writes may be lost",
			  volume->path);
	error = volume->ops->close(volume);
	return lost && error == 0 ? -EIO : error;
}

size_t
volume_buffer_bytes(const struct volume *volume, enum volume_command command, uint64_t offset,
		    uint32_t length)
{
	uint64_t mask = volume->block_bytes - 1;
	uint64_t start = offset & ~mask;
	uint64_t end = (offset + length + mask) & ~mask;
	bool whole_blocks = start == offset && end == offset + length;

	/* A read-modify-write reads the first and the last block to behind the payload's blocks. */
	if (command == VOLUME_COMMAND_WRITE && !whole_blocks)
		end += 2 * (uint64_t)volume->block_bytes;
	return end - start;
}

static void
check_range(const struct volume *volume, uint64_t offset, uint64_t length)
{
	uint64_t size_bytes = volume_size(volume);

	CHECK(length > 0 && length <= size_bytes);
	CHECK(offset <= size_bytes - length);
}

static void
lost_before(struct op *op, long result)
{
	volume_finish(container_of(op, struct volume_request, op), (int)result);
}

void
volume_submit(struct volume *volume, struct volume_request *request)
{
	if (request->command != VOLUME_COMMAND_FLUSH)
		check_range(volume, request->offset, request->length);
	switch (request->command) {
	case VOLUME_COMMAND_WRITE:
		CHECK(!volume->read_only);
		/* fall through */
	case VOLUME_COMMAND_READ:
		CHECK(((uintptr_t)request->buffer & (volume->block_bytes - 1)) == 0);
		break;
	case VOLUME_COMMAND_TRIM:
	case VOLUME_COMMAND_WRITE_ZEROES:
		CHECK(!volume->read_only);
		break;
	case VOLUME_COMMAND_EXTENTS:
		CHECK(request->extents_max > 0);
		break;
	case VOLUME_COMMAND_FLUSH:
	case VOLUME_COMMAND_CACHE:
		break;
	}
	request->volume = volume;
	request->syncing = false;
	/* Relaxed: a flush that runs beside the one that failed is answered for in volume_finish. */
	if (request->command == VOLUME_COMMAND_FLUSH &&
	    __atomic_load_n(&volume->sync_failed, __ATOMIC_RELAXED)) {
		op_init(&request->op, lost_before);
		request->op.priority = request->priority;
		reactor_complete(request->core->reactor, &request->op, -EIO);
		return;
	}
	volume->ops->submit(volume, request);
}

void
volume_sync_failed(const struct volume_request *request)
{
	struct log_fields fields = failure_log_fields(request);
	char where[FAILURE_LOG_WHERE_BYTES];

	if (__atomic_exchange_n(&request->volume->sync_failed, true, __ATOMIC_RELAXED))
		return;
	failure_log_where(request, where, sizeof(where));
	log_line_about(LOG_LEVEL_ERROR, &fields,
		       "%s: acknowledged writes may be lost: every flush fails until the volume is "
		       "opened again",
		       where);
}

void
volume_synced_write_failed(const struct volume_request *request, int error)
{
	const struct volume_ops *ops = request->volume->ops;

	/* Its sync may have taken the report of an earlier write's loss. */
	switch (ops->translate == NULL ? error : ops->translate(request, error)) {
	case -ENOSPC:
	case -EDQUOT:
	case -EFBIG:
	case -EPERM:
	case -EROFS:
	case -EINVAL:
	case -EOPNOTSUPP:
	case -ENOMEM:
	case -EAGAIN:
		return; /* it was refused, by the file system or before the device had anything */
	default:
		volume_sync_failed(request);
	}
}

static bool
is_optional(const struct volume_request *request)
{
	return request->command == VOLUME_COMMAND_EXTENTS && request->answer_optional;
}

void
volume_finish(struct volume_request *request, int error)
{
	struct volume *volume = request->volume;
	bool is_sync = request->syncing || request->command == VOLUME_COMMAND_FLUSH;

	/* Of two syncs at once only one is told of a loss: this one may have been the other. */
	if (is_sync && error == 0 && __atomic_load_n(&volume->sync_failed, __ATOMIC_RELAXED))
		error = -EIO;
	if (error < 0 && volume->ops->translate != NULL)
		error = volume->ops->translate(request, error);
	/* -EOPNOTSUPP: asked for only if it is fast, and it is not; or not possible here at all. */
	if (error < 0 && error != -EOPNOTSUPP && !is_optional(request)) {
		failure_log_add(&volume->failures, request, error, kernel_clock_ns());
		if (is_sync)
			volume_sync_failed(request);
	}
	request->done(request, error);
}

enum volume_peek
volume_peek(const struct volume *volume, uint64_t offset, uint64_t length)
{
	check_range(volume, offset, length);
	return volume->ops->peek == NULL ? VOLUME_PEEK_UNKNOWN
					 : volume->ops->peek(volume, offset, length);
}
