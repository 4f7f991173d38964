/* The home core's queue and slots, and each core's copy.
 *
 * The life of an exclusive range:
 *   requester -> home: queued; given a slot when one is free and no earlier or held range overlaps
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
	uint64_t start, end;
	unsigned answers_missing;
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
	struct list_node queue; /* range_exclusive, in order of arrival */
	struct list_node held;	/* range_slot */
	struct list_node unused;
	/* Somebody in the queue may be waiting for nothing but a slot; if not, each overlaps who holds, or who came before it. */
	bool short_of_slots;
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
	list_init(&lock->held);
	list_init(&lock->unused);
	for (unsigned i = 0; i < RANGE_EXCLUSIVE_MAX; i++) {
		struct range_slot *slot = &lock->slots[i];

		slot->lock = lock;
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
	CHECK(list_empty(&lock->queue));
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

		if (block->draining && !must_drain(here, block)) {
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
	struct list_node ready, *node, *after;

	list_remove(&block->node);
	send_home(lock, &block->message, on_answer);
	list_init(&ready);
	list_for_each_safe(node, after, &here->waiting) {
		struct range_write *write = container_of(node, struct range_write, node);

		if (!write_is_blocked(here, write)) {
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
must_wait(const struct range_lock *lock, const struct range_exclusive *exclusive)
{
	const struct list_node *node;

	list_for_each(node, &lock->held) {
		const struct range_slot *slot = container_of(node, struct range_slot, node);

		if (overlap(exclusive->start, exclusive->end, slot->start, slot->end))
			return true;
	}
	for (node = exclusive->node.prev; node != &lock->queue; node = node->prev) {
		const struct range_exclusive *earlier =
			container_of(node, struct range_exclusive, node);

		if (overlap(exclusive->start, exclusive->end, earlier->start, earlier->end))
			return true;
	}
	return false;
}

/* EXCLUSIVE leaves the queue; there is a slot. */
static void
slot_open(struct range_lock *lock, struct range_exclusive *exclusive)
{
	struct range_slot *slot =
		container_of(list_take_first(&lock->unused), struct range_slot, node);

	list_remove(&exclusive->node);
	slot->holder = exclusive;
	slot->start = exclusive->start;
	slot->end = exclusive->end;
	slot->answers_missing = lock->cores->count;
	exclusive->slot = slot;
	list_append(&lock->held, &slot->node);
	for (unsigned c = 0; c < lock->cores->count; c++)
		send_to_core(&slot->blocks[c], on_block);
}

/* START to END is held no more, and a slot is free: give it to those in the queue that may have it now.  These overlap the range, unless
 * they only waited for a slot; so a queue of thousands is neither looked through for each that comes nor for each that goes. */
static void
grant_slots(struct range_lock *lock, uint64_t start, uint64_t end)
{
	bool all = lock->short_of_slots;
	struct list_node *node, *after;

	lock->short_of_slots = false;
	list_for_each_safe(node, after, &lock->queue) {
		struct range_exclusive *exclusive =
			container_of(node, struct range_exclusive, node);

		if (!all && !overlap(exclusive->start, exclusive->end, start, end))
			continue;
		if (list_empty(&lock->unused)) {
			lock->short_of_slots = true;
			return;
		}
		if (must_wait(lock, exclusive))
			continue;
		slot_open(lock, exclusive);
		/* Whoever else waited for the range waits for this one. */
		if (!all && exclusive->start <= start && exclusive->end >= end)
			return;
	}
}

static void
on_request(struct message *message)
{
	struct range_exclusive *exclusive = container_of(message, struct range_exclusive, message);
	struct range_lock *lock = exclusive->lock;

	list_append(&lock->queue, &exclusive->node);
	if (list_empty(&lock->unused))
		lock->short_of_slots = true;
	else if (!must_wait(lock, exclusive))
		slot_open(lock, exclusive);
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
	if (holder != NULL) {
		slot->holder = NULL;
		holder->message.deliver = on_granted;
		reactor_send(holder->core->reactor, &holder->message);
	} else {
		list_remove(&slot->node);
		list_append(&slot->lock->unused, &slot->node);
		grant_slots(slot->lock, slot->start, slot->end);
	}
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
