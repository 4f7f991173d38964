/* A notice: the ready word of one source, for one core.
 * Senders raise bits in it; however many do, it is in the core's inbox at most once, and its deliver gets all bits together.  So
 * a source that speaks a thousand times before the core listens costs one message, and nothing has to be allocated or
 * can run full.  Owned and embedded by whoever receives; must outlive its senders. */
#ifndef REACTOR_NOTICE_H
#define REACTOR_NOTICE_H

#include "reactor/inbox.h"
#include <stdbool.h>
#include <stdint.h>

struct notice {
	/* Called on the receiving core.  bits: all that were raised since the last call, at least one. */
	void (*deliver)(struct notice *notice, uint32_t bits);
	/* Private. */
	uint32_t raised; /* atomic; not 0: it is in the inbox */
	struct message message;
};

void notice_init(struct notice *notice, void (*deliver)(struct notice *notice, uint32_t bits));

/* Raise BITS (at least one) of NOTICE, whose messages go to INBOX.  Any thread.
 * Returns true if NOTICE was posted, false if it is in the inbox already: then nobody needs to be woken. */
bool notice_raise(struct notice *notice, struct inbox *inbox, uint32_t bits);

#endif
