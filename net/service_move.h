/* Moving a connection to another core: the hand-over, for service_trial.c, service_balance.c and
 * service_gather.c, which choose who moves and where to.
 *
 * It moves when all that it has taken is answered; meanwhile it takes nothing more, for a moment at most.
 * All on the thread of the connection's core. */
#ifndef NET_SERVICE_MOVE_H
#define NET_SERVICE_MOVE_H

#include "reactor/reactor.h"
#include <stdbool.h>

struct connection;
struct service_core;

/* A connection's part; embedded. */
struct move {
	struct service_core *target; /* where it is about to go; NULL: it stays */
	/* Private. */
	struct timer deadline; /* runs while there is a target */
	struct task leave;
	unsigned failures; /* times that it did not come away */
};

/* Prepare CONNECTION's part: it stays. */
void service_move_init(struct connection *connection);

/* CONNECTION is to go to TARGET.  Returns false, and it stays, if it is about to go somewhere already, or is not in its transmission
 * phase. */
bool service_move_to(struct connection *connection, struct service_core *target);

/* Whether CONNECTION should stay: it did not come away several times. */
bool service_move_settled(const struct connection *connection);

/* CONNECTION, which is to move, has sent a reply, or takes nothing more: it may be that nothing is under way.  It goes at the end of this
 * turn. */
void service_move_go_on(struct connection *connection);

/* CONNECTION stays: it is ending.  Harmless if it stayed anyway. */
void service_move_cancel(struct connection *connection);

#endif
