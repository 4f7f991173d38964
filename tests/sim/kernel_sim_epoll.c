/* The simulated kernel's epoll sets, which are descriptors themselves and can be polled.
 *
 * A watch is in its set's ready list from the moment when something came that it is for until it was looked at; only what is still
 * ready then is reported.  A level-triggered one goes back to the end of the list, an edge-triggered one waits for the next thing to
 * come, and one that is for once is disarmed, to errors and the end too.
 * Source of the behaviour: Linux fs/eventpoll.c. */
#include "tests/sim/kernel_sim_state.h"

#include <errno.h>
#include <poll.h>
#include <sys/epoll.h>

#define HOW (EPOLLET | EPOLLONESHOT) /* how to report, not what */

static struct sim_watch *
watch_find(const struct sim_fd *set, const struct sim_fd *fd)
{
	for (unsigned i = 0; i < WATCHES_MAX; i++) {
		if (sim.watches[i].set == set && sim.watches[i].fd == fd)
			return &sim.watches[i];
	}
	return NULL;
}

/* What WATCH is ready for and was asked to report. */
static unsigned
watch_mask(const struct sim_watch *watch)
{
	return watch->fd->ready & watch->events & ~(unsigned)HOW;
}

/* WATCH is to be looked at: whoever polls the set knows. */
static void
watch_list(struct sim_watch *watch)
{
	if (list_empty(&watch->listed))
		list_append(&watch->set->listed, &watch->listed);
	fd_wake(watch->set, POLLIN);
}

static void
watch_arm(struct sim_watch *watch, unsigned events, void *user)
{
	watch->events = events | EPOLLERR | EPOLLHUP;
	watch->user = user;
	if (watch_mask(watch) != 0)
		watch_list(watch);
	poll_enliven(watch->fd);
}

static void
watch_remove(struct sim_watch *watch)
{
	list_remove(&watch->listed);
	watch->set = watch->fd = NULL;
}

void
epoll_notice(struct sim_fd *fd, unsigned key)
{
	for (unsigned i = 0; i < WATCHES_MAX; i++) {
		struct sim_watch *watch = &sim.watches[i];

		if (watch->fd == fd && (watch->events & ~(unsigned)HOW) != 0 &&
		    (key == 0 || (key & watch->events) != 0))
			watch_list(watch);
	}
}

unsigned
epoll_ready(const struct sim_fd *set)
{
	const struct list_node *node;

	list_for_each(node, &set->listed) {
		if (watch_mask(container_of(node, struct sim_watch, listed)) != 0)
			return POLLIN;
	}
	return 0;
}

void
epoll_forget(const struct sim_fd *fd)
{
	for (unsigned i = 0; i < WATCHES_MAX; i++) {
		if (sim.watches[i].fd == fd || sim.watches[i].set == fd)
			watch_remove(&sim.watches[i]);
	}
}

/* ---- kernel.h ---- */

int
kernel_epoll_create(void)
{
	int number = fd_create(FD_EPOLL);

	if (number >= 0)
		list_init(&fd_find(number)->listed);
	return number;
}

/* The set and the descriptor of a call, which costs NS.  Returns 0 or an error. */
static int
epoll_call(uint64_t ns, int set_number, int number, struct sim_fd **set, struct sim_fd **fd)
{
	time_cost(ns);
	kernel_sim_busy();
	*set = fd_find(set_number);
	*fd = fd_find(number);
	SIM_CHECK(*set != NULL && (*set)->type == FD_EPOLL && *fd != *set);
	return *fd == NULL ? -EBADF : 0;
}

int
kernel_epoll_add(int epoll_fd, int number, unsigned events, void *user)
{
	struct sim_fd *set, *fd;
	struct sim_watch *watch = sim.watches;
	int error = epoll_call(600, epoll_fd, number, &set, &fd);

	if (error < 0)
		return error;
	if (fd->type == FD_FILE)
		return -EPERM;
	if (watch_find(set, fd) != NULL)
		return -EEXIST;
	if (kernel_sim_chance(sim.config.manner.refused))
		return kernel_sim_chance(KERNEL_SIM_ALWAYS / 2) ? -ENOSPC : -ENOMEM;
	while (watch < sim.watches + WATCHES_MAX && watch->set != NULL)
		watch++;
	if (watch == sim.watches + WATCHES_MAX)
		return -ENOSPC;
	*watch = (struct sim_watch){ .set = set, .fd = fd };
	list_init(&watch->listed);
	watch_arm(watch, events, user);
	return 0;
}

int
kernel_epoll_rearm(int epoll_fd, int number, unsigned events, void *user)
{
	struct sim_fd *set, *fd;
	struct sim_watch *watch;
	int error = epoll_call(300, epoll_fd, number, &set, &fd);

	watch = error < 0 ? NULL : watch_find(set, fd);
	if (watch == NULL)
		return error < 0 ? error : -ENOENT;
	watch_arm(watch, events, user);
	return 0;
}

int
kernel_epoll_remove(int epoll_fd, int number)
{
	struct sim_fd *set, *fd;
	struct sim_watch *watch;
	int error = epoll_call(500, epoll_fd, number, &set, &fd);

	watch = error < 0 ? NULL : watch_find(set, fd);
	if (watch == NULL)
		return error < 0 ? error : -ENOENT;
	watch_remove(watch);
	return 0;
}

/* Report WATCH, which was taken from the list, if it is still ready.  Returns whether it is. */
static bool
watch_report(struct sim_watch *watch, struct epoll_event *event)
{
	unsigned mask = watch_mask(watch);

	if (mask == 0)
		return false;
	*event = (struct epoll_event){ .events = mask, .data.ptr = watch->user };
	if ((watch->events & EPOLLONESHOT) != 0)
		watch->events &= HOW;
	else if ((watch->events & EPOLLET) == 0)
		list_append(&watch->set->listed, &watch->listed);
	return true;
}

int
kernel_epoll_wait(int epoll_fd, struct epoll_event *events, unsigned count_max)
{
	struct sim_fd *set = fd_find(epoll_fd);
	struct list_node now, *node;
	unsigned count = 0;

	SIM_CHECK(set != NULL && set->type == FD_EPOLL && count_max > 0);
	time_cost(150);
	sim.counters.epoll_waits++;
	if (kernel_sim_chance(sim.config.manner.interrupted))
		return -EINTR;
	/* The rest comes only now. */
	if (kernel_sim_chance(sim.config.manner.short_result))
		count_max = 1 + (unsigned)kernel_sim_below(count_max);
	list_init(&now);
	list_move_all(&now, &set->listed);
	while (count < count_max && (node = list_take_first(&now)) != NULL)
		count += watch_report(container_of(node, struct sim_watch, listed), &events[count]);
	/* What was not looked at stays in front of what is ready still. */
	list_move_all(&now, &set->listed);
	list_move_all(&set->listed, &now);
	if (count > 0)
		kernel_sim_busy();
	sim.counters.epoll_reports += count;
	return (int)count;
}
