/* How long to spin before sleeping: longer when a little more would have saved a sleep, shorter when it was in vain. */
#ifndef REACTOR_SPIN_H
#define REACTOR_SPIN_H

#include <stdint.h>

struct spin {
	uint64_t ns; /* to spin now: 0 to ns_max */
	/* Private. */
	uint64_t ns_max;
};

/* ns_max: 0 never spins. */
void spin_init(struct spin *spin, uint64_t ns_max);

/* Something came after WAITED_NS, spinning and sleeping together. */
void spin_adapt(struct spin *spin, uint64_t waited_ns);

#endif
