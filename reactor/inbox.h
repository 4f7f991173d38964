/* A core's inbox: messages from any thread, taken by one consumer in the order of their arrival.
 * A message is owned and embedded by its sender, and belongs to the inbox from post until it is delivered.
 * Lock-free: one atomic word; an empty inbox costs one load. */
#ifndef REACTOR_INBOX_H
#define REACTOR_INBOX_H

#include "reactor/check.h"
#include <stdbool.h>
#include <stddef.h>

struct message {
	/* Called once on the receiving core; the message is free for reuse from then on. */
	void (*deliver)(struct message *message);
	struct message *next; /* private */
};

struct inbox {
	/* Private. */
	struct message *newest; /* a stack, newest first; shared by all senders */
	struct message *taken;	/* the consumer's: oldest first, the next to be delivered */
};

static inline void
inbox_init(struct inbox *inbox)
{
	inbox->newest = NULL;
	inbox->taken = NULL;
}

/* Put MESSAGE into INBOX.  Any thread. */
void inbox_post(struct inbox *inbox, struct message *message);

/* True if no message waits.  Consumer only; a hint, unless senders are known to be quiet. */
static inline bool
inbox_empty(const struct inbox *inbox)
{
	return inbox->taken == NULL && __atomic_load_n(&inbox->newest, __ATOMIC_RELAXED) == NULL;
}

/* Deliver what is in INBOX now, oldest first and at most MAX messages; those posted meanwhile wait for the next call.
 * Consumer only.  Returns how many. */
unsigned inbox_deliver(struct inbox *inbox, unsigned max);

#endif
