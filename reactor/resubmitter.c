/* Gathering, and the helpers' part.
 * A lane is for one file as long as it has something for it.  What finds no lane waits in common, and there whoever's lane has come
 * back with more of the same file stands behind those who wait for another.  An idle lane is taken as soon as one may be: then, or when
 * it is seen that others have not come back. */
#include "reactor/resubmitter.h"

#include <errno.h>

/* A call that has been out for so long has met a device that does not answer, or answers too late to be waited for. */
#define STUCK_NS 100000000u
#define LOOK_NS	 20000000u

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

/* LANE, where nothing waits any more, is for the file of the first that waits in common, of which there is one, and all of that
 * file. */
static void
take_file(struct resubmitter *resubmitter, struct resubmitter_lane *lane)
{
	struct list_node others, *node = resubmitter->waiting.next;

	lane->file = file_of(container_of(node, struct op, node));
	list_init(&others);
	while ((node = list_take_first(&resubmitter->waiting)) != NULL) {
		const struct op *op = container_of(node, struct op, node);

		list_append(file_of(op) == lane->file ? &lane->waiting : &others, node);
	}
	list_move_all(&resubmitter->waiting, &others);
}

/* Give a helper what waits for LANE, which has none; something does. */
static void
start(struct resubmitter *resubmitter, struct resubmitter_lane *lane)
{
	struct list_node *node;

	lane->count = 0;
	while (lane->count < RESUBMIT_BATCH && (node = list_take_first(&lane->waiting)) != NULL) {
		struct op *op = container_of(node, struct op, node);

		lane->batch[lane->count++] = &op->iocb;
	}
	lane->started_ns = kernel_clock_ns();
	call_submit(resubmitter->calls, resubmitter->reactor, &lane->call);
}

/* Whether one more lane may be busy. */
static bool
may_open(const struct resubmitter *resubmitter)
{
	const struct list_node *node;
	unsigned answering = 0;
	uint64_t now_ns;

	if (resubmitter->busy_count < RESUBMIT_LANES_ANSWERING)
		return true;
	if (list_empty(&resubmitter->idle) || !call_pool_half_free(resubmitter->calls))
		return false;
	now_ns = kernel_clock_ns();
	list_for_each(node, &resubmitter->busy)
		answering +=
			now_ns - container_of(node, struct resubmitter_lane, node)->started_ns <
			STUCK_NS;
	return answering < RESUBMIT_LANES_ANSWERING;
}

/* As many lanes as may be for those who wait in common. */
static void
open_lanes(struct resubmitter *resubmitter)
{
	while (!list_empty(&resubmitter->waiting) && may_open(resubmitter)) {
		struct list_node *node = list_take_first(&resubmitter->idle);
		struct resubmitter_lane *lane = container_of(node, struct resubmitter_lane, node);

		list_append(&resubmitter->busy, node);
		resubmitter->busy_count++;
		take_file(resubmitter, lane);
		start(resubmitter, lane);
	}
	if (!list_empty(&resubmitter->waiting))
		reactor_timer_start(resubmitter->reactor, &resubmitter->look, LOOK_NS);
}

static void
look(struct timer *timer)
{
	open_lanes(container_of(timer, struct resubmitter, look));
}

static void
close_lane(struct resubmitter *resubmitter, struct resubmitter_lane *lane)
{
	list_remove(&lane->node);
	list_prepend(&resubmitter->idle, &lane->node);
	resubmitter->busy_count--;
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
	if (!list_empty(&resubmitter->waiting)) {
		list_move_all(&resubmitter->waiting, &lane->waiting);
		take_file(resubmitter, lane);
	}
	if (list_empty(&lane->waiting))
		close_lane(resubmitter, lane);
	else
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
	timer_init(&resubmitter->look, look);
	list_init(&resubmitter->busy);
	list_init(&resubmitter->idle);
	resubmitter->busy_count = 0;
	for (unsigned i = 0; i < RESUBMIT_LANES; i++) {
		struct resubmitter_lane *lane = &resubmitter->lanes[i];

		lane->resubmitter = resubmitter;
		list_append(&resubmitter->idle, &lane->node);
		list_init(&lane->waiting);
		lane->call.run = run;
		lane->call.done = done;
	}
}

/* The lane of FILE, or NULL. */
static struct resubmitter_lane *
find(const struct resubmitter *resubmitter, int file)
{
	struct list_node *node;

	list_for_each(node, &resubmitter->busy) {
		struct resubmitter_lane *lane = container_of(node, struct resubmitter_lane, node);

		if (lane->file == file)
			return lane;
	}
	return NULL;
}

/* Put OP behind all of WAITING; of the latency class, before the first of another. */
static void
wait_in(struct list_node *waiting, struct op *op)
{
	struct list_node *node = waiting;

	if (op->priority == PRIORITY_LATENCY) {
		list_for_each(node, waiting) {
			if (container_of(node, struct op, node)->priority != PRIORITY_LATENCY)
				break;
		}
	}
	list_append(node, &op->node);
}

void
resubmitter_add(struct resubmitter *resubmitter, struct op *op)
{
	struct resubmitter_lane *lane = find(resubmitter, file_of(op));
	bool first;

	if (lane != NULL) {
		wait_in(&lane->waiting, op);
		return;
	}
	first = list_empty(&resubmitter->waiting);
	wait_in(&resubmitter->waiting, op);
	/* Else whoever comes back, or the next look, takes this one, too. */
	if (first)
		open_lanes(resubmitter);
}
