/* What a disk with a volatile cache may hold after its power was cut: for each sector of 512 bytes the last durable content, or any
 * that was written since, or is on its way; each sector on its own, so that writes are torn and reordered as much as they can be.
 *
 * A write that was answered is in the cache; a sync makes durable what was answered before it was asked for; a durable write itself.  A
 * sync that fails, or a durable write, may have dropped from the cache what it was to make durable, for good, though it is still read:
 * as Linux does.  One disk at a time. */
#ifndef TESTS_SIM_POWER_MODEL_H
#define TESTS_SIM_POWER_MODEL_H

#include <libaio.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define POWER_SECTOR_BYTES 512u

/* A mistake of the disk's, for the test of the test. */
enum power_lie {
	POWER_LIE_NONE,
	POWER_LIE_SYNC,	   /* syncs do nothing */
	POWER_LIE_DURABLE, /* durable writes are not */
	POWER_LIE_ERROR,   /* a sync that fails says that it has succeeded */
	POWER_LIE_COUNT,
};

/* Begin with SECTOR_COUNT sectors that hold CONTENTS, durably; the caller's, who changes it as the disk is read and written. */
void power_begin(const uint8_t *contents, size_t sector_count, enum power_lie lie);
void power_end(void);

/* IOCB, a read, write or sync of the disk, is taken.  Returns what to tell power_answered, with its RESULT, after the bytes were
 * moved to the contents. */
unsigned power_taken(const struct iocb *iocb);
void power_answered(unsigned cookie, long result);

/* BYTES at OFFSET of the contents were changed by other means, as by a write that was answered.  What was written so may be lost: half of
 * the sectors keep nothing of what is not durable yet. */
void power_written(uint64_t offset, size_t bytes);
void power_lost(void);

/* BYTES at OFFSET of the contents were changed and made durable by other means. */
void power_written_durably(uint64_t offset, size_t bytes);

/* Call LOOK with every content that SECTOR may have after a cut now. */
void power_candidates(size_t sector, void (*look)(size_t sector, const uint8_t *bytes));

#endif
