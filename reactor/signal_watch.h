/* Signals as events: a signalfd, read on the reactor's core when a helper thread has seen that it is readable.
 *
 * Why not a poll of it on the ring: a signalfd shows the pending signals of whoever looks, and a poll of the ring that
 * is woken has a kernel worker look, who has none.  The poll then waits on, and the signal, pending, is never announced
 * again.  (Linux 6.18: a poll armed before the signal never ended; through an epoll set, whose wake-ups carry their
 * event, one in 500 was lost on a busy ring, for good.)  The helper's wait has no such hole; it comes to the ring as a
 * message.  A watch takes no poll slot.
 *
 * Functions are for the reactor's thread only, but for signal_watch_block. */
#ifndef REACTOR_SIGNAL_WATCH_H
#define REACTOR_SIGNAL_WATCH_H

#include "reactor/reactor.h"
#include <pthread.h>
#include <semaphore.h>
#include <sys/signalfd.h>

#define SIGNAL_WATCH_SIGNALS_MAX 64

/* Embedded by its owner, who gets it back with on_stopped. */
struct signal_watch {
	/* A signal came; info->ssi_signo says which, ssi_pid who sent it.  Once for each, save that a signal below
	 * SIGRTMIN that is sent again while it is pending is one with it (signal(7)).  On the reactor's core, never
	 * from within a call of this file. */
	void (*on_signal)(struct signal_watch *watch, const struct signalfd_siginfo *info);
	/* Private.  The helper uses the descriptors, `resume` and the messages; all else is the core's. */
	void (*on_stopped)(struct signal_watch *watch);
	struct reactor *reactor;
	int fd;	     /* the signalfd */
	int quit_fd; /* an eventfd: ends the helper's wait */
	sem_t resume;
	bool stopping;
	pthread_t helper;
	struct message came; /* by the helper: signals are pending; it waits for `resume` then */
	struct message ended;
	struct task more;
};

/* Block SIGNALS (COUNT of them, as for signal_watch_start) in the calling thread and the threads that it starts later:
 * one call at the beginning of main does for all.  Programs that the process starts inherit it too: unblock them before
 * execve(2).  Any thread.
 * Returns 0, or -EINVAL, as signal_watch_start; then nothing is blocked. */
int signal_watch_block(const int *signals, unsigned count) MUST_USE;

/* Watch SIGNALS, COUNT of them (1 to SIGNAL_WATCH_SIGNALS_MAX), sent to the process; one that is pending already is told
 * soon.  They must be blocked in every thread of the process: in one that does not, they take their usual effect.
 * Signals sent to one thread (pthread_kill, faults) are not seen.  A signal should be in one watch of the process only;
 * in several, one of them gets it.  Takes a thread and two descriptors.
 * WATCH is the reactor's until on_stopped.
 * Returns 0, or a negative errno; then WATCH is undefined and nothing of it remains.
 * Errors: -EINVAL an argument is NULL, COUNT is out of bounds, a number is no signal or one that can't be blocked
 * (SIGKILL, SIGSTOP), or not blocked in the calling thread; -EMFILE, -ENFILE, -ENOMEM; -EAGAIN no thread.
 * Source: signalfd(2). */
int signal_watch_start(struct signal_watch *watch, struct reactor *reactor, const int *signals,
		       unsigned count,
		       void (*on_signal)(struct signal_watch *watch,
					 const struct signalfd_siginfo *info)) MUST_USE;

/* Watch no more: on_signal is not called from now on; on_stopped is, in a later turn, when the helper has ended and the
 * descriptors are closed.  Signals that were not told stay pending, those of the watch stay blocked. */
void signal_watch_stop(struct signal_watch *watch, void (*on_stopped)(struct signal_watch *watch));

#endif
