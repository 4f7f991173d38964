/* Reads through the page cache, for cache = host: into a buffer, or, not even copied, into a pipe.
 *
 * What the cache has is copied by the core itself, a slice in a turn, so that others have theirs between.  What it has not is read by
 * a helper thread.  RWF_NOWAIT alone would not do: it begins to read what is missing, for which the core may have to wait (5 ms were
 * seen); so the cache is asked first.  To splice can't be asked not to wait at all: there only what is known to be complete is the core's.
 *
 * A volume has only so many calls at one time: they have keys, its lanes, so that those of one volume don't fill the pool. */
#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>

#include "disk/file_volume.h"
#include "disk/page_cache.h"
#include "reactor/pipe_pool.h"

#define SLICE_BYTES_MAX ((uint64_t)64 << 10)

/* What comes next of the payload. */
static struct iovec
rest_of(const struct volume_request *request)
{
	return (struct iovec){
		.iov_base = (uint8_t *)request->buffer + request->progress_bytes,
		.iov_len = request->length - request->progress_bytes,
	};
}

/* Put what comes next of the pages into the pipe, as much as there is room for.  As preadv(2), but what is not cached is read first. */
static ssize_t
splice_rest(const struct volume_request *request)
{
	loff_t offset = (loff_t)(request->offset + request->progress_bytes);

	return splice(file_of(request->volume)->fd, &offset, request->pipe->write_fd, NULL,
		      request->length - request->progress_bytes, SPLICE_F_NONBLOCK);
}

static ssize_t
copy_rest(const struct volume_request *request)
{
	struct iovec rest = rest_of(request);

	return preadv(file_of(request->volume)->fd, &rest, 1,
		      (off_t)(request->offset + request->progress_bytes));
}

/* Have all of the volume be seen from now on.  Where it can't be, all reads would come here: then they are better copied. */
static void
extend_view(struct volume_request *request)
{
	struct file_volume *file = file_of(request->volume);

	if (!page_view_extend(&file->view, file->fd, volume_size(request->volume)))
		__atomic_store_n(&request->volume->splices, false, __ATOMIC_RELAXED);
}

static void
read_run(struct call *call)
{
	struct volume_request *request = container_of(call, struct volume_request, call);

	if (request->pipe != NULL)
		extend_view(request);
	request->error = 0;
	while (request->progress_bytes < request->length) {
		ssize_t result = request->pipe != NULL ? splice_rest(request) : copy_rest(request);

		if (result < 0 && errno == EINTR)
			continue;
		if (result <= 0) {
			request->error =
				result < 0 ? -errno : file_found_short(file_of(request->volume));
			return;
		}
		request->progress_bytes += (uint64_t)result;
	}
}

static void
read_done(struct call *call)
{
	struct volume_request *request = container_of(call, struct volume_request, call);

	volume_finish(request, request->error);
}

/* Have a helper thread read the rest. */
static void
start_call(struct file_core *home, struct volume_request *request)
{
	unsigned lane = home->read_lane++ % FILE_READ_LANES;

	request->call.run = read_run;
	request->call.done = read_done;
	call_submit_keyed(file_of(request->volume)->calls, request->core->reactor, &request->call,
			  file_key(request->volume, FILE_KEY_READS + lane),
			  &file_of(request->volume)->call_share);
}

/* Copy what comes next, if the cache has it.  Returns how many bytes, or 0: it has not, or can't be asked. */
static uint64_t
copy_slice(struct file_core *home, const struct volume_request *request)
{
	int fd = file_of(request->volume)->fd;
	uint64_t offset = request->offset + request->progress_bytes;
	struct iovec slice = rest_of(request);
	ssize_t result;

	if (slice.iov_len > SLICE_BYTES_MAX)
		slice.iov_len = SLICE_BYTES_MAX;
	if (home->never_nowait || !page_cache_has(fd, offset, slice.iov_len))
		return 0;
	result = preadv2(fd, &slice, 1, (off_t)offset, RWF_NOWAIT);
	if (result < 0 && errno == EOPNOTSUPP)
		home->never_nowait = true;
	return result > 0 ? (uint64_t)result : 0;
}

/* Splice all that is left, if the cache has it.  Returns as copy_slice. */
static uint64_t
splice_cached(const struct volume_request *request)
{
	ssize_t result = 0;

	if (page_view_has(&file_of(request->volume)->view,
			  request->offset + request->progress_bytes,
			  request->length - request->progress_bytes))
		result = splice_rest(request);
	return result > 0 ? (uint64_t)result : 0;
}

/* REQUEST has its turn: do a slice of it. */
static void
read_slice(struct op *op, long result)
{
	struct volume_request *request = container_of(op, struct volume_request, op);
	struct file_core *home = file_core_of(request);
	uint64_t bytes = request->pipe != NULL ? splice_cached(request) : copy_slice(home, request);

	(void)result;
	request->progress_bytes += bytes;
	if (request->progress_bytes == request->length)
		volume_finish(request, 0);
	else if (bytes > 0)
		reactor_complete(request->core->reactor, op, 0);
	else
		start_call(home, request);
}

void
file_cached_init(struct file_core *home)
{
	home->never_nowait = false;
	home->read_lane = 0;
}

void
file_submit_cached_read(struct volume_request *request)
{
	request->progress_bytes = 0;
	file_prepare_op(request, read_slice);
	reactor_complete(request->core->reactor, &request->op, 0);
}
