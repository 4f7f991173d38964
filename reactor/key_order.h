/* Who is first, for each of any number of keys: those that entered with one key hold it one after another, in the
 * order in which they came.  An entry is embedded by its owner, nothing is allocated, and each operation takes constant
 * time as long as not many more than KEY_ORDER_BUCKETS keys are in use.  Not thread-safe: the owner's lock protects it. */
#ifndef REACTOR_KEY_ORDER_H
#define REACTOR_KEY_ORDER_H

#include "reactor/list.h"
#include <stdint.h>

#define KEY_ORDER_BITS	  8
#define KEY_ORDER_BUCKETS (1 << KEY_ORDER_BITS)

/* All fields are private; an entry is uninitialised until key_order_enter and again after key_order_leave. */
struct key_entry {
	uintptr_t key;
	struct list_node chain; /* the holder is in its bucket; who waits is in none */
	/* A ring of all of one key, without a sentinel: the holder, then who waits. */
	struct list_node peers;
};

struct key_order {
	struct list_node buckets[KEY_ORDER_BUCKETS]; /* private */
};

void key_order_init(struct key_order *order);

/* Put ENTRY behind all others of KEY.  It stays there, at the same address, until key_order_leave.
 * Returns whether it holds KEY, being the only one. */
bool key_order_enter(struct key_order *order, struct key_entry *entry, uintptr_t key);

/* Take ENTRY out, whether it holds its key or waits for it.
 * Returns the entry that holds the key from now on in its place; NULL if none waits, or if ENTRY did not hold it. */
struct key_entry *key_order_leave(struct key_entry *entry);

#endif
