/* An op queue: the operations of one kind on their way to the kernel, and the credits they need to get there.
 * An operation goes to the kernel when its queue has a slot for the completion, higher classes first and each class in
 * order; background operations never hold more than a part of the slots, and one that eight normal ones have passed goes before the
 * others of those.  Belongs to one reactor. */
#ifndef REACTOR_OP_QUEUE_H
#define REACTOR_OP_QUEUE_H

#include "reactor/list.h"
#include "reactor/op.h"
#include "reactor/priority.h"
#include <stdbool.h>

struct op_queue {
	/* Private. */
	struct list_node waiting[PRIORITY_COUNT];
	unsigned waiting_count;
	unsigned background_waiting;
	unsigned slots;
	unsigned in_flight;
	unsigned background_slots;
	unsigned background_in_flight;
	unsigned background_passed; /* by so many normal ones, since one left or began to wait */
};

/* slots: at least 1. */
void op_queue_init(struct op_queue *queue, unsigned slots);

static inline unsigned
op_queue_waiting(const struct op_queue *queue)
{
	return queue->waiting_count;
}

static inline unsigned
op_queue_free(const struct op_queue *queue)
{
	return queue->slots - queue->in_flight;
}

/* With the kernel. */
static inline unsigned
op_queue_in_flight(const struct op_queue *queue)
{
	return queue->in_flight;
}

/* op_queue_room's, of the background class. */
unsigned op_queue_background_room(const struct op_queue *queue);

/* How many more operations of PRIORITY would have a slot at once. */
static inline unsigned
op_queue_room(const struct op_queue *queue, enum priority priority)
{
	unsigned used = queue->in_flight + queue->waiting_count;

	if (priority == PRIORITY_BACKGROUND)
		return op_queue_background_room(queue);
	return queue->slots > used ? queue->slots - used : 0;
}

/* OP waits from now on; op_queue_remove: no more. */
void op_queue_append(struct op_queue *queue, struct op *op);
void op_queue_remove(struct op_queue *queue, struct op *op);

/* List in BATCH the operations that wait and have a slot, in the order in which they are to go; they stay in the queue.
 * lower_max: of those that are not of the latency class, at most so many.  Returns how many are listed. */
unsigned op_queue_list(const struct op_queue *queue, struct iocb **batch, unsigned lower_max);

/* An operation of PRIORITY holds a slot, which was free; it holds it no more. */
void op_queue_take_slot(struct op_queue *queue, enum priority priority);
void op_queue_give_slot(struct op_queue *queue, enum priority priority);

#endif
