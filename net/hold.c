/* An atomic counter. */
#include "net/hold.h"

#include <stddef.h>
#include <stdint.h>

#include "reactor/check.h"

void
hold_init(struct hold *hold, void (*on_unused)(struct hold *hold))
{
	*hold = (struct hold){ .on_unused = on_unused, .count = 1 };
}

void
hold_get(struct hold *hold)
{
	/* Relaxed: the caller holds it, or could not get it. */
	if (hold != NULL)
		__atomic_add_fetch(&hold->count, 1, __ATOMIC_RELAXED);
}

void
hold_put(struct hold *hold)
{
	unsigned left;

	if (hold == NULL)
		return;
	/* Whoever is last sees all that the others have done with it. */
	left = __atomic_sub_fetch(&hold->count, 1, __ATOMIC_ACQ_REL);
	CHECK(left != UINT32_MAX);
	if (left == 0 && hold->on_unused != NULL)
		hold->on_unused(hold);
}
