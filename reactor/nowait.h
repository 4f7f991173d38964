/* What was learned about RWF_NOWAIT on one file, in one direction, by one core: whether it is worth asking for.
 * Without it io_submit may block the core, for as long as a journal commit takes; with it what would block is refused with
 * -EAGAIN instead and submitted again by a helper thread.  Some files do not know the flag (zram, tmpfs), and on some nearly
 * all is refused (writes that allocate): the one is never asked again, the other only now and then.
 * Belongs to one core; the counters may be read by others. */
#ifndef REACTOR_NOWAIT_H
#define REACTOR_NOWAIT_H

#include <stdbool.h>
#include <stdint.h>

/* How an operation goes to the kernel. */
enum nowait_way {
	NOWAIT_WAY_BLOCKING, /* by the core, without the flag */
	NOWAIT_WAY_ASK,	     /* by the core, with the flag */
	NOWAIT_WAY_HELPER,   /* by a helper thread, at once */
};

struct nowait {
	/* Counters. */
	uint64_t asked;
	uint64_t refused; /* of these, because it would have blocked */
	/* Not asked, given to a helper at once; not those of files that don't know the flag. */
	uint64_t helped;
	/* Private. */
	bool unsupported;
	unsigned refusals; /* a score: up by refusals, down by successes */
	unsigned unasked;  /* since the last one that was asked */
};

void nowait_init(struct nowait *nowait);

/* The way for the next operation.  share: where the file does not know the flag a helper takes it, too. */
enum nowait_way nowait_choose(struct nowait *nowait, bool share);

/* What came of one that was asked. */
void nowait_succeeded(struct nowait *nowait);
void nowait_refused(struct nowait *nowait);
void nowait_unsupported(struct nowait *nowait);

#endif
