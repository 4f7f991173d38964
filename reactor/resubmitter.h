/* The resubmitter: a helper thread submits what would have blocked the core, to the core's own AIO context, so that the
 * completions come through its ring like all others.  One call at a time for a file, with what has gathered meanwhile, so that a
 * device that hangs holds up its own files alone.  Belongs to one reactor.
 *
 * Of files that answer RESUBMIT_LANES_ANSWERING have a call at one time: more would only wait for each other.  One whose call has been
 * out for a while does not count as such any more, so that those behind it go on: up to RESUBMIT_LANES, and as long as all
 * reactors leave half of the helper threads to other calls. */
#ifndef REACTOR_RESUBMITTER_H
#define REACTOR_RESUBMITTER_H

#include "reactor/call.h"
#include "reactor/op.h"

#define RESUBMIT_BATCH		 64
#define RESUBMIT_LANES		 64 /* files that helpers submit for at one time; the next wait */
#define RESUBMIT_LANES_ANSWERING 8

/* One call, for one file at a time. */
struct resubmitter_lane {
	/* Private. */
	struct resubmitter *resubmitter;
	struct list_node node; /* busy or idle */
	int file;	       /* its descriptor, while it is busy */
	uint64_t started_ns;
	struct list_node waiting;
	struct call call;
	/* The helper's while it has the call. */
	struct iocb *batch[RESUBMIT_BATCH];
	unsigned count;
	long errors[RESUBMIT_BATCH]; /* 0: the kernel has it, and its owner perhaps again */
};

struct resubmitter {
	/* Private. */
	struct reactor *reactor;
	struct call_pool *calls;
	io_context_t context;
	/* An operation that no helper could submit: ERROR is what io_submit said of it. */
	void (*failed)(struct reactor *reactor, struct op *op, long error);
	struct list_node waiting; /* of files that have no lane */
	/* Runs while something does: whether a lane has not come back for long. */
	struct timer look;
	struct list_node busy, idle; /* lanes */
	unsigned busy_count;
	struct resubmitter_lane lanes[RESUBMIT_LANES];
};

void resubmitter_init(struct resubmitter *resubmitter, struct reactor *reactor,
		      struct call_pool *calls, io_context_t context,
		      void (*failed)(struct reactor *reactor, struct op *op, long error));

/* Have OP, which is in no list and holds a slot, submitted by a helper. */
void resubmitter_add(struct resubmitter *resubmitter, struct op *op);

#endif
