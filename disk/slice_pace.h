/* How long the slices of a volume's TRIMs and WRITE_ZEROES are, and when the next may begin: so that whoever else reads and writes it
 * is kept waiting rarely and briefly.  doc/decisions/0013-trims.md has what came of it.
 *
 * A slice is short: nothing interrupts one.  How many bytes that is, is learned from how long the last took.  Where something else is read
 * or written, too, the next waits behind one that took its time: three reads of four and more meet none, and one that has waited for the
 * file system's lock does not find it taken once more. */
#ifndef DISK_SLICE_PACE_H
#define DISK_SLICE_PACE_H

#include <stdbool.h>
#include <stdint.h>

/* Embedded by the volume; one slice runs at a time, and that thread may use it, others what is said to be atomic. */
struct slice_pace {
	/* Private. */
	uint64_t bytes; /* atomic, a power of two */
	uint64_t bytes_min;
	uint64_t free_ns;   /* when the next may begin */
	uint64_t shared_ns; /* others count as beside it until then */
	bool is_device;	    /* its slices take the CPU and no lock that others want */
	bool used;	    /* atomic: something was read or written since it was last made false */
};

struct slice {
	/* Private. */
	uint64_t begin_ns, begin_cpu_ns;
	bool batch;
};

/* bytes_min: no slice is smaller; a power of two, or 0. */
void slice_pace_init(struct slice_pace *pace, bool is_device, uint64_t bytes_min);

/* How long the next slice is to be at most, a power of two.  Any thread. */
uint64_t slice_pace_bytes(const struct slice_pace *pace);

/* Something else is read or written.  Any thread.  Stored only where it changes: all cores look at it. */
static inline void
slice_pace_note_use(struct slice_pace *pace)
{
	if (!__atomic_load_n(&pace->used, __ATOMIC_RELAXED))
		__atomic_store_n(&pace->used, true, __ATOMIC_RELAXED);
}

/* Wait until a slice may begin.  On a helper thread, which keeps its hands off the CPU's other threads until slice_end: of a
 * device, it interrupts none when it wakes up. */
void slice_wait(struct slice_pace *pace, struct slice *slice);

/* It begins.  On the same thread, as slice_end. */
void slice_begin(struct slice *slice);

/* SLICE, of BYTES, is over. */
void slice_end(struct slice_pace *pace, const struct slice *slice, uint64_t bytes);

#endif
