/* Many connections at a time: a server that takes 40 ms for each handshake would take a minute for a thousand, one after the other. */
#ifndef BENCH_LOAD_CROWD_H
#define BENCH_LOAD_CROWD_H

#include "bench/load/target.h"
#include "reactor/check.h"
#include "reactor/cpu_list.h"
#include <stdio.h>

/* Make COUNT connections to TARGET, with a few threads if there are many.  Blocks.  They go to SESSIONS[COUNT].  Each is made on the CPU
 * that will use it, of CPUS the first COUNT / CPUS->count on the first, and so on: a server may choose its core for a connection by
 * where the first packets come from.
 * Returns 0; or a negative errno: then none is left, and why one of them failed is written to ERRORS. */
int crowd_connect(const struct target *target, unsigned count, const struct cpu_list *cpus,
		  struct target_session *sessions, FILE *errors) MUST_USE;

#endif
