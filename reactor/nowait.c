/* A score of refusals. */
#include "reactor/nowait.h"

#include <string.h>

/* One refusal weighs as much as so many successes: it costs a thread's wake-up in vain. */
#define REFUSAL_WEIGHT 4u
/* From here on operations go to a helper unasked; at most so high, so that it is not too far back. */
#define REFUSALS_MANY 64u
#define REFUSALS_MAX  96u
/* But each of so many is asked, to see whether that has changed. */
#define ASK_AGAIN 32u

static void
count(uint64_t *counter)
{
	/* One writer; relaxed, for those who read it meanwhile. */
	__atomic_store_n(counter, *counter + 1, __ATOMIC_RELAXED);
}

void
nowait_init(struct nowait *nowait)
{
	memset(nowait, 0, sizeof(*nowait));
}

enum nowait_way
nowait_choose(struct nowait *nowait, bool share)
{
	if (nowait->unsupported)
		return share ? NOWAIT_WAY_HELPER : NOWAIT_WAY_BLOCKING;
	if (nowait->refusals >= REFUSALS_MANY && ++nowait->unasked < ASK_AGAIN) {
		count(&nowait->helped);
		return NOWAIT_WAY_HELPER;
	}
	nowait->unasked = 0;
	count(&nowait->asked);
	return NOWAIT_WAY_ASK;
}

void
nowait_succeeded(struct nowait *nowait)
{
	if (nowait->refusals >= REFUSALS_MANY)
		nowait->refusals = REFUSALS_MANY - 1; /* ask again at once */
	else if (nowait->refusals > 0)
		nowait->refusals--;
}

void
nowait_refused(struct nowait *nowait)
{
	count(&nowait->refused);
	nowait->refusals += REFUSAL_WEIGHT;
	if (nowait->refusals > REFUSALS_MAX)
		nowait->refusals = REFUSALS_MAX;
}

void
nowait_unsupported(struct nowait *nowait)
{
	nowait->unsupported = true;
}
