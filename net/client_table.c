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

/* Empty, for CLIENTS_MAX clients. */
static int
allocate(struct client_table_room *room, unsigned clients_max)
{
	*room = (struct client_table_room){ .clients_max = clients_max, .bucket_count = 1 };
	while (room->bucket_count < clients_max)
		room->bucket_count *= 2;
	room->buckets = calloc(room->bucket_count, sizeof(struct client_table_entry *));
	room->entries = calloc(clients_max, sizeof(room->entries[0]));
	if (room->buckets == NULL || room->entries == NULL) {
		free(room->buckets);
		free(room->entries);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < clients_max; i++) {
		room->entries[i].next = room->unused;
		room->unused = &room->entries[i];
	}
	return 0;
}

int
client_table_init(struct client_table *table, unsigned clients_max)
{
	*table = (struct client_table){ .seed = 0 };
	if (allocate(&table->room, clients_max) < 0)
		return -ENOMEM;
	/* Without it, on a kernel that is starting, clients could make chains longer, no more. */
	if (getrandom(&table->seed, sizeof(table->seed), GRND_NONBLOCK) < 0)
		table->seed = 0;
	pthread_mutex_init(&table->lock, NULL);
	return 0;
}

void
client_table_fini(struct client_table *table)
{
	pthread_mutex_destroy(&table->lock);
	free(table->room.buckets);
	free(table->room.entries);
}

static bool
is_counted(const struct access_peer *peer)
{
	return peer->family != AF_UNIX && peer->family != AF_UNSPEC;
}

/* All hosts of a link share its first half.  Source: RFC 4291, section 2.5.6. */
static bool
is_link_local(const struct access_peer *peer)
{
	return peer->bytes[0] == 0xfe && (peer->bytes[1] & 0xc0) == 0x80;
}

static struct access_peer
client_of(const struct access_peer *peer)
{
	struct access_peer client = *peer;

	if (client.family == AF_INET6 && !is_link_local(&client))
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
	return &table->room.buckets[halves[0] & (table->room.bucket_count - 1)];
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

/* With the lock held, as all below.  The entry of CLIENT, new if there is none; NULL: there is no room. */
static struct client_table_entry *
find_or_add(struct client_table *table, const struct access_peer *client)
{
	struct client_table_entry **at = find(table, client), *entry = *at;

	if (entry != NULL)
		return entry;
	entry = table->room.unused;
	if (entry == NULL)
		return NULL;
	table->room.unused = entry->next;
	*entry = (struct client_table_entry){ .client = *client };
	*at = entry;
	return entry;
}

static bool
enter(struct client_table *table, const struct access_peer *client, unsigned connections_max)
{
	struct client_table_entry *entry = find_or_add(table, client);

	/* A new one has none, and may have one. */
	if (entry == NULL || (connections_max > 0 && entry->connection_count >= connections_max))
		return false;
	entry->connection_count++;
	return true;
}

/* Take over the clients of FROM. */
static void
move_clients(struct client_table *table, const struct client_table_room *from)
{
	for (unsigned i = 0; i < from->bucket_count; i++) {
		for (const struct client_table_entry *old = from->buckets[i]; old != NULL;
		     old = old->next)
			find_or_add(table, &old->client)->connection_count = old->connection_count;
	}
}

int
client_table_resize(struct client_table *table, unsigned clients_max)
{
	struct client_table_room more, before;

	if (allocate(&more, clients_max) < 0)
		return -ENOMEM;
	pthread_mutex_lock(&table->lock);
	before = more;
	if (clients_max > table->room.clients_max) {
		before = table->room;
		table->room = more;
		move_clients(table, &before);
	}
	pthread_mutex_unlock(&table->lock);
	free(before.buckets);
	free(before.entries);
	return 0;
}

bool
client_table_enter(struct client_table *table, const struct access_peer *peer,
		   unsigned connections_max)
{
	struct access_peer client = client_of(peer);
	bool entered;

	if (!is_counted(peer))
		return true;
	pthread_mutex_lock(&table->lock);
	entered = enter(table, &client, connections_max);
	pthread_mutex_unlock(&table->lock);
	return entered;
}

void
client_table_leave(struct client_table *table, const struct access_peer *peer)
{
	struct access_peer client = client_of(peer);
	struct client_table_entry **at, *entry;

	if (!is_counted(peer))
		return;
	pthread_mutex_lock(&table->lock);
	at = find(table, &client);
	entry = *at;
	CHECK(entry != NULL && entry->connection_count > 0);
	if (--entry->connection_count == 0) {
		*at = entry->next;
		entry->next = table->room.unused;
		table->room.unused = entry;
	}
	pthread_mutex_unlock(&table->lock);
}
