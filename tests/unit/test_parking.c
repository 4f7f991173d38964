/* reactor/parking.h on the real kernel: each parked descriptor is reported once, none that was removed, and thousands
 * of idle ones cost one poll and no turn. */
#include "tests/unit/reactor_fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "reactor/parking.h"

TestSuite(parking, .init = reactor_fixture_init, .fini = reactor_fixture_fini, .timeout = 60);

#define IDLE_COUNT 9000

/* One parked descriptor that counts its calls. */
struct guest {
	struct parked parked;
	unsigned ready_count;
};

static struct parking parking;
static unsigned ready_total, stopped_count;

static void
note_ready(struct parked *parked)
{
	struct guest *guest = container_of(parked, struct guest, parked);

	cr_assert_not(submitting);
	cr_assert_not(parked_is_parked(parked));
	guest->ready_count++;
	ready_total++;
}

/* It is the owner's again: whatever still used it would see rubbish. */
static void
note_stopped(struct parking *stopped)
{
	cr_assert_not(submitting);
	cr_assert_eq(stopped, &parking);
	memset(stopped, 0xff, sizeof(*stopped));
	stopped_count++;
}

static void
start(void)
{
	cr_assert_eq(parking_start(&parking, reactor, POLLIN), 0);
}

static void
park(struct guest *guest, int fd)
{
	submitting = true;
	cr_assert_eq(parking_add(&parking, &guest->parked, fd), 0);
	submitting = false;
	cr_assert(parked_is_parked(&guest->parked));
}

static void
park_new(struct guest *guest, int fd)
{
	guest->ready_count = 0;
	parked_init(&guest->parked, note_ready);
	park(guest, fd);
}

static void
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
static void
stop(void)
{
	uint64_t until_ns = kernel_clock_ns() + PATIENCE_NS;

	submitting = true;
	parking_stop(&parking, note_stopped);
	submitting = false;
	cr_assert_eq(stopped_count, 0);
	while (stopped_count == 0) {
		cr_assert_lt(kernel_clock_ns(), until_ns);
		reactor_turn(reactor);
	}
	turn_for_a_while();
	cr_assert_eq(stopped_count, 1);
}

/* ---- watched ---- */

static void
note_watched(struct parked *parked)
{
	struct guest *guest = container_of(parked, struct guest, parked);

	cr_assert_not(submitting);
	cr_assert(parked_is_parked(parked));
	guest->ready_count++;
	ready_total++;
}

static void
watch(struct guest *guest, int fd)
{
	submitting = true;
	cr_assert_eq(parking_watch(&parking, &guest->parked, fd), 0);
	submitting = false;
	cr_assert(parked_is_parked(&guest->parked));
}

static void
watch_new(struct guest *guest, int fd)
{
	guest->ready_count = 0;
	parked_init(&guest->parked, note_watched);
	watch(guest, fd);
}

Test(parking, watched_is_reported_each_time_that_something_comes)
{
	struct guest guest;
	int fds[2];

	start();
	make_pipe(fds);
	watch_new(&guest, fds[0]);
	watch(&guest, fds[0]); /* harmless */
	turn_for_a_while();
	cr_assert_eq(ready_total, 0);
	for (unsigned i = 1; i <= 5; i++) {
		write_byte(fds[1]);
		turn_until_ready(i);
		cr_assert_eq(guest.parked.events & EPOLLIN, EPOLLIN);
		turn_for_a_while(); /* what is left is not told again */
		cr_assert_eq(ready_total, i);
	}
	close(fds[1]);
	turn_until_ready(6);
	cr_assert_eq(guest.parked.events & EPOLLHUP, EPOLLHUP);
	parking_remove(&guest.parked);
	close(fds[0]);
	stop();
}

Test(parking, muted_is_not_reported_until_it_is_watched_again)
{
	struct guest guest;
	int fds[2];

	start();
	make_pipe(fds);
	watch_new(&guest, fds[0]);
	turn_for_a_while();
	parking_mute(&guest.parked);
	parking_mute(&guest.parked); /* harmless */
	cr_assert_not(parked_is_parked(&guest.parked));
	write_byte(fds[1]);
	turn_for_a_while();
	close(fds[1]); /* the kernel tells that even so */
	turn_for_a_while();
	cr_assert_eq(ready_total, 0);
	watch(&guest, fds[0]);
	turn_until_ready(1);
	parking_remove(&guest.parked);
	close(fds[0]);
	stop();
}

static struct guest pair[2];

static void
mute_the_other(struct parked *parked)
{
	note_watched(parked);
	parking_mute(&pair[parked == &pair[0].parked].parked);
}

