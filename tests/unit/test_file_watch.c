/* reactor/file_watch.h in a real directory below build/: what happens to files is told, by name and in order. */
#include "tests/unit/reactor_fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "reactor/file_watch.h"

#define EVENTS_MAX 4096

struct noted {
	int wd;
	uint32_t mask, cookie;
	char name[NAME_MAX + 1];
};

static struct file_watch watch;
static struct noted noted[EVENTS_MAX];
static unsigned noted_count, stopped_count;
static char directory[64], path[sizeof(directory) + NAME_MAX + 2];

/* PATH of NAME in the directory; until the next call. */
static const char *
in_directory(const char *name)
{
	(void)snprintf(path, sizeof(path), "%s/%s", directory, name);
	return path;
}

static void
note_event(struct file_watch *of, const struct file_event *event)
{
	struct noted *entry = &noted[noted_count % EVENTS_MAX];

	cr_assert_eq(of, &watch);
	cr_assert_not(submitting);
	entry->wd = event->wd;
	entry->mask = event->mask;
	entry->cookie = event->cookie;
	cr_assert_lt(strlen(event->name), sizeof(entry->name));
	strcpy(entry->name, event->name);
	noted_count++;
}

/* It is the owner's again: whatever still used it would see rubbish. */
static void
note_stopped(struct file_watch *of)
{
	cr_assert_eq(of, &watch);
	cr_assert_not(submitting);
	memset(of, 0xff, sizeof(*of));
	stopped_count++;
}

static void
fixture_init(void)
{
	reactor_fixture_init();
	(void)snprintf(directory, sizeof(directory), "build/unit-watch-XXXXXX");
	cr_assert_not_null(mkdtemp(directory), "%s: %s", directory, strerror(errno));
	cr_assert_eq(file_watch_start(&watch, reactor, note_event), 0);
}

static void
stop(void)
{
	uint64_t until_ns = kernel_clock_ns() + PATIENCE_NS;

	submitting = true;
	file_watch_stop(&watch, note_stopped);
	submitting = false;
	cr_assert_eq(stopped_count, 0);
	while (stopped_count == 0) {
		cr_assert_lt(kernel_clock_ns(), until_ns);
		reactor_turn(reactor);
	}
	turn_for_a_while();
	cr_assert_eq(stopped_count, 1);
}

static void
fixture_fini(void)
{
	if (stopped_count == 0)
		stop();
	reactor_fixture_fini();
	cr_assert_eq(rmdir(directory), 0, "a test left something: %s", strerror(errno));
}

TestSuite(file_watch, .init = fixture_init, .fini = fixture_fini, .timeout = 60);

static int
add(const char *of, uint32_t mask)
{
	int wd;

	submitting = true;
	wd = file_watch_add(&watch, of, mask);
	submitting = false;
	cr_assert_gt(wd, 0, "%s: %s", of, strerror(-wd));
	return wd;
}

static void
turn_until_noted(unsigned count)
{
	uint64_t until_ns = kernel_clock_ns() + PATIENCE_NS;

	while (noted_count < count) {
		cr_assert_lt(kernel_clock_ns(), until_ns, "%u events", noted_count);
		if (!reactor_turn(reactor))
			usleep(100);
	}
	cr_assert_eq(noted_count, count);
}

static void
assert_noted(unsigned index, int wd, uint32_t mask, const char *name)
{
	cr_assert_eq(noted[index].wd, wd);
	cr_assert_eq(noted[index].mask, mask, "event %u: %x", index, noted[index].mask);
	cr_assert_str_eq(noted[index].name, name);
}

