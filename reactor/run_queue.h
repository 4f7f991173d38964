/* The run queue: operations whose `done` is to be called, by priority.
 * Of several classes that have something each gets its share of the calls, higher classes first; within one class the
 * order is that of arrival.  Belongs to one reactor. */
#ifndef REACTOR_RUN_QUEUE_H
#define REACTOR_RUN_QUEUE_H

#include "reactor/list.h"
#include "reactor/op.h"
#include "reactor/priority.h"
#include <stdbool.h>

struct run_queue {
	/* Private. */
	struct list_node ready[PRIORITY_COUNT];
	unsigned share[PRIORITY_COUNT];	 /* calls in each round */
	unsigned credit[PRIORITY_COUNT]; /* left of this round */
	unsigned count;
};

/* shares: calls of each class per round, at least 1 each; copied. */
void run_queue_init(struct run_queue *queue, const unsigned shares[PRIORITY_COUNT]);

void run_queue_append(struct run_queue *queue, struct op *op);

/* The operation whose turn it is, taken out; NULL if there is none. */
struct op *run_queue_take(struct run_queue *queue);

/* Take OP, which is in the queue, out of it. */
void run_queue_remove(struct run_queue *queue, struct op *op);

static inline unsigned
run_queue_count(const struct run_queue *queue)
{
	return queue->count;
}

/* Whether something of CLASS is in the queue. */
static inline bool
run_queue_has(const struct run_queue *queue, enum priority class)
{
	return !list_empty(&queue->ready[class]);
}

#endif
