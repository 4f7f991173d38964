/* Gathering, and the helpers' part.
 * A lane is for one file as long as it has something for it.  What finds no lane waits in common, and there whoever's lane has come
 * back with more of the same file stands behind those who wait for another; so there is an idle lane only while nothing waits. */
#include "reactor/resubmitter.h"

#include <errno.h>

#define NO_FILE (-1)

/* On a helper thread.  An operation that the kernel has taken may be done, and its memory used for something else, before this
 * returns: it is not touched again. */
static void
run(struct call *call)
{
	struct resubmitter_lane *lane = container_of(call, struct resubmitter_lane, call);
	io_context_t context = lane->resubmitter->context;
	unsigned first = 0;
	long taken = 0;

	while (first < lane->count) {
		/* Without a slot for this one there is none for the next. */
		if (taken != -EAGAIN)
			taken = kernel_submit(context, (long)(lane->count - first),
					      lane->batch + first);
		if (taken <= 0) {
			lane->errors[first++] = taken == 0 ? -EIO : taken;
			continue;
		}
		for (long i = 0; i < taken; i++)
			lane->errors[first++] = 0;
	}
}

/* The file of OP. */
static int
file_of(const struct op *op)
{
	return op->iocb.aio_fildes;
}

/* LANE, where nothing waits any more, is for the file of the first that waits in common, and all of that file. */
static void
take_file(struct resubmitter *resubmitter, struct resubmitter_lane *lane)
{
	struct list_node others, *node;

	list_init(&others);
	while ((node = list_take_first(&resubmitter->waiting)) != NULL) {
		const struct op *op = container_of(node, struct op, node);

		if (lane->file == NO_FILE)
			lane->file = file_of(op);
		list_append(file_of(op) == lane->file ? &lane->waiting : &others, node);
	}
	list_move_all(&resubmitter->waiting, &others);
}

/* Give a helper what waits for LANE, which has none. */
static void
start(struct resubmitter *resubmitter, struct resubmitter_lane *lane)
{
	struct list_node *node;

	lane->count = 0;
	while (lane->count < RESUBMIT_BATCH && (node = list_take_first(&lane->waiting)) != NULL) {
		struct op *op = container_of(node, struct op, node);

		lane->batch[lane->count++] = &op->iocb;
	}
	if (lane->count > 0)
		call_submit(resubmitter->calls, resubmitter->reactor, &lane->call);
}

static void
done(struct call *call)
{
	struct resubmitter_lane *lane = container_of(call, struct resubmitter_lane, call);
	struct resubmitter *resubmitter = lane->resubmitter;

	for (unsigned i = 0; i < lane->count; i++) {
		if (lane->errors[i] != 0)
			resubmitter->failed(resubmitter->reactor,
					    container_of(lane->batch[i], struct op, iocb),
					    lane->errors[i]);
	}
	if (list_empty(&lane->waiting) || !list_empty(&resubmitter->waiting)) {
		lane->file = NO_FILE;
		list_move_all(&resubmitter->waiting, &lane->waiting);
		take_file(resubmitter, lane);
	}
	start(resubmitter, lane);
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
	for (unsigned i = 0; i < RESUBMIT_LANES; i++) {
		struct resubmitter_lane *lane = &resubmitter->lanes[i];

		lane->resubmitter = resubmitter;
		lane->file = NO_FILE;
		list_init(&lane->waiting);
		lane->call.run = run;
		lane->call.done = done;
	}
}

/* The lane of FILE; NO_FILE: one that is idle.  NULL: there is none. */
static struct resubmitter_lane *
find(struct resubmitter *resubmitter, int file)
{
	for (unsigned i = 0; i < RESUBMIT_LANES; i++) {
		if (resubmitter->lanes[i].file == file)
			return &resubmitter->lanes[i];
	}
	return NULL;
}

void
resubmitter_add(struct resubmitter *resubmitter, struct op *op)
{
	struct resubmitter_lane *lane = find(resubmitter, file_of(op));

	if (lane != NULL) {
		list_append(&lane->waiting, &op->node);
		return;
	}
	list_append(&resubmitter->waiting, &op->node);
	lane = find(resubmitter, NO_FILE);
	if (lane == NULL)
		return;
	take_file(resubmitter, lane);
	start(resubmitter, lane);
}
