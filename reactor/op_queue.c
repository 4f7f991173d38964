/* Waiting lists and credits. */
#include "reactor/op_queue.h"

/* Background operations may hold one of so many slots: what is with the kernel can't be overtaken. */
#define BACKGROUND_PART 4

/* Normal operations for each background one, while both wait: as they share a turn (run_queue.h). */
#define BACKGROUND_PASSED_MAX 8

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
	queue->background_passed = 0;
}

void
op_queue_append(struct op_queue *queue, struct op *op)
{
	list_append(&queue->waiting[op->priority], &op->node);
	queue->waiting_count++;
	if (op->priority == PRIORITY_BACKGROUND && queue->background_waiting++ == 0)
		queue->background_passed = 0;
}

void
op_queue_remove(struct op_queue *queue, struct op *op)
{
	list_remove(&op->node);
	queue->waiting_count--;
	if (op->priority == PRIORITY_NORMAL) {
		queue->background_passed++;
	} else if (op->priority == PRIORITY_BACKGROUND) {
		queue->background_waiting--;
		queue->background_passed = 0;
	}
}

/* As op_queue_list, of one class, without its first SKIPPED, and at most MAX. */
static unsigned
list_class(const struct list_node *waiting, unsigned skipped, struct iocb **batch, unsigned max)
{
	unsigned count = 0;
	struct list_node *node;

	list_for_each(node, waiting) {
		if (count == max)
			break;
		if (skipped > 0)
			skipped--;
		else
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
	const struct list_node *background = &queue->waiting[PRIORITY_BACKGROUND];
	unsigned background_room = queue->background_slots - queue->background_in_flight;
	unsigned room = op_queue_free(queue), first = 0, end, count;

	if (queue->waiting_count == 0)
		return 0;
	count = list_class(&queue->waiting[PRIORITY_LATENCY], 0, batch, room);
	end = count + smaller(room - count, lower_max);
	if (queue->background_passed >= BACKGROUND_PASSED_MAX)
		first = list_class(background, 0, batch + count,
				   smaller(smaller(end - count, background_room), 1));
	count += first;
	count += list_class(&queue->waiting[PRIORITY_NORMAL], 0, batch + count, end - count);
	return count + list_class(background, first, batch + count,
				  smaller(end - count, background_room - first));
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
