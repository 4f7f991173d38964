/* What a service offers and whom it lets in: its exports and limits, constant.  To change something there is another one: the service
 * takes it for the connections that come from then on.  A connection holds those it began with until it has chosen its export, and from
 * then on that export alone. */
#ifndef NET_SERVICE_SETTINGS_H
#define NET_SERVICE_SETTINGS_H

#include "net/access.h"
#include "net/export.h"
#include "net/hold.h"
#include "net/tls_credentials.h"

struct service_limits {
	unsigned connections_max;	     /* on all cores */
	unsigned connections_per_client_max; /* see net/client_table.h; 0: any number */
	/* Held at one time: with the disk, or being received or sent; and one more for each connection that may come, so that none has to wait
	 * for another's limit or disk.  That of a service's first settings holds for its life. */
	unsigned requests_per_core;
	unsigned requests_per_connection;
	unsigned handshake_s; /* within so many seconds a client has chosen its export */
	unsigned dead_peer_s; /* as peer_socket_tune takes it */
	const struct access_rules *access; /* who may connect; NULL: everybody */
	enum tls_mode tls_mode;
	struct tls_credentials *tls; /* what TLS begins with; NULL: TLS_MODE_OFF */
};

/* Owned by whoever made it, with what its pointers point to, until nobody holds it; its exports, and the names in them, until nobody
 * holds those. */
struct service_settings {
	struct hold hold;
	struct export_table exports;
	struct service_limits limits;
};

#endif
