/* CACHE: what a client says it will read soon is read into the page cache, by a helper thread and a slice at a time, so that it takes
 * the device no more than one reader would.  It is advice: what can't be read is not told here, but to who reads it.
 *
 * One request of a volume at a time, and no more than PREFETCH_BYTES_MAX of it: a client could ask for terabytes that nobody reads. */
#include <fcntl.h>
#include <unistd.h>

#include "disk/file_volume.h"

#define SLICE_BYTES	   ((uint64_t)4 << 20)
#define PREFETCH_BYTES_MAX ((uint64_t)256 << 20)

static void
prefetch_run(struct call *call)
{
	struct volume_request *request = container_of(call, struct volume_request, call);
	int fd = file_of(request->volume)->fd;
	uint8_t last;

	(void)posix_fadvise(fd, (off_t)request->slice_start,
			    (off_t)(request->slice_end - request->slice_start),
			    POSIX_FADV_WILLNEED);
	/* That only begins to read; this waits for it. */
	if (pread(fd, &last, 1, (off_t)(request->slice_end - 1)) != 1)
		request->slice_end = request->offset + request->length;
}

static void take_slice(struct volume_request *request);

static void
prefetch_done(struct call *call)
{
	struct volume_request *request = container_of(call, struct volume_request, call);

	request->slice_start = request->slice_end;
	take_slice(request);
}

static void
take_slice(struct volume_request *request)
{
	uint64_t end = request->offset + request->length;

	if (request->length > PREFETCH_BYTES_MAX)
		end = request->offset + PREFETCH_BYTES_MAX;
	if (request->slice_start >= end || volume_abandoned(request)) {
		file_complete(request, 0);
		return;
	}
	request->slice_end = request->slice_start + SLICE_BYTES;
	if (request->slice_end > end)
		request->slice_end = end;
	request->call.run = prefetch_run;
	request->call.done = prefetch_done;
	call_submit_keyed(file_of(request->volume)->calls, request->core->reactor, &request->call,
			  file_key(request->volume, FILE_KEY_PREFETCH),
			  &file_of(request->volume)->call_share);
}

void
file_submit_prefetch(struct volume_request *request)
{
	request->slice_start = request->offset;
	take_slice(request);
}
