/* The simulated kernel's descriptors, and polls of them: what is ready, whom that wakes.  Those that have no more to them, and the
 * wake-ups, are whole here. */
#include "tests/sim/kernel_sim_state.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#define RAW_WAKE_KEY 0xc3 /* what a poll's result may look like */
#define POLL_ALWAYS  (POLLERR | POLLHUP)

/* ---- descriptors ---- */

int
fd_create(enum fd_type type)
{
	for (int i = 0; i < FDS_MAX; i++) {
		if (sim.fds[i].type != FD_FREE)
			continue;
		sim.fds[i] = (struct sim_fd){ .type = type, .generation = ++sim.fd_generation };
		list_init(&sim.fds[i].armed);
		return FD_BASE + i;
	}
	return -EMFILE;
}

struct sim_fd *
fd_find(int fd)
{
	if (fd < FD_BASE || fd >= FD_BASE + FDS_MAX || sim.fds[fd - FD_BASE].type == FD_FREE ||
	    sim.fds[fd - FD_BASE].type == FD_CLOSED)
		return NULL;
	return &sim.fds[fd - FD_BASE];
}

void
fd_pin(struct request *request)
{
	request->fd = fd_find(request->iocb.aio_fildes);
	request->fd->pins++;
}

/* The last use of FD is over. */
static void
fd_free(struct sim_fd *fd)
{
	free(fd->in.bytes);
	free(fd->out.bytes);
	*fd = (struct sim_fd){ .type = FD_FREE };
}

void
fd_unpin(struct request *request)
{
	struct sim_fd *fd = request->fd;

	request->fd = NULL;
	if (fd != NULL && --fd->pins == 0 && fd->type == FD_CLOSED)
		fd_free(fd);
}

/* ---- polls ---- */

unsigned
poll_mask(const struct request *request)
{
	const struct sim_fd *fd = request->fd;

	return (fd->type == FD_EPOLL ? epoll_ready(fd) : fd->ready) &
	       ((unsigned)request->iocb.u.poll.events | POLL_ALWAYS);
}

void
poll_to_worker(struct request *request)
{
	list_remove(&request->node);
	request->state = REQUEST_WAKING;
	request->worker = true;
	time_request_later(request, ITEM_REQUEST, kernel_sim_below(KERNEL_SIM_WORKER_NS));
}

void
poll_enliven(struct sim_fd *fd)
{
	if (!fd->alive || fd->awakening)
		return;
	fd->awakening = true;
	time_push((struct item){
		.due_ns = sim.now_ns + kernel_sim_below(sim.config.manner.poll_ns_max),
		.type = ITEM_READY,
		.index = (unsigned)(fd - sim.fds),
		.generation = fd->generation,
	});
}

void
poll_arm(struct request *request)
{
	request->state = REQUEST_ARMED;
	request->generation++;
	list_append(&request->fd->armed, &request->node);
	poll_enliven(request->fd);
}

void
fd_wake(struct sim_fd *fd, unsigned key)
{
	struct list_node *node, *after;

	list_for_each_safe(node, after, &fd->armed) {
		struct request *request = container_of(node, struct request, node);
		unsigned mask = poll_mask(request);

		if (mask == 0)
			continue;
		if (kernel_sim_below(4) == 0)
			poll_to_worker(request);
		else
			request_complete(request,
					 kernel_sim_below(4) == 0 ? RAW_WAKE_KEY : (long)mask);
	}
	epoll_notice(fd, key);
}

void
poll_finish(struct request *request)
{
	unsigned mask = request->fd->type == FD_CLOSED ? POLLHUP : poll_mask(request);

	if (request->cancelled)
		request_complete(request, 0);
	else if (request->spurious)
		request_complete(request, RAW_WAKE_KEY);
	else if (mask != 0)
		request_complete(request, (long)mask);
	else
		poll_arm(request); /* it was drained before the worker looked */
}

/* ---- what can be polled and no more ---- */

int
kernel_sim_pollable(bool alive)
{
	int fd = fd_create(FD_POLLABLE);

	if (fd >= 0)
		fd_find(fd)->alive = alive;
	return fd;
}

void
kernel_sim_set_ready(int fd, unsigned events)
{
	struct sim_fd *found = fd_find(fd);

	SIM_CHECK(found != NULL && (found->type == FD_POLLABLE || found->type == FD_WAKEUP));
	found->ready = events;
	fd_wake(found, events);
}

unsigned
kernel_sim_ready(int fd)
{
	return fd_find(fd)->ready;
}

/* ---- kernel.h ---- */

void
kernel_close(int fd)
{
	struct sim_fd *found = fd_find(fd);

	/* An armed poll would go on for ever. */
	SIM_CHECK(found != NULL && list_empty(&found->armed));
	epoll_forget(found);
	found->type = FD_CLOSED;
	if (found->pins == 0)
		fd_free(found);
}

int
kernel_wakeup_create(void)
{
	return fd_create(FD_WAKEUP);
}

void
kernel_wakeup_signal(int fd)
{
	time_cost(300);
	sim.counters.wakeups++;
	kernel_sim_set_ready(fd, POLLIN);
}

void
kernel_wakeup_clear(int fd)
{
	time_cost(100);
	kernel_sim_busy();
	sim.counters.cleared++;
	kernel_sim_set_ready(fd, 0);
}
