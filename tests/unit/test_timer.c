/* reactor/timer.h: the rules of the header one by one, then the wheel against a model that only knows each
 * timer's deadline.  Random tests print their seed; SEED=n repeats one. */
#include "reactor/timer.h"

#include "reactor/check.h"
#include <criterion/criterion.h>
#include <stdlib.h>

#include "tests/unit/seed.h"

#define TICK TIMER_TICK_NS

/* A clock that is not at a tick's start and not near zero, as CLOCK_MONOTONIC would be. */
#define START_NS ((uint64_t)5000 * 1000000000 + 12345)

static struct timer_wheel wheel;
static unsigned calls;

static void
count_call(struct timer *timer)
{
	cr_assert_not(timer_running(timer));
	calls++;
}

static void
setup(void)
{
	timer_wheel_init(&wheel, START_NS);
	calls = 0;
}

TestSuite(timer, .init = setup);

static uint64_t
round_up(uint64_t ns)
{
	return (ns + TICK - 1) / TICK * TICK;
}

/* Turn the clock to NOW_NS as a core would that sleeps until timer_wheel_next_ns; returns the turns. */
static unsigned
sleep_until(uint64_t now_ns)
{
	unsigned turns = 0;
	uint64_t next_ns;

	while ((next_ns = timer_wheel_next_ns(&wheel)) <= now_ns) {
		timer_wheel_advance(&wheel, next_ns);
		turns++;
	}
	timer_wheel_advance(&wheel, now_ns);
	return turns;
}

Test(timer, empty_wheel_has_no_deadline)
{
	cr_assert_eq(timer_wheel_next_ns(&wheel), TIMER_NO_DEADLINE);
	cr_assert_eq(timer_wheel_advance(&wheel, START_NS + 1000 * TICK), 0);
	cr_assert_eq(timer_wheel_next_ns(&wheel), TIMER_NO_DEADLINE);
}

Test(timer, is_not_running_until_started)
{
	struct timer timer;

	timer_init(&timer, count_call);
	cr_assert_not(timer_running(&timer));
	timer_start(&wheel, &timer, START_NS + TICK);
	cr_assert(timer_running(&timer));
}

Test(timer, fires_once_at_its_deadline_rounded_up)
{
	struct timer timer;
	uint64_t deadline_ns = START_NS + 10 * TICK, due_ns = round_up(deadline_ns);

	timer_init(&timer, count_call);
	timer_start(&wheel, &timer, deadline_ns);
	cr_assert_eq(timer_wheel_advance(&wheel, due_ns - 1), 0);
	cr_assert_eq(timer_wheel_advance(&wheel, due_ns), 1);
	cr_assert_eq(calls, 1);
	cr_assert_not(timer_running(&timer));
	cr_assert_eq(timer_wheel_advance(&wheel, due_ns + 1000 * TICK), 0);
	cr_assert_eq(timer_wheel_next_ns(&wheel), TIMER_NO_DEADLINE);
}

Test(timer, deadline_on_a_tick_is_not_rounded)
{
	struct timer timer;
	uint64_t deadline_ns = round_up(START_NS) + 3 * TICK;

	timer_init(&timer, count_call);
	timer_start(&wheel, &timer, deadline_ns);
	cr_assert_eq(timer_wheel_next_ns(&wheel), deadline_ns);
	cr_assert_eq(timer_wheel_advance(&wheel, deadline_ns), 1);
}

Test(timer, in_the_past_is_due_at_once)
{
	struct timer timers[2];

	timer_init(&timers[0], count_call);
	timer_init(&timers[1], count_call);
	timer_start(&wheel, &timers[0], 0);
	timer_start(&wheel, &timers[1], START_NS - 5 * TICK);
	cr_assert_leq(timer_wheel_next_ns(&wheel), START_NS);
	cr_assert_eq(timer_wheel_advance(&wheel, START_NS), 2);
}

Test(timer, stopped_is_not_called)
{
	struct timer timer;

	timer_init(&timer, count_call);
	timer_start(&wheel, &timer, START_NS + TICK);
	timer_stop(&wheel, &timer);
	cr_assert_not(timer_running(&timer));
	cr_assert_eq(timer_wheel_next_ns(&wheel), TIMER_NO_DEADLINE);
	cr_assert_eq(timer_wheel_advance(&wheel, START_NS + 1000 * TICK), 0);
}

