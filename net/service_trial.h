/* Trying out another core for large payloads.
 *
 * Large payloads fill a CPU that their client shares, while small requests gain from sharing it (doc/decisions/0014-placement.md); and which
 * of them will come is not known when a connection is placed.  So a connection that turns out to move large payloads is moved off
 * the CPU that its packets come to, if there is a core with nothing to do.  It goes back where it was if it moves no more there, to be tried again
 * after a while, which is ever longer; or when its requests have become small.
 * All on the thread of the connection's core. */
#ifndef NET_SERVICE_TRIAL_H
#define NET_SERVICE_TRIAL_H

#include <stdint.h>

struct connection;
struct service_core;

/* One rate says little where others use the machine, too: what a connection moves in some milliseconds varies by a third.  So most of so many are
 * compared with the median of as many; an odd number. */
#define TRIAL_WINDOWS 5u

/* A connection's part; embedded, zeroed.  Private. */
struct trial {
	struct service_core *placed;   /* where it was before; NULL: it is not on trial */
	uint64_t rates[TRIAL_WINDOWS]; /* bytes per ms where it was before */
	unsigned windows;	       /* how many of these are known */
	unsigned higher, lower; /* on trial: rates since, compared with the median of those */
	uint64_t wait_ns,
		again_ns; /* after the last trial, and when that is over; 0: there was none */
	/* Of its traffic at the last look, when that was, and on which core. */
	uint64_t requests, bytes, looked_ns;
	struct service_core *looked_on;
};

/* CONNECTION has taken requests: look at their sizes, if there are enough new ones, and choose where it should be; of small ones
 * net/service_gather.h does. */
void service_trial_look(struct connection *connection);

#endif
