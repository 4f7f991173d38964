/* The turn of a core, and its rest. */
#include "reactor/reactor.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "reactor/op_queue.h"
#include "reactor/resubmitter.h"
#include "reactor/ring.h"
#include "reactor/run_queue.h"
#include "reactor/slot_table.h"
#include "reactor/spin.h"

#define EVENTS_PER_TAKE 128
#define RETRY_NS	1000000 /* after a refusal that no completion of ours will end */
#define IDLE_TASKS_NS	100000
#define SLEEP_NS_MAX	((uint64_t)3600 * 1000000000)

#define SPIN_YIELD_NS 20000 /* let others run on this CPU at least this often */
#define SPIN_CHECKS   16    /* looks at the ring between two looks at the clock */

/* A turn's budget. */
#define CALLS_PER_TURN	  512
#define MESSAGES_PER_TURN 256
/* Of lower classes, while the latency class is in use: what is in a batch holds up what comes meanwhile. */
#define LOWER_PER_BATCH 4

/* With disk operations and more others than this to submit, two calls finish the disk's sooner than one. */
#define OTHERS_BESIDE_DISK 32

/* Never: doc/decisions/0006. */
#define SOCKET_BATCH_MIN_DEFAULT UINT_MAX

static const unsigned shares_default[PRIORITY_COUNT] = {
	[PRIORITY_LATENCY] = 64,
	[PRIORITY_NORMAL] = 16,
	[PRIORITY_BACKGROUND] = 2,
};

struct reactor {
	struct reactor_config config;
	io_context_t context;
	struct ring_header
		*ring; /* NULL: the layout is unknown, events come through kernel_sleep */
	struct op_queue queues[OP_KIND_COUNT];
	struct slot_table slots;
	struct iocb **batch;	/* room for every slot */
	struct run_queue ready; /* completed, done not yet called */
	unsigned latency_ops;	/* of the latency class: queued, with the kernel or ready */
	unsigned calls_left;	/* of reactor_wait's */
	struct list_node tasks;
	struct list_node idle_tasks;
	uint64_t idle_tasks_ns; /* they run then at the latest; 0: there are none */
	struct timer_wheel timers;
	uint64_t timers_next_ns; /* the wheel needs no look before this */
	unsigned worker_ops; /* in flight, and finished by a kernel worker that wants this CPU */
	uint64_t retry_ns;   /* no io_submit before this: the kernel had no slot; 0 if it has */
	struct spin spin;
	struct resubmitter resubmitter;

	struct op wakeup_op;
	int wakeup_fd;

	struct reactor_counters counters;

	/* Shared with other threads, on a cache line of their own. */
	struct inbox inbox __attribute__((aligned(64)));
	bool sleeping; /* atomic */
	bool woken;    /* atomic: set by reactor_wake, cleared by the rest that it ends */
	bool stopping; /* atomic */
};

static void wakeup_done(struct op *op, long result);

/* Counters have one writer; relaxed atomic, so that others can read them at any time. */
#define COUNT(reactor, counter, n)                                                        \
	__atomic_store_n(&(reactor)->counters.counter, (reactor)->counters.counter + (n), \
			 __ATOMIC_RELAXED)

/* ---- operations and their slots ---- */

/* True if OP is submitted or completed by another thread, which a spinning core would starve. */
static bool
op_needs_worker(const struct op *op)
{
	return op->way == NOWAIT_WAY_HELPER || op->iocb.aio_lio_opcode == IO_CMD_FDSYNC ||
	       (op->iocb.aio_lio_opcode == IO_CMD_PWRITE &&
		(op->iocb.aio_rw_flags & RWF_DSYNC) != 0);
}

static void
op_ready(struct reactor *reactor, struct op *op, long result)
{
	op->result = result;
	op->state = OP_STATE_READY;
	run_queue_append(&reactor->ready, op);
}

/* OP's event is to come, or has come, and holds a slot until then.  The tag is in the iocb before it goes to the kernel. */
static void
op_take_slot(struct reactor *reactor, struct op *op)
{
	struct op_queue *queue = &reactor->queues[op->kind];

	op_queue_take_slot(queue, op->priority);
	op->tag = slot_take(&reactor->slots, op, queue, op->priority);
	op->iocb.data = (void *)(uintptr_t)op->tag;
	reactor->worker_ops += op_needs_worker(op);
}

static void
op_give_slot(struct reactor *reactor, struct op *op, struct slot *slot)
{
	op_queue_give_slot(slot->queue, slot->priority);
	slot_release(&reactor->slots, slot);
	if (op != NULL)
		reactor->worker_ops -= op_needs_worker(op);
}