Test(timer, stop_of_a_stopped_timer_is_harmless)
{
	struct timer timer;

	timer_init(&timer, count_call);
	timer_stop(&wheel, &timer);
	timer_start(&wheel, &timer, START_NS);
	timer_stop(&wheel, &timer);
	timer_stop(&wheel, &timer);
	cr_assert_eq(wheel.count, 0);
}

Test(timer, stop_leaves_others_in_its_slot)
{
	struct timer timers[2];
	uint64_t deadline_ns = START_NS + 50 * TICK;

	for (int i = 0; i < 2; i++) {
		timer_init(&timers[i], count_call);
		timer_start(&wheel, &timers[i], deadline_ns);
	}
	timer_stop(&wheel, &timers[0]);
	cr_assert_leq(timer_wheel_next_ns(&wheel), round_up(deadline_ns));
	sleep_until(deadline_ns + TICK);
	cr_assert_eq(calls, 1);
}

Test(timer, start_of_a_running_timer_moves_it)
{
	struct timer timer;

	timer_init(&timer, count_call);
	timer_start(&wheel, &timer, START_NS + 10 * TICK);
	timer_start(&wheel, &timer, START_NS + 500 * TICK);
	cr_assert_eq(wheel.count, 1);
	cr_assert_eq(timer_wheel_advance(&wheel, START_NS + 499 * TICK), 0);
	timer_start(&wheel, &timer, START_NS + 600 * TICK);
	cr_assert_eq(timer_wheel_advance(&wheel, START_NS + 599 * TICK), 0);
	timer_start(&wheel, &timer, START_NS + 600 * TICK);
	cr_assert_eq(timer_wheel_advance(&wheel, START_NS + 601 * TICK), 1);
}

Test(timer, clock_that_steps_back_fires_nothing)
{
	struct timer timer;

	timer_init(&timer, count_call);
	timer_start(&wheel, &timer, 0);
	cr_assert_eq(timer_wheel_advance(&wheel, START_NS - 2 * TICK), 0);
	cr_assert_eq(timer_wheel_advance(&wheel, START_NS), 1);
}

/* Callbacks that act on the wheel. */

static struct timer first_timer, second_timer;

static void
start_itself_in_the_past(struct timer *timer)
{
	calls++;
	timer_start(&wheel, timer, 0);
}

Test(timer, restarted_by_its_callback_waits_for_the_next_advance)
{
	uint64_t now_ns = START_NS + 100 * TICK;

	timer_init(&first_timer, start_itself_in_the_past);
	timer_start(&wheel, &first_timer, START_NS);
	for (unsigned i = 1; i <= 3; i++) {
		cr_assert_eq(timer_wheel_advance(&wheel, now_ns), 1);
		cr_assert_eq(calls, i);
	}
}

static void
stop_second(struct timer *timer)
{
	(void)timer;
	calls++;
	timer_stop(&wheel, &second_timer);
}

Test(timer, callback_can_stop_another_that_is_due)
{
	timer_init(&first_timer, stop_second);
	timer_init(&second_timer, count_call);
	timer_start(&wheel, &first_timer, START_NS + TICK);
	timer_start(&wheel, &second_timer, START_NS + 2 * TICK);
	cr_assert_eq(timer_wheel_advance(&wheel, START_NS + 10 * TICK), 1);
	cr_assert_eq(calls, 1);
	cr_assert_eq(wheel.count, 0);
}

static void
move_second(struct timer *timer)
{
	(void)timer;
	timer_start(&wheel, &second_timer, START_NS + 200 * TICK);
}

Test(timer, callback_can_move_another_that_is_due)
{
	timer_init(&first_timer, move_second);
	timer_init(&second_timer, count_call);
	timer_start(&wheel, &first_timer, START_NS + TICK);
	timer_start(&wheel, &second_timer, START_NS + 2 * TICK);
	cr_assert_eq(timer_wheel_advance(&wheel, START_NS + 10 * TICK), 1);
	cr_assert(timer_running(&second_timer));
	cr_assert_eq(timer_wheel_advance(&wheel, START_NS + 201 * TICK), 1);
	cr_assert_eq(calls, 1);
}

static void
free_itself(struct timer *timer)
{
	calls++;
	free(timer);
}

