/* Growing while requests go on: what depends on the size changes in such an order that whoever sees the new size (volume_size, acquire) sees
 * all the rest, and each step alone is right for those who do not: the map of extents, the descriptor of the tail, where the tail begins.
 * Requests that are under way keep to the tail that they found when they began (request->tail_start).
 * A file that was replaced at its path stays open, and a warning says so. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

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

static bool
is_same_file(const struct stat *left, const struct stat *right)
{
	if (S_ISBLK(left->st_mode) && S_ISBLK(right->st_mode))
		return left->st_rdev == right->st_rdev;
	return left->st_dev == right->st_dev && left->st_ino == right->st_ino;
}

/* Whoever puts another image in place of one that is served, or removes it, is told that this is not what a reload takes up: what is
 * written meanwhile goes to a file that perhaps nobody finds again. */
static void
warn_if_replaced(const struct volume *volume, int fd)
{
	static const char fix[] =
		"what was opened is served on, and what is written there goes with it; to serve "
		"what is at this path, reload without the export and, when its clients have gone, "
		"with it, or restart the daemon";
	struct stat opened, found;

	if (fstat(fd, &opened) != 0)
		return; /* UNTESTED: it does not fail on what is open */
	if (stat(volume->path, &found) == 0) {
		if (!is_same_file(&opened, &found))
			log_warning("%s: is another file now: %s", volume->path, fix);
	} else if (errno == ENOENT || errno == ENOTDIR) {
		log_warning("%s: was removed: %s", volume->path, fix);
	}
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
	warn_if_replaced(volume, file->fd);
	/* Remembered holes of what is gone are none. */
	if (*found_bytes < volume_size(volume))
		extent_map_doubt(&file->map, true);
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
