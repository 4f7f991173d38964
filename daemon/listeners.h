/* The listeners of a server: what its configuration says, and what a service manager has handed over, which stays.
 * The main thread only. */
#ifndef DAEMON_LISTENERS_H
#define DAEMON_LISTENERS_H

#include "daemon/config.h"
#include "daemon/server.h"
#include "net/service.h"

struct listeners {
	/* Private. */
	struct service *service;
	unsigned adopted_count, count; /* the adopted ones come first */
	struct listeners_entry {
		struct address wanted; /* as the configuration says; of an adopted one: as bound */
		struct address bound;
		bool kept; /* there before, and also after; not of adopted ones */
	} entries[2 * CONFIG_LISTEN_MAX];
};

/* What becomes of them: see listeners_prepare. */
struct listeners_change {
	/* Private. */
	struct listeners before;
};

/* Open what CONFIG says and adopt SOCKETS, which are the listeners' also if this fails.  They accept from service_start on.
 * Returns 0, or the first one's negative errno, logged; the service closes what was opened. */
int listeners_start(struct listeners *listeners, struct service *service,
		    const struct config *config, const struct server_sockets *sockets) MUST_USE;

/* Open what CONFIG says and is not there.  *change is for listeners_commit, which begins to accept there and closes what CONFIG does not
 * say any more, or listeners_revert, which closes what was opened.
 * Returns 0, or the first one's negative errno, logged; then nothing has changed. */
int listeners_prepare(struct listeners *listeners, const struct config *config,
		      struct listeners_change *change) MUST_USE;
void listeners_commit(struct listeners *listeners, const struct listeners_change *change);
void listeners_revert(struct listeners *listeners, const struct listeners_change *change);

#endif
