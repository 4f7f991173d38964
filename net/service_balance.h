/* Balancing: a core that is never idle gives connections to one that is.
 *
 * Connections are spread evenly when they come, but some ask for more than others, and a core may have to share its CPU with other
 * programs, clients among them.  So each core looks, while it is at work, what part of the time it had nothing to do, which it then
 * could have run in.  One that had no such time and serves a crowd gives a part of it to the one that had most.
 * Few connections stay where they are: waking another CPU for each of their requests would cost more than is gained
 * (doc/decisions/0014-placement.md). */
#ifndef NET_SERVICE_BALANCE_H
#define NET_SERVICE_BALANCE_H

#include <stdint.h>

/* So many connections of a core are a crowd. */
#define SERVICE_CROWD_MIN 64u

struct service_core;

/* A core's part; embedded, zeroed.  On the core's thread but what is atomic. */
struct balance {
	uint64_t known_ns;	/* atomic: when this was so; 0: nothing is known */
	unsigned idle_permille; /* atomic: of the time before that */
	/* Private. */
	unsigned receives;
	uint64_t looked_ns;
	uint64_t rest_ns, waited_ns; /* at the last look */
};

/* Something was received on CORE: look, if it is time to, and let connections go. */
void service_balance_look(struct service_core *core);

#endif
