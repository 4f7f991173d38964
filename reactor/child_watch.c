/* pidfd_open, poll, waitid.  The system calls are made by number: C libraries have pidfd_open only since lately, and
 * none has the kernel's waitid, which tells the resource usage too. */
#include "reactor/child_watch.h"

#include <errno.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* A debugger that traces the child is told first: until it has taken notice there is nothing to wait for, though the pidfd is readable. */
#define TRACED_NS ((uint64_t)10 * 1000000)

#ifndef P_PIDFD
#define P_PIDFD 3
#endif

/* Returns 0, with info->si_pid 0 if the child has not ended; or -ECHILD. */
static int
wait_for(int fd, int options, siginfo_t *info, struct rusage *usage)
{
	*info = (siginfo_t){ 0 };
	return syscall(SYS_waitid, P_PIDFD, fd, info, WEXITED | WNOHANG | options, usage) < 0
		       ? -errno
		       : 0;
}

static void
arm(struct child_watch *watch)
{
	op_poll(&watch->poll, watch->fd, POLLIN);
	reactor_start_always(watch->reactor, &watch->poll);
}

static void
finish_stop(struct child_watch *watch)
{
	kernel_close(watch->fd);
	watch->on_stopped(watch);
}

static void
look_again(struct timer *timer)
{
	struct child_watch *watch = container_of(timer, struct child_watch, traced);

	if (watch->stopping)
		finish_stop(watch);
	else
		arm(watch);
}

static void
child_end_set(struct child_end *end, int error, const siginfo_t *info)
{
	if (error < 0) {
		*end = (struct child_end){ .kind = CHILD_END_UNKNOWN };
		return;
	}
	end->kind = info->si_code == CLD_EXITED ? CHILD_END_EXITED : CHILD_END_KILLED;
	end->code = info->si_status;
	end->core_dumped = info->si_code == CLD_DUMPED;
}

static void
poll_done(struct op *op, long result)
{
	struct child_watch *watch = container_of(op, struct child_watch, poll);
	struct child_end end = { 0 };
	siginfo_t info;
	int error;

	(void)result;
	if (watch->stopping) {
		finish_stop(watch);
		return;
	}
	error = wait_for(watch->fd, 0, &info, &end.usage);
	if (error == 0 && info.si_pid == 0) {
		reactor_timer_start(watch->reactor, &watch->traced, TRACED_NS);
		return;
	}
	kernel_close(watch->fd);
	child_end_set(&end, error, &info);
	watch->on_exit(watch, &end);
}

/* Returns a pidfd of PID, which is a child of this process, or a negative errno. */
static int
open_child(pid_t pid)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	siginfo_t info;
	int error;

	if (fd < 0)
		return errno == ENOENT ? -EINVAL : -errno; /* ENOENT: a thread, since Linux 6.15 */
	error = wait_for(fd, WNOWAIT, &info, NULL);
	if (error < 0) {
		kernel_close(fd);
		return error;
	}
	return fd;
}

int
child_watch_start(struct child_watch *watch, struct reactor *reactor, pid_t pid,
		  void (*on_exit)(struct child_watch *watch, const struct child_end *end))
{
	int fd;

	if (watch == NULL || reactor == NULL || on_exit == NULL || pid <= 0)
		return -EINVAL;
	fd = open_child(pid);
	if (fd < 0)
		return fd;
	*watch = (struct child_watch){
		.on_exit = on_exit, .pid = pid, .reactor = reactor, .fd = fd
	};
	op_init(&watch->poll, poll_done);
	timer_init(&watch->traced, look_again);
	arm(watch);
	return 0;
}

void
child_watch_stop(struct child_watch *watch, void (*on_stopped)(struct child_watch *watch))
{
	CHECK(!watch->stopping);
	watch->stopping = true;
	watch->on_stopped = on_stopped;
	if (op_idle(&watch->poll))
		reactor_timer_start(watch->reactor, &watch->traced, 0);
	else
		reactor_cancel_poll(watch->reactor, &watch->poll);
}
