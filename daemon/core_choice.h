/* Which cores to run on for cores = auto, and where they are. */
#ifndef DAEMON_CORE_CHOICE_H
#define DAEMON_CORE_CHOICE_H

#include "reactor/check.h"
#include "reactor/cpu_list.h"
#include <stdbool.h>
#include <stdio.h>

/* Choose from ALLOWED (the affinity mask): without core 0, or with one of each core's SMT siblings only, where that is asked
 * for; and not more than the CPU quota of the process's cgroup (version 2) pays for: pinned threads beyond it would all be
 * stopped for part of each period.  Then these are FIRST_CPU and those behind it, so that daemons with a quota each do not all
 * choose the same.
 * root: "", or where proc and sys are instead, for tests.
 * Returns how many there are, 0 if none is left; *chosen may be ALLOWED itself.
 * Source: Documentation/admin-guide/cputopology.rst, cgroup-v2.rst (cpu.max). */
unsigned core_choice_make(const char *root, const struct cpu_list *allowed, unsigned first_cpu,
			  bool skip_core_0, bool skip_smt, struct cpu_list *chosen);

/* Write the NUMA nodes of CORES to OUT, a line each, with those of CORES that are in it. */
void core_choice_describe(const char *root, const struct cpu_list *cores, FILE *out);

#endif
