/* How many connections each client address has, so that one client can't take all places.
 * What counts as one client: an IPv4 address, an IPv6 network of 64 bits (a machine has one to
 * choose its addresses from; of a link's, each address), a vsock CID.  Clients of Unix sockets have
 * no address and are not counted. */
#ifndef NET_CLIENT_TABLE_H
#define NET_CLIENT_TABLE_H

#include "net/access.h"
#include "reactor/check.h"
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct client_table_entry;

struct client_table_room {
	unsigned clients_max;
	unsigned bucket_count; /* a power of two */
	struct client_table_entry **buckets;
	struct client_table_entry *entries, *unused;
};

/* Shared by all cores. */
struct client_table {
	/* Private. */
	/* Of all below, for some hundred instructions when a connection begins or ends. */
	pthread_mutex_t lock;
	uint64_t seed; /* clients choose their addresses, but not where they collide */
	struct client_table_room room;
};

/* Make TABLE for at most CLIENTS_MAX clients (at least 1) at a time.
 * Returns 0 or -ENOMEM; then TABLE is not usable. */
int client_table_init(struct client_table *table, unsigned clients_max) MUST_USE;
void client_table_fini(struct client_table *table);

/* Make room for CLIENTS_MAX clients, if there is less.  Any thread.  Returns 0 or -ENOMEM; then nothing has changed. */
int client_table_resize(struct client_table *table, unsigned clients_max) MUST_USE;

/* One more connection of PEER, which may have CONNECTIONS_MAX; 0: any number.  Returns false, and does not count it, if the client
 * has as many already, or as many others as there is room for are there.  Any thread. */
bool client_table_enter(struct client_table *table, const struct access_peer *peer,
			unsigned connections_max) MUST_USE;

/* One that entered is gone.  Any thread. */
void client_table_leave(struct client_table *table, const struct access_peer *peer);

#endif
