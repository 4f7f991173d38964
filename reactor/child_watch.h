/* The end of a child process as an event: its pidfd, polled on the reactor's ring, then waitid.
 *
 * The watch waits for its child in place of the program: nobody else may wait for it, and SIGCHLD must not be ignored
 * (else how it ended is not known).  SIGCHLD need be neither blocked nor handled.
 * All functions are for the reactor's thread only.  Linux 5.4. */
#ifndef REACTOR_CHILD_WATCH_H
#define REACTOR_CHILD_WATCH_H

#include "reactor/reactor.h"
#include <sys/resource.h>
#include <sys/types.h>

enum child_end_kind {
	CHILD_END_EXITED,  /* code: the exit status, 0 to 255 */
	CHILD_END_KILLED,  /* code: the signal */
	CHILD_END_UNKNOWN, /* somebody else waited for it, or SIGCHLD is ignored; code: 0 */
};

struct child_end {
	enum child_end_kind kind;
	int code;
	bool core_dumped;
	/* Of the child and of its children that it waited for; zeros if unknown. */
	struct rusage usage;
};

/* Embedded by its owner, who gets it back with on_exit or on_stopped. */
struct child_watch {
	/* The child has ended and is waited for; its pid may be another's from now on.  Called once, on the
	 * reactor's core, never from within child_watch_start.  The watch is over: it may be started again, or freed. */
	void (*on_exit)(struct child_watch *watch, const struct child_end *end);
	pid_t pid; /* to be read only */
	/* Private. */
	void (*on_stopped)(struct child_watch *watch);
	struct reactor *reactor;
	struct op poll;
	struct timer traced; /* until the next look at a child that a debugger has not let go */
	int fd;		     /* the pidfd */
	bool stopping;
};

/* Watch PID, a child of this process that nobody has waited for; one that has ended already is reported soon.
 * Takes one descriptor, and one poll slot until the child ends.  WATCH is the reactor's until on_exit or on_stopped.
 * Returns 0, or a negative errno; then WATCH is unchanged and the child is still to be waited for.
 * Errors: -EINVAL an argument is NULL, PID is not positive or is a thread; -ESRCH there is no such process;
 * -ECHILD it is no child of this process; -EMFILE, -ENFILE, -ENOMEM; -ENOSYS the kernel is older.
 * Source: pidfd_open(2), waitid(2). */
int child_watch_start(struct child_watch *watch, struct reactor *reactor, pid_t pid,
		      void (*on_exit)(struct child_watch *watch,
				      const struct child_end *end)) MUST_USE;

/* Watch no more: on_exit is not called, on_stopped is, in a later turn, when the kernel has given the poll back and the
 * pidfd is closed.  The child goes on, and it is the caller's to wait for it.  Not after on_exit. */
void child_watch_stop(struct child_watch *watch, void (*on_stopped)(struct child_watch *watch));

#endif
