/* The turn of a core, and its rest. */
#include "reactor/reactor.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#include "reactor/ring.h"

#define INTERNAL_SLOTS	1 /* the poll of the wake-up */
#define EVENTS_PER_TAKE 128
#define RETRY_NS	1000000 /* after a refusal that no completion of ours will end */
#define SLEEP_NS_MAX	((uint64_t)3600 * 1000000000)

#define SPIN_NS_FIRST 4000  /* where spinning starts again after it was given up */
#define SPIN_YIELD_NS 20000 /* let others run on this CPU at least this often */
#define SPIN_CHECKS   16    /* looks at the ring between two looks at the clock */

/* With disk operations and more polls than this to submit, two calls finish the disk's sooner than one. */
#define POLLS_BESIDE_DISK 32

/* Operations of one kind on their way to the kernel. */
struct op_queue {
	struct list_node waiting;
	unsigned in_flight;
	unsigned slots;
};

struct reactor {
	io_context_t context;
	struct ring_header
		*ring; /* NULL: the layout is unknown, events come through kernel_sleep */
	struct op_queue disk, polls;
	struct op_queue wakeups; /* wakeup_op only: its slot is never another poll's */
	struct iocb **batch;	 /* room for every slot */
	struct list_node ready;	 /* completed, done not yet called */
	struct list_node tasks;
	struct timer_wheel timers;
	uint64_t timers_next_ns; /* the wheel needs no look before this */
	unsigned worker_ops; /* in flight, and finished by a kernel worker that wants this CPU */
	uint64_t retry_ns;   /* no io_submit before this: the kernel had no slot; 0 if it has */

	uint64_t spin_ns; /* how long to spin now: 0 to spin_ns_max */
	uint64_t spin_ns_max;

	struct op wakeup_op;
	int wakeup_fd;
	bool stopping; /* atomic; set by any thread */

	struct reactor_counters counters;

	/* Shared with senders, on a cache line of their own. */
	struct inbox inbox __attribute__((aligned(64)));
	bool sleeping; /* atomic */
};

static void wakeup_done(struct op *op, long result);

static void
op_queue_init(struct op_queue *queue, unsigned slots)
{
	list_init(&queue->waiting);
	queue->in_flight = 0;
	queue->slots = slots;
}

static struct op_queue *
op_queue_of(struct reactor *reactor, const struct op *op)
{
	if (op->iocb.aio_lio_opcode != IO_CMD_POLL)
		return &reactor->disk;
	return op == &reactor->wakeup_op ? &reactor->wakeups : &reactor->polls;
}

/* True if OP is completed by a worker thread of the kernel, which a spinning core would starve. */
static bool
op_needs_worker(const struct op *op)
{
	return op->iocb.aio_lio_opcode == IO_CMD_FDSYNC ||
	       (op->iocb.aio_lio_opcode == IO_CMD_PWRITE && op->iocb.aio_rw_flags != 0);
}

static void
op_to_kernel(struct reactor *reactor, struct op *op)
{
	op->state = OP_STATE_SUBMITTED;
	op_queue_of(reactor, op)->in_flight++;
	reactor->worker_ops += op_needs_worker(op);
	reactor->counters.ops_submitted++;
}

static void
op_from_kernel(struct reactor *reactor, struct op *op, long result)
{
	CHECK(op->state == OP_STATE_SUBMITTED);
	op_queue_of(reactor, op)->in_flight--;
	reactor->worker_ops -= op_needs_worker(op);
	op->result = result;
	op->state = OP_STATE_READY;
	list_append(&reactor->ready, &op->node);
}

/* Arm the poll of the wake-up by hand, which shows whether the kernel has IOCB_CMD_POLL. */
static int
probe_poll(struct reactor *reactor)
{
	struct iocb *iocb = &reactor->wakeup_op.iocb;

	op_init(&reactor->wakeup_op, wakeup_done);
	op_poll(&reactor->wakeup_op, reactor->wakeup_fd, POLLIN);
	iocb->data = &reactor->wakeup_op;
	if (kernel_submit(reactor->context, 1, &iocb) != 1)
		return -EOPNOTSUPP;
	op_to_kernel(reactor, &reactor->wakeup_op);
	return 0;
}

