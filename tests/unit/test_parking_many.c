/* reactor/parking.h on the real kernel, with many descriptors: each is reported once, whatever the calls of a batch do to the others,
 * and thousands of idle ones cost one poll and no turn. */
#include "tests/unit/parking_fixture.h"
#include "tests/unit/seed.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

TestSuite(parking_many, .init = reactor_fixture_init, .fini = reactor_fixture_fini, .timeout = 60);

#define IDLE_COUNT 9000

/* ---- a batch ---- */

#define GROUP 40 /* fits in a batch */

static struct guest *group[GROUP];
static int group_fds[GROUP];

static void
group_park(void (*ready)(struct parked *parked))
{
	for (unsigned i = 0; i < GROUP; i++) {
		group_fds[i] = eventfd(1, EFD_CLOEXEC);
		cr_assert_geq(group_fds[i], 0);
		group[i] = calloc(1, sizeof(*group[i]));
		parked_init(&group[i]->parked, ready);
		park(group[i], group_fds[i]);
	}
}

static void
group_free(void)
{
	for (unsigned i = 0; i < GROUP; i++) {
		if (group[i] == NULL)
			continue;
		parking_remove(&group[i]->parked);
		free(group[i]);
	}
	for (unsigned i = 0; i < GROUP; i++)
		close(group_fds[i]);
}

/* The first one that is told ends all others, as a server does that shuts down. */
static void
free_all_others(struct parked *parked)
{
	note_ready(parked);
	for (unsigned i = 0; i < GROUP; i++) {
		if (&group[i]->parked == parked)
			continue;
		parking_remove(&group[i]->parked);
		free(group[i]);
		group[i] = NULL;
	}
}

Test(parking_many, ready_may_free_others_of_its_batch)
{
	parking_begin();
	group_park(free_all_others);
	turn_until_ready(1);
	turn_for_a_while();
	cr_assert_eq(ready_total, 1);
	group_free();
	parking_end();
}

/* Each one that is told takes its neighbour, which may be in the same batch, out and in again. */
static void
park_neighbour_again(struct parked *parked)
{
	note_ready(parked);
	for (unsigned i = 0; i < GROUP; i += 2) {
		struct parked *neighbour = &group[i + 1]->parked;

		if (&group[i]->parked != parked)
			continue;
		cr_assert(parked_is_parked(neighbour));
		parking_remove(neighbour);
		cr_assert_eq(parking_add(&parking, neighbour, group_fds[i + 1]), 0);
	}
}

Test(parking_many, removed_and_parked_again_in_a_batch_is_reported_once)
{
	parking_begin();
	group_park(park_neighbour_again);
	turn_until_ready(GROUP);
	turn_for_a_while();
	cr_assert_eq(ready_total, GROUP);
	for (unsigned i = 0; i < GROUP; i++)
		cr_assert_eq(group[i]->ready_count, 1);
	group_free();
	parking_end();
}

static void
stop_all(struct parked *parked)
{
	note_ready(parked);
	for (unsigned i = 0; i < GROUP; i++)
		parking_remove(&group[i]->parked);
	parking_stop(&parking, parking_note_stopped);
}

Test(parking_many, ready_may_stop_all)
{
	parking_begin();
	group_park(stop_all);
	turn_for_a_while();
	cr_assert_eq(ready_total, 1);
	cr_assert_eq(stopped_count, 1);
	group_free();
}

/* ---- many ---- */

static struct guest guests[IDLE_COUNT];
static int fds_many[IDLE_COUNT];

static void
raise_fd_limit(void)
{
	struct rlimit limit;

	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = limit.rlim_max;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	if (limit.rlim_max < IDLE_COUNT + 100)
		cr_skip_test("the hard limit of open files is below 9,100");
}

static void
park_many(unsigned count, unsigned value)
{
	raise_fd_limit();
	for (unsigned i = 0; i < count; i++) {
		fds_many[i] = eventfd(value, EFD_CLOEXEC | EFD_NONBLOCK);
		cr_assert_geq(fds_many[i], 0);
		park_new(&guests[i], fds_many[i]);
	}
}

static void
remove_many(unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		parking_remove(&guests[i].parked);
		close(fds_many[i]);
	}
}

Test(parking_many, turn_is_shared_when_many_are_ready)
{
	const unsigned count = 1000;
	unsigned turns = 0;

	parking_begin();
	park_many(count, 1);
	while (ready_total < count) {
		unsigned before = ready_total;

		cr_assert(reactor_turn(reactor));
		cr_assert_leq(ready_total - before, 2 * PARKING_BATCH);
		turns++;
	}
	cr_assert_geq(turns, count / (2 * PARKING_BATCH));
	turn_until_idle();
	for (unsigned i = 0; i < count; i++)
		cr_assert_eq(guests[i].ready_count, 1);
	remove_many(count);
	parking_end();
}

