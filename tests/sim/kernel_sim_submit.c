/* The simulated kernel's io_submit and io_cancel.  More requests than the slots that were asked for would be the reactor's mistake,
 * so they end the run.
 * Source of the behaviour: Linux fs/aio.c. */
#include "tests/sim/kernel_sim_state.h"

#include <errno.h>
#include <poll.h>

#define NO_SLOT_TRIES 2 /* one call for disk operations, one for polls */

/* ---- io_submit ---- */

static int
iocb_error(const struct iocb *iocb)
{
	const struct sim_fd *fd = fd_find(iocb->aio_fildes);

	if (fd == NULL)
		return -EBADF;
	switch (iocb->aio_lio_opcode) {
	case IO_CMD_POLL:
		/* Other fields than the events must be 0; there is no poll of a file here. */
		if (iocb->aio_rw_flags != 0 || iocb->u.c.nbytes != 0 || iocb->u.c.offset != 0)
			return -EINVAL;
		return fd->type == FD_FILE ? -EINVAL : 0;
	case IO_CMD_PREADV:
	case IO_CMD_PWRITEV:
		if (fd->type == FD_FILE)
			return iocb->u.c.offset < 0 ? -EINVAL : 0;
		return fd->type != FD_SOCKET || iocb->u.c.offset != 0 ? -EINVAL : 0;
	case IO_CMD_PREAD:
	case IO_CMD_PWRITE:
		if (fd->type == FD_SOCKET)
			return iocb->u.c.offset != 0 ? -ESPIPE : 0;
		return fd->type != FD_FILE || iocb->u.c.offset < 0 ? -EINVAL : 0;
	case IO_CMD_FDSYNC:
		return fd->type != FD_FILE || iocb->aio_rw_flags != 0 ? -EINVAL : 0;
	default:
		return -EINVAL;
	}
}

/* 0, or why IOCB is refused.  An injected refusal lasts until the one in question comes first. */
static int
refusal(struct iocb *iocb)
{
	int error = iocb_error(iocb);

	if (error == 0 && sim.doomed != iocb && kernel_sim_chance(sim.config.manner.refused))
		sim.doomed = iocb;
	if (error == 0 && sim.doomed == iocb)
		error = iocb->aio_fildes % 2 == 0 ? -EINVAL : -EBADF;
	return error;
}

static enum kernel_sim_kind
iocb_kind(const struct iocb *iocb)
{
	if (iocb->aio_lio_opcode != IO_CMD_POLL)
		return fd_find(iocb->aio_fildes)->type == FD_SOCKET ? KERNEL_SIM_KIND_SOCKET
								    : KERNEL_SIM_KIND_DISK;
	return fd_find(iocb->aio_fildes)->type == FD_WAKEUP ||
			       fd_find(iocb->aio_fildes)->type == FD_EPOLL
		       ? KERNEL_SIM_KIND_OWN
		       : KERNEL_SIM_KIND_POLL;
}

static struct request *
request_create(struct iocb *iocb)
{
	struct request *request = sim.requests;

	if (slots_used_total() == sim.slots)
		kernel_sim_fail("more operations than the %u slots that were asked for", sim.slots);
	while (request->state != REQUEST_FREE)
		request++;
	request->kind = iocb_kind(iocb);
	request->user = iocb;
	request->iocb = *iocb;
	request->worker = request->cancelled = request->spurious = false;
	request->age = sim.counters.taken++;
	request->cookie = sim.observer->on_taken(iocb);
	sim.used[request->kind][request->cookie % KERNEL_SIM_CLASSES]++;
	return request;
}

static void
request_start(struct iocb *iocb)
{
	struct request *request = request_create(iocb);

	if (request->kind == KERNEL_SIM_KIND_DISK) {
		disk_start(request);
		return;
	}
	if (request->kind == KERNEL_SIM_KIND_SOCKET) { /* ends within io_submit */
		request_complete(request, socket_request(iocb));
		return;
	}
	fd_pin(request);
	poll_arm(request);
	if (poll_mask(request) != 0) {
		request_complete(request, (long)poll_mask(request));
	} else if (kernel_sim_chance(sim.config.manner.spurious)) {
		request->spurious = true;
		poll_to_worker(request);
	}
}

/* -EAGAIN, which only time or an event may answer. */
static long
no_slot(void)
{
	sim.counters.no_slot++;
	sim.no_slot_run++;
	if (sim.no_slot_tries == 0 || sim.no_slot_drained != sim.counters.drained ||
	    sim.now_ns >= sim.no_slot_ns + KERNEL_SIM_NO_SLOT_NS) {
		sim.no_slot_tries = 0;
		sim.no_slot_ns = sim.now_ns;
		sim.no_slot_drained = sim.counters.drained;
	}
	if (++sim.no_slot_tries > NO_SLOT_TRIES)
		kernel_sim_fail("io_submit again %llu ns after -EAGAIN, without an event",
				(unsigned long long)(sim.now_ns - sim.no_slot_ns));
	return -EAGAIN;
}

long
kernel_submit(io_context_t context, long count, struct iocb **iocbs)
{
	long taken, limit = count;

	SIM_CHECK((void *)context == sim.visible && count > 0);
	time_cost(200 + 50 * (uint64_t)count);
	kernel_sim_busy();
	sim.counters.submit_calls++;
	if (sim.no_slot_run < KERNEL_SIM_NO_SLOT_RUN &&
	    kernel_sim_chance(sim.config.manner.no_slot))
		return no_slot();
	sim.no_slot_run = 0;
	if (count > 1 && kernel_sim_chance(sim.config.manner.short_submit)) {
		limit = 1 + (long)kernel_sim_below((uint64_t)count - 1);
		sim.counters.short_submits++;
	}
	for (taken = 0; taken < limit; taken++) {
		int error = refusal(iocbs[taken]);

		if (error != 0 && taken > 0)
			break;
		if (error != 0) {
			sim.doomed = NULL;
			sim.counters.refused++;
			sim.observer->on_refused(iocbs[0], error);
			return error;
		}
		request_start(iocbs[taken]);
	}
	return taken;
}

/* ---- io_cancel ---- */

/* The oldest with this address that was not cancelled before; NULL if there is none. */
static struct request *
request_find(const struct iocb *iocb)
{
	struct request *found = NULL;

	for (unsigned i = 0; i < sim.slots; i++) {
		struct request *request = &sim.requests[i];

		if (request->state != REQUEST_FREE && request->user == iocb &&
		    !request->cancelled && (found == NULL || request->age < found->age))
			found = request;
	}
	return found;
}

int
kernel_cancel(io_context_t context, struct iocb *iocb)
{
	const struct sim_fd *fd = fd_find(iocb->aio_fildes);
	struct request *found;

	SIM_CHECK((void *)context == sim.visible);
	time_cost(500);
	kernel_sim_busy();
	sim.counters.cancels++;
	if (kernel_sim_chance(sim.config.manner.cancel_race) && fd != NULL &&
	    (fd->type == FD_POLLABLE || fd->type == FD_WAKEUP))
		kernel_sim_set_ready(iocb->aio_fildes, POLLIN | POLLOUT);
	found = request_find(iocb);
	if (found == NULL) {
		sim.counters.cancels_late++;
		return -EINVAL;
	}
	SIM_CHECK(found->kind != KERNEL_SIM_KIND_DISK);
	found->cancelled = true;
	if (found->state == REQUEST_ARMED)
		poll_to_worker(found);
	return -EINPROGRESS;
}