/* ---- operations that would block ---- */

/* OP, which has no slot and is in no list, goes to the kernel through a helper thread. */
static void
submit_by_helper(struct reactor *reactor, struct op *op)
{
	op->iocb.aio_rw_flags &= ~(unsigned)RWF_NOWAIT;
	op->way = NOWAIT_WAY_HELPER;
	op_take_slot(reactor, op);
	op->state = OP_STATE_SUBMITTED;
	COUNT(reactor, ops_helped, 1);
	resubmitter_add(&reactor->resubmitter, op);
}

/* The helper could not submit OP. */
static void
helper_failed(struct reactor *reactor, struct op *op, long error)
{
	op_give_slot(reactor, op, slot_find(&reactor->slots, op->tag));
	op_ready(reactor, op, error);
}

/* OP was asked not to block, and holds no slot.  Learn from what the kernel said to that.  Returns true if it goes on by another
 * way. */
static bool
goes_on_otherwise(struct reactor *reactor, struct op *op, long result)
{
	if (result == -EAGAIN)
		nowait_refused(op->nowait);
	else if (result == -EOPNOTSUPP)
		nowait_unsupported(op->nowait);
	else
		nowait_succeeded(op->nowait);
	if (result != -EAGAIN && result != -EOPNOTSUPP)
		return false;
	op->iocb.aio_rw_flags &= ~(unsigned)RWF_NOWAIT;
	if (result == -EAGAIN && reactor->config.calls != NULL) {
		submit_by_helper(reactor, op);
	} else {
		op->state = OP_STATE_QUEUED;
		op_queue_append(&reactor->queues[OP_KIND_DISK], op);
	}
	return true;
}

static bool
op_asked_nowait(const struct op *op)
{
	return op->kind == OP_KIND_DISK && (op->iocb.aio_rw_flags & RWF_NOWAIT) != 0;
}

/* ---- events ---- */

static void
take_event(struct reactor *reactor, const struct io_event *event)
{
	struct slot *slot = slot_find(&reactor->slots, (uint64_t)(uintptr_t)event->data);
	struct op *op;

	if (slot == NULL) {
		COUNT(reactor, events_stale, 1);
		return;
	}
	op = slot->op;
	op_give_slot(reactor, op, slot);
	if (op == NULL) {
		COUNT(reactor, events_stale, 1);
		return;
	}
	CHECK(op->state == OP_STATE_SUBMITTED);
	if (!op_asked_nowait(op) || !goes_on_otherwise(reactor, op, (long)event->res))
		op_ready(reactor, op, (long)event->res);
}

/* ---- creation ---- */

/* Arm the poll of the wake-up by hand, which shows whether the kernel has IOCB_CMD_POLL. */
static int
probe_poll(struct reactor *reactor)
{
	struct op *op = &reactor->wakeup_op;
	struct iocb *iocb = &op->iocb;

	op_init(op, wakeup_done);
	op_poll_reserved(op, reactor->wakeup_fd, POLLIN);
	op_take_slot(reactor, op);
	if (kernel_submit(reactor->context, 1, &iocb) != 1)
		return -EOPNOTSUPP;
	op->state = OP_STATE_SUBMITTED;
	COUNT(reactor, ops_submitted, 1);
	return 0;
}

/* Half as many slots, if that is still enough.  Returns false if not. */
static bool
halve(unsigned *slots, unsigned asked)
{
	unsigned least = asked < REACTOR_SLOTS_MIN ? asked : REACTOR_SLOTS_MIN;

	if (*slots == least)
		return false;
	*slots = *slots / 2 > least ? *slots / 2 : least;
	return true;
}

/* Set up the context, with fewer slots than CONFIG asks for if the host has no more.  Returns 0 or a negative errno. */
static int
create_context(struct reactor *reactor)
{
	struct reactor_config *config = &reactor->config;
	unsigned disk_asked = config->disk_slots, polls_asked = config->poll_slots;

	for (;;) {
		int error = kernel_context_create(config->disk_slots + config->poll_slots +
							  REACTOR_OWN_SLOTS,
						  &reactor->context);
		bool disk_halved, polls_halved;

		if (error != -EAGAIN)
			return error;
		disk_halved = halve(&config->disk_slots, disk_asked);
		polls_halved = halve(&config->poll_slots, polls_asked);
		if (!disk_halved && !polls_halved)
			return error;
	}
}

