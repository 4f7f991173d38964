/* Gathering: connections go to where their packets come, while there is time for them.
 *
 * They are spread evenly when they come, so that a core may be woken for each packet that another CPU has handled; over loopback that is
 * the one that the client runs on.  Where that has the time, they need much less of both CPUs together there
 * (doc/decisions/0014-placement.md).  When it has no time left they go back.
 * All on the thread of the connection's core. */
#ifndef NET_SERVICE_GATHER_H
#define NET_SERVICE_GATHER_H

#include <stdint.h>

struct connection;
struct service_core;

/* A connection's part; embedded, zeroed.  Private. */
struct gather {
	struct service_core *placed; /* where it was before; NULL: it was not moved */
	uint64_t look_ns;	     /* not to look before */
	uint64_t moved_ns;	     /* when it was moved; 0: it was not */
	uint64_t wait_ns;	     /* after that, until it follows again */
};

/* CONNECTION has made some hundred small requests, the last one at NOW_NS of kernel_clock_ns: choose whether it should go, or go back. */
void service_gather_look(struct connection *connection, uint64_t now_ns);

#endif
