/* How many connections each client address has, so that one client can't take all places.
 * What counts as one client: an IPv4 address, an IPv6 network of 64 bits (a machine has one to choose its addresses from), a vsock
 * CID.  Clients of Unix sockets have no address and are not counted. */
#ifndef NET_CLIENT_TABLE_H
#define NET_CLIENT_TABLE_H

#include "net/access.h"
#include "reactor/check.h"
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct client_table_entry;

/* Shared by all cores. */
struct client_table {
	/* Private. */
	unsigned connections_max; /* of each client; 0: any number, and nothing is counted */
	pthread_mutex_t
		lock; /* of all below, for some hundred instructions when a connection begins or ends */
	uint64_t seed;	       /* clients choose their addresses, but not where they collide */
	unsigned bucket_count; /* a power of two */
	struct client_table_entry **buckets;
	struct client_table_entry *entries, *unused;
};

/* Make TABLE for at most CLIENTS_MAX clients (at least 1) at a time, of which each may have CONNECTIONS_MAX; 0: any number.
 * Returns 0 or -ENOMEM; then TABLE is not usable. */
int client_table_init(struct client_table *table, unsigned clients_max,
		      unsigned connections_max) MUST_USE;
void client_table_fini(struct client_table *table);

/* One more connection of PEER.  Returns false, and does not count it, if the client has as many as it may, or CLIENTS_MAX others are
 * there.  Any thread. */
bool client_table_enter(struct client_table *table, const struct access_peer *peer) MUST_USE;

/* One that entered is gone.  Any thread. */
void client_table_leave(struct client_table *table, const struct access_peer *peer);

#endif
