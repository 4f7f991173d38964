/* The home core's queue and slots, and each core's copy.
 *
 * The life of an exclusive range:
 *   requester -> home: queued, behind one whose range overlaps, earlier or held; where there is none, given a slot when one is free
 *   home -> every core: block; a core answers when its plain writes in the range are over
 *   home -> requester: granted, when all have answered
 *   requester -> home: released
 *   home -> every core: unblock; a core starts the plain writes that waited, and answers
 *   home: the slot is free, when all have answered
 *
 * On a core a plain write waits for the blocks that were there before it, and each block for the plain writes that were there before
 * that, also those that wait.  All cores get the blocks in the home's order, so what waits for what is in that order too, and never
 * goes round in a circle. */
#include "disk/range_lock.h"

#include <errno.h>
#include <stdlib.h>

/* Those whose ranges are held against each other's.  Bounds what one can cost the home core, however many wait. */
#define QUEUE_MAX 4096

/* One core's copy of one exclusive range.  Owned by its core between the home's message and the answer's. */
struct range_block {
	struct range_slot *slot;
	unsigned core_index;
	bool draining; /* plain writes in the range, from before it, are not over */
	uint64_t turn;
	struct list_node node;
	struct message message;
};

/* An exclusive range that is held, or on its way there or back.  Owned by the home core. */
struct range_slot {
	struct range_lock *lock;
	struct range_exclusive *holder; /* valid until granted */
	uint64_t start, end, turn;
	unsigned answers_missing;
	struct list_node waiters; /* range_exclusive, by turn_node */
	struct list_node node;
	struct message release_message; /* the holder's */
	struct range_block *blocks;	/* one per core */
};

/* What one core knows. */
struct range_core {
	struct list_node writes;  /* plain, granted */
	struct list_node waiting; /* plain, behind a block */
	struct list_node blocks;
	uint64_t turns; /* given out, to plain writes and to blocks */
} __attribute__((aligned(64)));

struct range_lock {
	struct cores *cores;
	struct core *home;
	struct range_core *per_core;
	/* The home core's. */
	struct list_node queue;	  /* range_exclusive, in order of arrival */
	struct list_node ready;	  /* those in the queue that wait for a slot alone, by turn_node */
	struct list_node backlog; /* range_exclusive, behind a queue that is full */
	unsigned queued;
	uint64_t turns;	       /* given out, to those in the queue */
	struct list_node held; /* range_slot */
	struct list_node unused;
	struct range_slot slots[RANGE_EXCLUSIVE_MAX];
};

static bool
overlap(uint64_t start, uint64_t end, uint64_t other_start, uint64_t other_end)
{
	return start < other_end && other_start < end;
}

int
range_lock_create(struct cores *cores, unsigned home_index, struct range_lock **result)
{
	size_t block_count = (size_t)cores->count * RANGE_EXCLUSIVE_MAX;
	struct range_lock *lock = calloc(1, sizeof(*lock));
	struct range_block *blocks = calloc(block_count, sizeof(*blocks));
	void *per_core = NULL;

	if (lock == NULL || blocks == NULL ||
	    posix_memalign(&per_core, 64, cores->count * sizeof(struct range_core)) != 0) {
		free(blocks);
		free(lock);
		return -ENOMEM;
	}
	lock->cores = cores;
	lock->home = &cores->cores[home_index];
	lock->per_core = per_core;
	list_init(&lock->queue);
	list_init(&lock->ready);
	list_init(&lock->backlog);
	list_init(&lock->held);
	list_init(&lock->unused);
	for (unsigned i = 0; i < RANGE_EXCLUSIVE_MAX; i++) {
		struct range_slot *slot = &lock->slots[i];

		slot->lock = lock;
		list_init(&slot->waiters);
		slot->blocks = &blocks[(size_t)i * cores->count];
		list_append(&lock->unused, &slot->node);
		for (unsigned c = 0; c < cores->count; c++)
			slot->blocks[c] = (struct range_block){ .slot = slot, .core_index = c };
	}
	for (unsigned c = 0; c < cores->count; c++) {
		list_init(&lock->per_core[c].writes);
		list_init(&lock->per_core[c].waiting);
		list_init(&lock->per_core[c].blocks);
		lock->per_core[c].turns = 0;
	}
	*result = lock;
	return 0;
}

void
range_lock_destroy(struct range_lock *lock)
{
	CHECK(list_empty(&lock->queue) && list_empty(&lock->backlog));
	free(lock->slots[0].blocks);
	free(lock->per_core);
	free(lock);
}

static void
send_home(struct range_lock *lock, struct message *message, void (*deliver)(struct message *))
{
	message->deliver = deliver;
	reactor_send(lock->home->reactor, message);
}