Test(parking, muted_in_a_batch_is_not_reported)
{
	int fds[2][2];

	start();
	for (unsigned i = 0; i < 2; i++) {
		make_pipe(fds[i]);
		watch_new(&pair[i], fds[i][0]);
		pair[i].parked.ready = mute_the_other;
	}
	turn_for_a_while();
	write_byte(fds[0][1]);
	write_byte(fds[1][1]);
	turn_until_ready(1);
	turn_for_a_while();
	cr_assert_eq(ready_total, 1);
	for (unsigned i = 0; i < 2; i++) {
		parking_remove(&pair[i].parked);
		close_pipe(fds[i]);
	}
	stop();
}

static int more_fd;

static void
write_more(struct parked *parked)
{
	note_watched(parked);
	write_byte(more_fd);
}

/* While there is something in each turn, looking at the set takes no operation. */
Test(parking, busy_set_is_not_polled_for_each_event)
{
	const struct reactor_counters *counters = reactor_counters(reactor);
	struct guest guest;
	uint64_t submitted;
	int fds[2];

	start();
	make_pipe(fds);
	more_fd = fds[1];
	watch_new(&guest, fds[0]);
	guest.parked.ready = write_more;
	turn_for_a_while();
	submitted = counters->ops_submitted;
	write_byte(fds[1]);
	for (unsigned i = 0; i < 100; i++)
		reactor_turn(reactor);
	cr_assert_gt(ready_total, 50);
	cr_assert_eq(counters->ops_submitted, submitted);
	parking_remove(&guest.parked);
	close_pipe(fds);
	stop();
}

/* ---- one descriptor ---- */

Test(parking, parked_is_reported_when_data_comes)
{
	struct guest guest;
	int fds[2];

	start();
	make_pipe(fds);
	park_new(&guest, fds[0]);
	turn_for_a_while();
	cr_assert_eq(ready_total, 0);
	write_byte(fds[1]);
	turn_until_ready(1);
	parking_remove(&guest.parked);
	close_pipe(fds);
	stop();
}

Test(parking, parked_that_is_ready_already_is_reported_soon)
{
	struct guest guest;
	int fds[2];

	start();
	turn_for_a_while();
	make_pipe(fds);
	write_byte(fds[1]);
	park_new(&guest, fds[0]);
	cr_assert_eq(ready_total, 0);
	turn_until_ready(1);
	parking_remove(&guest.parked);
	close_pipe(fds);
	stop();
}

Test(parking, peers_end_is_reported)
{
	struct guest guests[3];
	int pipe_fds[2], closed[2], shut[2];

	start();
	make_pipe(pipe_fds);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, closed), 0);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, shut), 0);
	park_new(&guests[0], pipe_fds[0]);
	park_new(&guests[1], closed[0]);
	park_new(&guests[2], shut[0]);
	turn_for_a_while();
	cr_assert_eq(ready_total, 0);
	close(pipe_fds[1]);
	turn_until_ready(1);
	close(closed[1]);
	turn_until_ready(2);
	cr_assert_eq(shutdown(shut[1], SHUT_WR), 0);
	turn_until_ready(3);
	for (unsigned i = 0; i < ARRAY_COUNT(guests); i++) {
		cr_assert_eq(guests[i].ready_count, 1);
		parking_remove(&guests[i].parked);
	}
	close(pipe_fds[0]);
	close(closed[0]);
	close_pipe(shut);
	stop();
}

Test(parking, reported_is_not_reported_again_until_parked)
{
	struct guest guest;
	int fds[2];

	start();
	make_pipe(fds);
	park_new(&guest, fds[0]);
	write_byte(fds[1]);
	turn_until_ready(1);
	write_byte(fds[1]);
	turn_for_a_while();
	cr_assert_eq(ready_total, 1);
	park(&guest, fds[0]); /* with data left */
	turn_until_ready(2);
	read_byte(fds[0]);
	read_byte(fds[0]);
	park(&guest, fds[0]);
	turn_for_a_while();
	cr_assert_eq(ready_total, 2);
	write_byte(fds[1]);
	turn_until_ready(3);
	parking_remove(&guest.parked);
	close_pipe(fds);
	stop();
}

Test(parking, removed_is_not_reported)
{
	struct guest guest;
	int fds[2];

	start();
	make_pipe(fds);
	park_new(&guest, fds[0]);
	turn_for_a_while();
	parking_remove(&guest.parked);
	cr_assert_not(parked_is_parked(&guest.parked));
	write_byte(fds[1]);
	turn_for_a_while();
	cr_assert_eq(ready_total, 0);
	parking_remove(&guest.parked); /* harmless */
	park(&guest, fds[0]);
	turn_until_ready(1);
	parking_remove(&guest.parked);
	close_pipe(fds);
	stop();
}

