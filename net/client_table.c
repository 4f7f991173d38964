/* A hash table with chains of entries that are allocated once. */
#include "net/client_table.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#define IPV6_CLIENT_BYTES 8

struct client_table_entry {
	struct client_table_entry *next; /* in its bucket, or among the unused */
	struct access_peer client;
	unsigned connection_count;
};

int
client_table_init(struct client_table *table, unsigned clients_max, unsigned connections_max)
{
	*table = (struct client_table){ .connections_max = connections_max, .bucket_count = 1 };
	if (connections_max == 0)
		return 0;
	while (table->bucket_count < clients_max)
		table->bucket_count *= 2;
	table->buckets = calloc(table->bucket_count, sizeof(struct client_table_entry *));
	table->entries = calloc(clients_max, sizeof(table->entries[0]));
	if (table->buckets == NULL || table->entries == NULL) {
		free(table->buckets);
		free(table->entries);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < clients_max; i++) {
		table->entries[i].next = table->unused;
		table->unused = &table->entries[i];
	}
	/* Without it, on a kernel that is starting, clients could make chains longer, no more. */
	if (getrandom(&table->seed, sizeof(table->seed), GRND_NONBLOCK) < 0)
		table->seed = 0;
	pthread_mutex_init(&table->lock, NULL);
	return 0;
}

void
client_table_fini(struct client_table *table)
{
	if (table->connections_max == 0)
		return;
	pthread_mutex_destroy(&table->lock);
	free(table->buckets);
	free(table->entries);
}

static bool
is_counted(const struct client_table *table, const struct access_peer *peer)
{
	return table->connections_max > 0 && peer->family != AF_UNIX && peer->family != AF_UNSPEC;
}

static struct access_peer
client_of(const struct access_peer *peer)
{
	struct access_peer client = *peer;

	if (client.family == AF_INET6)
		memset(client.bytes + IPV6_CLIENT_BYTES, 0,
		       sizeof(client.bytes) - IPV6_CLIENT_BYTES);
	return client;
}

/* The finalizer of MurmurHash3, a bijection that mixes every bit into every other, over both halves. */
static uint64_t
mix(uint64_t bits)
{
	bits = (bits ^ bits >> 33) * 0xff51afd7ed558ccd;
	bits = (bits ^ bits >> 33) * 0xc4ceb9fe1a85ec53;
	return bits ^ bits >> 33;
}

static struct client_table_entry **
bucket_of(struct client_table *table, const struct access_peer *client)
{
	uint64_t halves[2];

	memcpy(halves, client->bytes, sizeof(halves));
	halves[0] = mix(mix(halves[0] ^ table->seed) ^ halves[1] ^ client->family);
	return &table->buckets[halves[0] & (table->bucket_count - 1)];
}

/* What points to the entry of CLIENT, or the NULL at the end of its chain. */
static struct client_table_entry **
find(struct client_table *table, const struct access_peer *client)
{
	struct client_table_entry **at = bucket_of(table, client);

	while (*at != NULL && ((*at)->client.family != client->family ||
			       memcmp((*at)->client.bytes, client->bytes, sizeof(client->bytes))))
		at = &(*at)->next;
	return at;
}

/* With the lock held. */
static bool
enter(struct client_table *table, const struct access_peer *client)
{
	struct client_table_entry **at = find(table, client), *entry = *at;

	if (entry == NULL) {
		entry = table->unused;
		if (entry == NULL)
			return false;
		table->unused = entry->next;
		*entry = (struct client_table_entry){ .client = *client };
		*at = entry;
	}
	if (entry->connection_count == table->connections_max)
		return false;
	entry->connection_count++;
	return true;
}

bool
client_table_enter(struct client_table *table, const struct access_peer *peer)
{
	struct access_peer client = client_of(peer);
	bool entered;

	if (!is_counted(table, peer))
		return true;
	pthread_mutex_lock(&table->lock);
	entered = enter(table, &client);
	pthread_mutex_unlock(&table->lock);
	return entered;
}

void
client_table_leave(struct client_table *table, const struct access_peer *peer)
{
	struct access_peer client = client_of(peer);
	struct client_table_entry **at, *entry;

	if (!is_counted(table, peer))
		return;
	pthread_mutex_lock(&table->lock);
	at = find(table, &client);
	entry = *at;
	CHECK(entry != NULL && entry->connection_count > 0);
	if (--entry->connection_count == 0) {
		*at = entry->next;
		entry->next = table->unused;
		table->unused = entry;
	}
	pthread_mutex_unlock(&table->lock);
}
