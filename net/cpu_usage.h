/* How busy the CPUs of the cores are, with whatever runs there: the daemon, its clients, the kernel.
 * All cores ask; one of them reads what the kernel has counted, now and then, for all. */
#ifndef NET_CPU_USAGE_H
#define NET_CPU_USAGE_H

#include "reactor/core.h"
#include <stdbool.h>
#include <stdint.h>

/* Parts of a CPU's time are told in thousandths. */
#define CPU_USAGE_WHOLE 1000

struct cpu_usage_core;

struct cpu_usage {
	/* Private. */
	const struct cores *cores;
	struct cpu_usage_core *per_core;
	int fd; /* -1: the kernel does not tell */
	/* Atomic. */
	uint64_t known_ns;  /* when the figures were read; 0: there are none */
	uint64_t next_ns;   /* when to read again */
	bool reading;	    /* one core does */
	uint64_t looked_ns; /* of the core that reads: when it did last */
};

/* Begin to watch the CPUs of CORES, which must outlive USAGE.  PATH: /proc/stat; where there is none, nothing is ever known.
 * Returns 0 or -ENOMEM; then USAGE is not usable.  Source: proc_stat(5). */
int cpu_usage_init(struct cpu_usage *usage, const struct cores *cores, const char *path) MUST_USE;

/* No core uses USAGE any more. */
void cpu_usage_fini(struct cpu_usage *usage);

/* Read again, if it is time to; NOW_NS is that of kernel_clock_ns.  Any core.  Takes microseconds four times a second on a small machine, and
 * less than a hundredth of one core's time on any. */
void cpu_usage_look(struct cpu_usage *usage, uint64_t now_ns);

/* *IDLE is the part of the time between the last two readings in which the CPU of the core at INDEX had nothing to do.  Spinning is
 * something: it may be a client's.
 * Returns false if that is not known, or was too long ago.  Any core. */
bool cpu_usage_idle(const struct cpu_usage *usage, unsigned index, uint64_t now_ns, unsigned *idle);

/* *LEFT is that part, less what was claimed of it; negative: more than there was. */
bool cpu_usage_left(const struct cpu_usage *usage, unsigned index, uint64_t now_ns, int *left);

/* Work that takes SHARE of the CPU of the core at INDEX is about to come there, or to leave if it is negative: it is counted
 * until both have been read again.  Any core. */
void cpu_usage_claim(struct cpu_usage *usage, unsigned index, int share);

#endif
