/* Parking: descriptors that may have nothing to say for hours, behind one poll of the reactor.
 *
 * A connection that is idle needs a poll armed, and with it a slot of the AIO ring.  A parked one needs neither: all of
 * a core's are in one epoll set, and only that set's descriptor is polled on the ring.  10,000 parked descriptors cost
 * one slot, no CPU, sizeof(struct parked) each here and about 200 bytes each in the kernel.
 *
 * What has become ready stays in the set, disarmed, until it is parked again or removed: parking it again is then one
 * system call.  A cycle of parking and waking a socket took 340 ns more than its data alone like this, and 890 ns with
 * adding and deleting (Linux 6.18); in return each arrival costs a disarmed descriptor 55 ns.  What is watched instead (parking_watch)
 * stays armed and costs no system call but its share of the harvest's.
 *
 * While the reactor is busy the set is looked at in each turn, as long as there is something; the poll is armed when there
 * is nothing.
 *
 * A parking and what is parked there belong to one core: all functions are for its thread only. */
#ifndef REACTOR_PARKING_H
#define REACTOR_PARKING_H

#include "reactor/reactor.h"

#define PARKING_BATCH 64 /* taken from the kernel at a time: at most two batches in a turn */

struct parking;

/* One descriptor that can be parked; owned and embedded by its user. */
struct parked {
	/* FD is ready, hung up or in error.  Called once for each parking_add, on the core, never from
	 * within a call of this file; PARKED is not parked any more: it may be parked again, or removed and freed. */
	void (*ready)(struct parked *parked);
	/* To be read only: as given to parking_add or parking_watch; and what was reported last, of epoll(7). */
	int fd;
	uint32_t events;
	/* Private. */
	uint8_t state;
	uint8_t batch_index;
	struct parking *parking;
};

_Static_assert(sizeof(struct parked) <= 64, "10,000 idle connections should cost little");

struct parking {
	/* Private. */
	void (*on_stopped)(struct parking *parking);
	struct reactor *reactor;
	struct op poll; /* of epoll_fd; not armed while `more` is deferred */
	struct task more;
	int epoll_fd;
	unsigned events;	   /* what parked descriptors wait for */
	uint64_t armed_rests;	   /* of the reactor, when the poll was armed */
	unsigned registered_count; /* in the set, armed or not */
	bool stopping;
	unsigned batch_count, batch_next;
	struct parked *batch[PARKING_BATCH]; /* taken from the kernel and not told yet */
};

/* Make PARKING, empty, on REACTOR, for descriptors that are to become ready for EVENTS: POLLIN, POLLOUT or both.  It takes one of
 * the reactor's reserved slots and one descriptor.
 * Returns 0, or a negative errno; then PARKING is not usable.
 * Errors: -EINVAL an argument is NULL, or EVENTS has none of these or others; -ENOBUFS the reactor has no reserved slot left
 * (reactor_reserve); -EMFILE, -ENFILE, -ENOMEM. */
int parking_start(struct parking *parking, struct reactor *reactor, unsigned events) MUST_USE;

/* Undo parking_start, in the turn in which it was called: nothing may have been parked. */
void parking_discard(struct parking *parking);

/* The end of PARKING; nothing may be parked or disarmed in it: remove all of them before.  on_stopped is called in a
 * later turn, when the kernel has given the poll back and the set is closed: PARKING may be freed from then on. */
void parking_stop(struct parking *parking, void (*on_stopped)(struct parking *parking));

/* Prepare PARKED, not parked. */
void parked_init(struct parked *parked, void (*ready)(struct parked *parked));

/* Park FD: ready is called when it is ready for the parking's events or at its end, in a later turn; soon if there is already.
 * FD stays the caller's, who must not close it before parking_remove: the kernel goes by the open file, and would go on
 * reporting one that is open elsewhere too, or has a poll armed.  It may not be in the set twice.
 * A signalfd may be missed: a kernel worker can be the one who looks (see signal_watch.h).
 * Returns 0, or a negative errno; then PARKED is as before and ready is not called.
 * Errors: -EINVAL an argument is NULL or negative, PARKED is parked already or was and is to be removed before it can
 * be parked with another descriptor or elsewhere, PARKING is stopping; -EOPNOTSUPP files of this kind are always ready
 * (regular files, directories); -EBADF; -EEXIST FD is another's here; -ENOENT it was closed since; -ENOSPC
 * fs.epoll.max_user_watches; -ENOMEM; -ELOOP.
 * Source: epoll_ctl(2). */
int parking_add(struct parking *parking, struct parked *parked, int fd) MUST_USE;

/* As parking_add, but FD stays watched until parking_mute or parking_remove: ready is called each time that something new has come,
 * and soon if there is something already.  So who is called receives until there is nothing more, or keeps in mind that there is.
 * Harmless if it is watched already. */
int parking_watch(struct parking *parking, struct parked *parked, int fd) MUST_USE;

/* Watch PARKED no more; it stays in the set, so that parking_watch costs as little as this, one system call.  Harmless if it is not
 * watched. */
void parking_mute(struct parked *parked);

/* Take PARKED out of the set, parked or not: ready will not be called, even if its turn in a batch was near.  PARKED may
 * be freed, its descriptor closed.  Harmless if it was never parked, or removed already.  One system call. */
void parking_remove(struct parked *parked);

/* How many were ready when PARKING last looked. */
static inline unsigned
parking_told(const struct parking *parking)
{
	return parking->batch_count;
}

/* True from parking_add until just before ready, or parking_remove. */
bool parked_is_parked(const struct parked *parked) MUST_USE;

#endif
