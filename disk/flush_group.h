/* Flushes that wait together are one, and so are other requests that end in a sync.  While a sync
 * of the file runs, the flushes of all cores gather; the next sync, which begins when they are all
 * there, serves them.  One that has begun serves nobody who comes later: it may have passed what
 * that one is to make durable. */
#ifndef DISK_FLUSH_GROUP_H
#define DISK_FLUSH_GROUP_H

#include "disk/volume.h"

/* Zero is the beginning.  Embedded by the volume; all cores use it. */
struct flush_group {
	/* Private.  Atomic, sequentially consistent: who adds a flush and then finds a sync running leaves it to that core, which
	 * looks for such after it has said that it runs no more. */
	struct volume_request *waiting; /* a stack, through request->flush_next */
	bool running;
};

/* Have REQUEST, a FLUSH or what has to be durable of a volume whose group and file are these, end in volume_finish on its core, after a
 * sync of FD that begins later than this.  On its core; does not block. */
void flush_group_submit(struct flush_group *group, int fd, struct volume_request *request);

#endif
