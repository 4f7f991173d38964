/* Waiting lists and credits. */
#include "reactor/op_queue.h"

/* Background operations may hold one of so many slots: what is with the kernel can't be overtaken. */
#define BACKGROUND_PART 4

void
op_queue_init(struct op_queue *queue, unsigned slots)
{
	for (unsigned i = 0; i < PRIORITY_COUNT; i++)
		list_init(&queue->waiting[i]);
	queue->waiting_count = 0;
	queue->background_waiting = 0;
	queue->slots = slots;
	queue->in_flight = 0;
	queue->background_slots = (slots + BACKGROUND_PART - 1) / BACKGROUND_PART;
	queue->background_in_flight = 0;
}

void
op_queue_append(struct op_queue *queue, struct op *op)
{
	list_append(&queue->waiting[op->priority], &op->node);
	queue->waiting_count++;
	queue->background_waiting += op->priority == PRIORITY_BACKGROUND;
}

void
op_queue_remove(struct op_queue *queue, struct op *op)
{
	list_remove(&op->node);
	queue->waiting_count--;
	queue->background_waiting -= op->priority == PRIORITY_BACKGROUND;
}

/* As op_queue_list, of one class and at most MAX. */
static unsigned
list_class(const struct list_node *waiting, struct iocb **batch, unsigned max)
{
	unsigned count = 0;
	struct list_node *node;

	list_for_each(node, waiting) {
		if (count == max)
			break;
		batch[count++] = &container_of(node, struct op, node)->iocb;
	}
	return count;
}

static unsigned
smaller(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

unsigned
op_queue_background_room(const struct op_queue *queue)
{
	unsigned room = op_queue_room(queue, PRIORITY_NORMAL);
	unsigned used = queue->background_in_flight + queue->background_waiting;

	return queue->background_slots > used ? smaller(room, queue->background_slots - used) : 0;
}

unsigned
op_queue_list(const struct op_queue *queue, struct iocb **batch, unsigned lower_max)
{
	unsigned room = op_queue_free(queue), count, lower;

	if (queue->waiting_count == 0)
		return 0;
	count = list_class(&queue->waiting[PRIORITY_LATENCY], batch, room);
	room = smaller(room - count, lower_max);
	lower = list_class(&queue->waiting[PRIORITY_NORMAL], batch + count, room);
	room = smaller(room - lower, queue->background_slots - queue->background_in_flight);
	count += lower;
	return count + list_class(&queue->waiting[PRIORITY_BACKGROUND], batch + count, room);
}

void
op_queue_take_slot(struct op_queue *queue, enum priority priority)
{
	queue->in_flight++;
	queue->background_in_flight += priority == PRIORITY_BACKGROUND;
}

void
op_queue_give_slot(struct op_queue *queue, enum priority priority)
{
	queue->in_flight--;
	queue->background_in_flight -= priority == PRIORITY_BACKGROUND;
}
