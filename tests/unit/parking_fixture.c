/* What the tests of parking share; it is described in the header. */
#include "tests/unit/parking_fixture.h"

#include <criterion/criterion.h>
#include <poll.h>
#include <string.h>

struct parking parking;
unsigned ready_total, stopped_count;

void
note_ready(struct parked *parked)
{
	struct guest *guest = container_of(parked, struct guest, parked);

	cr_assert_not(submitting);
	cr_assert_not(parked_is_parked(parked));
	guest->ready_count++;
	ready_total++;
}

/* It is the owner's again: whatever still used it would see rubbish. */
void
parking_note_stopped(struct parking *stopped)
{
	cr_assert_not(submitting);
	cr_assert_eq(stopped, &parking);
	memset(stopped, 0xff, sizeof(*stopped));
	stopped_count++;
}

void
parking_begin(void)
{
	cr_assert_eq(parking_start(&parking, reactor, POLLIN), 0);
}

void
park(struct guest *guest, int fd)
{
	submitting = true;
	cr_assert_eq(parking_add(&parking, &guest->parked, fd), 0);
	submitting = false;
	cr_assert(parked_is_parked(&guest->parked));
}

void
park_new(struct guest *guest, int fd)
{
	guest->ready_count = 0;
	parked_init(&guest->parked, note_ready);
	park(guest, fd);
}

void
turn_until_ready(unsigned total)
{
	uint64_t until_ns = kernel_clock_ns() + PATIENCE_NS;

	while (ready_total < total) {
		cr_assert_lt(kernel_clock_ns(), until_ns);
		reactor_turn(reactor);
	}
	cr_assert_eq(ready_total, total);
}

/* The way to the end that every test takes: what is parked was removed before. */
void
parking_end(void)
{
	uint64_t until_ns = kernel_clock_ns() + PATIENCE_NS;

	submitting = true;
	parking_stop(&parking, parking_note_stopped);
	submitting = false;
	cr_assert_eq(stopped_count, 0);
	while (stopped_count == 0) {
		cr_assert_lt(kernel_clock_ns(), until_ns);
		reactor_turn(reactor);
	}
	turn_for_a_while();
	cr_assert_eq(stopped_count, 1);
}