Test(timer, callback_can_free_its_timer)
{
	for (unsigned i = 0; i < 3; i++) {
		struct timer *timer = malloc(sizeof(*timer));

		timer_init(timer, free_itself);
		timer_start(&wheel, timer, START_NS + i * TICK);
	}
	cr_assert_eq(timer_wheel_advance(&wheel, START_NS + 10 * TICK), 3);
	cr_assert_eq(calls, 3);
}

/* Long gaps and the ends of the range. */

Test(timer, long_gap_is_crossed_in_a_few_steps)
{
	const uint64_t year_ns = (uint64_t)365 * 86400 * 1000000000;
	struct timer timer;
	unsigned turns;

	timer_init(&timer, count_call);
	timer_start(&wheel, &timer, START_NS + 10 * year_ns);
	turns = sleep_until(START_NS + 10 * year_ns + TICK);
	cr_assert_eq(calls, 1);
	cr_assert_leq(turns, TIMER_LEVELS);
}

Test(timer, beyond_the_range_is_held_and_never_early)
{
	const uint64_t deadline_ns = START_NS + ((uint64_t)1 << 62);
	struct timer timer;

	timer_init(&timer, count_call);
	timer_start(&wheel, &timer, deadline_ns);
	sleep_until(deadline_ns - 1);
	cr_assert_eq(calls, 0);
	cr_assert(timer_running(&timer));
	sleep_until(deadline_ns + TICK);
	cr_assert_eq(calls, 1);
}

Test(timer, largest_deadline_is_not_an_overflow)
{
	struct timer timer;

	timer_init(&timer, count_call);
	timer_start(&wheel, &timer, UINT64_MAX);
	cr_assert_gt(timer_wheel_next_ns(&wheel), START_NS);
	cr_assert_eq(timer_wheel_advance(&wheel, UINT64_MAX - TICK), 0);
	cr_assert_gt(timer_wheel_next_ns(&wheel), UINT64_MAX - TICK);
	cr_assert_lt(timer_wheel_next_ns(&wheel), TIMER_NO_DEADLINE);
	cr_assert(timer_running(&timer));
}

Test(timer, crosses_the_turn_of_the_top_level)
{
	const uint64_t turn_ns = TICK
				 << (6 * TIMER_LEVELS); /* where the top digit starts again at 0 */
	struct timer timers[3];

	timer_wheel_init(&wheel, turn_ns - 10 * TICK);
	for (int i = 0; i < 3; i++)
		timer_init(&timers[i], count_call);
	timer_start(&wheel, &timers[0], turn_ns - TICK);
	timer_start(&wheel, &timers[1], turn_ns);
	timer_start(&wheel, &timers[2], turn_ns + 5000 * TICK);
	cr_assert_eq(timer_wheel_advance(&wheel, turn_ns - 1), 1);
	cr_assert_eq(timer_wheel_advance(&wheel, turn_ns), 1);
	cr_assert_eq(timer_wheel_advance(&wheel, turn_ns + 4999 * TICK), 0);
	cr_assert_eq(timer_wheel_advance(&wheel, turn_ns + 5000 * TICK), 1);
}

/* The model. */

#define MODEL_TIMERS 100000

struct model_timer {
	struct timer timer;
	uint64_t deadline_ns;
	bool running;
};

static struct model_timer *model;
static uint64_t model_now_ns, model_last_tick;
static unsigned model_running;
static unsigned short random_state[3];

static void
seed_random(void)
{
	uint64_t seed = test_seed();

	random_state[0] = (unsigned short)seed;
	random_state[1] = (unsigned short)(seed >> 16);
	random_state[2] = (unsigned short)(seed >> 32);
}

static uint64_t
random_64(void)
{
	return (uint64_t)jrand48(random_state) << 32 ^ (uint64_t)(uint32_t)jrand48(random_state);
}

/* Delays of every magnitude up to 2^BITS ns, so that all levels are used. */
static uint64_t
random_delay_ns(unsigned bits)
{
	return random_64() >> (64 - bits + random_64() % bits);
}

static void
model_expired(struct timer *timer)
{
	struct model_timer *expired = container_of(timer, struct model_timer, timer);
	uint64_t tick = round_up(expired->deadline_ns) / TICK;

	cr_assert(expired->running);
	cr_assert_leq(expired->deadline_ns, model_now_ns, "early");
	cr_assert_geq(tick, model_last_tick, "out of order");
	model_last_tick = tick;
	expired->running = false;
	model_running--;
}