Test(parking, removed_with_its_event_under_way_is_not_reported)
{
	struct guest guest;
	int fds[2];

	start();
	make_pipe(fds);
	park_new(&guest, fds[0]);
	turn_for_a_while();
	write_byte(fds[1]); /* the set's poll is in the ring now */
	parking_remove(&guest.parked);
	turn_for_a_while();
	cr_assert_eq(ready_total, 0);
	close_pipe(fds);
	stop();
}

Test(parking, remove_before_close_forgets_a_file_that_is_open_elsewhere)
{
	struct guest *guest = malloc(sizeof(*guest));
	int fds[2], other;

	start();
	make_pipe(fds);
	other = dup(fds[0]);
	cr_assert_geq(other, 0);
	park_new(guest, fds[0]);
	parking_remove(&guest->parked);
	free(guest);
	close(fds[0]);
	write_byte(fds[1]);
	turn_for_a_while();
	cr_assert_eq(ready_total, 0);
	close(other);
	close(fds[1]);
	stop();
}

static void
remove_and_free(struct parked *parked)
{
	note_ready(parked);
	parking_remove(parked);
	free(container_of(parked, struct guest, parked));
}

Test(parking, ready_may_remove_and_free_its_own)
{
	struct guest *guest = malloc(sizeof(*guest));
	int fds[2];

	start();
	make_pipe(fds);
	guest->ready_count = 0;
	parked_init(&guest->parked, remove_and_free);
	park(guest, fds[0]);
	write_byte(fds[1]);
	turn_until_ready(1);
	close_pipe(fds);
	stop();
}

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

