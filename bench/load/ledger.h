/* What was written to each block of an export, and what a reader may find there.  Kept in memory; saved to a file and read again, so that a
 * later run can check what an earlier one left, whatever happened to the server in between. */
#ifndef BENCH_LOAD_LEDGER_H
#define BENCH_LOAD_LEDGER_H

#include "reactor/check.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Generations of one block's writes; 0: none. */
struct ledger_block {
	uint32_t issued;       /* sent, the last of them perhaps not answered */
	uint32_t acknowledged; /* answered */
	uint32_t durable;      /* answered, and covered by a flush since */
};

struct ledger {
	uint64_t run; /* tells its stamps from other runs' */
	uint64_t region_start;
	uint64_t block_count;
	uint32_t block_bytes;
	struct ledger_block *blocks; /* [block_count]; owned */
};

/* Begin one, with nothing written.  Returns 0 or -ENOMEM, also for more than 2^30 blocks. */
int ledger_init(struct ledger *ledger, uint64_t run, uint64_t region_start, uint64_t block_count,
		uint32_t block_bytes) MUST_USE;
void ledger_fini(struct ledger *ledger);

/* All that was acknowledged is durable now. */
void ledger_flushed(struct ledger *ledger);

/* Find out whether ledger_save could write to PATH, and leave no trace.  Returns 0 or a negative errno, said on ERRORS. */
int ledger_check_path(const char *path, FILE *errors) MUST_USE;

/* Write LEDGER to the file at PATH, which is replaced only when all is written.  Returns 0 or a negative errno, said on ERRORS. */
int ledger_save(const struct ledger *ledger, const char *path, FILE *errors) MUST_USE;

/* Read what ledger_save wrote; then ledger_fini must be called.  Blocks count as acknowledged as far as they are durable: the server may have
 * been restarted.  Returns 0 or a negative errno, said on ERRORS. */
int ledger_load(struct ledger *ledger, const char *path, FILE *errors) MUST_USE;

#endif
