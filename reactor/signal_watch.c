/* The helper waits until the signalfd is readable, tells the core, and waits for it to say that it has taken all. */
#include "reactor/signal_watch.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define SIGNALS_PER_TURN 16

/* ---- the helper ---- */

/* Returns false when it is time to end. */
static bool
helper_wait(struct signal_watch *watch)
{
	struct pollfd fds[] = {
		{ .fd = watch->fd, .events = POLLIN },
		{ .fd = watch->quit_fd, .events = POLLIN },
	};

	do {
		(void)poll(fds, ARRAY_COUNT(fds), -1);
	} while (fds[0].revents == 0 && fds[1].revents == 0);
	return fds[1].revents == 0;
}

static void *
helper_main(void *argument)
{
	struct signal_watch *watch = argument;

	while (helper_wait(watch)) {
		reactor_send(watch->reactor, &watch->came);
		while (sem_wait(&watch->resume) != 0)
			; /* -EINTR */
	}
	reactor_send(watch->reactor, &watch->ended);
	return NULL;
}

/* ---- the core ---- */

/* One read for each signal: what is not told when the watch is stopped stays pending. */
static void
take(struct signal_watch *watch)
{
	struct signalfd_siginfo info;

	for (unsigned i = 0; i < SIGNALS_PER_TURN; i++) {
		if (read(watch->fd, &info, sizeof(info)) != (ssize_t)sizeof(info)) {
			(void)sem_post(&watch->resume);
			return;
		}
		watch->on_signal(watch, &info);
		if (watch->stopping)
			return;
	}
	reactor_defer(watch->reactor, &watch->more);
}

static void
came_deliver(struct message *message)
{
	struct signal_watch *watch = container_of(message, struct signal_watch, came);

	if (!watch->stopping)
		take(watch);
}

static void
take_more(struct task *task)
{
	take(container_of(task, struct signal_watch, more));
}

static void
ended_deliver(struct message *message)
{
	struct signal_watch *watch = container_of(message, struct signal_watch, ended);

	CHECK(watch->stopping);
	CHECK(pthread_join(watch->helper, NULL) == 0); /* it has nothing left to do */
	(void)sem_destroy(&watch->resume);
	kernel_close(watch->quit_fd);
	kernel_close(watch->fd);
	watch->on_stopped(watch);
}

/* ---- start and stop ---- */

static int
signals_to_set(const int *signals, unsigned count, sigset_t *set)
{
	if (signals == NULL || count == 0 || count > SIGNAL_WATCH_SIGNALS_MAX)
		return -EINVAL;
	sigemptyset(set);
	for (unsigned i = 0; i < count; i++) {
		/* sigaddset knows which numbers are none, or the C library's own. */
		if (signals[i] == SIGKILL || signals[i] == SIGSTOP ||
		    sigaddset(set, signals[i]) != 0)
			return -EINVAL;
	}
	return 0;
}

int
signal_watch_block(const int *signals, unsigned count)
{
	sigset_t set;
	int error = signals_to_set(signals, count, &set);

	return error < 0 ? error : -pthread_sigmask(SIG_BLOCK, &set, NULL);
}

static bool
are_blocked(const int *signals, unsigned count)
{
	sigset_t blocked;

	CHECK(pthread_sigmask(SIG_BLOCK, NULL, &blocked) == 0);
	for (unsigned i = 0; i < count; i++) {
		if (sigismember(&blocked, signals[i]) != 1)
			return false;
	}
	return true;
}

/* The helper runs no handler of the program: it has all signals blocked from its first instruction on. */
static int
helper_start(struct signal_watch *watch)
{
	sigset_t all, before;
	int error;

	sigfillset(&all);
	CHECK(pthread_sigmask(SIG_BLOCK, &all, &before) == 0);
	error = pthread_create(&watch->helper, NULL, helper_main, watch);
	CHECK(pthread_sigmask(SIG_SETMASK, &before, NULL) == 0);
	return -error;
}

int
signal_watch_start(struct signal_watch *watch, struct reactor *reactor, const int *signals,
		   unsigned count,
		   void (*on_signal)(struct signal_watch *watch,
				     const struct signalfd_siginfo *info))
{
	sigset_t set;
	int error;

	if (watch == NULL || reactor == NULL || on_signal == NULL ||
	    signals_to_set(signals, count, &set) != 0 || !are_blocked(signals, count))
		return -EINVAL;
	*watch = (struct signal_watch){
		.on_signal = on_signal,
		.reactor = reactor,
		.came.deliver = came_deliver,
		.ended.deliver = ended_deliver,
	};
	task_init(&watch->more, take_more);
	watch->fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (watch->fd < 0)
		return -errno;
	watch->quit_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	error = -errno;
	if (watch->quit_fd < 0)
		goto err_after_fd;
	CHECK(sem_init(&watch->resume, 0, 0) == 0);
	error = helper_start(watch);
	if (error < 0)
		goto err_after_quit_fd;
	return 0;

err_after_quit_fd:
	(void)sem_destroy(&watch->resume);
	kernel_close(watch->quit_fd);
err_after_fd:
	kernel_close(watch->fd);
	return error;
}

void
signal_watch_stop(struct signal_watch *watch, void (*on_stopped)(struct signal_watch *watch))
{
	CHECK(!watch->stopping);
	watch->stopping = true;
	watch->on_stopped = on_stopped;
	task_cancel(&watch->more);
	/* Whatever the helper waits for, it goes on and finds that it is over; `came` may be under way before `ended`. */
	kernel_wakeup_signal(watch->quit_fd);
	(void)sem_post(&watch->resume);
}
