/* What the clients of an export have of a core together: those at work there, and their buffers.
 * A disk that hangs keeps the buffers of all who ask it, however many they are; so there is a share for each volume, and not only for each
 * connection.  The rule is in request.c. */
#ifndef NET_EXPORT_SHARE_H
#define NET_EXPORT_SHARE_H

#include "reactor/check.h"
#include "reactor/list.h"
#include <stdbool.h>
#include <stddef.h>

struct connection;
struct volume;

/* Of one core; there while any connection of the volume is at work there. */
struct export_share {
	const struct volume *volume; /* not the export: a reload makes others of the same one */
	unsigned connection_count;
	size_t buffer_bytes;	  /* that they hold */
	struct list_node node;	  /* in the core's shares */
	struct list_node hungry;  /* in the core's list of those that starve, or did */
	struct list_node starved; /* connections that wait for a request or a small buffer */
	struct list_node starved_for_much; /* for another buffer: the last ones are not for them */
};

/* CONNECTION, which has chosen its export, is at work on its core.  Returns 0 or -ENOMEM; then it has no share, and may ask for nothing. */
int export_share_join(struct connection *connection) MUST_USE;

/* CONNECTION, which holds nothing, is at work there no more.  Harmless if it has no share. */
void export_share_leave(struct connection *connection);

/* Whether any connection of SHARE waits for the core to have something again. */
bool export_share_starves(const struct export_share *share);

#endif
