/* Balancing: a core that is never idle gives connections to one that is.
 *
 * Connections are spread evenly when they come, but some ask for more than others, and a core may have to share its CPU with other
 * programs, clients among them.  So each core looks, while it is at work, what part of the time it had nothing to do, which it then
 * could have run in, and what part of it others had its CPU while it wanted it.
 * One whose CPU others have makes room: what it serves with few requests under way each goes to one that is at work anyway, if all of it
 * fits there.  It comes back when that one has no time left, and the CPU has.
 * Else one that had no time and serves a crowd gives a part of it to the one that had most
 * (doc/decisions/0014-placement.md). */
#ifndef NET_SERVICE_BALANCE_H
#define NET_SERVICE_BALANCE_H

#include <stdint.h>

/* So many connections of a core are a crowd. */
#define SERVICE_CROWD_MIN 64u

/* So many requests under way make a connection deep: for fewer, the time that each takes counts. */
#define SERVICE_DEEP_MIN 16u

struct service_core;

/* A core's part; embedded, zeroed.  On the core's thread but what is atomic. */
struct balance {
	uint64_t known_ns;	/* atomic: when this was so; 0: nothing is known */
	unsigned idle_permille; /* atomic: of the time before that */
	/* Private. */
	unsigned receives;
	unsigned others_looks; /* in a row at which others had its CPU */
	uint64_t looked_ns;
	uint64_t rest_ns, ran_ns, waited_ns; /* at the last look */
	uint64_t stays_ns;		     /* atomic: until then, what came back stays */
};

/* Something was received on HOME: look, if it is time to, and let connections go. */
void service_balance_look(struct service_core *home);

#endif
