/* Lists of CPUs as people write them: "auto", "3", "0-3,8".  Pure but for cpu_list_auto and cpu_list_allowed. */
#ifndef REACTOR_CPU_LIST_H
#define REACTOR_CPU_LIST_H

#include "reactor/check.h"
#include <stddef.h>

#define CPU_LIST_MAX 256 /* cores one process may run */

struct cpu_list {
	unsigned count;
	unsigned short cpus[CPU_LIST_MAX]; /* ascending, no duplicates */
};

/* Parse TEXT ("0-3,8"; spaces around commas are allowed).
 * Returns 0, or -EINVAL not a list, an inverted range, a CPU twice; -ERANGE a number above 65535, or more than
 * CPU_LIST_MAX CPUs; then *list is unchanged. */
int cpu_list_parse(const char *text, struct cpu_list *list) MUST_USE;

/* The CPUs this process may run on, after its affinity mask (which cpusets are part of), at most CPU_LIST_MAX.
 * Returns 0 or the negative errno of sched_getaffinity(2). */
int cpu_list_auto(struct cpu_list *list) MUST_USE;

/* Those of WANTED that this process may run on, even if it may run on more than CPU_LIST_MAX CPUs.
 * Returns as cpu_list_auto. */
int cpu_list_allowed(const struct cpu_list *wanted, struct cpu_list *allowed) MUST_USE;

/* The first CPU of LIST that is not in ALLOWED, or -1. */
int cpu_list_first_missing(const struct cpu_list *list, const struct cpu_list *allowed);

/* Write LIST as text ("0-3,8") into TEXT of TEXT_BYTES, cut if it does not fit. */
void cpu_list_format(const struct cpu_list *list, char *text, size_t text_bytes);

#endif
