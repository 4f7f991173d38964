/* The slot table: which operation an event of the kernel is for.
 * An operation that goes to the kernel takes a slot, and the event brings the slot's tag back.  A tag names the slot and its
 * generation, which changes with each use: an event that comes for an operation that is no longer there finds nothing, and
 * never something else.  Belongs to one reactor. */
#ifndef REACTOR_SLOT_TABLE_H
#define REACTOR_SLOT_TABLE_H

#include "reactor/check.h"
#include "reactor/priority.h"
#include <stdint.h>

struct op;
struct op_queue;

struct slot {
	struct op *op;		/* NULL: abandoned, or the slot is free */
	struct op_queue *queue; /* that has given a credit for it */
	enum priority priority;
	/* Private. */
	uint32_t generation;
	uint32_t next_free;
};

struct slot_table {
	/* Private. */
	struct slot *slots; /* [count] */
	uint32_t count;
	uint32_t first_free;
};

/* Make COUNT slots (1 to 2^31), all free.  Returns 0 or -ENOMEM. */
int slot_table_init(struct slot_table *table, uint32_t count) MUST_USE;
void slot_table_fini(struct slot_table *table);

/* Take a slot for OP of QUEUE; there must be a free one.  Returns its tag. */
uint64_t slot_take(struct slot_table *table, struct op *op, struct op_queue *queue,
		   enum priority priority);

/* The slot that TAG names, or NULL if it has been released since.  Any number may be asked for. */
struct slot *slot_find(const struct slot_table *table, uint64_t tag);

/* SLOT, which is taken, is free again; its tag is no longer valid. */
void slot_release(struct slot_table *table, struct slot *slot);

#endif