Test(parking, ready_may_free_others_of_its_batch)
{
	start();
	group_park(free_all_others);
	turn_until_ready(1);
	turn_for_a_while();
	cr_assert_eq(ready_total, 1);
	group_free();
	stop();
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

Test(parking, removed_and_parked_again_in_a_batch_is_reported_once)
{
	start();
	group_park(park_neighbour_again);
	turn_until_ready(GROUP);
	turn_for_a_while();
	cr_assert_eq(ready_total, GROUP);
	for (unsigned i = 0; i < GROUP; i++)
		cr_assert_eq(group[i]->ready_count, 1);
	group_free();
	stop();
}

static void
stop_all(struct parked *parked)
{
	note_ready(parked);
	for (unsigned i = 0; i < GROUP; i++)
		parking_remove(&group[i]->parked);
	parking_stop(&parking, note_stopped);
}

Test(parking, ready_may_stop_all)
{
	start();
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

Test(parking, turn_is_shared_when_many_are_ready)
{
	const unsigned count = 1000;
	unsigned turns = 0;

	start();
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
	stop();
}

Test(parking, stop_while_more_is_deferred)
{
	const unsigned count = 1000;

	start();
	park_many(count, 1);
	while (ready_total == 0)
		reactor_turn(reactor);
	cr_assert_lt(ready_total, count);
	remove_many(count);
	stop();
	cr_assert_lt(ready_total, count);
}

Test(parking, exactly_one_full_batch_arms_the_poll_again)
{
	start();
	park_many(PARKING_BATCH + 1, 1);
	parking_remove(&guests[PARKING_BATCH].parked);
	turn_until_ready(PARKING_BATCH);
	turn_until_idle();
	park(&guests[PARKING_BATCH], fds_many[PARKING_BATCH]);
	turn_until_ready(PARKING_BATCH + 1);
	remove_many(PARKING_BATCH + 1);
	stop();
}

/* One seed repeats a test: SEED=n. */
static void
seed_random(void)
{
	const char *text = getenv("SEED");
	unsigned seed = text != NULL ? (unsigned)strtoul(text, NULL, 10) : (unsigned)time(NULL);

	cr_log_info("SEED=%u", seed);
	srandom(seed);
}

/* With one slot for polls: the set's poll is the only one that any of this takes. */
static void
create_with_one_poll_slot(void)
{
	reactor_destroy(reactor);
	create_reactor(1, 1, 0);
	start();
}

Test(parking, random_subsets_of_many_are_each_reported_once)
{
	const struct reactor_counters *counters;
	unsigned expected = 0;

	seed_random();
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
	stop();
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

Test(parking, many_idle_take_no_turn_and_wake_a_sleeping_reactor)
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

/* ---- the end ---- */

Test(parking, stop_before_the_first_turn)
{
	unsigned fds = process_fds();

	start();
	cr_assert_eq(process_fds(), fds + 1);
	stop();
	cr_assert_eq(process_fds(), fds);
}

Test(parking, stop_when_armed_and_start_again)
{
	unsigned fds = process_fds();

	for (unsigned i = 0; i < 3; i++) {
		start();
		turn_for_a_while();
		stop();
		stopped_count = 0;
		cr_assert_eq(process_fds(), fds);
	}
}

/* ---- what is refused ---- */

Test(parking, invalid_arguments_are_refused)
{
	struct guest guest = { 0 };
	int fds[2];

	cr_assert_eq(parking_start(NULL, reactor, POLLIN), -EINVAL);
	cr_assert_eq(parking_start(&parking, NULL, POLLIN), -EINVAL);
	cr_assert_eq(parking_start(&parking, reactor, 0), -EINVAL);
	cr_assert_eq(parking_start(&parking, reactor, POLLIN | 0x4000), -EINVAL);
	start();
	make_pipe(fds);
	write_byte(fds[1]);
	parked_init(&guest.parked, NULL);
	cr_assert_eq(parking_add(&parking, &guest.parked, fds[0]), -EINVAL);
	parked_init(&guest.parked, note_ready);
	cr_assert_eq(parking_add(NULL, &guest.parked, fds[0]), -EINVAL);
	cr_assert_eq(parking_add(&parking, NULL, fds[0]), -EINVAL);
	cr_assert_eq(parking_add(&parking, &guest.parked, -1), -EINVAL);
	cr_assert_not(parked_is_parked(&guest.parked));
	turn_for_a_while();
	cr_assert_eq(ready_total, 0);
	close_pipe(fds);
	stop();
}

Test(parking, parked_is_not_parked_twice)
{
	struct guest guest, other;
	int fds[2];

	start();
	make_pipe(fds);
	park_new(&guest, fds[0]);
	cr_assert_eq(parking_add(&parking, &guest.parked, fds[0]), -EINVAL);
	parked_init(&other.parked, note_ready);
	other.ready_count = 0;
	cr_assert_eq(parking_add(&parking, &other.parked, fds[0]), -EEXIST);
	write_byte(fds[1]);
	turn_until_ready(1);
	cr_assert_eq(guest.ready_count, 1);
	parking_remove(&guest.parked);
	cr_assert_eq(parking_add(&parking, &other.parked, fds[0]), 0);
	turn_until_ready(2);
	parking_remove(&other.parked);
	close_pipe(fds);
	stop();
}

Test(parking, another_descriptor_needs_a_remove_before)
{
	struct guest guest;
	int fds[2], others[2];

	start();
	make_pipe(fds);
	make_pipe(others);
	write_byte(fds[1]);
	write_byte(others[1]);
	park_new(&guest, fds[0]);
	turn_until_ready(1);
	cr_assert_eq(parking_add(&parking, &guest.parked, others[0]), -EINVAL);
	turn_for_a_while();
	cr_assert_eq(ready_total, 1);
	parking_remove(&guest.parked);
	park(&guest, others[0]);
	turn_until_ready(2);
	parking_remove(&guest.parked);
	close_pipe(fds);
	close_pipe(others);
	stop();
}

Test(parking, files_that_cannot_be_polled_are_refused)
{
	struct guest guest;
	int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	int directory = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	start();
	cr_assert_geq(file, 0);
	cr_assert_geq(directory, 0);
	parked_init(&guest.parked, note_ready);
	cr_assert_eq(parking_add(&parking, &guest.parked, file), -EOPNOTSUPP);
	cr_assert_eq(parking_add(&parking, &guest.parked, directory), -EOPNOTSUPP);
	close(file);
	cr_assert_eq(parking_add(&parking, &guest.parked, file), -EBADF);
	cr_assert_not(parked_is_parked(&guest.parked));
	parking_remove(&guest.parked); /* harmless: nothing of it was kept */
	turn_for_a_while();
	close(directory);
	stop();
}

static void
ignore_stopped(struct parking *stopped)
{
	(void)stopped;
}

Test(parking, nothing_is_parked_after_stop)
{
	struct guest guest;
	int fds[2];

	start();
	make_pipe(fds);
	parked_init(&guest.parked, note_ready);
	parking_stop(&parking, ignore_stopped);
	cr_assert_eq(parking_add(&parking, &guest.parked, fds[0]), -EINVAL);
	turn_for_a_while();
	close_pipe(fds);
}

Test(parking, no_descriptor_is_an_error)
{
	limit_fds(0);
	cr_assert_eq(parking_start(&parking, reactor, POLLIN), -EMFILE);
	limit_fds(1);
	start();
	stop();
}