static void
set_defaults(struct reactor_config *config)
{
	if (config->socket_batch_min == 0)
		config->socket_batch_min = SOCKET_BATCH_MIN_DEFAULT;
	if (config->waiting_max == 0)
		config->waiting_max = UINT_MAX;
	for (unsigned i = 0; i < PRIORITY_COUNT; i++) {
		if (config->shares[i] == 0)
			config->shares[i] = shares_default[i];
	}
}

static void
init_parts(struct reactor *reactor, const struct reactor_config *config)
{
	reactor->config = *config;
	set_defaults(&reactor->config);
	run_queue_init(&reactor->ready, reactor->config.shares);
	list_init(&reactor->tasks);
	list_init(&reactor->idle_tasks);
	timer_wheel_init(&reactor->timers, kernel_clock_ns());
	reactor->timers_next_ns = TIMER_NO_DEADLINE;
	inbox_init(&reactor->inbox);
	spin_init(&reactor->spin, (uint64_t)config->poll_us * 1000);
}

/* When the slots are known. */
static int
init_slots(struct reactor *reactor)
{
	const struct reactor_config *config = &reactor->config;
	unsigned total = config->disk_slots + config->poll_slots + REACTOR_OWN_SLOTS;

	op_queue_init(&reactor->queues[OP_KIND_DISK], config->disk_slots);
	op_queue_init(&reactor->queues[OP_KIND_POLL], config->poll_slots);
	op_queue_init(&reactor->queues[OP_KIND_SOCKET], REACTOR_SOCKET_SLOTS);
	op_queue_init(&reactor->queues[OP_KIND_RESERVED], REACTOR_RESERVED_SLOTS);
	reactor->batch = calloc(total, sizeof(reactor->batch[0]));
	if (reactor->batch == NULL)
		return -ENOMEM;
	if (slot_table_init(&reactor->slots, total) < 0) {
		free(reactor->batch);
		return -ENOMEM;
	}
	return 0;
}

int
reactor_create(const struct reactor_config *config, struct reactor **result)
{
	struct reactor *reactor;
	int error;

	if (config->disk_slots == 0 || config->poll_slots == 0)
		return -EINVAL;
	if (posix_memalign((void **)&reactor, 64, sizeof(*reactor)) != 0)
		return -ENOMEM;
	memset(reactor, 0, sizeof(*reactor));
	init_parts(reactor, config);
	reactor->wakeup_fd = kernel_wakeup_create();
	error = reactor->wakeup_fd;
	if (error < 0)
		goto err_after_reactor;
	error = create_context(reactor);
	if (error < 0)
		goto err_after_wakeup;
	reactor->ring = ring_map(reactor->context);
	error = init_slots(reactor);
	if (error < 0)
		goto err_after_context;
	resubmitter_init(&reactor->resubmitter, reactor, config->calls, reactor->context,
			 helper_failed);
	error = probe_poll(reactor);
	if (error < 0)
		goto err_after_slots;
	*result = reactor;
	return 0;

err_after_slots:
	slot_table_fini(&reactor->slots);
	free(reactor->batch);
err_after_context:
	kernel_context_destroy(reactor->context);
err_after_wakeup:
	kernel_close(reactor->wakeup_fd);
err_after_reactor:
	free(reactor);
	return error;
}

void
reactor_destroy(struct reactor *reactor)
{
	const struct op_queue *disk = &reactor->queues[OP_KIND_DISK];

	CHECK(op_queue_free(disk) == disk->slots && op_queue_waiting(disk) == 0);
	kernel_wakeup_signal(reactor->wakeup_fd); /* ends its poll */
	kernel_context_destroy(reactor->context);
	kernel_close(reactor->wakeup_fd);
	slot_table_fini(&reactor->slots);
	free(reactor->batch);
	free(reactor);
}

/* ---- what users ask for ---- */

int
reactor_submit(struct reactor *reactor, struct op *op)
{
	struct op_queue *queue;

	if (!op_idle(op) || op->done == NULL || op->kind >= OP_KIND_COUNT ||
	    op->priority >= PRIORITY_COUNT)
		return -EINVAL;
	queue = &reactor->queues[op->kind];
	if (op_queue_waiting(queue) >= reactor->config.waiting_max)
		return -ENOBUFS;
	op->state = OP_STATE_QUEUED;
	reactor->latency_ops += op->priority == PRIORITY_LATENCY;
	op_queue_append(queue, op);
	return 0;
}

void
reactor_start(struct reactor *reactor, struct op *op)
{
	int error = reactor_submit(reactor, op);

	if (error < 0)
		reactor_complete(reactor, op, error);
}