Test(parking_many, stop_while_more_is_deferred)
{
	const unsigned count = 1000;

	parking_begin();
	park_many(count, 1);
	while (ready_total == 0)
		reactor_turn(reactor);
	cr_assert_lt(ready_total, count);
	remove_many(count);
	parking_end();
	cr_assert_lt(ready_total, count);
}

Test(parking_many, exactly_one_full_batch_arms_the_poll_again)
{
	parking_begin();
	park_many(PARKING_BATCH + 1, 1);
	parking_remove(&guests[PARKING_BATCH].parked);
	turn_until_ready(PARKING_BATCH);
	turn_until_idle();
	park(&guests[PARKING_BATCH], fds_many[PARKING_BATCH]);
	turn_until_ready(PARKING_BATCH + 1);
	remove_many(PARKING_BATCH + 1);
	parking_end();
}

/* With one slot for polls: the set's poll is the only one that any of this takes. */
static void
create_with_one_poll_slot(void)
{
	reactor_destroy(reactor);
	create_reactor(1, 1, 0);
	parking_begin();
}

Test(parking_many, random_subsets_of_many_are_each_reported_once)
{
	const struct reactor_counters *counters;
	unsigned expected = 0;

	srandom((unsigned)test_seed());
	create_with_one_poll_slot();
	park_many(IDLE_COUNT, 0);
	turn_until_idle();
	counters = reactor_counters(reactor);
	cr_assert_eq(counters->ops_submitted, 2, "the reactor's own poll and the set's");
	for (unsigned round = 0; round < 20; round++) {
		unsigned share = 1u << (unsigned)(random() % 11);

		for (unsigned i = 0; i < IDLE_COUNT; i++) {
			guests[i].ready_count = 0;
			if ((unsigned)random() % share == 0)
				cr_assert_eq(eventfd_write(fds_many[i], 1), 0);
		}
		turn_until_idle();
		for (unsigned i = 0; i < IDLE_COUNT; i++) {
			eventfd_t value = 0;
			bool written = eventfd_read(fds_many[i], &value) == 0;

			expected += written;
			cr_assert_eq(guests[i].ready_count, written, "guest %u in round %u", i,
				     round);
			cr_assert_eq(parked_is_parked(&guests[i].parked), !written);
			if (written)
				park(&guests[i], fds_many[i]);
		}
	}
	turn_until_idle();
	cr_assert_eq(ready_total, expected);
	cr_assert_gt(expected, IDLE_COUNT); /* a round with share 1 or 2 is as good as certain */
	cr_assert_eq(counters->ops_submitted - counters->events, 2);
	remove_many(IDLE_COUNT);
	parking_end();
}

#define IDLE_NS (300 * MS)

static uint64_t idle_turns;
static bool idle_slept;

/* Watch the reactor rest, then wake it through a parked descriptor. */
static void *
watch_rest(void *argument)
{
	const struct reactor_counters *counters = reactor_counters(reactor);
	uint64_t before;

	wait_for_sleep(0);
	before = __atomic_load_n(&counters->turns, __ATOMIC_RELAXED);
	usleep((useconds_t)(IDLE_NS / 1000));
	idle_slept = reactor_sleeping(reactor);
	idle_turns = __atomic_load_n(&counters->turns, __ATOMIC_RELAXED) - before;
	CHECK(eventfd_write(fds_many[IDLE_COUNT / 2], 1) == 0);
	return argument;
}

static void
stop_running(struct parked *parked)
{
	note_ready(parked);
	reactor_stop(reactor);
}

Test(parking_many, many_idle_take_no_turn_and_wake_a_sleeping_reactor)
{
	pthread_t thread;
	uint64_t cpu_ns;

	create_with_one_poll_slot();
	park_many(IDLE_COUNT, 0);
	guests[IDLE_COUNT / 2].parked.ready = stop_running;
	cr_assert_eq(pthread_create(&thread, NULL, watch_rest, NULL), 0);
	cpu_ns = thread_cpu_ns();
	reactor_run(reactor);
	cpu_ns = thread_cpu_ns() - cpu_ns;
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert(idle_slept);
	cr_assert_eq(idle_turns, 0);
	cr_assert_lt(cpu_ns, IDLE_NS / 10);
	cr_assert_eq(ready_total, 1);
	cr_assert_eq(guests[IDLE_COUNT / 2].ready_count, 1);
	remove_many(IDLE_COUNT);
}
