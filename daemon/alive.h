/* A thread that tells the service manager that the daemon lives (WATCHDOG=1), for as long as that is true:
 *   - every core answers (daemon/heartbeat.h);
 *   - the main thread waits for signals, or has been busy with one of them for no longer than it may.  Opening and flushing volumes
 *     takes as long as their disks do, and clients notice nothing of it: no reason to end the daemon, as a core that hangs is.
 * Where no manager asks for it there is no thread. */
#ifndef DAEMON_ALIVE_H
#define DAEMON_ALIVE_H

#include "daemon/heartbeat.h"
#include "reactor/check.h"

#define ALIVE_BUSY_S_MAX 600u /* longer than a good disk needs to flush its cache */

struct alive;

/* Begin to tell, each INTERVAL_MS, at least 1, for the cores of HEARTBEAT, which is the thread's until alive_stop; the main thread, the
 * caller, may be busy for BUSY_S_MAX at a time.  Returns 0, -ENOMEM or -EAGAIN; then *alive is unchanged. */
int alive_start(struct heartbeat *heartbeat, unsigned interval_ms, unsigned busy_s_max,
		struct alive **alive) MUST_USE;

/* The main thread begins with WHAT, a literal such as "reloading"; NULL: it has ended and waits.  ALIVE may be NULL. */
void alive_busy(struct alive *alive, const char *what);

/* The cores are about to be stopped, and are not asked any more: the main thread's time alone counts.  ALIVE may be NULL. */
void alive_forget_cores(struct alive *alive);

/* Tell no more.  ALIVE may be NULL. */
void alive_stop(struct alive *alive);

#endif
