/* What the parts of a reactor share: reactor.c makes it and takes orders, submit.c brings operations to the kernel, turn.c takes
 * turns, rest.c rests between them.  Only these include this; all of it is for the reactor's own thread but what is marked. */
#ifndef REACTOR_REACTOR_STATE_H
#define REACTOR_REACTOR_STATE_H

#include "reactor/op_queue.h"
#include "reactor/reactor.h"
#include "reactor/resubmitter.h"
#include "reactor/ring.h"
#include "reactor/run_queue.h"
#include "reactor/slot_table.h"
#include "reactor/spin.h"

#define EVENTS_PER_TAKE 128

struct reactor {
	struct reactor_config config;
	io_context_t context;
	/* NULL: the layout is unknown, events come through kernel_sleep. */
	struct ring_header *ring;
	struct op_queue queues[OP_KIND_COUNT];
	struct slot_table slots;
	struct iocb **batch;	  /* room for every slot */
	struct run_queue ready;	  /* completed, done not yet called */
	unsigned latency_ops;	  /* of the latency class: queued, with the kernel or ready */
	uint64_t latency_done_ns; /* the last call of one; 0: none */
	unsigned lower_held;	  /* turns in a row that submitted nothing of the lower classes */
	unsigned calls_left;	  /* of reactor_wait's */
	struct list_node tasks;
	struct list_node idle_tasks;
	uint64_t idle_tasks_ns; /* they run then at the latest; 0: there are none */
	struct timer_wheel timers;
	uint64_t timers_next_ns; /* the wheel needs no look before this */
	unsigned reserved;	 /* of the own slots, that somebody has taken for himself */
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
	bool woken;    /* atomic: set by reactor_wake, cleared by the loop that it wakes */
	bool stopping; /* atomic */
};

/* Counters have one writer; relaxed atomic, so that others can read them at any time. */
#define COUNT(reactor, counter, n)                                                        \
	__atomic_store_n(&(reactor)->counters.counter, (reactor)->counters.counter + (n), \
			 __ATOMIC_RELAXED)

/* ---- operations and their slots ---- */

static inline struct op *
op_of(struct iocb *iocb)
{
	return container_of(iocb, struct op, iocb);
}

/* True if OP is submitted or completed by another thread, which a spinning core would starve. */
static inline bool
op_needs_worker(const struct op *op)
{
	/* Of reads, polls and sends none has the flag. */
	return op->way == NOWAIT_WAY_HELPER || op->iocb.aio_lio_opcode == IO_CMD_FDSYNC ||
	       (op->iocb.aio_rw_flags & RWF_DSYNC) != 0;
}

static inline void
op_ready(struct reactor *reactor, struct op *op, long result)
{
	op->result = result;
	op->state = OP_STATE_READY;
	run_queue_append(&reactor->ready, op);
}

/* OP's event is to come, or has come, and holds a slot until then.  The tag is in the iocb before it goes to the kernel. */
static inline void
op_take_slot(struct reactor *reactor, struct op *op)
{
	struct op_queue *queue = &reactor->queues[op->kind];

	op_queue_take_slot(queue, op->priority);
	op->tag = slot_take(&reactor->slots, op, queue, op->priority);
	op->iocb.data = (void *)(uintptr_t)op->tag;
	reactor->worker_ops += op_needs_worker(op);
}

static inline void
op_give_slot(struct reactor *reactor, struct op *op, struct slot *slot)
{
	op_queue_give_slot(slot->queue, slot->priority);
	slot_release(&reactor->slots, slot);
	if (op != NULL)
		reactor->worker_ops -= op_needs_worker(op);
}

static inline bool
op_asked_nowait(const struct op *op)
{
	return op->kind == OP_KIND_DISK && (op->iocb.aio_rw_flags & RWF_NOWAIT) != 0;
}

static inline bool
ring_has_events(const struct reactor *reactor)
{
	return reactor->ring != NULL && !ring_empty(reactor->ring);
}

/* ---- submit.c ---- */

/* Bring to the kernel what waits and has a slot.  Returns whether there was anything. */
bool submit_waiting(struct reactor *reactor);

/* The latency class's receives and sends go at once: its next step does not wait for a call of a lower class.  Returns how many
 * operations are ready by that. */
unsigned submit_latency_sockets(struct reactor *reactor);

/* OP was asked not to block, and holds no slot.  Learn from what the kernel said to that.  Returns true if it goes on by another
 * way. */
bool submit_otherwise(struct reactor *reactor, struct op *op, long result);

/* A helper could not submit OP: as resubmitter_init.  Where only a slot was missing it is tried again. */
void submit_helper_failed(struct reactor *reactor, struct op *op, long error);

bool submit_anything_waits(const struct reactor *reactor);

/* ---- turn.c ---- */

/* As reactor_turn, with what is left of reactor_wait's calls. */
bool turn_take(struct reactor *reactor);

/* COUNT events, as the kernel told it: its error is none. */
void turn_take_events(struct reactor *reactor, const struct io_event *events, long count);

#endif
