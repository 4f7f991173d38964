/* What a service manager is told (sd_notify(3)), and what it hands over (sd_listen_fds(3)).  Without one nothing happens.
 * The main thread only, but for notify_alive: any. */
#ifndef DAEMON_NOTIFY_H
#define DAEMON_NOTIFY_H

#include "reactor/check.h"
#include <stdint.h>

/* READY=1, STOPPING=1, WATCHDOG=1; and a STATUS line, FORMAT as printf(3). */
void notify_ready(void);
void notify_stopping(void);
void notify_alive(void);
void notify_status(const char *format, ...) PRINTF_LIKE(1, 2);

/* RELOADING=1 and when it began, for Type=notify-reload; notify_ready ends it. */
void notify_reloading(void);

/* As notify_alive, and a minute more for starting or reloading, which takes long.  Source: sd_notify(3), EXTEND_TIMEOUT_USEC. */
void notify_busy(void);

/* How often notify_alive is to be called, in ms: four times in the manager's time limit; or 0: never. */
unsigned notify_alive_interval_ms(void);

/* The sockets that were handed over, as file descriptors from *first on; they are for one caller.
 * Returns how many. */
unsigned notify_take_sockets(int *first);

#endif
