/* What the files of the service say to each other; for net/service*.c only.  All but service_release_place on the core's thread. */
#ifndef NET_SERVICE_PARTS_H
#define NET_SERVICE_PARTS_H

#include "net/service.h"

/* The beginning of each part of HOME. */
void service_share_init(struct service_core *home);
void service_idle_init(struct service_core *home);
void service_log_init(struct service_core *home);

/* Make the place where HOME's idle connections are parked; without one (logged) they stay where they are. */
void service_idle_start(struct service_core *home);

/* FD, non-blocking, has come from PEER to a listener of HERE: let it in, on whichever core is best, or refuse it.  FD is the
 * callee's. */
void service_place(struct service_core *here, int fd, const struct address *peer);

/* Log what HOME serves, and to whom. */
void service_report_core(struct service_core *home);

/* A connection of CLIENT on HOME is no more: its place is free.  Any thread. */
void service_release_place(struct service_core *home, const struct access_peer *client);

#endif
