/* What the volume of a file finds in place of the system calls that it makes itself: linked with --wrap.  Direct I/O and syncs go to the
 * simulated kernel's file; reads and writes of helper threads, and reads of what the page cache has, go to its contents, as a page cache
 * would, while power_model.h is told.  Helper threads are steps of the simulation.
 *
 * The page cache writes back what it likes, when it likes; what it could not is lost, and the next sync says so, once, as Linux does
 * (its Documentation/filesystems/vfs.rst, "Handling errors during writeback"). */
#ifndef TESTS_SIM_STORAGE_CALLS_H
#define TESTS_SIM_STORAGE_CALLS_H

#include <stdbool.h>
#include <stdint.h>

struct storage_calls_config {
	int fd;		   /* of kernel_sim_file */
	uint8_t *contents; /* of that file; the caller's */
	bool errors;	   /* writes and reads of helpers fail, and so does writing back */
	bool never_nowait; /* the file system refuses RWF_NOWAIT */
	/* Called between steps that a cut could come between, within a call. */
	void (*on_step)(void);
};

struct storage_calls_counters {
	uint64_t merged; /* requests of the kernel's that were several of the volume's */
	uint64_t written, hits, misses; /* writes to, and reads from the page cache */
	uint64_t lost; /* times that the page cache could not write something back */
};

/* Begin, and forget what was; CONFIG is copied. */
void storage_calls_begin(const struct storage_calls_config *config);

const struct storage_calls_counters *storage_calls_counters(void);

#endif
