/* Draining the mapped completion ring. */
#include "reactor/ring.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct ring_header *
ring_map(io_context_t context)
{
	struct ring_header *ring = (struct ring_header *)(void *)context;
	size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	size_t bytes;

	if (ring->magic != RING_MAGIC || ring->incompat_features != 0 ||
	    ring->header_length != sizeof(*ring))
		return NULL;
	bytes = sizeof(*ring) + ring->nr * sizeof(struct io_event);
	bytes = (bytes + page_bytes - 1) / page_bytes * page_bytes;
	/* Best effort: only a program that forks without exec needs it. */
	(void)madvise(ring, bytes, MADV_DONTFORK);
	return ring;
}

unsigned
ring_take(struct ring_header *ring, struct io_event *events, unsigned count_max)
{
	unsigned head = __atomic_load_n(&ring->head, __ATOMIC_RELAXED);
	/* Partner: the kernel's store of tail in aio_complete, after the event itself. */
	unsigned tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
	unsigned count = 0;

	while (head != tail && count < count_max) {
		unsigned run = (tail > head ? tail : ring->nr) - head;

		if (run > count_max - count)
			run = count_max - count;
		memcpy(&events[count], &ring->events[head], run * sizeof(events[0]));
		count += run;
		head += run;
		if (head == ring->nr)
			head = 0;
	}
	/* Partner: the kernel's load of head when it refills slots: the copies above come first. */
	__atomic_store_n(&ring->head, head, __ATOMIC_RELEASE);
	return count;
}
