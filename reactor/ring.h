/* The completion ring that the kernel maps into the process for each AIO context.
 * The kernel writes events at the tail; this side copies them out and moves the head: no system call.
 * One thread may drain a ring.  Source: Linux fs/aio.c, struct aio_ring. */
#ifndef REACTOR_RING_H
#define REACTOR_RING_H

#include "reactor/check.h"
#include <libaio.h>
#include <stdbool.h>

struct ring_header {
	unsigned id;
	unsigned nr; /* entries; not a power of two */
	unsigned head;
	unsigned tail;
	unsigned magic;
	unsigned compat_features;
	unsigned incompat_features;
	unsigned header_length;
	struct io_event events[];
};

#define RING_MAGIC 0xa10a10a1u

_Static_assert(sizeof(struct ring_header) == 32, "the kernel's header has 32 bytes");
_Static_assert(sizeof(struct io_event) == 32, "the kernel's event has 32 bytes");

/* The ring of CONTEXT, kept from children that fork(2) makes: they could move its head.
 * Returns NULL if the kernel's layout is not the one known here: then events must be taken with
 * kernel_sleep. */
struct ring_header *ring_map(io_context_t context) MUST_USE;

/* True if no event waits. */
static inline bool
ring_empty(const struct ring_header *ring)
{
	/* Partner: the kernel's store of tail in aio_complete, after the event itself. */
	return __atomic_load_n(&ring->head, __ATOMIC_RELAXED) ==
	       __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
}

/* Move up to COUNT_MAX events to EVENTS.  Returns how many. */
unsigned ring_take(struct ring_header *ring, struct io_event *events, unsigned count_max);

#endif
