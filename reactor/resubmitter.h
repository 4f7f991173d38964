/* The resubmitter: a helper thread submits what would have blocked the core, to the core's own AIO context, so that the
 * completions come through its ring like all others.  One call at a time, with what has gathered meanwhile.
 * Belongs to one reactor. */
#ifndef REACTOR_RESUBMITTER_H
#define REACTOR_RESUBMITTER_H

#include "reactor/call.h"
#include "reactor/op.h"

#define RESUBMIT_BATCH 64

struct resubmitter {
	/* Private. */
	struct reactor *reactor;
	struct call_pool *calls;
	io_context_t context;
	/* An operation that no helper could submit: ERROR is what io_submit said of it. */
	void (*failed)(struct reactor *reactor, struct op *op, long error);
	struct list_node waiting;
	struct call call;
	bool busy;
	/* The helper's while it is busy. */
	struct iocb *batch[RESUBMIT_BATCH];
	unsigned count;
	long errors[RESUBMIT_BATCH]; /* 0: the kernel has it, and its owner perhaps again */
};

void resubmitter_init(struct resubmitter *resubmitter, struct reactor *reactor,
		      struct call_pool *calls, io_context_t context,
		      void (*failed)(struct reactor *reactor, struct op *op, long error));

/* Have OP, which is in no list and holds a slot, submitted by a helper. */
void resubmitter_add(struct resubmitter *resubmitter, struct op *op);

#endif