static void
send_to_core(struct range_block *block, void (*deliver)(struct message *))
{
	struct range_lock *lock = block->slot->lock;

	block->message.deliver = deliver;
	reactor_send(lock->cores->cores[block->core_index].reactor, &block->message);
}

/* ---- on each core: plain writes ---- */

static bool
write_is_blocked(const struct range_core *core, const struct range_write *write)
{
	const struct list_node *node;

	list_for_each(node, &core->blocks) {
		const struct range_block *block = container_of(node, struct range_block, node);

		if (block->turn < write->turn &&
		    overlap(write->start, write->end, block->slot->start, block->slot->end))
			return true;
	}
	return false;
}

/* Whether one of WRITES has to be over before BLOCK is closed. */
static bool
any_before(const struct list_node *writes, const struct range_block *block)
{
	const struct list_node *node;

	list_for_each(node, writes) {
		const struct range_write *write = container_of(node, struct range_write, node);

		if (write->turn < block->turn &&
		    overlap(write->start, write->end, block->slot->start, block->slot->end))
			return true;
	}
	return false;
}

static bool
must_drain(const struct range_core *core, const struct range_block *block)
{
	return any_before(&core->writes, block) || any_before(&core->waiting, block);
}

bool
range_write_begin(struct range_lock *lock, struct core *core, struct range_write *write)
{
	struct range_core *here = &lock->per_core[core->index];
	bool blocked;

	write->turn = here->turns++;
	blocked = write_is_blocked(here, write);
	list_append(blocked ? &here->waiting : &here->writes, &write->node);
	return !blocked;
}

static void on_answer(struct message *message);

void
range_write_end(struct range_lock *lock, struct core *core, struct range_write *write)
{
	struct range_core *here = &lock->per_core[core->index];
	struct list_node *node;

	list_remove(&write->node);
	list_for_each(node, &here->blocks) {
		struct range_block *block = container_of(node, struct range_block, node);

		if (block->draining &&
		    overlap(write->start, write->end, block->slot->start, block->slot->end) &&
		    !must_drain(here, block)) {
			block->draining = false;
			send_home(lock, &block->message, on_answer);
		}
	}
}

/* The home core wants the range closed to plain writes. */
static void
on_block(struct message *message)
{
	struct range_block *block = container_of(message, struct range_block, message);
	struct range_lock *lock = block->slot->lock;
	struct range_core *here = &lock->per_core[block->core_index];

	block->turn = here->turns++;
	list_append(&here->blocks, &block->node);
	block->draining = must_drain(here, block);
	if (!block->draining)
		send_home(lock, &block->message, on_answer);
}

/* The range is open again: start what waited for it, in order. */
static void
on_unblock(struct message *message)
{
	struct range_block *block = container_of(message, struct range_block, message);
	struct range_lock *lock = block->slot->lock;
	struct range_core *here = &lock->per_core[block->core_index];
	uint64_t start = block->slot->start,
		 end = block->slot->end; /* the slot's next holder's, once it has the answer */
	struct list_node ready, *node, *after;

	list_remove(&block->node);
	send_home(lock, &block->message, on_answer);
	list_init(&ready);
	list_for_each_safe(node, after, &here->waiting) {
		struct range_write *write = container_of(node, struct range_write, node);

		if (overlap(write->start, write->end, start, end) &&
		    !write_is_blocked(here, write)) {
			list_remove(node);
			list_append(&ready, node);
		}
	}
	while ((node = list_take_first(&ready)) != NULL) {
		struct range_write *write = container_of(node, struct range_write, node);

		list_append(&here->writes, &write->node);
		write->granted(write);
	}
}

/* ---- on the home core: exclusive ranges ---- */

static bool
exclude_each_other(const struct range_exclusive *a, const struct range_exclusive *b)
{
	return overlap(a->start, a->end, b->start, b->end);
}

/* The last in the queue that came before EXCLUSIVE, the newest, and is in its way; NULL: none. */
static struct range_exclusive *
find_last(struct range_lock *lock, const struct range_exclusive *exclusive)
{
	struct list_node *node;

	for (node = exclusive->node.prev; node != &lock->queue; node = node->prev) {
		struct range_exclusive *earlier = container_of(node, struct range_exclusive, node);

		if (exclude_each_other(exclusive, earlier))
			return earlier;
	}
	return NULL;
}

/* The same of those before TURN: nobody else is in EXCLUSIVE's way.  From the front, where most often few are left. */
static struct range_exclusive *
find_last_before(struct range_lock *lock, const struct range_exclusive *exclusive, uint64_t turn)
{
	struct range_exclusive *last = NULL;
	struct list_node *node;

	list_for_each(node, &lock->queue) {
		struct range_exclusive *earlier = container_of(node, struct range_exclusive, node);

		if (earlier->turn >= turn)
			break;
		if (exclude_each_other(exclusive, earlier))
			last = earlier;
	}
	return last;
}

