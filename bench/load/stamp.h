/* Sectors that say what they are: where they belong, which write they are of, and a checksum; so that what is read back shows not only that
 * it is wrong, but how.  Each sector of a block has a stamp, so that a torn write is seen as one. */
#ifndef BENCH_LOAD_STAMP_H
#define BENCH_LOAD_STAMP_H

#include "reactor/check.h"
#include <stdint.h>

#define STAMP_SECTOR_BYTES 512u

enum stamp_finding {
	STAMP_RIGHT,
	STAMP_LOST,	 /* not written at all: zeros, or what was there before */
	STAMP_STALE,	 /* of an earlier write than the last that was acknowledged */
	STAMP_TORN,	 /* sectors of different writes, not all of which may be there */
	STAMP_MISPLACED, /* belongs elsewhere */
	STAMP_CORRUPT,	 /* the checksum is wrong */
	STAMP_FOREIGN,	 /* a write that was never made */
	STAMP_FINDING_COUNT,
};

const char *stamp_finding_name(enum stamp_finding finding);

/* Fill BYTES (a multiple of the sector) at BLOCK with write GENERATION (1 and more) of RUN to OFFSET. */
void stamp_fill(uint8_t *block, uint32_t bytes, uint64_t run, uint64_t offset, uint64_t generation);

/* What is wrong with BYTES at BLOCK, which were read at OFFSET?  Right is any write of RUN from GENERATION_MIN to GENERATION_MAX, or sectors of
 * several of these: nobody has promised that a write is there as a whole before it was answered, and flushed.  GENERATION_MIN 0: or
 * none at all.  *generation: which one, of several the first, if it is right. */
enum stamp_finding stamp_check(const uint8_t *block, uint32_t bytes, uint64_t run, uint64_t offset,
			       uint64_t generation_min, uint64_t generation_max,
			       uint64_t *generation);

#endif
