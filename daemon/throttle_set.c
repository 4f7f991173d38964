/* Creating, sharing and destroying throttles. */
#include "daemon/throttle_set.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void
throttle_set_init(struct throttle_set *set)
{
	*set = (struct throttle_set){ .cores = NULL };
	list_init(&set->entries);
}

void
throttle_set_start(struct throttle_set *set, struct cores *cores)
{
	set->cores = cores;
}

static struct throttle_entry *
find(struct throttle_set *set, const char *name)
{
	struct list_node *node;

	list_for_each(node, &set->entries) {
		struct throttle_entry *entry = container_of(node, struct throttle_entry, node);

		if (strcmp(entry->name, name) == 0)
			return entry;
	}
	return NULL;
}

static struct throttle_entry *
create(struct throttle_set *set, const char *name, const struct throttle_limits *limits)
{
	struct throttle_entry *entry = calloc(1, sizeof(*entry));

	if (entry == NULL)
		return NULL;
	entry->name = strdup(name);
	if (entry->name == NULL || throttle_create(limits, set->cores, &entry->throttle) < 0) {
		free(entry->name);
		free(entry);
		return NULL;
	}
	list_init(&entry->node);
	list_append(&set->entries, &entry->node);
	return entry;
}

int
throttle_set_acquire(struct throttle_set *set, const char *name,
		     const struct throttle_limits *limits, struct throttle_entry **result)
{
	struct throttle_entry *entry = find(set, name);

	if (entry == NULL)
		entry = create(set, name, limits);
	if (entry == NULL)
		return -ENOMEM;
	entry->users++;
	*result = entry;
	return 0;
}

void
throttle_set_release(struct throttle_entry *entry)
{
	if (--entry->users > 0)
		return;
	list_remove(&entry->node);
	throttle_destroy(entry->throttle);
	free(entry->name);
	free(entry);
}