int
reactor_create(const struct reactor_config *config, struct reactor **result)
{
	unsigned slots = config->disk_slots + config->poll_slots + INTERNAL_SLOTS;
	struct reactor *reactor;
	int error;

	if (config->disk_slots == 0 || config->poll_slots == 0)
		return -EINVAL;
	if (posix_memalign((void **)&reactor, 64, sizeof(*reactor)) != 0)
		return -ENOMEM;
	*reactor = (struct reactor){ .spin_ns_max = (uint64_t)config->poll_us * 1000 };
	op_queue_init(&reactor->disk, config->disk_slots);
	op_queue_init(&reactor->polls, config->poll_slots);
	op_queue_init(&reactor->wakeups, INTERNAL_SLOTS);
	list_init(&reactor->ready);
	list_init(&reactor->tasks);
	timer_wheel_init(&reactor->timers, kernel_clock_ns());
	reactor->timers_next_ns = TIMER_NO_DEADLINE;
	inbox_init(&reactor->inbox);
	error = -ENOMEM;
	reactor->batch = calloc(slots, sizeof(reactor->batch[0]));
	if (reactor->batch == NULL)
		goto err_after_reactor;
	reactor->wakeup_fd = kernel_wakeup_create();
	error = reactor->wakeup_fd;
	if (error < 0)
		goto err_after_batch;
	error = kernel_context_create(slots, &reactor->context);
	if (error < 0)
		goto err_after_wakeup;
	reactor->ring = ring_map(reactor->context);
	error = probe_poll(reactor);
	if (error < 0)
		goto err_after_context;
	*result = reactor;
	return 0;

err_after_context:
	kernel_context_destroy(reactor->context);
err_after_wakeup:
	kernel_close(reactor->wakeup_fd);
err_after_batch:
	free(reactor->batch);
err_after_reactor:
	free(reactor);
	return error;
}

void
reactor_destroy(struct reactor *reactor)
{
	CHECK(reactor->disk.in_flight == 0 && list_empty(&reactor->disk.waiting));
	kernel_wakeup_signal(reactor->wakeup_fd); /* ends its poll */
	kernel_context_destroy(reactor->context);
	kernel_close(reactor->wakeup_fd);
	free(reactor->batch);
	free(reactor);
}

void
reactor_submit(struct reactor *reactor, struct op *op)
{
	CHECK(op_idle(op));
	op->iocb.data = op;
	op->state = OP_STATE_QUEUED;
	list_append(&op_queue_of(reactor, op)->waiting, &op->node);
}

void
reactor_complete(struct reactor *reactor, struct op *op, long result)
{
	CHECK(op_idle(op));
	op->result = result;
	op->state = OP_STATE_READY;
	list_append(&reactor->ready, &op->node);
}

void
reactor_cancel_poll(struct reactor *reactor, struct op *op)
{
	if (op->state == OP_STATE_QUEUED) {
		list_remove(&op->node);
		op->state = OP_STATE_IDLE;
		reactor_complete(reactor, op, -ECANCELED);
	} else if (op->state == OP_STATE_SUBMITTED) {
		/* Any error means that its event is in the ring already. */
		(void)kernel_cancel(reactor->context, &op->iocb);
	}
}

