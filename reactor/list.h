/* Intrusive doubly linked list with a sentinel: an element embeds a struct list_node and is found with
 * container_of.  Nothing is allocated.  Not thread-safe: a list belongs to one core. */
#ifndef REACTOR_LIST_H
#define REACTOR_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct list_node {
	struct list_node *next;
	struct list_node *prev;
};

/* Make LIST empty (as a head), or NODE unlinked (as an element). */
static inline void
list_init(struct list_node *list)
{
	list->next = list;
	list->prev = list;
}

/* True if LIST has no element; for an element, if it is in no list. */
static inline bool
list_empty(const struct list_node *list)
{
	return list->next == list;
}

static inline void
list_append(struct list_node *list, struct list_node *node)
{
	node->prev = list->prev;
	node->next = list;
	list->prev->next = node;
	list->prev = node;
}

static inline void
list_prepend(struct list_node *list, struct list_node *node)
{
	list_append(list->next, node);
}

/* Unlink NODE from whatever list it is in, and leave it unlinked.  Harmless if it is in none. */
static inline void
list_remove(struct list_node *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	list_init(node);
}

/* The first element, unlinked; NULL if LIST is empty. */
static inline struct list_node *
list_take_first(struct list_node *list)
{
	struct list_node *node = list->next;

	if (node == list)
		return NULL;
	list_remove(node);
	return node;
}

/* Move all elements of FROM to the end of TO; FROM is left empty. */
static inline void
list_move_all(struct list_node *to, struct list_node *from)
{
	if (list_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	list_init(from);
}

#define list_for_each(node, list) for (node = (list)->next; node != (list); node = node->next)

/* As list_for_each, but NODE may be removed in the body; AFTER is scratch. */
#define list_for_each_safe(node, after, list)                         \
	for (node = (list)->next, after = node->next; node != (list); \
	     node = after, after = node->next)

#endif
