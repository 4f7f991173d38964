/* Gathering, and the helper's part. */
#include "reactor/resubmitter.h"

#include <errno.h>

/* On a helper thread.  An operation that the kernel has taken may be done, and its memory used for something else, before this
 * returns: it is not touched again. */
static void
run(struct call *call)
{
	struct resubmitter *resubmitter = container_of(call, struct resubmitter, call);
	unsigned first = 0;

	while (first < resubmitter->count) {
		long taken = kernel_submit(resubmitter->context, (long)(resubmitter->count - first),
					   resubmitter->batch + first);

		if (taken <= 0) {
			resubmitter->errors[first++] = taken == 0 ? -EIO : taken;
			continue;
		}
		for (long i = 0; i < taken; i++)
			resubmitter->errors[first++] = 0;
	}
}

/* Give a helper what waits. */
static void
start(struct resubmitter *resubmitter)
{
	struct list_node *node;

	resubmitter->count = 0;
	while (resubmitter->count < RESUBMIT_BATCH &&
	       (node = list_take_first(&resubmitter->waiting)) != NULL) {
		struct op *op = container_of(node, struct op, node);

		resubmitter->batch[resubmitter->count++] = &op->iocb;
	}
	resubmitter->busy = resubmitter->count > 0;
	if (resubmitter->busy)
		call_submit(resubmitter->calls, resubmitter->reactor, &resubmitter->call);
}

static void
done(struct call *call)
{
	struct resubmitter *resubmitter = container_of(call, struct resubmitter, call);

	for (unsigned i = 0; i < resubmitter->count; i++) {
		if (resubmitter->errors[i] != 0)
			resubmitter->failed(resubmitter->reactor,
					    container_of(resubmitter->batch[i], struct op, iocb),
					    resubmitter->errors[i]);
	}
	start(resubmitter);
}

void
resubmitter_init(struct resubmitter *resubmitter, struct reactor *reactor, struct call_pool *calls,
		 io_context_t context,
		 void (*failed)(struct reactor *reactor, struct op *op, long error))
{
	resubmitter->reactor = reactor;
	resubmitter->calls = calls;
	resubmitter->context = context;
	resubmitter->failed = failed;
	list_init(&resubmitter->waiting);
	resubmitter->call.run = run;
	resubmitter->call.done = done;
	resubmitter->busy = false;
}

void
resubmitter_add(struct resubmitter *resubmitter, struct op *op)
{
	list_append(&resubmitter->waiting, &op->node);
	if (!resubmitter->busy)
		start(resubmitter);
}