void
reactor_complete(struct reactor *reactor, struct op *op, long result)
{
	CHECK(op_idle(op) && op->done != NULL && op->priority < PRIORITY_COUNT);
	reactor->latency_ops += op->priority == PRIORITY_LATENCY;
	op_ready(reactor, op, result);
}

void
reactor_cancel_poll(struct reactor *reactor, struct op *op)
{
	if (op->state == OP_STATE_QUEUED) {
		op_queue_remove(&reactor->queues[op->kind], op);
		op_ready(reactor, op, -ECANCELED);
	} else if (op->state == OP_STATE_SUBMITTED) {
		/* The kernel finds the oldest poll with this address, which may be one that OP was abandoned from: on, until it
		 * finds none.  If none was found, the event is in the ring already. */
		while (kernel_cancel(reactor->context, &op->iocb) == -EINPROGRESS)
			;
	}
}

void
reactor_abandon(struct reactor *reactor, struct op *op)
{
	switch (op->state) {
	case OP_STATE_IDLE:
		return;
	case OP_STATE_QUEUED:
		op_queue_remove(&reactor->queues[op->kind], op);
		break;
	case OP_STATE_SUBMITTED:
		CHECK(op->kind != OP_KIND_DISK); /* the buffer is still in use */
		slot_find(&reactor->slots, op->tag)->op = NULL;
		break;
	case OP_STATE_READY:
		run_queue_remove(&reactor->ready, op);
		break;
	}
	reactor->latency_ops -= op->priority == PRIORITY_LATENCY;
	op->state = OP_STATE_IDLE;
	COUNT(reactor, ops_abandoned, 1);
}

void
reactor_defer(struct reactor *reactor, struct task *task)
{
	if (list_empty(&task->node))
		list_append(&reactor->tasks, &task->node);
}

void
reactor_defer_idle(struct reactor *reactor, struct task *task)
{
	if (list_empty(&task->node))
		list_append(&reactor->idle_tasks, &task->node);
}

void
reactor_timer_start(struct reactor *reactor, struct timer *timer, uint64_t delay_ns)
{
	timer_start(&reactor->timers, timer, kernel_clock_ns() + delay_ns);
	reactor->timers_next_ns = timer_wheel_next_ns(&reactor->timers);
}

void
reactor_timer_stop(struct reactor *reactor, struct timer *timer)
{
	/* timers_next_ns may now be early: a look at the wheel for nothing. */
	timer_stop(&reactor->timers, timer);
}

bool
reactor_sleeping(const struct reactor *reactor)
{
	/* Relaxed: only watched, nothing is ordered by it. */
	return __atomic_load_n(&reactor->sleeping, __ATOMIC_RELAXED);
}

unsigned
reactor_slots(const struct reactor *reactor, enum op_kind kind)
{
	return reactor->queues[kind].slots;
}

unsigned
reactor_free_slots(const struct reactor *reactor, enum op_kind kind)
{
	const struct op_queue *queue = &reactor->queues[kind];
	unsigned free_slots = op_queue_free(queue), waiting = op_queue_waiting(queue);

	return free_slots > waiting ? free_slots - waiting : 0;
}

uint64_t
reactor_turns(const struct reactor *reactor)
{
	return __atomic_load_n(&reactor->counters.turns, __ATOMIC_RELAXED);
}

uint64_t
reactor_rests(const struct reactor *reactor)
{
	return reactor->counters.sleeps + reactor->counters.spins;
}

void
reactor_read_counters(const struct reactor *reactor, struct reactor_counters *counters)
{
	const uint64_t *from = (const uint64_t *)&reactor->counters;
	uint64_t *to = (uint64_t *)counters;

	_Static_assert(sizeof(*counters) % sizeof(*to) == 0, "nothing but counters");
	for (size_t i = 0; i < sizeof(*counters) / sizeof(*to); i++)
		to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}

const struct reactor_counters *
reactor_counters(const struct reactor *reactor)
{
	return &reactor->counters;
}

/* ---- submit ---- */

static struct op *
op_of(struct iocb *iocb)
{
	return container_of(iocb, struct op, iocb);
}

/* The kernel does not want OP, which waits. */
static void
refuse(struct reactor *reactor, struct op *op, long error)
{
	op_queue_remove(&reactor->queues[op->kind], op);
	if (op_asked_nowait(op) && error == -EOPNOTSUPP) {
		(void)goes_on_otherwise(reactor, op, error);
		return;
	}
	/* There is no other way to prepare a poll wrongly than to choose the fd. */
	if (op->iocb.aio_lio_opcode == IO_CMD_POLL && error == -EINVAL)
		error = -EOPNOTSUPP;
	op_ready(reactor, op, error);
	COUNT(reactor, ops_refused, 1);
}

