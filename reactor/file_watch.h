/* Changes of files and directories as events: inotify, polled on the reactor's ring.
 *
 * One watch has one inotify descriptor, one poll slot and any number of paths.  Changes are told by name, after the
 * fact and in order; what a name stands for may be different again by then.  Changes by another machine on a network
 * file system, and writes through a mapping, are not seen (inotify(7)).
 * All functions are for the reactor's thread only. */
#ifndef REACTOR_FILE_WATCH_H
#define REACTOR_FILE_WATCH_H

#include "reactor/reactor.h"
#include <sys/inotify.h>

#define FILE_WATCH_LOST (-1) /* file_event.wd of IN_Q_OVERFLOW */

struct file_event {
	/* As file_watch_add returned; FILE_WATCH_LOST: the kernel's queue was full and changes of any path were lost
	 * (mask is IN_Q_OVERFLOW): look at everything anew. */
	int wd;
	uint32_t mask;	  /* IN_..., and IN_ISDIR; IN_IGNORED: the last one of this wd */
	uint32_t cookie;  /* the same for the two events of a rename; else 0 */
	const char *name; /* in the directory that is watched; "" if the path itself is meant */
};

/* Embedded by its owner, who gets it back with on_stopped. */
struct file_watch {
	/* On the reactor's core, never from within a call of this file.  EVENT and its name last until it returns. */
	void (*on_event)(struct file_watch *watch, const struct file_event *event);
	/* Private. */
	void (*on_stopped)(struct file_watch *watch);
	struct reactor *reactor;
	struct op poll;
	int fd; /* inotify */
	bool stopping;
};

/* Make WATCH, of nothing yet.  Takes one descriptor and one poll slot.  WATCH is the reactor's until on_stopped.
 * Returns 0, or a negative errno; then WATCH is unchanged.
 * Errors: -EINVAL an argument is NULL; -EMFILE, also for fs.inotify.max_user_instances; -ENFILE; -ENOMEM.
 * Source: inotify_init1(2). */
int file_watch_start(struct file_watch *watch, struct reactor *reactor,
		     void (*on_event)(struct file_watch *watch,
				      const struct file_event *event)) MUST_USE;

/* Watch PATH as well, for the IN_... of MASK.  The file is watched, not its name: a path of the same file gives the same
 * number, and MASK takes the place of the one before (flags such as IN_MASK_ADD: inotify(7)).  May block for a moment
 * while the path is looked up.
 * Returns the positive number that its events have as wd, or a negative errno; then nothing has changed.
 * Errors: -EINVAL an argument is NULL, MASK has no event, WATCH is stopping; -ENOENT, -ENOTDIR, -ELOOP, -ENAMETOOLONG,
 * -EACCES of the path; -EEXIST with IN_MASK_CREATE; -ENOSPC fs.inotify.max_user_watches; -ENOMEM.
 * Source: inotify_add_watch(2). */
int file_watch_add(struct file_watch *watch, const char *path, uint32_t mask) MUST_USE;

/* Watch what WD stands for no more.  Events that were queued before still come, then one with IN_IGNORED.
 * Returns 0, or -EINVAL: WD is not watched (any more), or WATCH is NULL or stopping. */
int file_watch_remove(struct file_watch *watch, int wd);

/* Watch no more: no event is told from now on; on_stopped is called in a later turn, when the kernel has given the poll
 * back and the descriptor is closed. */
void file_watch_stop(struct file_watch *watch, void (*on_stopped)(struct file_watch *watch));

#endif
