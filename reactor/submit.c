/* Operations on their way to the kernel: in which order and in how many calls, by which thread, and what it refuses. */
#include "reactor/reactor_state.h"

#include <errno.h>
#include <limits.h>

#define RETRY_NS 1000000 /* after a refusal that no completion of ours will end */

/* Of lower classes, while the latency class is in use: what is in a batch holds up what comes meanwhile.  While it is busy
 * they go one by one, with a look at the ring between them, and no more of them in a turn than otherwise. */
#define LOWER_PER_BATCH 4

/* The latency class is busy for so long behind each of its calls.  What comes later finds a core that sleeps, or has had the
 * time to; and an idle client of that class should not cost the others their batches. */
#define LATENCY_BUSY_NS 1000000

/* While something of the latency class is to be called, lower ones are not submitted, for so many turns in a row. */
#define LOWER_HELD_MAX 16

/* With disk operations and more others than this to submit, two calls finish the disk's sooner than one. */
#define OTHERS_BESIDE_DISK 32

/* The kernel had no slot. */
static void
try_again_later(struct reactor *reactor)
{
	COUNT(reactor, no_slot, 1);
	reactor->retry_ns = kernel_clock_ns() + RETRY_NS;
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

void
submit_helper_failed(struct reactor *reactor, struct op *op, long error)
{
	op_give_slot(reactor, op, slot_find(&reactor->slots, op->tag));
	if (error == -EAGAIN) {
		try_again_later(reactor);
		op->state = OP_STATE_QUEUED;
		op_queue_append(&reactor->queues[op->kind], op);
	} else {
		op_ready(reactor, op, error);
	}
}

bool
submit_otherwise(struct reactor *reactor, struct op *op, long result)
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

/* ---- to the kernel ---- */

/* The kernel does not want OP, which waits. */
static void
refuse(struct reactor *reactor, struct op *op, long error)
{
	op_queue_remove(&reactor->queues[op->kind], op);
	if (op_asked_nowait(op) && error == -EOPNOTSUPP) {
		(void)submit_otherwise(reactor, op, error);
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
			give_slots_back(reactor, iocbs, count);
			try_again_later(reactor);
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

/* Up to COUNT receives and sends, each by a system call of its own: of lower classes, which come last, the first, and the others until there is
 * something to look at for the latency class.  Returns how many. */
static unsigned
submit_directly(struct reactor *reactor, struct iocb **iocbs, unsigned count)
{
	unsigned done, lower = 0;

	for (done = 0; done < count; done++) {
		struct op *op = op_of(iocbs[done]);

		if (op->priority != PRIORITY_LATENCY && lower++ > 0 && reactor->latency_ops > 0 &&
		    ring_has_events(reactor))
			break;
		op_queue_remove(&reactor->queues[op->kind], op);
		op_ready(reactor, op, transfer_directly(op));
	}
	COUNT(reactor, ops_direct, done);
	return done;
}

bool
submit_anything_waits(const struct reactor *reactor)
{
	unsigned waiting = 0;

	for (unsigned i = 0; i < OP_KIND_COUNT; i++)
		waiting += op_queue_waiting(&reactor->queues[i]);
	return waiting > 0;
}

/* How many operations of lower classes, of each kind, the next batch may have. */
static unsigned
lower_max(struct reactor *reactor)
{
	if (reactor->latency_ops == 0)
		return UINT_MAX;
	if (run_queue_has(&reactor->ready, PRIORITY_LATENCY) &&
	    reactor->lower_held < LOWER_HELD_MAX) {
		reactor->lower_held++;
		return 0;
	}
	reactor->lower_held = 0;
	if (reactor->latency_done_ns == 0 ||
	    kernel_clock_ns() - reactor->latency_done_ns > LATENCY_BUSY_NS)
		return LOWER_PER_BATCH;
	return 1;
}

/* List what waits of KIND behind the first COUNT of the batch, LOWER of lower classes at most.  Returns how many are listed then. */
static unsigned
batch_append(struct reactor *reactor, enum op_kind kind, unsigned count, unsigned lower)
{
	return count + op_queue_list(&reactor->queues[kind], reactor->batch + count, lower);
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
submit_few_sockets(struct reactor *reactor, unsigned lower)
{
	unsigned count = batch_append(reactor, OP_KIND_SOCKET, 0, lower);

	return submit_directly(reactor, reactor->batch, count) > 0;
}

/* One batch, with LOWER operations of lower classes of each kind at most.  Returns whether there was anything. */
static bool
submit_batch(struct reactor *reactor, unsigned lower)
{
	bool few_sockets, disk_first, busy = false;
	unsigned disk_count, count;

	few_sockets = op_queue_waiting(&reactor->queues[OP_KIND_SOCKET]) <
		      reactor->config.socket_batch_min;
	/* Before the polls, but behind the disk's operations, which take longer. */
	disk_first = op_queue_waiting(&reactor->queues[OP_KIND_DISK]) > 0;
	if (few_sockets && !disk_first)
		busy = submit_few_sockets(reactor, lower);
	count = batch_append(reactor, OP_KIND_DISK, 0, lower);
	disk_count = take_out_helped(reactor, count);
	busy |= disk_count < count;
	count = disk_count;
	if (!few_sockets)
		count = batch_append(reactor, OP_KIND_SOCKET, count, lower);
	count = batch_append(reactor, OP_KIND_RESERVED, count, lower);
	count = batch_append(reactor, OP_KIND_POLL, count, lower);
	if (disk_count > 0 && count - disk_count > OTHERS_BESIDE_DISK) {
		batch_submit(reactor, reactor->batch, disk_count);
		batch_submit(reactor, reactor->batch + disk_count, count - disk_count);
	} else {
		batch_submit(reactor, reactor->batch, count);
	}
	if (few_sockets && disk_first)
		busy |= submit_few_sockets(reactor, lower);
	return busy || count > 0;
}

/* The kernel had no slot, and it is not time yet to ask it again. */
static bool
refused_lately(struct reactor *reactor)
{
	if (reactor->retry_ns == 0)
		return false;
	if (kernel_clock_ns() < reactor->retry_ns)
		return true;
	reactor->retry_ns = 0;
	return false;
}

bool
submit_waiting(struct reactor *reactor)
{
	unsigned lower, more;
	bool busy;

	if (!submit_anything_waits(reactor) || refused_lately(reactor))
		return false;
	lower = lower_max(reactor);
	more = lower == 1 ? LOWER_PER_BATCH - 1 : 0;
	busy = submit_batch(reactor, lower);
	for (; busy && more > 0 && !ring_has_events(reactor) && reactor->retry_ns == 0; more--) {
		if (!submit_batch(reactor, lower))
			break;
	}
	return busy;
}

unsigned
submit_latency_sockets(struct reactor *reactor)
{
	struct op_queue *sockets = &reactor->queues[OP_KIND_SOCKET];

	if (op_queue_waiting(sockets) == 0 ||
	    op_queue_waiting(sockets) >= reactor->config.socket_batch_min)
		return 0;
	return submit_directly(reactor, reactor->batch, op_queue_list(sockets, reactor->batch, 0));
}
