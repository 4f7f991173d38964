/* net/tls_line.h: who has a turn when.  The test turns the reactor itself; a step of a handshake is one that takes its time. */
#include "net/tls_line.h"

#include <criterion/criterion.h>

#include "tests/unit/stolen.h"

#define MS     ((uint64_t)1000000)
#define PLACES 10

struct handshake {
	struct tls_line_place place;
	unsigned steps, steps_left;
};

static struct reactor *reactor;
static struct tls_line line;
static struct handshake handshakes[PLACES];
static unsigned steps, order[PLACES * 2];
static uint64_t step_ns, spent_ns;
static bool joining;

/* Busy, as one that signs. */
static void
spend(uint64_t ns)
{
	uint64_t until_ns = kernel_clock_ns() + ns;

	while (kernel_clock_ns() < until_ns)
		;
}

static void
join(struct handshake *handshake)
{
	joining = true;
	tls_line_join(&line, &handshake->place);
	joining = false;
}

static void
step(struct tls_line_place *place)
{
	struct handshake *handshake = container_of(place, struct handshake, place);
	uint64_t begin_ns = kernel_clock_ns();

	cr_assert_not(joining, "from within tls_line_join");
	if (steps < ARRAY_COUNT(order))
		order[steps] = (unsigned)(handshake - handshakes);
	steps++;
	handshake->steps++;
	spend(step_ns);
	spent_ns += kernel_clock_ns() - begin_ns;
	if (--handshake->steps_left > 0)
		join(handshake);
}

static void
setup(void)
{
	const struct reactor_config config = { .disk_slots = 1, .poll_slots = 4 };

	cr_assert_eq(reactor_create(&config, &reactor), 0);
	tls_line_init(&line, reactor);
	for (unsigned i = 0; i < PLACES; i++) {
		tls_line_place_init(&handshakes[i].place, step);
		handshakes[i].steps_left = 1;
	}
}

static void
teardown(void)
{
	tls_line_fini(&line);
	for (int i = 0; i < 100; i++)
		(void)reactor_turn(reactor);
	reactor_destroy(reactor);
}

TestSuite(tls_line, .init = setup, .fini = teardown, .timeout = 60);

/* Turns until COUNT steps were taken. */
static void
turn_until(unsigned count)
{
	uint64_t until_ns = kernel_clock_ns() + 20000 * MS;

	while (steps < count) {
		cr_assert_lt(kernel_clock_ns(), until_ns);
		(void)reactor_turn(reactor);
	}
	cr_assert_eq(steps, count);
}

Test(tls_line, one_step_a_turn_in_order_of_arrival)
{
	for (unsigned i = 0; i < PLACES; i++) {
		handshakes[i].steps_left = 2;
		join(&handshakes[i]);
		join(&handshakes[i]); /* it waits already */
	}
	for (unsigned i = 1; i <= 2 * PLACES; i++) {
		(void)reactor_turn(reactor);
		cr_assert_leq(steps, i, "more than one in a turn");
	}
	turn_until(2 * PLACES);
	for (unsigned i = 0; i < 2 * PLACES; i++)
		cr_assert_eq(order[i], i % PLACES);
	for (int i = 0; i < 100; i++)
		(void)reactor_turn(reactor);
	cr_assert_eq(steps, 2 * PLACES);
}

Test(tls_line, who_has_left_has_no_turn)
{
	for (unsigned i = 0; i < 4; i++)
		join(&handshakes[i]);
	tls_line_leave(&handshakes[0].place);
	tls_line_leave(&handshakes[2].place);
	tls_line_leave(&handshakes[5].place);
	turn_until(2);
	cr_assert(order[0] == 1 && order[1] == 3);
	join(&handshakes[0]);
	tls_line_leave(&handshakes[0].place);
	for (int i = 0; i < 100; i++)
		(void)reactor_turn(reactor);
	cr_assert_eq(steps, 2);
	join(&handshakes[0]);
	turn_until(3);
}

/* The part of the time that steps had, in percent, with so many requests in each turn. */
static unsigned
measure_share(unsigned requests)
{
	uint64_t begin_ns = kernel_clock_ns(), end_ns = begin_ns + 300 * MS;

	spent_ns = 0;
	step_ns = 2 * MS;
	for (unsigned i = 0; i < PLACES; i++) {
		handshakes[i].steps_left = UINT32_MAX;
		join(&handshakes[i]);
	}
	while (kernel_clock_ns() < end_ns) {
		for (unsigned i = 0; i < requests; i++)
			tls_line_count_request(&line);
		(void)reactor_turn(reactor);
	}
	for (unsigned i = 0; i < PLACES; i++)
		tls_line_leave(&handshakes[i].place);
	return (unsigned)(spent_ns * 100 / (kernel_clock_ns() - begin_ns));
}

/* In one of five tries: what a host takes counts as a step's, or as nobody's. */
Test(tls_line, alone_steps_have_the_core_beside_requests_a_quarter)
{
	unsigned long long stolen = stolen_ticks();
	unsigned alone = 0, beside = 0;

	for (unsigned try = 0; try < 5 && alone < 70; try++)
		alone = measure_share(0);
	if (alone < 70 && was_disturbed(stolen))
		cr_skip("the host took the CPU");
	cr_assert_geq(alone, 70, "%u %%", alone);
	for (unsigned try = 0; try < 5 && (beside < 10 || beside > 35); try++)
		beside = measure_share(1);
	if ((beside < 10 || beside > 35) && was_disturbed(stolen))
		cr_skip("the host took the CPU");
	cr_assert(beside >= 10 && beside <= 35, "%u %%", beside);
}

Test(tls_line, the_pause_ends_when_nothing_more_is_asked)
{
	uint64_t free_ns;

	step_ns = 100 * MS;
	handshakes[0].steps_left = 3;
	join(&handshakes[0]);
	turn_until(1);
	/* Nothing was asked meanwhile: no pause. */
	turn_until(2);
	free_ns = line.free_ns;
	cr_assert_lt(kernel_clock_ns(), free_ns);
	tls_line_count_request(&line);
	turn_until(3);
	cr_assert_geq(kernel_clock_ns(), free_ns);
}

Test(tls_line, a_line_may_end_in_a_pause)
{
	step_ns = 10 * MS;
	handshakes[0].steps_left = 2;
	join(&handshakes[0]);
	turn_until(1);
	tls_line_count_request(&line);
	for (int i = 0; i < 3; i++)
		(void)reactor_turn(reactor);
	cr_assert(timer_running(&line.pause));
	tls_line_leave(&handshakes[0].place);
}