/* The kernel took COUNT operations. */
static void
accepted(struct reactor *reactor, struct iocb **iocbs, long count)
{
	for (long i = 0; i < count; i++) {
		struct op *op = op_of(iocbs[i]);

		op_queue_remove(&reactor->queues[op->kind], op);
		op->state = OP_STATE_SUBMITTED;
	}
	COUNT(reactor, ops_submitted, (uint64_t)count);
}

/* They did not go after all. */
static void
give_slots_back(struct reactor *reactor, struct iocb **iocbs, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct op *op = op_of(iocbs[i]);

		op_give_slot(reactor, op, slot_find(&reactor->slots, op->tag));
	}
}

/* Submit COUNT iocbs from the batch; they are the heads of their queues.  An operation that the kernel refuses
 * fails alone, the ones behind it go on; what finds no slot stays queued. */
static void
batch_submit(struct reactor *reactor, struct iocb **iocbs, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		op_take_slot(reactor, op_of(iocbs[i]));
	while (count > 0) {
		long taken = kernel_submit(reactor->context, (long)count, iocbs);

		COUNT(reactor, submit_calls, 1);
		if (taken == -EAGAIN) {
			COUNT(reactor, no_slot, 1);
			give_slots_back(reactor, iocbs, count);
			reactor->retry_ns = kernel_clock_ns() + RETRY_NS;
			return;
		}
		if (taken <= 0) {
			/* Says what is wrong with the first one. */
			give_slots_back(reactor, iocbs, 1);
			refuse(reactor, op_of(*iocbs), taken == 0 ? -EIO : taken);
			taken = 1;
		} else {
			accepted(reactor, iocbs, taken);
		}
		iocbs += taken;
		count -= (unsigned)taken;
	}
}

static long
transfer_directly(const struct op *op)
{
	const struct iocb *iocb = &op->iocb;
	struct iovec part = { iocb->u.c.buf, iocb->u.c.nbytes };
	struct iovec *parts = iocb->u.c.buf;
	unsigned part_count = (unsigned)iocb->u.c.nbytes;

	switch (iocb->aio_lio_opcode) {
	case IO_CMD_PREAD:
		return kernel_recvmsg(iocb->aio_fildes, &part, 1);
	case IO_CMD_PREADV:
		return kernel_recvmsg(iocb->aio_fildes, parts, part_count);
	case IO_CMD_PWRITE:
		return kernel_sendmsg(iocb->aio_fildes, &part, 1);
	default:
		return kernel_sendmsg(iocb->aio_fildes, parts, part_count);
	}
}

/* COUNT receives and sends, each by a system call of its own. */
static void
submit_directly(struct reactor *reactor, struct iocb **iocbs, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct op *op = op_of(iocbs[i]);

		op_queue_remove(&reactor->queues[op->kind], op);
		op_ready(reactor, op, transfer_directly(op));
	}
	COUNT(reactor, ops_direct, count);
}

static bool
anything_waits(const struct reactor *reactor)
{
	unsigned waiting = 0;

	for (unsigned i = 0; i < OP_KIND_COUNT; i++)
		waiting += op_queue_waiting(&reactor->queues[i]);
	return waiting > 0;
}

/* List what waits of KIND behind the first COUNT of the batch.  Returns how many are listed then. */
static unsigned
batch_append(struct reactor *reactor, enum op_kind kind, unsigned count)
{
	unsigned lower_max = reactor->latency_ops > 0 ? LOWER_PER_BATCH : UINT_MAX;

	return count + op_queue_list(&reactor->queues[kind], reactor->batch + count, lower_max);
}

/* Give those of the first COUNT operations in the batch to a helper that are to go this way.  Returns how many are left. */
static unsigned
take_out_helped(struct reactor *reactor, unsigned count)
{
	unsigned left = 0;

	for (unsigned i = 0; i < count; i++) {
		struct op *op = op_of(reactor->batch[i]);

		if (op->way != NOWAIT_WAY_HELPER || reactor->config.calls == NULL) {
			reactor->batch[left++] = reactor->batch[i];
			continue;
		}
		op_queue_remove(&reactor->queues[OP_KIND_DISK], op);
		submit_by_helper(reactor, op);
	}
	return left;
}

/* Receives and sends, when they are few.  Returns whether there was one. */
static bool
submit_few_sockets(struct reactor *reactor)
{
	unsigned count = batch_append(reactor, OP_KIND_SOCKET, 0);

	submit_directly(reactor, reactor->batch, count);
	return count > 0;
}