void
reactor_defer(struct reactor *reactor, struct task *task)
{
	if (list_empty(&task->node))
		list_append(&reactor->tasks, &task->node);
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

const struct reactor_counters *
reactor_counters(const struct reactor *reactor)
{
	return &reactor->counters;
}

/* ---- submit ---- */

/* Append to the batch what waits in QUEUE and has a slot.  Returns the new length of the batch. */
static unsigned
batch_fill(struct reactor *reactor, struct op_queue *queue, unsigned count)
{
	unsigned free_slots = queue->slots - queue->in_flight;
	struct list_node *node;

	list_for_each(node, &queue->waiting) {
		if (free_slots-- == 0)
			break;
		reactor->batch[count++] = &container_of(node, struct op, node)->iocb;
	}
	return count;
}

/* Submit COUNT iocbs from the batch; they are the heads of their queues.  An operation that the kernel refuses
 * fails alone, the ones behind it go on; what finds no slot stays queued. */
static void
batch_submit(struct reactor *reactor, struct iocb **iocbs, unsigned count)
{
	while (count > 0) {
		long taken = kernel_submit(reactor->context, (long)count, iocbs);

		reactor->counters.submit_calls++;
		if (taken == -EAGAIN) {
			reactor->retry_ns = kernel_clock_ns() + RETRY_NS;
			return;
		}
		if (taken <= 0) {
			/* Says what is wrong with the first one. */
			struct op *op = (*iocbs)->data;

			list_remove(&op->node);
			op->state = OP_STATE_IDLE;
			reactor_complete(reactor, op, taken == 0 ? -EIO : taken);
			reactor->counters.ops_refused++;
			taken = 1;
		} else {
			for (long i = 0; i < taken; i++) {
				struct op *op = iocbs[i]->data;

				list_remove(&op->node);
				op_to_kernel(reactor, op);
			}
		}
		iocbs += taken;
		count -= (unsigned)taken;
	}
}

static bool
submit(struct reactor *reactor)
{
	unsigned disk_count, count;

	if (reactor->retry_ns > 0) {
		if (kernel_clock_ns() < reactor->retry_ns)
			return false;
		reactor->retry_ns = 0;
	}
	if (list_empty(&reactor->disk.waiting) && list_empty(&reactor->polls.waiting) &&
	    list_empty(&reactor->wakeups.waiting))
		return false;
	disk_count = batch_fill(reactor, &reactor->disk, 0);
	count = batch_fill(reactor, &reactor->wakeups, disk_count);
	count = batch_fill(reactor, &reactor->polls, count);
	if (count == 0)
		return false;
	if (disk_count > 0 && count - disk_count > POLLS_BESIDE_DISK) {
		batch_submit(reactor, reactor->batch, disk_count);
		batch_submit(reactor, reactor->batch + disk_count, count - disk_count);
	} else {
		batch_submit(reactor, reactor->batch, count);
	}
	return true;
}

/* ---- reap and run ---- */

static void
take_events(struct reactor *reactor, const struct io_event *events, long count)
{
	if (count <= 0)
		return; /* nothing, or -EINTR */
	for (long i = 0; i < count; i++)
		op_from_kernel(reactor, events[i].data, (long)events[i].res);
	reactor->counters.events += (uint64_t)count;
	reactor->retry_ns = 0;
}

static void
reap(struct reactor *reactor)
{
	struct io_event events[EVENTS_PER_TAKE];
	long count;

	do {
		if (reactor->ring != NULL)
			count = ring_take(reactor->ring, events, EVENTS_PER_TAKE);
		else
			count = kernel_sleep(reactor->context, events, EVENTS_PER_TAKE, 0);
		take_events(reactor, events, count);
	} while (count == EVENTS_PER_TAKE);
}

/* Call done of what is ready now; what becomes ready meanwhile waits for the next turn. */
static bool
run_ready(struct reactor *reactor)
{
	struct list_node now, *node;

	if (list_empty(&reactor->ready))
		return false;
	list_init(&now);
	list_move_all(&now, &reactor->ready);
	while ((node = list_take_first(&now)) != NULL) {
		struct op *op = container_of(node, struct op, node);

		op->state = OP_STATE_IDLE;
		op->done(op, op->result);
	}
	return true;
}

static bool
run_tasks(struct reactor *reactor)
{
	struct list_node now, *node;

	if (list_empty(&reactor->tasks))
		return false;
	list_init(&now);
	list_move_all(&now, &reactor->tasks);
	while ((node = list_take_first(&now)) != NULL) {
		struct task *task = container_of(node, struct task, node);

		task->run(task);
	}
	return true;
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
	return fired > 0;
}

bool
reactor_turn(struct reactor *reactor)
{
	unsigned messages;
	bool busy;

	reactor->counters.turns++;
	busy = submit(reactor);
	reap(reactor);
	busy |= run_ready(reactor);
	messages = inbox_deliver(&reactor->inbox);
	reactor->counters.messages += messages;
	busy |= messages > 0;
	busy |= run_timers(reactor);
	busy |= run_tasks(reactor);
	return busy;
}

/* ---- rest ---- */

static bool
something_came(const struct reactor *reactor)
{
	return (reactor->ring != NULL && !ring_empty(reactor->ring)) ||
	       !inbox_empty(&reactor->inbox);
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
spin(const struct reactor *reactor, uint64_t now_ns, uint64_t until_ns)
{
	uint64_t yield_ns = now_ns + SPIN_YIELD_NS;

	while (now_ns < until_ns) {
		for (unsigned i = 0; i < SPIN_CHECKS; i++) {
			if (something_came(reactor))
				return now_ns;
			cpu_relax();
		}
		now_ns = kernel_clock_ns();
		if (now_ns >= yield_ns) {
			kernel_yield();
			yield_ns = now_ns + SPIN_YIELD_NS;
		}
	}
	return now_ns;
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
	if (inbox_empty(&reactor->inbox) &&
	    !__atomic_load_n(&reactor->stopping, __ATOMIC_SEQ_CST)) {
		reactor->counters.sleeps++;
		count = kernel_sleep(reactor->context, events, EVENTS_PER_TAKE,
				     (int64_t)timeout_ns);
	}
	__atomic_store_n(&reactor->sleeping, false, __ATOMIC_RELAXED);
	take_events(reactor, events, count);
}

/* Spin longer next time if a little more of it would have saved the sleep, less if it was far from that. */
static void
spin_adapt(struct reactor *reactor, uint64_t waited_ns)
{
	if (waited_ns <= reactor->spin_ns)
		return;
	if (waited_ns > reactor->spin_ns_max)
		reactor->spin_ns /= 2;
	else if (reactor->spin_ns == 0)
		reactor->spin_ns = SPIN_NS_FIRST;
	else
		reactor->spin_ns *= 2;
	if (reactor->spin_ns < SPIN_NS_FIRST && waited_ns > reactor->spin_ns_max)
		reactor->spin_ns = 0;
	if (reactor->spin_ns > reactor->spin_ns_max)
		reactor->spin_ns = reactor->spin_ns_max;
}

static void
rest(struct reactor *reactor)
{
	uint64_t started_ns, now_ns, deadline_ns = reactor->timers_next_ns;

	if (something_came(reactor) || !list_empty(&reactor->ready))
		return;
	started_ns = now_ns = kernel_clock_ns();
	if (reactor->retry_ns > 0 && deadline_ns > reactor->retry_ns)
		deadline_ns = reactor->retry_ns;
	if (reactor->spin_ns > 0 && reactor->worker_ops == 0) {
		uint64_t until_ns = now_ns + reactor->spin_ns;

		now_ns = spin(reactor, now_ns, until_ns < deadline_ns ? until_ns : deadline_ns);
		if (something_came(reactor))
			return;
	}
	sleep_until(reactor, now_ns, deadline_ns);
	if (reactor->spin_ns_max > 0)
		spin_adapt(reactor, kernel_clock_ns() - started_ns);
}

void
reactor_run(struct reactor *reactor)
{
	while (!__atomic_load_n(&reactor->stopping, __ATOMIC_RELAXED)) {
		if (!reactor_turn(reactor))
			rest(reactor);
	}
}

/* ---- from other threads ---- */

static void
wake(struct reactor *reactor)
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
	wake(target);
}

void
reactor_stop(struct reactor *reactor)
{
	__atomic_store_n(&reactor->stopping, true, __ATOMIC_SEQ_CST);
	wake(reactor);
}

static void
wakeup_done(struct op *op, long result)
{
	struct reactor *reactor = container_of(op, struct reactor, wakeup_op);

	(void)result;
	kernel_wakeup_clear(reactor->wakeup_fd);
	op_poll(op, reactor->wakeup_fd, POLLIN);
	reactor_submit(reactor, op);
}
