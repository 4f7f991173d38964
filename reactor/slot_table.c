/* A list of free slots through the table itself. */
#include "reactor/slot_table.h"

#include <errno.h>
#include <stdlib.h>

#define NO_SLOT UINT32_MAX

int
slot_table_init(struct slot_table *table, uint32_t count)
{
	table->slots = calloc(count, sizeof(table->slots[0]));
	if (table->slots == NULL)
		return -ENOMEM;
	table->count = count;
	for (uint32_t i = 0; i < count; i++)
		table->slots[i].next_free = i + 1 < count ? i + 1 : NO_SLOT;
	table->first_free = 0;
	return 0;
}

void
slot_table_fini(struct slot_table *table)
{
	free(table->slots);
}

uint64_t
slot_take(struct slot_table *table, struct op *op, struct op_queue *queue, enum priority priority)
{
	uint32_t index = table->first_free;
	struct slot *slot;

	CHECK(index != NO_SLOT);
	slot = &table->slots[index];
	table->first_free = slot->next_free;
	slot->op = op;
	slot->queue = queue;
	slot->priority = priority;
	return (uint64_t)slot->generation << 32 | index;
}

struct slot *
slot_find(const struct slot_table *table, uint64_t tag)
{
	uint32_t index = (uint32_t)tag;
	struct slot *slot;

	if (index >= table->count)
		return NULL;
	slot = &table->slots[index];
	return slot->queue != NULL && slot->generation == tag >> 32 ? slot : NULL;
}

void
slot_release(struct slot_table *table, struct slot *slot)
{
	slot->op = NULL;
	slot->queue = NULL;
	slot->generation++;
	slot->next_free = table->first_free;
	table->first_free = (uint32_t)(slot - table->slots);
}
