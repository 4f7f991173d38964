/* Doubling and halving, in the manner of QEMU's poll-max-ns. */
#include "reactor/spin.h"

#define NS_FIRST 4000 /* where spinning starts again after it was given up */

void
spin_init(struct spin *spin, uint64_t ns_max)
{
	spin->ns = 0;
	spin->ns_max = ns_max;
}

void
spin_adapt(struct spin *spin, uint64_t waited_ns)
{
	if (waited_ns <= spin->ns)
		return;
	if (waited_ns > spin->ns_max)
		spin->ns /= 2;
	else if (spin->ns == 0)
		spin->ns = NS_FIRST;
	else
		spin->ns *= 2;
	if (spin->ns < NS_FIRST && waited_ns > spin->ns_max)
		spin->ns = 0;
	if (spin->ns > spin->ns_max)
		spin->ns = spin->ns_max;
}