static bool
submit(struct reactor *reactor)
{
	bool few_sockets, disk_first, busy = false;
	unsigned disk_count, count;

	if (!anything_waits(reactor))
		return false;
	if (reactor->retry_ns > 0) {
		if (kernel_clock_ns() < reactor->retry_ns)
			return false;
		reactor->retry_ns = 0;
	}
	few_sockets = op_queue_waiting(&reactor->queues[OP_KIND_SOCKET]) <
		      reactor->config.socket_batch_min;
	/* Before the polls, but behind the disk's operations, which take longer. */
	disk_first = op_queue_waiting(&reactor->queues[OP_KIND_DISK]) > 0;
	if (few_sockets && !disk_first)
		busy = submit_few_sockets(reactor);
	count = batch_append(reactor, OP_KIND_DISK, 0);
	disk_count = take_out_helped(reactor, count);
	busy |= disk_count < count;
	count = disk_count;
	if (!few_sockets)
		count = batch_append(reactor, OP_KIND_SOCKET, count);
	count = batch_append(reactor, OP_KIND_RESERVED, count);
	count = batch_append(reactor, OP_KIND_POLL, count);
	if (disk_count > 0 && count - disk_count > OTHERS_BESIDE_DISK) {
		batch_submit(reactor, reactor->batch, disk_count);
		batch_submit(reactor, reactor->batch + disk_count, count - disk_count);
	} else {
		batch_submit(reactor, reactor->batch, count);
	}
	if (few_sockets && disk_first)
		busy |= submit_few_sockets(reactor);
	return busy || count > 0;
}

/* ---- reap and run ---- */

static void
take_events(struct reactor *reactor, const struct io_event *events, long count)
{
	if (count <= 0)
		return; /* nothing, or -EINTR */
	for (long i = 0; i < count; i++)
		take_event(reactor, &events[i]);
	COUNT(reactor, events, (uint64_t)count);
	reactor->retry_ns = 0;
}

/* Returns whether there were events: also one that is dropped gives a slot back, which may be waited for. */
static bool
reap(struct reactor *reactor)
{
	uint64_t before = reactor->counters.events;
	struct io_event events[EVENTS_PER_TAKE];
	long count;

	do {
		if (reactor->ring != NULL)
			count = ring_take(reactor->ring, events, EVENTS_PER_TAKE);
		else
			count = kernel_sleep(reactor->context, events, EVENTS_PER_TAKE, 0);
		take_events(reactor, events, count);
	} while (count == EVENTS_PER_TAKE);
	return reactor->counters.events != before;
}

static bool
ring_has_events(const struct reactor *reactor)
{
	return reactor->ring != NULL && !ring_empty(reactor->ring);
}

/* Call done of OP.  Returns its priority. */
static enum priority
run_one(struct reactor *reactor, struct op *op)
{
	enum priority priority = op->priority;

	reactor->latency_ops -= priority == PRIORITY_LATENCY;
	op->state = OP_STATE_IDLE;
	COUNT(reactor, ops_done[priority], 1);
	op->done(op, op->result);
	return priority;
}

/* The latency class's receives and sends go at once: its next step does not wait for a call of a lower class. */
static void
submit_latency_sockets(struct reactor *reactor)
{
	struct op_queue *sockets = &reactor->queues[OP_KIND_SOCKET];

	if (op_queue_waiting(sockets) > 0 &&
	    op_queue_waiting(sockets) < reactor->config.socket_batch_min)
		submit_directly(reactor, reactor->batch, op_queue_list(sockets, reactor->batch, 0));
}

/* Call done of what is ready now, within the turn's budget; what becomes ready meanwhile waits for the next turn, unless it is
 * of a higher class. */
static bool
run_ready(struct reactor *reactor)
{
	unsigned left = run_queue_count(&reactor->ready);
	bool latency_ran = false;
	struct op *op;

	if (left == 0)
		return false;
	if (left > CALLS_PER_TURN)
		left = CALLS_PER_TURN;
	if (left > reactor->calls_left)
		left = reactor->calls_left;
	reactor->calls_left -= left;
	while (left > 0 && (op = run_queue_take(&reactor->ready)) != NULL) {
		left--;
		if (run_one(reactor, op) == PRIORITY_LATENCY) {
			latency_ran = true;
			submit_latency_sockets(reactor);
		} else if (latency_ran || (reactor->latency_ops > 0 && ring_has_events(reactor))) {
			break;
		}
	}
	reactor->calls_left += left;
	if (run_queue_count(&reactor->ready) > 0)
		COUNT(reactor, turns_cut, 1);
	return true;
}

