/* Where the data of a file is: what is remembered (extent_map.h) is told at once, the rest is asked by a helper thread, whole cells at a
 * time, so that it is remembered from then on.
 *
 * SEEK_DATA knows what reads as data, FIEMAP which of the rest takes room.  What a block device holds nobody knows, but for zeros that
 * were made here. */
#include <errno.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "disk/file_volume.h"

/* No more than this is looked at for one request: a client asks again for the rest. */
#define SCAN_CELLS_MAX 16384u
#define SCAN_NS_MAX    2000000u

/* More than these of BLOCK_STATUS, each of which may take so long, nobody waits for who can do without the answer. */
#define SCANS_BEFORE_READ 1u

struct segment {
	uint64_t start, end;
	uint32_t flags;
};

/* ---- the answer ---- */

/* Add the part of SEGMENT that is within the request, behind what is there already.  Returns false if there is no room for it. */
static bool
answer_add(struct volume_request *request, const struct segment *segment)
{
	uint64_t end = request->offset + request->length;
	uint64_t start = request->offset + request->progress_bytes;
	struct volume_extent *last = &request->extents[request->extent_count];

	if (segment->end < end)
		end = segment->end;
	if (end <= start)
		return true;
	if (request->extent_count > 0 && last[-1].flags == segment->flags) {
		last[-1].length += end - start;
	} else if (request->extent_count < request->extents_max) {
		*last = (struct volume_extent){ .length = end - start, .flags = segment->flags };
		request->extent_count++;
	} else {
		return false;
	}
	request->progress_bytes += end - start;
	return true;
}

/* Add what is remembered, up to what is not; unknown parts of a device are data. */
static void
answer_from_map(const struct file_volume *file, struct volume_request *request)
{
	uint64_t end = request->offset + request->length;
	uint64_t look_bytes = SCAN_CELLS_MAX * extent_map_cell_end(&file->map, 0);

	if (request->length > look_bytes)
		end = request->offset + look_bytes;
	while (request->offset + request->progress_bytes < end) {
		struct segment segment = { .start = request->offset + request->progress_bytes };
		uint64_t bytes = extent_map_run(&file->map, segment.start, end, &segment.flags);

		if (bytes == 0 && !file->is_device)
			return;
		if (bytes == 0) {
			segment.flags = 0;
			segment.end = extent_map_cell_end(&file->map, segment.start);
			if (segment.end <= segment.start)
				segment.end = end;
		} else {
			segment.end = segment.start + bytes;
		}
		if (!answer_add(request, &segment))
			return;
	}
}

/* ---- on a helper thread ---- */

/* Find out whether the file system has taken room for SEGMENT, which is no data; cut it to where that is the same.
 * Source: the kernel's Documentation/filesystems/fiemap.rst. */
static void
find_room(const struct file_volume *file, struct segment *segment)
{
	union {
		struct fiemap map;
		uint8_t bytes[sizeof(struct fiemap) + sizeof(struct fiemap_extent)];
	} asked;
	const struct fiemap_extent *extent = &asked.map.fm_extents[0];

	memset(&asked, 0, sizeof(asked));
	asked.map.fm_start = segment->start;
	asked.map.fm_length = segment->end - segment->start;
	asked.map.fm_extent_count = 1;
	segment->flags = VOLUME_EXTENT_ZERO | VOLUME_EXTENT_HOLE;
	if (ioctl(file->fd, FS_IOC_FIEMAP, &asked.map) != 0 || asked.map.fm_mapped_extents == 0)
		return;
	/* btrfs was seen to tell of what is before the range, where it has not written everything back (Linux 6.18). */
	if (extent->fe_logical + extent->fe_length <= segment->start)
		return;
	if (extent->fe_logical > segment->start) {
		if (extent->fe_logical < segment->end)
			segment->end = extent->fe_logical;
		return;
	}
	segment->flags = VOLUME_EXTENT_ZERO;
	if (extent->fe_logical + extent->fe_length < segment->end)
		segment->end = extent->fe_logical + extent->fe_length;
}

