/* Weighted round robin over the classes. */
#include "reactor/run_queue.h"

#include <string.h>

void
run_queue_init(struct run_queue *queue, const unsigned shares[PRIORITY_COUNT])
{
	for (unsigned i = 0; i < PRIORITY_COUNT; i++) {
		CHECK(shares[i] > 0);
		list_init(&queue->ready[i]);
		queue->share[i] = shares[i];
		queue->credit[i] = shares[i];
	}
	queue->count = 0;
}

void
run_queue_append(struct run_queue *queue, struct op *op)
{
	list_append(&queue->ready[op->priority], &op->node);
	queue->count++;
}

/* The highest class that has both something to do and credit left. */
static struct list_node *
take_with_credit(struct run_queue *queue)
{
	for (unsigned i = 0; i < PRIORITY_COUNT; i++) {
		if (queue->credit[i] == 0 || list_empty(&queue->ready[i]))
			continue;
		queue->credit[i]--;
		return list_take_first(&queue->ready[i]);
	}
	return NULL;
}

struct op *
run_queue_take(struct run_queue *queue)
{
	struct list_node *node;

	if (queue->count == 0)
		return NULL;
	node = take_with_credit(queue);
	if (node == NULL) {
		/* Those that had more to do have used up their credit: the next round. */
		memcpy(queue->credit, queue->share, sizeof(queue->credit));
		node = take_with_credit(queue);
	}
	queue->count--;
	return container_of(node, struct op, node);
}

void
run_queue_remove(struct run_queue *queue, struct op *op)
{
	list_remove(&op->node);
	queue->count--;
}
