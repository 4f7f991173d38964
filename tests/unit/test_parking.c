/* reactor/parking.h on the real kernel: a parked descriptor is reported once, a watched one each time, and neither after it was
 * removed; what is refused. */
#include "tests/unit/parking_fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

TestSuite(parking, .init = reactor_fixture_init, .fini = reactor_fixture_fini, .timeout = 60);

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

	parking_begin();
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
	parking_end();
}

Test(parking, muted_is_not_reported_until_it_is_watched_again)
{
	struct guest guest;
	int fds[2];

	parking_begin();
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
	parking_end();
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

	parking_begin();
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
	parking_end();
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

	parking_begin();
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
	parking_end();
}

/* ---- one descriptor ---- */

Test(parking, parked_is_reported_when_data_comes)
{
	struct guest guest;
	int fds[2];

	parking_begin();
	make_pipe(fds);
	park_new(&guest, fds[0]);
	turn_for_a_while();
	cr_assert_eq(ready_total, 0);
	write_byte(fds[1]);
	turn_until_ready(1);
	parking_remove(&guest.parked);
	close_pipe(fds);
	parking_end();
}

Test(parking, parked_that_is_ready_already_is_reported_soon)
{
	struct guest guest;
	int fds[2];

	parking_begin();
	turn_for_a_while();
	make_pipe(fds);
	write_byte(fds[1]);
	park_new(&guest, fds[0]);
	cr_assert_eq(ready_total, 0);
	turn_until_ready(1);
	parking_remove(&guest.parked);
	close_pipe(fds);
	parking_end();
}

Test(parking, peers_end_is_reported)
{
	struct guest guests[3];
	int pipe_fds[2], closed[2], shut[2];

	parking_begin();
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
	parking_end();
}

Test(parking, reported_is_not_reported_again_until_parked)
{
	struct guest guest;
	int fds[2];

	parking_begin();
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
	parking_end();
}

Test(parking, removed_is_not_reported)
{
	struct guest guest;
	int fds[2];

	parking_begin();
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
	parking_end();
}

Test(parking, removed_with_its_event_under_way_is_not_reported)
{
	struct guest guest;
	int fds[2];

	parking_begin();
	make_pipe(fds);
	park_new(&guest, fds[0]);
	turn_for_a_while();
	write_byte(fds[1]); /* the set's poll is in the ring now */
	parking_remove(&guest.parked);
	turn_for_a_while();
	cr_assert_eq(ready_total, 0);
	close_pipe(fds);
	parking_end();
}

Test(parking, remove_before_close_forgets_a_file_that_is_open_elsewhere)
{
	struct guest *guest = malloc(sizeof(*guest));
	int fds[2], other;

	parking_begin();
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
	parking_end();
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

	parking_begin();
	make_pipe(fds);
	guest->ready_count = 0;
	parked_init(&guest->parked, remove_and_free);
	park(guest, fds[0]);
	write_byte(fds[1]);
	turn_until_ready(1);
	close_pipe(fds);
	parking_end();
}

/* ---- the end ---- */

Test(parking, stop_before_the_first_turn)
{
	unsigned fds = process_fds();

	parking_begin();
	cr_assert_eq(process_fds(), fds + 1);
	parking_end();
	cr_assert_eq(process_fds(), fds);
}

Test(parking, stop_when_armed_and_start_again)
{
	unsigned fds = process_fds();

	for (unsigned i = 0; i < 3; i++) {
		parking_begin();
		turn_for_a_while();
		parking_end();
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
	parking_begin();
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
	parking_end();
}

Test(parking, parked_is_not_parked_twice)
{
	struct guest guest, other;
	int fds[2];

	parking_begin();
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
	parking_end();
}

Test(parking, another_descriptor_needs_a_remove_before)
{
	struct guest guest;
	int fds[2], others[2];

	parking_begin();
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
	parking_end();
}

Test(parking, files_that_cannot_be_polled_are_refused)
{
	struct guest guest;
	int file = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	int directory = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	parking_begin();
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
	parking_end();
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

	parking_begin();
	make_pipe(fds);
	parked_init(&guest.parked, note_ready);
	parking_stop(&parking, ignore_stopped);
	cr_assert_eq(parking_add(&parking, &guest.parked, fds[0]), -EINVAL);
	turn_for_a_while();
	close_pipe(fds);
}

static void
count_stopped(struct parking *stopped)
{
	(void)stopped;
	stopped_count++;
}

/* One more would never be told of anything: its poll would wait for a slot that is never free. */
Test(parking, more_than_there_are_reserved_slots_are_refused)
{
	static struct parking parkings[REACTOR_RESERVED_SLOTS];
	struct guest guests[REACTOR_RESERVED_SLOTS];
	unsigned last = REACTOR_RESERVED_SLOTS - 2; /* the reactor has one */
	int fds[REACTOR_RESERVED_SLOTS][2];

	for (unsigned i = 0; i <= last; i++) {
		cr_assert_eq(parking_start(&parkings[i], reactor, POLLIN), 0);
		make_pipe(fds[i]);
		parked_init(&guests[i].parked, note_ready);
		guests[i].ready_count = 0;
		cr_assert_eq(parking_add(&parkings[i], &guests[i].parked, fds[i][0]), 0);
	}
	cr_assert_eq(parking_start(&parkings[last + 1], reactor, POLLIN), -ENOBUFS);
	turn_for_a_while();
	write_byte(fds[last][1]);
	turn_until_ready(1);
	cr_assert_eq(guests[last].ready_count, 1);
	for (unsigned i = 0; i <= last; i++) {
		parking_remove(&guests[i].parked);
		close_pipe(fds[i]);
		parking_stop(&parkings[i], count_stopped);
	}
	while (stopped_count < last + 1)
		reactor_turn(reactor);
	stopped_count = 0;
	/* and what was refused or has ended took none */
	for (unsigned i = 0; i <= last; i++) {
		cr_assert_eq(parking_start(&parkings[i], reactor, POLLIN), 0);
		parking_discard(&parkings[i]);
	}
	parking_begin();
	parking_end();
}

Test(parking, no_descriptor_is_an_error)
{
	limit_fds(0);
	cr_assert_eq(parking_start(&parking, reactor, POLLIN), -EMFILE);
	limit_fds(1);
	parking_begin();
	parking_end();
}