/* Find SEGMENT, from its start on, and no longer than up to END.  Source: lseek(2). */
static void
find_segment(const struct file_volume *file, struct segment *segment, uint64_t end)
{
	off_t found = lseek(file->fd, (off_t)segment->start, SEEK_DATA);

	segment->flags = 0;
	segment->end = end;
	if (found < 0 && errno == ENXIO)
		found = (off_t)end;
	if (found > (off_t)segment->start) {
		if ((uint64_t)found < end)
			segment->end = (uint64_t)found;
		find_room(file, segment);
		return;
	}
	if (found < 0) /* The file system does not tell: all may be data. */
		return;
	found = lseek(file->fd, (off_t)segment->start, SEEK_HOLE);
	if (found > (off_t)segment->start && (uint64_t)found < end)
		segment->end = (uint64_t)found;
}

/* Ask for START to END, remember, and answer. */
static void
scan(struct file_volume *file, struct volume_request *request, uint64_t start, uint64_t end)
{
	uint64_t until_ns = kernel_clock_ns() + SCAN_NS_MAX;
	struct segment known = { .start = start, .end = start };
	bool room = true;

	while (known.end < end && room) {
		struct segment next = { .start = known.end };

		find_segment(file, &next, end);
		room = answer_add(request, &next);
		if (next.flags != known.flags)
			known.start = next.start;
		known.end = next.end;
		known.flags = next.flags;
		extent_map_learn(&file->map, known.start, known.end, known.flags);
		if (request->progress_bytes > 0 && kernel_clock_ns() > until_ns)
			break;
	}
}

static void
scan_run(struct call *call)
{
	struct volume_request *request = container_of(call, struct volume_request, call);
	struct file_volume *file = file_of(request->volume);
	uint64_t first = request->offset + request->progress_bytes;
	uint64_t start = extent_map_cell_start(&file->map, first);
	uint64_t end = extent_map_cell_end(&file->map, request->offset + request->length - 1);
	uint64_t cell_bytes = extent_map_cell_end(&file->map, 0);
	struct stat status;

	if (end < request->offset + request->length)
		end = request->offset + request->length;
	if (end - start > SCAN_CELLS_MAX * cell_bytes)
		end = start + SCAN_CELLS_MAX * cell_bytes;
	request->error = 0;
	extent_map_begin(&file->map, start, end);
	/* What a file has lost may not be called zeros. */
	if (fstat(file->fd, &status) != 0)
		request->error = -errno;
	else if ((uint64_t)status.st_size < end)
		request->error = file_found_short(file);
	else
		scan(file, request, start, end);
	/* Nor what it lost meanwhile: it is found short, and what was learned of it counts no more. */
	if (request->error == 0 && fstat(file->fd, &status) == 0 && (uint64_t)status.st_size < end)
		request->error = file_found_short(file);
	extent_map_end(&file->map, start, end);
}

/* ---- on the request's core ---- */

static void
scan_done(struct call *call)
{
	struct volume_request *request = container_of(call, struct volume_request, call);

	if (!request->answer_optional)
		__atomic_sub_fetch(&file_of(request->volume)->scans, 1, __ATOMIC_RELAXED);
	volume_finish(request, request->error);
}

/* Whether REQUEST would wait longer for an answer than a read takes that goes without: behind a slice, or many scans. */
static bool
is_worthless(const struct file_volume *file, const struct volume_request *request)
{
	/* Relaxed: only numbers of those to wait for. */
	return request->answer_optional &&
	       (__atomic_load_n(&file->slices, __ATOMIC_RELAXED) > 0 ||
		__atomic_load_n(&file->scans, __ATOMIC_RELAXED) > SCANS_BEFORE_READ);
}

void
file_submit_extents(struct volume_request *request)
{
	struct file_volume *file = file_of(request->volume);

	request->extent_count = 0;
	request->progress_bytes = 0;
	answer_from_map(file, request);
	if (request->extent_count > 0) {
		file_complete(request, 0);
		return;
	}
	if (is_worthless(file, request)) {
		file_complete(request, -EBUSY);
		return;
	}
	if (!request->answer_optional)
		__atomic_add_fetch(&file->scans, 1, __ATOMIC_RELAXED);
	request->call.run = scan_run;
	request->call.done = scan_done;
	/* Not the slices' key: behind that are their pauses, and the slices of all TRIMs. */
	call_submit_keyed(file->calls, request->core->reactor, &request->call,
			  file_key(request->volume, FILE_KEY_EXTENTS), &file->call_share);
}

enum volume_peek
file_peek(const struct volume *volume, uint64_t offset, uint64_t length)
{
	const struct file_volume *file = container_of(volume, struct file_volume, volume);

	return extent_map_peek(&file->map, offset, offset + length);
}