static bool
run_tasks(struct reactor *reactor, struct list_node *tasks)
{
	struct list_node now, *node;

	if (list_empty(tasks))
		return false;
	list_init(&now);
	list_move_all(&now, tasks);
	while ((node = list_take_first(&now)) != NULL) {
		struct task *task = container_of(node, struct task, node);

		COUNT(reactor, tasks, 1);
		task->run(task);
	}
	return true;
}

/* BUSY: this turn had something else to do. */
static bool
run_idle_tasks(struct reactor *reactor, bool busy)
{
	uint64_t now_ns;

	if (list_empty(&reactor->idle_tasks))
		return false;
	if (busy) {
		now_ns = kernel_clock_ns();
		if (reactor->idle_tasks_ns == 0)
			reactor->idle_tasks_ns = now_ns + IDLE_TASKS_NS;
		if (now_ns < reactor->idle_tasks_ns)
			return false;
	}
	reactor->idle_tasks_ns = 0;
	return run_tasks(reactor, &reactor->idle_tasks);
}

static bool
run_timers(struct reactor *reactor)
{
	uint64_t now_ns;
	unsigned fired;

	if (reactor->timers_next_ns == TIMER_NO_DEADLINE)
		return false;
	now_ns = kernel_clock_ns();
	if (now_ns < reactor->timers_next_ns)
		return false;
	fired = timer_wheel_advance(&reactor->timers, now_ns);
	reactor->timers_next_ns = timer_wheel_next_ns(&reactor->timers);
	COUNT(reactor, timers, fired);
	return fired > 0;
}

static bool
run_messages(struct reactor *reactor)
{
	unsigned messages = inbox_deliver(&reactor->inbox, MESSAGES_PER_TURN);

	COUNT(reactor, messages, messages);
	return messages > 0;
}

/* As reactor_turn, with what is left of reactor_wait's calls. */
static bool
turn(struct reactor *reactor)
{
	bool busy;

	COUNT(reactor, turns, 1);
	busy = submit(reactor);
	busy |= reap(reactor);
	busy |= run_ready(reactor);
	busy |= run_messages(reactor);
	busy |= run_timers(reactor);
	busy |= run_tasks(reactor, &reactor->tasks);
	busy |= run_idle_tasks(reactor, busy);
	return busy;
}

bool
reactor_turn(struct reactor *reactor)
{
	reactor->calls_left = UINT_MAX;
	return turn(reactor);
}

/* ---- rest ---- */

static bool
something_came(const struct reactor *reactor)
{
	return ring_has_events(reactor) || !inbox_empty(&reactor->inbox);
}

static void
cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* Look at the ring and the inbox until UNTIL_NS.  Returns the time when it stopped. */
static uint64_t
spin_until(struct reactor *reactor, uint64_t now_ns, uint64_t until_ns)
{
	uint64_t yield_ns = now_ns + SPIN_YIELD_NS;

	COUNT(reactor, spins, 1);
	while (now_ns < until_ns) {
		for (unsigned i = 0; i < SPIN_CHECKS; i++) {
			if (something_came(reactor))
				return now_ns;
			cpu_relax();
		}
		now_ns = kernel_clock_ns();
		if (now_ns >= yield_ns) {
			kernel_yield();
			COUNT(reactor, yields, 1);
			yield_ns = now_ns + SPIN_YIELD_NS;
		}
	}
	return now_ns;
}

/* Whether another thread wants a turn.  Sequentially consistent: see sleep_until. */
static bool
asked_to_wake(const struct reactor *reactor)
{
	return !inbox_empty(&reactor->inbox) ||
	       __atomic_load_n(&reactor->stopping, __ATOMIC_SEQ_CST) ||
	       __atomic_load_n(&reactor->woken, __ATOMIC_SEQ_CST);
}

/* Sleep in the kernel until an event, a message or DEADLINE_NS. */
static void
sleep_until(struct reactor *reactor, uint64_t now_ns, uint64_t deadline_ns)
{
	struct io_event events[EVENTS_PER_TAKE];
	uint64_t timeout_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
	long count = 0;

	if (timeout_ns > SLEEP_NS_MAX)
		timeout_ns = SLEEP_NS_MAX;
	/* Partner: reactor_send posts, then looks at `sleeping`; this sets `sleeping`, then looks at the inbox.
	 * Both sequentially consistent: one of the two sees the other. */
	__atomic_store_n(&reactor->sleeping, true, __ATOMIC_SEQ_CST);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!asked_to_wake(reactor)) {
		COUNT(reactor, sleeps, 1);
		count = kernel_sleep(reactor->context, events, EVENTS_PER_TAKE,
				     (int64_t)timeout_ns);
	}
	__atomic_store_n(&reactor->sleeping, false, __ATOMIC_RELAXED);
	take_events(reactor, events, count);
}