static void
model_start(unsigned index, uint64_t deadline_ns)
{
	if (!model[index].running)
		model_running++;
	model[index].running = true;
	model[index].deadline_ns = deadline_ns;
	timer_start(&wheel, &model[index].timer, deadline_ns);
}

static void
model_stop(unsigned index)
{
	if (model[index].running)
		model_running--;
	model[index].running = false;
	timer_stop(&wheel, &model[index].timer);
}

/* The nearest deadline, rounded up to a tick; TIMER_NO_DEADLINE if no timer runs. */
static uint64_t
model_nearest_ns(void)
{
	uint64_t nearest_ns = TIMER_NO_DEADLINE;

	for (unsigned i = 0; i < MODEL_TIMERS; i++)
		if (model[i].running && round_up(model[i].deadline_ns) < nearest_ns)
			nearest_ns = round_up(model[i].deadline_ns);
	return nearest_ns;
}

/* After an advance: whoever is due has been called. */
static void
model_assert(void)
{
	uint64_t nearest_ns = model_nearest_ns();

	cr_assert_eq(wheel.count, model_running);
	if (nearest_ns == TIMER_NO_DEADLINE)
		cr_assert_eq(timer_wheel_next_ns(&wheel), TIMER_NO_DEADLINE);
	else
		cr_assert_leq(timer_wheel_next_ns(&wheel), nearest_ns);
	cr_assert_gt(nearest_ns, model_now_ns, "late");
}

static void
model_advance(uint64_t now_ns)
{
	unsigned before = model_running;

	model_now_ns = now_ns;
	model_last_tick = 0;
	cr_assert_eq(timer_wheel_advance(&wheel, now_ns), before - model_running);
}

static void
model_init(void)
{
	seed_random();
	model = calloc(MODEL_TIMERS, sizeof(*model));
	cr_assert_not_null(model);
	for (unsigned i = 0; i < MODEL_TIMERS; i++)
		timer_init(&model[i].timer, model_expired);
	model_now_ns = random_64() >> 4; /* room for 2^60 ns of delays without overflow */
	timer_wheel_init(&wheel, model_now_ns);
}

Test(timer, model_of_many_timers_all_fire_in_order)
{
	model_init();
	for (unsigned i = 0; i < MODEL_TIMERS; i++)
		model_start(i, model_now_ns + 1 + random_delay_ns(58));
	while (model_running > 0) {
		unsigned before = model_running;

		/* Steps of every magnitude; whole ticks every other time. */
		model_advance(model_now_ns + random_delay_ns(56));
		model_advance(round_up(model_now_ns));
		if (before != model_running && random_64() % 16 == 0)
			model_assert();
	}
	model_assert();
	free(model);
}

Test(timer, model_of_starts_moves_stops_and_gaps)
{
	model_init();
	for (unsigned round = 0; round < 300; round++) {
		unsigned bits = 18 + (unsigned)(random_64() % 40);

		for (unsigned i = 0; i < 2000; i++) {
			unsigned index = (unsigned)(random_64() % MODEL_TIMERS);

			if (random_64() % 4 == 0)
				model_stop(index);
			else
				model_start(index, model_now_ns + random_delay_ns(bits));
		}
		model_advance(model_now_ns + random_delay_ns(bits));
		model_assert();
	}
	for (unsigned i = 0; i < MODEL_TIMERS; i++)
		model_stop(i);
	model_assert();
	free(model);
}

Test(timer, model_woken_only_by_next_ns_is_exact)
{
	unsigned wakes = 0;

	model_init();
	for (unsigned i = 0; i < 2000; i++)
		model_start(i, model_now_ns + 1 + random_delay_ns(58));
	while (model_running > 0) {
		uint64_t next_ns = timer_wheel_next_ns(&wheel), nearest_ns = model_nearest_ns();
		unsigned before = model_running;

		cr_assert_gt(next_ns, model_now_ns);
		cr_assert_leq(next_ns, nearest_ns);
		model_advance(next_ns);
		cr_assert_eq(before != model_running, next_ns == nearest_ns);
		wakes++;
	}
	/* A wake either fires or cascades a timer, and a timer cascades at most once for each level. */
	cr_assert_leq(wakes, 2000 * TIMER_LEVELS);
	free(model);
}
