/* The reactor: its making and end, and what its users and other threads ask of it. */
#include "reactor/reactor.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "reactor/reactor_state.h"

/* The default: doc/decisions/0006. */
#define SOCKET_BATCH_NEVER UINT_MAX

static const unsigned shares_default[PRIORITY_COUNT] = {
	[PRIORITY_LATENCY] = 64,
	[PRIORITY_NORMAL] = 16,
	[PRIORITY_BACKGROUND] = 2,
};

static void wakeup_done(struct op *op, long result);

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
		config->socket_batch_min = SOCKET_BATCH_NEVER;
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
	reactor->reserved = 1; /* the wake-up's */
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

static bool
is_slot_count(unsigned slots)
{
	return slots > 0 && slots <= REACTOR_SLOTS_MAX;
}

int
reactor_create(const struct reactor_config *config, struct reactor **result)
{
	struct reactor *reactor;
	int error;

	if (config == NULL || result == NULL || !is_slot_count(config->disk_slots) ||
	    !is_slot_count(config->poll_slots))
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
			 submit_helper_failed);
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

	CHECK(op_queue_free(disk) == disk->slots);
	kernel_wakeup_signal(reactor->wakeup_fd); /* ends its poll */
	kernel_context_destroy(reactor->context);
	kernel_close(reactor->wakeup_fd);
	slot_table_fini(&reactor->slots);
	free(reactor->batch);
	free(reactor);
}

/* ---- what users ask for ---- */

static bool
may_be_queued(const struct op *op)
{
	return op_idle(op) && op->done != NULL && op->kind < OP_KIND_COUNT &&
	       op->priority < PRIORITY_COUNT;
}

static void
queue_op(struct reactor *reactor, struct op *op)
{
	op->state = OP_STATE_QUEUED;
	reactor->latency_ops += op->priority == PRIORITY_LATENCY;
	op_queue_append(&reactor->queues[op->kind], op);
}

static bool
has_room(const struct reactor *reactor, enum op_kind kind)
{
	const struct op_queue *queue = &reactor->queues[kind];
	const struct op *wakeup = &reactor->wakeup_op;

	if (kind != OP_KIND_RESERVED)
		return op_queue_waiting(queue) < reactor->config.waiting_max;
	/* None waits: that would be before the wake-up's, which must have its slot whatever others do. */
	return op_queue_in_flight(queue) + op_queue_waiting(queue) +
		       (wakeup->state != OP_STATE_QUEUED && wakeup->state != OP_STATE_SUBMITTED) <
	       queue->slots;
}

int
reactor_submit(struct reactor *reactor, struct op *op)
{
	if (reactor == NULL || op == NULL || !may_be_queued(op))
		return -EINVAL;
	if (!has_room(reactor, op->kind))
		return -ENOBUFS;
	queue_op(reactor, op);
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
reactor_start_always(struct reactor *reactor, struct op *op)
{
	CHECK(may_be_queued(op));
	queue_op(reactor, op);
}

void
reactor_complete(struct reactor *reactor, struct op *op, long result)
{
	CHECK(op_idle(op) && op->done != NULL && op->priority < PRIORITY_COUNT);
	reactor->latency_ops += op->priority == PRIORITY_LATENCY;
	op_ready(reactor, op, result);
}

bool
reactor_transfers_directly(const struct reactor *reactor)
{
	return reactor->config.socket_batch_min == SOCKET_BATCH_NEVER &&
	       !(reactor->latency_ops > 0 && ring_has_events(reactor));
}

void
reactor_count_direct(struct reactor *reactor)
{
	COUNT(reactor, ops_direct, 1);
}

bool
reactor_take_call(struct reactor *reactor, const struct op *op)
{
	if (op->priority != PRIORITY_NORMAL || reactor->calls_left == 0 ||
	    !reactor_transfers_directly(reactor))
		return false;
	reactor->calls_left--;
	COUNT(reactor, ops_done[op->priority], 1);
	return true;
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
	uint64_t now_ns = kernel_clock_ns();
	uint64_t deadline_ns =
		delay_ns < TIMER_NO_DEADLINE - now_ns ? now_ns + delay_ns : TIMER_NO_DEADLINE;

	timer_start(&reactor->timers, timer, deadline_ns);
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
	return reactor_free_slots_of(reactor, kind, PRIORITY_LATENCY);
}

unsigned
reactor_free_slots_of(const struct reactor *reactor, enum op_kind kind, enum priority priority)
{
	return op_queue_room(&reactor->queues[kind], priority);
}

int
reactor_reserve(struct reactor *reactor)
{
	if (reactor->reserved == REACTOR_RESERVED_SLOTS)
		return -ENOBUFS;
	reactor->reserved++;
	return 0;
}

void
reactor_unreserve(struct reactor *reactor)
{
	CHECK(reactor->reserved > 1);
	reactor->reserved--;
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
	reactor_start_always(reactor, op);
}
