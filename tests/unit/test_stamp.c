/* Sectors that say what they are, and every way in which a block can be wrong. */
#include <criterion/criterion.h>
#include <string.h>

#include "bench/load/stamp.h"

#define BYTES  4096u
#define RUN    77u
#define OFFSET 1048576u

static uint8_t block[BYTES], other[BYTES];

static enum stamp_finding
check(uint64_t min, uint64_t max)
{
	uint64_t generation;

	return stamp_check(block, BYTES, RUN, OFFSET, min, max, &generation);
}

static void
set_up(void)
{
	stamp_fill(block, BYTES, RUN, OFFSET, 5);
}

TestSuite(stamp, .init = set_up);

Test(stamp, the_last_write_is_right)
{
	uint64_t generation;

	cr_assert_eq(stamp_check(block, BYTES, RUN, OFFSET, 5, 5, &generation), STAMP_RIGHT);
	cr_assert_eq(generation, 5);
}

Test(stamp, a_write_that_was_not_answered_may_be_there_or_not)
{
	cr_assert_eq(check(4, 6), STAMP_RIGHT);
	memset(block, 0, BYTES);
	cr_assert_eq(check(0, 6), STAMP_RIGHT);
}

Test(stamp, an_older_write_is_stale)
{
	cr_assert_eq(check(6, 6), STAMP_STALE);
}

Test(stamp, zeros_are_a_lost_write)
{
	memset(block, 0, BYTES);
	cr_assert_eq(check(5, 5), STAMP_LOST);
}

Test(stamp, another_runs_block_is_a_lost_write)
{
	stamp_fill(block, BYTES, RUN + 1, OFFSET, 5);
	cr_assert_eq(check(5, 5), STAMP_LOST);
}

Test(stamp, sectors_of_two_writes_are_torn)
{
	stamp_fill(other, BYTES, RUN, OFFSET, 4);
	memcpy(block + 512, other + 512, 512);
	cr_assert_eq(check(5, 5), STAMP_TORN);
	cr_assert_eq(check(4, 4), STAMP_TORN);
	memcpy(block, other, 512);
	cr_assert_eq(check(5, 6), STAMP_TORN, "at its beginning");
}

Test(stamp, a_write_that_was_not_answered_may_be_there_in_part)
{
	uint64_t generation;

	stamp_fill(other, BYTES, RUN, OFFSET, 4);
	memcpy(block + 512, other + 512, 512);
	cr_assert_eq(stamp_check(block, BYTES, RUN, OFFSET, 4, 6, &generation), STAMP_RIGHT);
	cr_assert_eq(generation, 4, "what is there of all of it");
	memset(block + 1024, 0, 512);
	cr_assert_eq(check(0, 6), STAMP_RIGHT);
	cr_assert_eq(check(1, 6), STAMP_TORN);
}

Test(stamp, a_half_that_was_never_written_is_torn)
{
	memset(block + BYTES / 2, 0, BYTES / 2);
	cr_assert_eq(check(5, 5), STAMP_TORN);
}

Test(stamp, another_offsets_block_is_misplaced)
{
	stamp_fill(block, BYTES, RUN, OFFSET + BYTES, 5);
	cr_assert_eq(check(5, 5), STAMP_MISPLACED);
}

Test(stamp, a_flipped_bit_anywhere_behind_the_run_is_corrupt)
{
	for (unsigned at = 24; at < STAMP_SECTOR_BYTES; at++) {
		block[at] ^= 1;
		cr_assert_eq(check(5, 5), STAMP_CORRUPT, "byte %u", at);
		block[at] ^= 1;
	}
	block[0] ^= 1;
	cr_assert_eq(check(5, 5), STAMP_CORRUPT);
}

Test(stamp, a_write_that_was_never_made_is_foreign)
{
	cr_assert_eq(check(3, 4), STAMP_FOREIGN);
}

Test(stamp, each_finding_has_a_name)
{
	for (unsigned i = 0; i < STAMP_FINDING_COUNT; i++)
		cr_assert_not_null(stamp_finding_name((enum stamp_finding)i));
}
