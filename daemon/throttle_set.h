/* The limits of exports, by the exports' names.  While one configuration takes another's place both have the same throttle for an export
 * of the same name: so its limits are those of all its clients together, whenever they came.  The main thread only. */
#ifndef DAEMON_THROTTLE_SET_H
#define DAEMON_THROTTLE_SET_H

#include "disk/throttle.h"
#include "reactor/list.h"

struct throttle_set {
	/* Private. */
	struct list_node entries;
	struct cores *cores; /* NULL: they do not run yet */
};

struct throttle_entry {
	struct throttle *throttle;
	/* Private. */
	char *name;
	unsigned users;
	struct list_node node;
};

void throttle_set_init(struct throttle_set *set);

/* CORES run from now on; they must outlive the throttles.  Before the first is acquired. */
void throttle_set_start(struct throttle_set *set, struct cores *cores);

/* The throttle of the export NAME: that which an export of this name has already, with the limits it has, or a new one of LIMITS.
 * throttle_set_release gives it back.
 * Returns 0 or -ENOMEM; then *entry is unchanged. */
int throttle_set_acquire(struct throttle_set *set, const char *name,
			 const struct throttle_limits *limits,
			 struct throttle_entry **entry) MUST_USE;

/* The last one destroys it: nobody may wait for a turn, and no message of throttle_change may be under way. */
void throttle_set_release(struct throttle_entry *entry);

#endif
