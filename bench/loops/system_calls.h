/* Counts the system calls of another process, through perf's tracepoint. */
#ifndef BENCH_LOOPS_SYSTEM_CALLS_H
#define BENCH_LOOPS_SYSTEM_CALLS_H

#include <stdint.h>
#include <sys/types.h>

#define TRACED_THREADS_MAX 64

struct system_calls {
	/* Private. */
	int fds[TRACED_THREADS_MAX];
	unsigned thread_count;
};

/* Count from now on, in all threads that PID has now.  It slows each call down by some 0.1 us.
 * Returns 0, or a negative errno.
 * Errors: -ENOENT no tracefs in sight; -EACCES, -EPERM not allowed to.  Source: perf_event_open(2). */
int system_calls_start(struct system_calls *calls, pid_t pid);

/* How many there were so far. */
uint64_t system_calls_count(const struct system_calls *calls);

#endif