static uint64_t
earlier(uint64_t a_ns, uint64_t b_ns)
{
	return a_ns < b_ns ? a_ns : b_ns;
}

/* There is nothing to do before UNTIL_NS, as far as is known. */
static void
rest(struct reactor *reactor, uint64_t until_ns)
{
	uint64_t started_ns, now_ns, deadline_ns = earlier(reactor->timers_next_ns, until_ns);

	if (something_came(reactor) || run_queue_count(&reactor->ready) > 0)
		return;
	started_ns = now_ns = kernel_clock_ns();
	/* What found no slot may have been cancelled or abandoned since. */
	if (reactor->retry_ns > 0 && anything_waits(reactor))
		deadline_ns = earlier(deadline_ns, reactor->retry_ns);
	if (reactor->spin.ns > 0 && reactor->worker_ops == 0) {
		now_ns = spin_until(reactor, now_ns,
				    earlier(now_ns + reactor->spin.ns, deadline_ns));
		if (something_came(reactor))
			return;
	}
	sleep_until(reactor, now_ns, deadline_ns);
	if (reactor->config.poll_us > 0)
		spin_adapt(&reactor->spin, kernel_clock_ns() - started_ns);
}

static bool
is_stopping(const struct reactor *reactor)
{
	return __atomic_load_n(&reactor->stopping, __ATOMIC_RELAXED);
}

/* Whether reactor_wake was called since the last look. */
static bool
take_wake(struct reactor *reactor)
{
	/* The load alone is what nearly every turn pays. */
	return __atomic_load_n(&reactor->woken, __ATOMIC_RELAXED) &&
	       __atomic_exchange_n(&reactor->woken, false, __ATOMIC_ACQUIRE);
}

void
reactor_run(struct reactor *reactor)
{
	while (!is_stopping(reactor)) {
		(void)take_wake(reactor);
		if (!reactor_turn(reactor))
			rest(reactor, TIMER_NO_DEADLINE);
	}
}

unsigned
reactor_wait(struct reactor *reactor, unsigned min, unsigned max, uint64_t timeout_ns)
{
	uint64_t now_ns = kernel_clock_ns(), deadline_ns;

	CHECK(max > 0);
	deadline_ns =
		timeout_ns < TIMER_NO_DEADLINE - now_ns ? now_ns + timeout_ns : TIMER_NO_DEADLINE;
	if (min > max)
		min = max;
	reactor->calls_left = max;
	for (;;) {
		bool busy = turn(reactor);

		if (max - reactor->calls_left >= min || is_stopping(reactor) ||
		    take_wake(reactor) || kernel_clock_ns() >= deadline_ns)
			return max - reactor->calls_left;
		if (!busy)
			rest(reactor, deadline_ns);
	}
}

/* ---- from other threads ---- */

static void
end_sleep(struct reactor *reactor)
{
	/* Only the first of several senders pays for the system call. */
	if (__atomic_load_n(&reactor->sleeping, __ATOMIC_SEQ_CST) &&
	    __atomic_exchange_n(&reactor->sleeping, false, __ATOMIC_SEQ_CST))
		kernel_wakeup_signal(reactor->wakeup_fd);
}

void
reactor_send(struct reactor *target, struct message *message)
{
	inbox_post(&target->inbox, message);
	end_sleep(target);
}

void
reactor_notify(struct reactor *target, struct notice *notice, uint32_t bits)
{
	if (notice_raise(notice, &target->inbox, bits))
		end_sleep(target);
}

void
reactor_wake(struct reactor *reactor)
{
	__atomic_store_n(&reactor->woken, true, __ATOMIC_SEQ_CST);
	end_sleep(reactor);
}

void
reactor_stop(struct reactor *reactor)
{
	__atomic_store_n(&reactor->stopping, true, __ATOMIC_SEQ_CST);
	end_sleep(reactor);
}

static void
wakeup_done(struct op *op, long result)
{
	struct reactor *reactor = container_of(op, struct reactor, wakeup_op);

	(void)result;
	reactor->calls_left++; /* not one of those that reactor_wait waits for */
	kernel_wakeup_clear(reactor->wakeup_fd);
	op_poll_reserved(op, reactor->wakeup_fd, POLLIN);
	reactor_start(reactor, op);
}
