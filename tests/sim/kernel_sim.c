/* The simulated kernel: its beginning and end, chance, and what it tells of itself.  What it does is in the files that
 * kernel_sim_state.h names. */
#include "tests/sim/kernel_sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/sim/kernel_sim_state.h"

struct kernel_sim_state sim;

/* ---- failing and chance ---- */

void
kernel_sim_fail(const char *format, ...)
{
	va_list arguments;

	fprintf(stderr,
		"SEED=%llu failed at step %llu, %llu ns: ", (unsigned long long)sim.config.seed,
		(unsigned long long)sim.steps, (unsigned long long)(sim.now_ns - START_NS));
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	abort();
}

/* splitmix64. */
uint64_t
kernel_sim_random(void)
{
	uint64_t z = sim.random += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

uint64_t
kernel_sim_below(uint64_t bound)
{
	return bound == 0 ? 0 : (kernel_sim_random() >> 8) % bound;
}

bool
kernel_sim_chance(unsigned of_65536)
{
	return of_65536 > 0 && kernel_sim_below(KERNEL_SIM_ALWAYS) < of_65536;
}

/* ---- the simulation's own interface ---- */

void
kernel_sim_begin(const struct kernel_sim_config *config, const struct kernel_sim_observer *observer)
{
	memset(&sim, 0, sizeof(sim));
	sim.config = *config;
	sim.observer = observer;
	sim.random = config->seed;
	sim.now_ns = START_NS;
	list_init(&sim.workers);
}

void
kernel_sim_end(void)
{
	SIM_CHECK(sim.ring == NULL);
	for (unsigned i = 0; i < FDS_MAX; i++) {
		SIM_CHECK(sim.fds[i].type != FD_WAKEUP);
		SIM_CHECK(sim.fds[i].type != FD_EPOLL && sim.fds[i].type != FD_CLOSED);
		free(sim.fds[i].in.bytes);
		free(sim.fds[i].out.bytes);
	}
	free(sim.heap);
	sim.heap = NULL;
	sim.heap_count = sim.heap_room = 0;
}

void
kernel_sim_set_manner(const struct kernel_sim_manner *manner)
{
	sim.config.manner = *manner;
	sim.doomed = NULL; /* chosen by the manner that was */
}

uint64_t
kernel_sim_trace(void)
{
	return sim.trace;
}

const struct kernel_sim_counters *
kernel_sim_counters(void)
{
	return &sim.counters;
}
