/* The volumes that are open.  While one configuration takes another's place both may have the same
 * volume; two exports of one configuration have it only where both read what a configuration before
 * it has opened for writing: another one would meet that one's lock.  The main thread only. */
#ifndef DAEMON_VOLUME_SET_H
#define DAEMON_VOLUME_SET_H

#include "daemon/image.h"
#include "disk/volume.h"
#include "disk/volume_options.h"
#include "reactor/list.h"

struct volume_set {
	/* Private. */
	struct list_node entries;
	struct cores *cores; /* NULL: they do not run yet */
	struct call_pool *calls;
	unsigned started_count;
};

struct volume_entry {
	struct volume *volume;
	/* Private. */
	struct volume_options options; /* with strings of its own */
	char *name;		       /* of the export that it was opened for */
	struct image image;	       /* what was at its path then */
	unsigned users;
	unsigned last_offer;
	bool last_reads; /* the last export that was given it is read-only */
	struct volume_set *set;
	bool unlocked; /* a reader beside a writer: for those who have it, and nobody else */
	const struct volume_entry *writer; /* until that is closed */
	struct list_node node;
};

void volume_set_init(struct volume_set *set);

/* CORES run from now on: what is open, and what will be opened, is started on them.  Both must outlive the volumes.
 * Returns 0, or the negative errno of volume_start. */
int volume_set_start(struct volume_set *set, struct cores *cores, struct call_pool *calls) MUST_USE;

/* The volume of OPTIONS for the export NAME of the configuration number OFFER (1 and more): one
 * that is open already for another configuration with these options, of which the cache may be
 * another's (logged), or for writing though these only read; and for this name if its content is
 * its own (memory); or else a new one.
 * volume_set_release gives it back.
 * Returns 0, or the negative errno of volume_open or volume_start, logged; then *entry is unchanged. */
int volume_set_acquire(struct volume_set *set, unsigned offer, const char *name,
		       const struct volume_options *options, struct volume_entry **entry) MUST_USE;

/* The last one closes the volume: no request may be in flight, and no message of the cores about one.
 * Returns 0, or the negative errno of volume_close. */
int volume_set_release(struct volume_entry *entry);

#endif
