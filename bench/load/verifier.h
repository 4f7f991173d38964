/* One pass over an export, over several connections: of writes and reads at random, or of reads of all that a ledger knows; each read is
 * checked against the ledger. */
#ifndef BENCH_LOAD_VERIFIER_H
#define BENCH_LOAD_VERIFIER_H

#include "bench/load/ledger.h"
#include "bench/load/load.h"
#include "bench/load/stamp.h"
#include "reactor/check.h"

enum verifier_pass {
	/* For the load's time: writes, and reads of what is not being written; each connection flushes
	 * now and then, and at the end. */
	VERIFIER_PASS_WRITE,
	VERIFIER_PASS_READ, /* each block of the ledger, once */
};

#define VERIFIER_TEXTS_MAX  10u
#define VERIFIER_TEXT_BYTES 320u

/* Adds up over passes; zero it first. */
struct verifier_report {
	uint64_t written, read;			/* blocks */
	uint64_t findings[STAMP_FINDING_COUNT]; /* STAMP_RIGHT: those without */
	uint64_t errors;			/* replies with an error */
	unsigned text_count;
	char texts[VERIFIER_TEXTS_MAX][VERIFIER_TEXT_BYTES]; /* the first ones, in words */
	bool failed; /* the connection, or the server: `why` */
	char why[160];
};

/* Make a pass.  OPTIONS: target, connections, depth, duration, silence, seed, the first of the cores.  Blocks.
 * A failed server, or SIGINT, is told in *report; the ledger is right in any case.
 * Returns 0, or a negative errno if the pass could not begin, said on ERRORS. */
int verifier_run(const struct load_options *options, enum verifier_pass pass, struct ledger *ledger,
		 struct verifier_report *report, FILE *errors) MUST_USE;

#endif
