/* What a fault volume does wrong, from text: words KEY=VALUE with spaces between them, each key once.
 *
 *	seed=N            the random choices are the same for the same seed, number of cores and order of requests on each; 1
 *	range=START-END   bytes: only requests that touch them are disturbed; flushes always are; the whole volume
 *	error=NAME        what fails, fails with EIO (the default), ENOSPC, EDQUOT, EPERM, ENOMEM or ETIMEDOUT
 *	read-error=P, write-error=P, flush-error=P, trim-error=P, zeroes-error=P, query-error=P
 *	                  the probability, 0 to 1, that such a request fails without being done
 *	torn-write=P      ... that a write is done up to some sector only, and fails
 *	short-io=P        ... that a read or write is done in two parts
 *	delay=P           ... that a request waits before it is done; 1 if there is delay-ms
 *	delay-ms=N        how long, at most: anything from 0 to N; 0 to 60000
 *
 * Sizes take K, M, G and T; a write that is durable and fails has failed its sync too (with EIO or ETIMEDOUT). */
#ifndef DISK_FAULT_SETTINGS_H
#define DISK_FAULT_SETTINGS_H

#include "disk/volume.h"
#include "reactor/check.h"
#include <stddef.h>
#include <stdint.h>

#define FAULT_COMMANDS (VOLUME_COMMAND_EXTENTS + 1)

/* Probabilities are in units of 2^-32: a random uint32_t below one is a hit. */
struct fault_settings {
	uint64_t seed;
	uint64_t range_start, range_end;
	int error;			/* negative errno */
	uint64_t fails[FAULT_COMMANDS]; /* by enum volume_command */
	uint64_t torn, split, delays;
	unsigned delay_ms;
};

/* Parse TEXT.  Returns 0, or -EINVAL; then MISTAKE of MISTAKE_BYTES holds what is wrong, with the word, and what is expected. */
int fault_settings_parse(const char *text, struct fault_settings *settings, char *mistake,
			 size_t mistake_bytes) MUST_USE;

#endif
