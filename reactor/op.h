/* An operation: one thing the kernel is asked to do, and what to call when it is done.
 * Owned and embedded by its user, who may touch it only while it is idle; found again through container_of. */
#ifndef REACTOR_OP_H
#define REACTOR_OP_H

#include "reactor/kernel.h"
#include "reactor/list.h"
#include <linux/fs.h>
#include <stdbool.h>

enum op_state {
	OP_STATE_IDLE,	    /* the owner's */
	OP_STATE_QUEUED,    /* waits for the next submit, or for a slot */
	OP_STATE_SUBMITTED, /* the kernel's */
	OP_STATE_READY,	    /* waits for done */
};

struct op {
	struct iocb iocb;
	/* Called once, on the reactor's core, never from within the call that submitted it.  OP is idle
	 * then: it may be submitted again or freed.
	 * result: as of the system call that the operation stands for; for a poll the events, of which
	 * only "something happened" is reliable. */
	void (*done)(struct op *op, long result);
	/* Private. */
	struct list_node node;
	long result;
	enum op_state state;
};

/* Prepare OP, idle. */
static inline void
op_init(struct op *op, void (*done)(struct op *op, long result))
{
	op->done = done;
	op->state = OP_STATE_IDLE;
	list_init(&op->node);
}

static inline bool
op_idle(const struct op *op)
{
	return op->state == OP_STATE_IDLE;
}

/* What OP is to do; it must be idle.
 * op_poll: events as in poll(2); reported once, at once if the fd is ready already.
 * op_read, op_write: at OFFSET of FD; BUFFER stays the operation's until done.  durable: as if opened with
 * O_DSYNC.
 * op_fdatasync: all that was written and answered before. */
static inline void
op_poll(struct op *op, int fd, int events)
{
	DCHECK(op_idle(op));
	io_prep_poll(&op->iocb, fd, events);
}

static inline void
op_read(struct op *op, int fd, void *buffer, size_t bytes, uint64_t offset)
{
	DCHECK(op_idle(op));
	io_prep_pread(&op->iocb, fd, buffer, bytes, (long long)offset);
}

static inline void
op_write(struct op *op, int fd, void *buffer, size_t bytes, uint64_t offset, bool durable)
{
	DCHECK(op_idle(op));
	io_prep_pwrite(&op->iocb, fd, buffer, bytes, (long long)offset);
	if (durable)
		op->iocb.aio_rw_flags = RWF_DSYNC;
}

static inline void
op_fdatasync(struct op *op, int fd)
{
	DCHECK(op_idle(op));
	io_prep_fdsync(&op->iocb, fd);
}

#endif
