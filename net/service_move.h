/* Moving a connection to a core that has nothing to do.
 *
 * Large payloads fill a CPU that their client shares, while small requests gain from sharing it (doc/decisions/0014-placement.md); and which
 * of them will come is not known when a connection is placed.  So a connection that turns out to write large payloads (or to move
 * them inside TLS), is moved off the CPU that its packets come to, if there is a core with nothing to do.  It goes
 * back where it was placed if it moves less there, for good; or when its requests have become small.
 * It moves when all that it has taken is answered; meanwhile it takes nothing more, for a moment at most.
 * All on the thread of the connection's core. */
#ifndef NET_SERVICE_MOVE_H
#define NET_SERVICE_MOVE_H

#include "reactor/reactor.h"
#include <stdbool.h>
#include <stdint.h>

struct connection;
struct service_core;

/* A connection's part; embedded. */
struct move {
	struct service_core *target; /* where it is about to go; NULL: it stays */
	/* Private. */
	struct service_core *placed; /* where it was before; NULL: it is where it was placed */
	struct timer deadline;	     /* runs while there is a target */
	struct task leave;
	unsigned failures; /* times that it was not better there, or did not come away */
	uint64_t rate;	   /* bytes per ms before it moved; 0: it has been compared */
	bool settling;	   /* it has just come */
	/* Of its traffic at the last look, and when that was. */
	uint64_t requests, bytes, written_bytes, looked_ns;
};

/* Prepare CONNECTION's part: it stays. */
void service_move_init(struct connection *connection);

/* CONNECTION has taken requests: look at their sizes, if there are enough new ones, and choose where it should be. */
void service_move_look(struct connection *connection);

/* CONNECTION, which is to move, has sent a reply, or takes nothing more: it may be that nothing is under way.  It goes at the end of this
 * turn. */
void service_move_go_on(struct connection *connection);

/* CONNECTION stays: it is ending.  Harmless if it stayed anyway. */
void service_move_cancel(struct connection *connection);

#endif
