/* A hash table of the holders; behind each hang those that wait for its key. */
#include "reactor/key_order.h"

#include "reactor/check.h"

void
key_order_init(struct key_order *order)
{
	for (size_t i = 0; i < KEY_ORDER_BUCKETS; i++)
		list_init(&order->buckets[i]);
}

/* Keys are often addresses, whose low bits are all alike: Fibonacci hashing takes the upper bits of a product. */
static struct list_node *
bucket_of(struct key_order *order, uintptr_t key)
{
	return &order->buckets[(uint64_t)key * 0x9e3779b97f4a7c15 >> (64 - KEY_ORDER_BITS)];
}

static struct key_entry *
holder_find(struct list_node *bucket, uintptr_t key)
{
	struct list_node *node;

	list_for_each(node, bucket) {
		struct key_entry *holder = container_of(node, struct key_entry, chain);

		if (holder->key == key)
			return holder;
	}
	return NULL;
}

bool
key_order_enter(struct key_order *order, struct key_entry *entry, uintptr_t key)
{
	struct list_node *bucket = bucket_of(order, key);
	struct key_entry *holder = holder_find(bucket, key);

	entry->key = key;
	list_init(&entry->chain);
	list_init(&entry->peers);
	if (holder == NULL)
		list_append(bucket, &entry->chain);
	else
		list_append(&holder->peers, &entry->peers); /* before the holder: the ring's end */
	return holder == NULL;
}

struct key_entry *
key_order_leave(struct key_entry *entry)
{
	bool holds = !list_empty(&entry->chain);
	struct key_entry *next = NULL;

	if (holds && !list_empty(&entry->peers)) {
		next = container_of(entry->peers.next, struct key_entry, peers);
		list_append(&entry->chain, &next->chain);
	}
	list_remove(&entry->chain);
	list_remove(&entry->peers);
	return next;
}
