/* Growing while requests go on: what depends on the size changes in such an order that whoever sees the new size (volume_size, acquire) sees
 * all the rest, and each step alone is right for those who do not: the map of extents, the descriptor of the tail, where the tail begins.
 * Requests that are under way keep to the tail that they found when they began (request->tail_start). */
#include <errno.h>
#include <string.h>

#include "disk/file_volume.h"
#include "reactor/log.h"

static int
log_refused(struct volume *volume, uint64_t found_bytes, int error)
{
	log_error("%s: has %llu bytes now, but its size stays %llu: its last part is less than "
		  "%llu bytes and cannot be opened for writing without direct I/O: %s; make "
		  "it larger, up to a multiple of that, and reload",
		  volume->path, (unsigned long long)found_bytes,
		  (unsigned long long)volume_size(volume),
		  (unsigned long long)file_of(volume)->grain_bytes, strerror(-error));
	return error;
}

int
file_refresh(struct volume *volume, uint64_t *found_bytes)
{
	struct file_volume *file = file_of(volume);
	uint64_t tail_start;
	int error = file_find_size(file->fd, found_bytes);

	if (error < 0) {
		log_error("%s: its size cannot be found: %s", volume->path, strerror(-error));
		return error;
	}
	if (*found_bytes <= volume_size(volume))
		return 0;
	error = file_open_tail(file, *found_bytes, &tail_start);
	if (error < 0)
		return log_refused(volume, *found_bytes, error);
	extent_map_grow(&file->map, *found_bytes);
	__atomic_store_n(&file->tail_start, tail_start, __ATOMIC_RELEASE);
	__atomic_store_n(&volume->size_bytes, *found_bytes, __ATOMIC_RELEASE);
	return 0;
}
