/* A reference count whose owner is told when the last holder lets go. */
#ifndef NET_HOLD_H
#define NET_HOLD_H

/* Part of what is held. */
struct hold {
	/* Nobody holds it any more: called on any thread, also a core's, so it must not block.  NULL: nobody wants to know. */
	void (*on_unused)(struct hold *hold);
	unsigned count; /* private; atomic */
};

/* The caller is the first who holds it. */
void hold_init(struct hold *hold, void (*on_unused)(struct hold *hold));

/* One more, which the caller's own makes sure is not too late; or one less.  Any thread.  NULL: nothing. */
void hold_get(struct hold *hold);
void hold_put(struct hold *hold);

#endif
