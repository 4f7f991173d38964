/* An operation: one thing the kernel is asked to do, and what to call when it is done.
 * Owned and embedded by its user, who may touch it only while it is idle; found again through container_of. */
#ifndef REACTOR_OP_H
#define REACTOR_OP_H

#include "reactor/kernel.h"
#include "reactor/list.h"
#include "reactor/nowait.h"
#include "reactor/priority.h"
#include <linux/fs.h>
#include <stdbool.h>

enum op_state {
	OP_STATE_IDLE,	    /* the owner's */
	OP_STATE_QUEUED,    /* waits for the next submit, or for a slot */
	OP_STATE_SUBMITTED, /* the kernel's */
	OP_STATE_READY,	    /* waits for done */
};

/* What an operation's slot is taken from. */
enum op_kind {
	OP_KIND_DISK,
	OP_KIND_SOCKET,
	OP_KIND_POLL,
	OP_KIND_RESERVED, /* polls that must not wait: the reactor's own, and of parkings */
	OP_KIND_COUNT,
};

struct op {
	/* Called once, on the reactor's core, never from within the call that submitted it.  OP is idle
	 * then: it may be submitted again or freed.
	 * result: as of the system call that the operation stands for; for a poll the events, of which
	 * only "something happened" is reliable. */
	void (*done)(struct op *op, long result);
	enum priority priority; /* the owner's to set while it is idle; op_init makes it normal */
	/* Private. */
	enum op_kind kind;
	enum op_state state;
	enum nowait_way way;
	struct nowait *nowait; /* NULL: op_nowait was not called */
	struct list_node node;
	union {
		long result;  /* READY */
		uint64_t tag; /* SUBMITTED: of its slot */
	};
	struct iocb iocb;
};

/* OP is idle, and not prepared to do anything yet. */
static inline void
op_init(struct op *op, void (*done)(struct op *op, long result))
{
	op->done = done;
	op->priority = PRIORITY_NORMAL;
	op->kind = OP_KIND_COUNT; /* none: it is refused until it is told what to do */
	op->state = OP_STATE_IDLE;
	op->way = NOWAIT_WAY_BLOCKING;
	list_init(&op->node);
}

static inline bool
op_idle(const struct op *op)
{
	return op->state == OP_STATE_IDLE;
}

/* What OP is to do; it must be idle.
 * op_poll: events as in poll(2); reported once, at once if the fd is ready already.  Regular files and directories always are; what
 * can't be polled (a FIFO opened for both ends, the master of a terminal) ends with -EOPNOTSUPP.
 * op_read, op_write: at OFFSET of FD; BUFFER stays the operation's until done.  durable: as if opened with
 * O_DSYNC.
 * op_fdatasync: all that was written and answered before.
 * op_receive, op_send: on FD, a socket or pipe that is set to O_NONBLOCK; PARTS (1 to 1,024), which stay the operation's until
 * done, and what they point to.  They never wait: what can't be done now ends with -EAGAIN, and a part of it with a smaller
 * count.  Only one send for one socket at a time: two in one batch could change places.  Ignore SIGPIPE. */
static inline void
op_poll(struct op *op, int fd, int events)
{
	DCHECK(op_idle(op));
	op->kind = OP_KIND_POLL;
	op->way = NOWAIT_WAY_BLOCKING;
	io_prep_poll(&op->iocb, fd, events);
}

/* As op_poll, but with a slot of the reactor's own, so that other polls can't keep it waiting: see reactor_reserve. */
static inline void
op_poll_reserved(struct op *op, int fd, int events)
{
	op_poll(op, fd, events);
	op->kind = OP_KIND_RESERVED;
}

static inline void
op_read(struct op *op, int fd, void *buffer, size_t bytes, uint64_t offset)
{
	DCHECK(op_idle(op));
	op->kind = OP_KIND_DISK;
	op->way = NOWAIT_WAY_BLOCKING;
	op->nowait = NULL;
	io_prep_pread(&op->iocb, fd, buffer, bytes, (long long)offset);
}

static inline void
op_write(struct op *op, int fd, void *buffer, size_t bytes, uint64_t offset, bool durable)
{
	DCHECK(op_idle(op));
	op->kind = OP_KIND_DISK;
	op->way = NOWAIT_WAY_BLOCKING;
	op->nowait = NULL;
	io_prep_pwrite(&op->iocb, fd, buffer, bytes, (long long)offset);
	if (durable)
		op->iocb.aio_rw_flags = RWF_DSYNC;
}

static inline void
op_fdatasync(struct op *op, int fd)
{
	DCHECK(op_idle(op));
	op->kind = OP_KIND_DISK;
	op->way = NOWAIT_WAY_BLOCKING;
	op->nowait = NULL;
	io_prep_fdsync(&op->iocb, fd);
}

/* Whether OP was submitted and the kernel does not have it yet. */
static inline bool
op_waits(const struct op *op)
{
	return op->state == OP_STATE_QUEUED;
}

/* Have OP, a read or write that waits, be of the COUNT PARTS (at most 1,024), which stay the operation's until done, and what they point
 * to; from the same offset on. */
static inline void
op_set_parts(struct op *op, struct iovec *parts, unsigned count)
{
	bool reads =
		op->iocb.aio_lio_opcode == IO_CMD_PREAD || op->iocb.aio_lio_opcode == IO_CMD_PREADV;

	DCHECK(op_waits(op) && op->kind == OP_KIND_DISK);
	op->iocb.aio_lio_opcode = reads ? IO_CMD_PREADV : IO_CMD_PWRITEV;
	op->iocb.u.c.buf = parts;
	op->iocb.u.c.nbytes = count;
}

/* Have OP, a prepared read or write, not block the core, as far as NOWAIT, which belongs to its file, direction and core, says that it
 * can be had: what would block is submitted by a helper thread (reactor_config.calls; without these it blocks after all).
 * share: so is what goes to a file of which that is not known, so that the core can do something else meanwhile. */
static inline void
op_nowait(struct op *op, struct nowait *nowait, bool share)
{
	DCHECK(op_idle(op));
	op->nowait = nowait;
	op->way = nowait_choose(nowait, share);
	if (op->way == NOWAIT_WAY_ASK)
		op->iocb.aio_rw_flags |= RWF_NOWAIT;
}

static inline void
op_receive(struct op *op, int fd, struct iovec *parts, unsigned part_count)
{
	DCHECK(op_idle(op));
	op->kind = OP_KIND_SOCKET;
	op->way = NOWAIT_WAY_BLOCKING;
	if (part_count == 1)
		io_prep_pread(&op->iocb, fd, parts->iov_base, parts->iov_len, 0);
	else
		io_prep_preadv(&op->iocb, fd, parts, (int)part_count, 0);
}

static inline void
op_send(struct op *op, int fd, struct iovec *parts, unsigned part_count)
{
	DCHECK(op_idle(op));
	op->kind = OP_KIND_SOCKET;
	op->way = NOWAIT_WAY_BLOCKING;
	if (part_count == 1)
		io_prep_pwrite(&op->iocb, fd, parts->iov_base, parts->iov_len, 0);
	else
		io_prep_pwritev(&op->iocb, fd, parts, (int)part_count, 0);
}

#endif