static void
create_file(const char *name)
{
	int fd = open(in_directory(name), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	cr_assert_geq(fd, 0);
	close(fd);
}

static void
modify_file(const char *name)
{
	int fd = open(in_directory(name), O_WRONLY | O_CLOEXEC);

	cr_assert_geq(fd, 0);
	write_byte(fd);
	close(fd);
}

static void
delete_file(const char *name)
{
	cr_assert_eq(unlink(in_directory(name)), 0);
}

/* ---- events ---- */

Test(file_watch, files_of_a_directory)
{
	int wd = add(directory, IN_CREATE | IN_MODIFY | IN_DELETE);

	turn_for_a_while();
	cr_assert_eq(noted_count, 0);
	create_file("a");
	turn_until_noted(1);
	assert_noted(0, wd, IN_CREATE, "a");
	modify_file("a");
	turn_until_noted(2);
	assert_noted(1, wd, IN_MODIFY, "a");
	delete_file("a");
	turn_until_noted(3);
	assert_noted(2, wd, IN_DELETE, "a");
	cr_assert_eq(mkdir(in_directory("d"), 0700), 0);
	turn_until_noted(4);
	assert_noted(3, wd, IN_CREATE | IN_ISDIR, "d");
	cr_assert_eq(rmdir(in_directory("d")), 0);
	turn_until_noted(5);
	turn_for_a_while();
	cr_assert_eq(noted_count, 5);
}

Test(file_watch, several_events_in_one_turn_come_in_order)
{
	int wd = add(directory, IN_CREATE | IN_DELETE | IN_MOVE);
	char name_longest[NAME_MAX + 1];

	memset(name_longest, 'n', NAME_MAX);
	name_longest[NAME_MAX] = 0;
	turn_for_a_while();
	create_file("a");
	create_file("exactly-15-char");
	create_file("exactly-16-chars");
	create_file(name_longest);
	delete_file("a");
	turn_until_noted(5);
	assert_noted(0, wd, IN_CREATE, "a");
	assert_noted(1, wd, IN_CREATE, "exactly-15-char");
	assert_noted(2, wd, IN_CREATE, "exactly-16-chars");
	assert_noted(3, wd, IN_CREATE, name_longest);
	assert_noted(4, wd, IN_DELETE, "a");
	delete_file("exactly-15-char");
	delete_file("exactly-16-chars");
	delete_file(name_longest);
	turn_until_noted(8);
}

Test(file_watch, rename_is_two_events_of_one_cookie)
{
	char from[sizeof(path)];
	int wd = add(directory, IN_MOVE);

	create_file("from");
	strcpy(from, in_directory("from"));
	cr_assert_eq(rename(from, in_directory("to")), 0);
	turn_until_noted(2);
	assert_noted(0, wd, IN_MOVED_FROM, "from");
	assert_noted(1, wd, IN_MOVED_TO, "to");
	cr_assert_neq(noted[0].cookie, 0);
	cr_assert_eq(noted[0].cookie, noted[1].cookie);
	delete_file("to");
}

Test(file_watch, several_paths_are_told_apart)
{
	int a, b;

	create_file("a");
	create_file("b");
	a = add(in_directory("a"), IN_MODIFY);
	b = add(in_directory("b"), IN_MODIFY);
	cr_assert_neq(a, b);
	cr_assert_eq(add(in_directory("b"), IN_MODIFY), b, "the same file has the same number");
	modify_file("b");
	modify_file("a");
	turn_until_noted(2);
	assert_noted(0, b, IN_MODIFY, "");
	assert_noted(1, a, IN_MODIFY, "");
	delete_file("a");
	delete_file("b");
	turn_until_noted(4);
	assert_noted(2, a, IN_IGNORED, "");
	assert_noted(3, b, IN_IGNORED, "");
}

Test(file_watch, removed_path_is_told_no_more)
{
	int wd = add(directory, IN_CREATE | IN_DELETE);

	create_file("a");
	turn_until_noted(1);
	cr_assert_eq(file_watch_remove(&watch, wd), 0);
	delete_file("a");
	turn_until_noted(2);
	assert_noted(1, wd, IN_IGNORED, "");
	turn_for_a_while();
	cr_assert_eq(noted_count, 2);
	cr_assert_eq(file_watch_remove(&watch, wd), -EINVAL);
	cr_assert_eq(file_watch_remove(&watch, -1), -EINVAL);
}

Test(file_watch, more_than_one_read_of_events)
{
	enum {
		FILES = 200
	};
	char name[200];
	int wd = add(directory, IN_CREATE | IN_DELETE);

	memset(name, 'x', sizeof(name));
	for (int i = 0; i < FILES; i++) {
		(void)snprintf(name + 180, 20, "%d", i);
		create_file(name);
	}
	turn_until_noted(FILES);
	for (int i = 0; i < FILES; i++) {
		(void)snprintf(name + 180, 20, "%d", i);
		assert_noted((unsigned)i, wd, IN_CREATE, name);
		delete_file(name);
	}
	turn_until_noted(2 * FILES);
}

/* The length of the kernel's queue. */
static unsigned
max_queued_events(void)
{
	FILE *file = fopen("/proc/sys/fs/inotify/max_queued_events", "r");
	unsigned count;

	cr_assert_not_null(file);
	cr_assert_eq(fscanf(file, "%u", &count), 1);
	fclose(file);
	return count;
}

/* Opened in turns, since the kernel makes one of two equal events in a row. */
static void
flood(unsigned count)
{
	char paths[2][sizeof(path)];

	strcpy(paths[0], in_directory("a"));
	strcpy(paths[1], in_directory("b"));
	for (unsigned i = 0; i < count; i++) {
		int fd = open(paths[i % 2], O_RDONLY | O_CLOEXEC);

		cr_assert_geq(fd, 0);
		close(fd);
	}
}

Test(file_watch, overflow_is_told)
{
	unsigned room = max_queued_events();
	int wd;

	if (room > 200000)
		cr_skip_test("fs.inotify.max_queued_events is too high to be reached soon");
	create_file("a");
	create_file("b");
	wd = add(directory, IN_OPEN);
	flood(room + 10);
	turn_until_noted(room + 1);
	assert_noted(room % EVENTS_MAX, FILE_WATCH_LOST, IN_Q_OVERFLOW, "");
	assert_noted((room - 1) % EVENTS_MAX, wd, IN_OPEN, (room - 1) % 2 == 0 ? "a" : "b");
	flood(1);
	turn_until_noted(room + 2);
	assert_noted((room + 1) % EVENTS_MAX, wd, IN_OPEN, "a");
	delete_file("a");
	delete_file("b");
}

Test(file_watch, flood_leaves_others_their_turn)
{
	unsigned most = 0, before;

	create_file("a");
	create_file("b");
	add(directory, IN_OPEN);
	turn_until_idle();
	flood(3000);
	while (noted_count < 3000) {
		before = noted_count;
		reactor_turn(reactor);
		most = noted_count - before > most ? noted_count - before : most;
	}
	cr_assert_leq(most, 512);
	delete_file("a");
	delete_file("b");
}

/* ---- waking ---- */

static void *
create_when_asleep(void *argument)
{
	wait_for_sleep(0);
	create_file("late");
	return argument;
}

static void
stop_running(struct file_watch *of, const struct file_event *event)
{
	note_event(of, event);
	reactor_stop(reactor);
}

Test(file_watch, event_wakes_a_sleeping_reactor)
{
	pthread_t thread;
	int wd = add(directory, IN_CREATE);

	watch.on_event = stop_running;
	cr_assert_eq(pthread_create(&thread, NULL, create_when_asleep, NULL), 0);
	reactor_run(reactor);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(noted_count, 1);
	assert_noted(0, wd, IN_CREATE, "late");
	delete_file("late");
}

/* ---- stop ---- */

Test(file_watch, stopped_before_the_first_turn)
{
	add(directory, IN_CREATE);
	create_file("a");
	stop();
	cr_assert_eq(noted_count, 0);
	delete_file("a");
}

Test(file_watch, stopped_when_armed_closes_its_descriptor)
{
	unsigned fds = process_fds();

	add(directory, IN_CREATE);
	turn_for_a_while();
	stop();
	cr_assert_eq(process_fds(), fds - 1);
	create_file("a");
	turn_for_a_while();
	cr_assert_eq(noted_count, 0);
	delete_file("a");
}

Test(file_watch, stopped_with_events_under_way_tells_none)
{
	add(directory, IN_CREATE);
	turn_for_a_while();
	create_file("a");
	usleep(20000); /* its event is in the ring */
	stop();
	cr_assert_eq(noted_count, 0);
	delete_file("a");
}

static void
stop_at_once(struct file_watch *of, const struct file_event *event)
{
	note_event(of, event);
	file_watch_stop(of, note_stopped);
}

Test(file_watch, stopped_by_an_event_tells_no_other)
{
	watch.on_event = stop_at_once;
	add(directory, IN_CREATE);
	create_file("a");
	create_file("b");
	turn_for_a_while();
	cr_assert_eq(noted_count, 1);
	cr_assert_eq(stopped_count, 1);
	delete_file("a");
	delete_file("b");
}

/* ---- what is refused ---- */

Test(file_watch, invalid_arguments_are_refused)
{
	struct file_watch other = { .fd = 42 };
	unsigned fds = process_fds();

	cr_assert_eq(file_watch_start(NULL, reactor, note_event), -EINVAL);
	cr_assert_eq(file_watch_start(&other, NULL, note_event), -EINVAL);
	cr_assert_eq(file_watch_start(&other, reactor, NULL), -EINVAL);
	cr_assert_eq(other.fd, 42);
	cr_assert_eq(file_watch_add(NULL, directory, IN_CREATE), -EINVAL);
	cr_assert_eq(file_watch_add(&watch, NULL, IN_CREATE), -EINVAL);
	cr_assert_eq(file_watch_add(&watch, directory, 0), -EINVAL);
	cr_assert_eq(file_watch_add(&watch, directory, IN_ONLYDIR), -EINVAL);
	cr_assert_eq(file_watch_add(&watch, in_directory("none"), IN_CREATE), -ENOENT);
	cr_assert_eq(file_watch_remove(NULL, 1), -EINVAL);
	cr_assert_eq(file_watch_remove(&watch, 1), -EINVAL);
	cr_assert_eq(process_fds(), fds);
	create_file("a");
	turn_for_a_while();
	cr_assert_eq(noted_count, 0);
	delete_file("a");
	file_watch_stop(&watch, note_stopped);
	cr_assert_eq(file_watch_add(&watch, directory, IN_CREATE), -EINVAL);
	cr_assert_eq(file_watch_remove(&watch, 1), -EINVAL);
	turn_for_a_while();
}

Test(file_watch, no_descriptor_is_an_error)
{
	struct file_watch other = { .fd = 42 };

	limit_fds(0);
	cr_assert_eq(file_watch_start(&other, reactor, note_event), -EMFILE);
	cr_assert_eq(other.fd, 42);
}
