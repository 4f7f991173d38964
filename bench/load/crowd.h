/* Many connections at a time: a server that takes 40 ms for each handshake would take a minute for a thousand, one after the other. */
#ifndef BENCH_LOAD_CROWD_H
#define BENCH_LOAD_CROWD_H

#include "bench/load/target.h"
#include "reactor/check.h"
#include <stdio.h>

/* Make COUNT connections to TARGET, with a few threads if there are many.  Blocks.  They go to SESSIONS[COUNT].
 * Returns 0; or a negative errno: then none is left, and why one of them failed is written to ERRORS. */
int crowd_connect(const struct target *target, unsigned count, struct target_session *sessions,
		  FILE *errors) MUST_USE;

#endif
