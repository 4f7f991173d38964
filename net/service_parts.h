/* What the files of the service say to each other; for net/service*.c only.  All but service_release_place on the core's thread. */
#ifndef NET_SERVICE_PARTS_H
#define NET_SERVICE_PARTS_H

#include "net/service.h"

/* The beginning of each part of CORE. */
void service_share_init(struct service_core *core);
void service_idle_init(struct service_core *core);
void service_log_init(struct service_core *core);

/* Make the place where CORE's idle connections are parked; without one (logged) they stay where they are. */
void service_idle_start(struct service_core *core);

/* FD, non-blocking, has come from PEER to a listener of CORE: let it in, on whichever core is best, or refuse it.  FD is the
 * callee's. */
void service_place(struct service_core *core, int fd, const struct address *peer);

/* Log what CORE serves, and to whom. */
void service_report_core(struct service_core *core);

/* A connection of CLIENT on CORE is no more: its place is free.  Any thread. */
void service_release_place(struct service_core *core, const struct access_peer *client);

#endif