static struct range_slot *
find_holder(struct range_lock *lock, const struct range_exclusive *exclusive)
{
	struct list_node *node;

	list_for_each(node, &lock->held) {
		struct range_slot *slot = container_of(node, struct range_slot, node);

		if (overlap(exclusive->start, exclusive->end, slot->start, slot->end))
			return slot;
	}
	return NULL;
}

/* EXCLUSIVE, in the queue, waits for EARLIER, the last there that is in its way; if that is NULL, for a holder, or for a slot. */
static void
wait_behind(struct range_lock *lock, struct range_exclusive *exclusive,
	    struct range_exclusive *earlier)
{
	struct range_slot *holder = earlier == NULL ? find_holder(lock, exclusive) : NULL;
	struct list_node *waiters = &lock->ready;

	if (earlier != NULL)
		waiters = &earlier->waiters;
	else if (holder != NULL)
		waiters = &holder->waiters;
	list_append(waiters, &exclusive->turn_node);
}

static void
enqueue(struct range_lock *lock, struct range_exclusive *exclusive)
{
	list_init(&exclusive->waiters);
	exclusive->turn = lock->turns++;
	list_append(&lock->queue, &exclusive->node);
	lock->queued++;
	wait_behind(lock, exclusive, find_last(lock, exclusive));
}

/* EXCLUSIVE leaves the queue; there is a slot. */
static void
slot_open(struct range_lock *lock, struct range_exclusive *exclusive)
{
	struct range_slot *slot =
		container_of(list_take_first(&lock->unused), struct range_slot, node);

	list_remove(&exclusive->node);
	lock->queued--;
	slot->holder = exclusive;
	slot->start = exclusive->start;
	slot->end = exclusive->end;
	slot->turn = exclusive->turn;
	slot->answers_missing = lock->cores->count;
	exclusive->slot = slot;
	list_move_all(&slot->waiters, &exclusive->waiters);
	list_append(&lock->held, &slot->node);
	for (unsigned c = 0; c < lock->cores->count; c++)
		send_to_core(&slot->blocks[c], on_block);
}

/* Give out the slots that are free, and the places in the queue. */
static void
advance(struct range_lock *lock)
{
	for (;;) {
		if (!list_empty(&lock->ready) && !list_empty(&lock->unused))
			slot_open(lock, container_of(list_take_first(&lock->ready),
						     struct range_exclusive, turn_node));
		else if (!list_empty(&lock->backlog) && lock->queued < QUEUE_MAX)
			enqueue(lock, container_of(list_take_first(&lock->backlog),
						   struct range_exclusive, node));
		else
			return;
	}
}

static void
on_request(struct message *message)
{
	struct range_exclusive *exclusive = container_of(message, struct range_exclusive, message);

	list_append(&exclusive->lock->backlog, &exclusive->node);
	advance(exclusive->lock);
}

/* SLOT's range is held no more: those who waited for it wait for the next that is in their way. */
static void
slot_close(struct range_lock *lock, struct range_slot *slot)
{
	struct list_node waiters, *node;

	list_remove(&slot->node);
	list_append(&lock->unused, &slot->node);
	list_init(&waiters);
	list_move_all(&waiters, &slot->waiters);
	while ((node = list_take_first(&waiters)) != NULL) {
		struct range_exclusive *exclusive =
			container_of(node, struct range_exclusive, turn_node);

		wait_behind(lock, exclusive, find_last_before(lock, exclusive, slot->turn));
	}
	advance(lock);
}

static void
on_granted(struct message *message)
{
	struct range_exclusive *exclusive = container_of(message, struct range_exclusive, message);

	exclusive->granted(exclusive);
}

/* A core has blocked or unblocked the range. */
static void
on_answer(struct message *message)
{
	struct range_slot *slot = container_of(message, struct range_block, message)->slot;
	struct range_exclusive *holder = slot->holder;

	if (--slot->answers_missing > 0)
		return;
	if (holder == NULL) {
		slot_close(slot->lock, slot);
		return;
	}
	slot->holder = NULL;
	holder->message.deliver = on_granted;
	reactor_send(holder->core->reactor, &holder->message);
}

static void
on_release(struct message *message)
{
	struct range_slot *slot = container_of(message, struct range_slot, release_message);

	slot->answers_missing = slot->lock->cores->count;
	for (unsigned c = 0; c < slot->lock->cores->count; c++)
		send_to_core(&slot->blocks[c], on_unblock);
}

/* ---- the requester ---- */

void
range_exclusive_begin(struct range_lock *lock, struct core *core, struct range_exclusive *exclusive)
{
	exclusive->lock = lock;
	exclusive->core = core;
	send_home(lock, &exclusive->message, on_request);
}

void
range_exclusive_end(struct range_exclusive *exclusive)
{
	send_home(exclusive->lock, &exclusive->slot->release_message, on_release);
}
