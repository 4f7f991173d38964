/* Starting and stopping the pinned threads. */
#include "reactor/core.h"

#include <errno.h>
#include <fcntl.h>
#include <numa.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "reactor/log.h"

/* Put the calling thread on CPU and name it. */
static int
thread_place(unsigned cpu)
{
	cpu_set_t *set = CPU_ALLOC(cpu + 1);
	size_t set_bytes = CPU_ALLOC_SIZE(cpu + 1);
	char name[16];
	int error;

	if (set == NULL)
		return -ENOMEM;
	CPU_ZERO_S(set_bytes, set);
	CPU_SET_S(cpu, set_bytes, set);
	error = -pthread_setaffinity_np(pthread_self(), set_bytes, set);
	CPU_FREE(set);
	if (error != 0)
		return error;
	(void)snprintf(name, sizeof(name), "core-%u", cpu);
	(void)pthread_setname_np(pthread_self(), name);
	/* The default of 50 us makes every short timeout late by as much. */
	(void)prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
	return 0;
}

/* An arena is a wish: without one the core shares its memory's locks with others, which is slower, not wrong. */
static void
core_enter_arena(struct core *core, int node)
{
	int error = arena_enter(&core->arena, node);

	if (error < 0 && error != -ENOTSUP)
		log_warning("core %u: no memory arena of its own: %s", core->cpu, strerror(-error));
}

struct core_times
core_times(const struct core *core)
{
	unsigned long long ran_ns, waited_ns;
	char text[64];
	ssize_t bytes;

	if (core->schedstat_fd < 0)
		return (struct core_times){ .ran_ns = 0 };
	bytes = pread(core->schedstat_fd, text, sizeof(text) - 1, 0);
	text[bytes > 0 ? bytes : 0] = '\0';
	if (sscanf(text, "%llu %llu", &ran_ns, &waited_ns) != 2)
		return (struct core_times){ .ran_ns = 0 };
	return (struct core_times){ ran_ns, waited_ns };
}

/* Make what the core owns, on its own thread, so that its memory comes from its own node. */
static int
core_init(struct core *core)
{
	int node = numa_available() < 0 ? -1 : numa_node_of_cpu((int)core->cpu);
	int error = thread_place(core->cpu);

	if (error < 0) {
		log_error("core %u: cannot run a thread on it: %s", core->cpu, strerror(-error));
		return error;
	}
	core_enter_arena(core, node);
	error = buffer_pool_create(core->buffer_bytes, core->buffer_bytes_largest, node,
				   &core->buffers);
	if (error < 0) {
		log_error(
			"core %u: cannot reserve %zu MiB of buffer memory: %s; lower buffer-memory",
			core->cpu, core->buffer_bytes >> 20, strerror(-error));
		return error;
	}
	error = reactor_create(&core->config, &core->reactor);
	if (error < 0)
		buffer_pool_destroy(core->buffers);
	return error;
}

static void *
core_main(void *argument)
{
	struct core *core = argument;

	log_set_core(core->cpu);
	core->schedstat_fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
	core->start_error = core_init(core);
	sem_post(&core->cores->started);
	if (core->start_error == 0)
		reactor_run(core->reactor);
	arena_leave(&core->arena);
	if (core->schedstat_fd >= 0)
		(void)close(core->schedstat_fd);
	return NULL;
}

/* Start one core and wait until it runs. */
static int
core_start(struct core *core)
{
	int error = -pthread_create(&core->thread, NULL, core_main, core);

	if (error < 0) {
		log_error("core %u: cannot start a thread: %s", core->cpu, strerror(-error));
		return -ENOMEM; /* not -EAGAIN, which is about fs.aio-max-nr */
	}
	while (sem_wait(&core->cores->started) != 0)
		;
	if (core->start_error < 0)
		pthread_join(core->thread, NULL);
	return core->start_error;
}

int
cores_start(struct cores *cores, const struct cpu_list *list, const struct reactor_config *config,
	    size_t buffer_bytes, size_t buffer_bytes_largest)
{
	if (cores == NULL || list == NULL || config == NULL || list->count == 0)
		return -EINVAL;
	cores->count = 0;
	cores->cores = calloc(list->count, sizeof(cores->cores[0]));
	if (cores->cores == NULL)
		return -ENOMEM;
	sem_init(&cores->started, 0, 0);
	for (unsigned i = 0; i < list->count; i++) {
		struct core *core = &cores->cores[i];
		int error;

		*core = (struct core){
			.index = i,
			.cpu = list->cpus[i],
			.cores = cores,
			.config = *config,
			.buffer_bytes = buffer_bytes,
			.buffer_bytes_largest = buffer_bytes_largest,
		};
		pipe_pool_init(&core->pipes);
		error = core_start(core);
		if (error < 0) {
			cores_stop(cores);
			return error;
		}
		cores->count++;
	}
	return 0;
}

void
cores_stop(struct cores *cores)
{
	if (cores->cores == NULL)
		return;
	for (unsigned i = 0; i < cores->count; i++)
		reactor_stop(cores->cores[i].reactor);
	for (unsigned i = 0; i < cores->count; i++)
		pthread_join(cores->cores[i].thread, NULL);
	/* Only now: until the last one stopped, they sent messages to each other. */
	for (unsigned i = 0; i < cores->count; i++) {
		reactor_destroy(cores->cores[i].reactor);
		buffer_pool_destroy(cores->cores[i].buffers);
		pipe_pool_fini(&cores->cores[i].pipes);
	}
	sem_destroy(&cores->started);
	free(cores->cores);
	cores->cores = NULL;
	cores->count = 0;
}
