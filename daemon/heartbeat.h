/* Whether every core still does its work: each is sent a message now and then, and must have delivered it by the next time.
 * A core that hangs in a turn does not, nor one that sleeps through its wake-up.  (reactor/watchdog.h looks only whether turns
 * end, and says where one that does not has got to.)  One thread at a time, not a core's. */
#ifndef DAEMON_HEARTBEAT_H
#define DAEMON_HEARTBEAT_H

#include "reactor/check.h"
#include "reactor/core.h"
#include <stdbool.h>

struct heartbeat;

/* For CORES, which run.  Returns 0 or -ENOMEM; then *heartbeat is unchanged. */
int heartbeat_create(struct cores *cores, struct heartbeat **heartbeat) MUST_USE;

/* Only when the cores have stopped: they may have a message yet.  NULL: nothing. */
void heartbeat_destroy(struct heartbeat *heartbeat);

/* Ask every core that has answered.  Returns true if all had, since the last call or the start. */
bool heartbeat_beat(struct heartbeat *heartbeat);

#endif
