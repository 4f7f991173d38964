/* Cores: pinned threads, each with a reactor and a pool of buffers of its own.
 * What belongs to a core is touched on its thread only; other threads send messages to its reactor. */
#ifndef REACTOR_CORE_H
#define REACTOR_CORE_H

#include "reactor/arena.h"
#include "reactor/buffer_pool.h"
#include "reactor/cpu_list.h"
#include "reactor/pipe_pool.h"
#include "reactor/reactor.h"
#include <pthread.h>
#include <semaphore.h>

struct core {
	unsigned index; /* 0 to count - 1 */
	unsigned cpu;
	struct reactor *reactor;
	struct buffer_pool *buffers;
	struct pipe_pool pipes;
	/* Private. */
	struct cores *cores;
	struct arena arena;
	struct reactor_config config;
	size_t buffer_bytes, buffer_bytes_largest;
	pthread_t thread;
	int start_error;
	int schedstat_fd; /* of the thread; -1: there is none */
};

struct cores {
	unsigned count;
	struct core *cores; /* [count] */
	/* Private. */
	sem_t started; /* a core is up, or failed */
};

/* Start one thread per CPU of LIST, pinned there, with a reactor after CONFIG and BUFFER_BYTES of buffers from the CPU's
 * NUMA node, the largest of BUFFER_BYTES_LARGEST bytes.  When this returns 0 every reactor runs.
 * Where malloc is jemalloc's, what a core allocates comes from an arena of its own (reactor/arena.h).
 * CONFIG is copied.  cores_stop ends what this starts.
 * Returns 0, or the first core's negative errno; then nothing runs.  A thread, a CPU or buffers that cannot be had are
 * logged with the core; what reactor_create returns is not, because the caller knows which of its settings to blame.
 * Errors: -EINVAL an argument is NULL, LIST is empty; -ENOMEM, also for no thread; those of
 * reactor_create, buffer_pool_create, pthread_setaffinity_np(3). */
int cores_start(struct cores *cores, const struct cpu_list *list,
		const struct reactor_config *config, size_t buffer_bytes,
		size_t buffer_bytes_largest) MUST_USE;

/* What a core's thread has had of its CPU since it began. */
struct core_times {
	uint64_t ran_ns;
	uint64_t waited_ns; /* for it, while others had it */
};

/* Those of CORE.  On its thread; a system call.  0 where the kernel does not tell (it needs CONFIG_SCHED_INFO).
 * Source: Documentation/scheduler/sched-stats.rst of Linux, /proc/PID/schedstat. */
struct core_times core_times(const struct core *core);

/* Stop the reactors, wait for the threads and free all.  No operation may be in flight; not on a core's thread. */
void cores_stop(struct cores *cores);

#endif
