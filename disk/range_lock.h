/* Ranges of a volume, locked across cores, so that a read-modify-write of a block is not torn by a write of the same
 * block on another core.
 *
 * Two kinds of holder.  A plain write covers whole blocks: it only must not run beside an exclusive holder of the same
 * range; any number of plain writes may overlap.  An exclusive holder is alone with its range.  Whoever waits has his turn before
 * those who come later: no stream of the one kind keeps the other out.
 *
 * No memory is shared on the plain path: each core keeps its own plain writes and its own copy of the exclusive ranges.
 * A would-be exclusive holder asks the volume's home core by message; the home core grants in order of arrival,
 * after every core has said that its plain writes in the range are over and new ones wait.  So a plain write costs
 * a list insertion, and an exclusive one a round of messages: right where unaligned requests are rare. */
#ifndef DISK_RANGE_LOCK_H
#define DISK_RANGE_LOCK_H

#include "reactor/check.h"
#include "reactor/core.h"
#include "reactor/inbox.h"
#include "reactor/list.h"
#include <stdbool.h>
#include <stdint.h>

/* Exclusive holders of one volume at one time, on all cores; more wait for their turn. */
#define RANGE_EXCLUSIVE_MAX 64

/* How often each core must have delivered all that had been sent to it until then, behind the last holder's end, before no message
 * is under way: its release, that to each core, and the answers. */
#define RANGE_LOCK_ROUNDS 3

struct range_lock;
struct range_slot;

/* A plain write; embedded by its request, on one core.  Bytes [start, end). */
struct range_write {
	uint64_t start, end;
	void (*granted)(struct range_write *write);
	/* Private. */
	uint64_t turn;
	struct list_node node;
};

/* An exclusive holder, likewise. */
struct range_exclusive {
	uint64_t start, end;
	void (*granted)(struct range_exclusive *exclusive);
	/* Private. */
	struct range_lock *lock;
	struct core *core;
	struct range_slot *slot;
	uint64_t turn;
	struct list_node waiters; /* others, by turn_node */
	struct list_node turn_node;
	struct list_node node;
	struct message message;
};

/* Create the lock of one volume, used on CORES (which must outlive it), with cores[home_index] as its home.
 * Returns 0 or -ENOMEM; then *lock is unchanged. */
int range_lock_create(struct cores *cores, unsigned home_index, struct range_lock **lock) MUST_USE;

/* Nobody may hold or wait for a range, and no message about one may be under way (RANGE_LOCK_ROUNDS), unless no core runs: then it goes unread. */
void range_lock_destroy(struct range_lock *lock);

/* Enter WRITE (start, end and granted set) on CORE, which is the caller's.  Returns true if it may go ahead; false if it
 * must wait: then `granted` is called on this core when it may. */
bool range_write_begin(struct range_lock *lock, struct core *core,
		       struct range_write *write) MUST_USE;

/* WRITE, which was granted, is over. */
void range_write_end(struct range_lock *lock, struct core *core, struct range_write *write);

/* Ask for EXCLUSIVE (start, end and granted set) on CORE, the caller's; `granted` is called on it later, never from
 * within this call. */
void range_exclusive_begin(struct range_lock *lock, struct core *core,
			   struct range_exclusive *exclusive);

/* EXCLUSIVE, which was granted, is over, and free when this returns. */
void range_exclusive_end(struct range_exclusive *exclusive);

#endif
