/* What the tests of reactor/parking.h share: one parking on the reactor of reactor_fixture.h, and descriptors that count their calls.
 * As there: the variables are the test's own, everything belongs to its thread, and what fails ends the test. */
#ifndef TESTS_UNIT_PARKING_FIXTURE_H
#define TESTS_UNIT_PARKING_FIXTURE_H

#include "reactor/parking.h"
#include "tests/unit/reactor_fixture.h"

/* One parked descriptor that counts its calls. */
struct guest {
	struct parked parked;
	unsigned ready_count;
};

extern struct parking parking;
extern unsigned ready_total, stopped_count; /* calls */

/* Start the parking; the way to the end that every test takes: what is parked was removed before. */
void parking_begin(void);
void parking_end(void);

/* Counts in the guest and in ready_total; counts in stopped_count. */
void note_ready(struct parked *parked);
void parking_note_stopped(struct parking *stopped);

/* Park GUEST, which has been initialised, or initialise it first. */
void park(struct guest *guest, int fd);
void park_new(struct guest *guest, int fd);

/* Take turns until TOTAL have been reported, and not one more. */
void turn_until_ready(unsigned total);

#endif
