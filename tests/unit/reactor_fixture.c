/* What the tests of the reactor share; it is described in the header. */
#include "tests/unit/reactor_fixture.h"

#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

struct reactor *reactor;
bool submitting;
unsigned done_total;
char buffers[BLOCKS][BLOCK] __attribute__((aligned(BLOCK)));

void
create_reactor(unsigned disk_slots, unsigned poll_slots, unsigned poll_us)
{
	const struct reactor_config config = {
		.disk_slots = disk_slots,
		.poll_slots = poll_slots,
		.poll_us = poll_us,
	};

	cr_assert_eq(reactor_create(&config, &reactor), 0);
}

void
reactor_fixture_init(void)
{
	create_reactor(DISK_SLOTS, POLL_SLOTS, 0);
}

void
reactor_fixture_fini(void)
{
	reactor_destroy(reactor);
}

void
note_done(struct op *op, long result)
{
	struct test_op *test_op = container_of(op, struct test_op, op);

	cr_assert_not(submitting);
	cr_assert(op_idle(op));
	test_op->done_count++;
	test_op->result = result;
	done_total++;
}

void
test_op_init(struct test_op *test_op)
{
	*test_op = (struct test_op){ 0 };
	op_init(&test_op->op, note_done);
}

void
submit(struct test_op *test_op)
{
	submitting = true;
	reactor_start(reactor, &test_op->op);
	submitting = false;
}

void
submit_poll(struct test_op *test_op, int fd, int events)
{
	test_op_init(test_op);
	op_poll(&test_op->op, fd, events);
	submit(test_op);
}

void
submit_read(struct test_op *test_op, int fd, void *buffer, size_t bytes, uint64_t offset)
{
	test_op_init(test_op);
	op_read(&test_op->op, fd, buffer, bytes, offset);
	submit(test_op);
}

void
submit_write(struct test_op *test_op, int fd, void *buffer, size_t bytes, uint64_t offset)
{
	test_op_init(test_op);
	op_write(&test_op->op, fd, buffer, bytes, offset, false);
	submit(test_op);
}

void
turn_until_done(unsigned total)
{
	uint64_t until_ns = kernel_clock_ns() + PATIENCE_NS;

	while (done_total < total) {
		cr_assert_lt(kernel_clock_ns(), until_ns);
		if (!reactor_turn(reactor))
			sched_yield();
	}
	cr_assert_eq(done_total, total);
}

void
turn_for_a_while(void)
{
	for (unsigned i = 0; i < 20; i++) {
		reactor_turn(reactor);
		usleep(1000);
	}
}

void
turn_until_idle(void)
{
	while (reactor_turn(reactor))
		;
}

void
assert_done(const struct test_op *test_op, long result)
{
	cr_assert_eq(test_op->done_count, 1);
	cr_assert_eq(test_op->result, result, "result %ld, not %ld", test_op->result, result);
}

void
assert_polled(const struct test_op *test_op, int events)
{
	cr_assert_eq(test_op->done_count, 1);
	cr_assert(test_op->result > 0 && (test_op->result & events) == events,
		  "result %ld has not %d", test_op->result, events);
}

void
make_pipe(int fds[2])
{
	cr_assert_eq(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
}

void
close_pipe(int fds[2])
{
	close(fds[0]);
	close(fds[1]);
}

void
write_byte(int fd)
{
	cr_assert_eq(write(fd, "x", 1), 1);
}

void
read_byte(int fd)
{
	char byte;

	cr_assert_eq(read(fd, &byte, 1), 1);
}

/* In the build directory, because a file system in memory may refuse O_DIRECT. */
int
open_file(void)
{
	static char content[BLOCKS][BLOCK] __attribute__((aligned(BLOCK)));
	char path[64];
	int fd;

	(void)snprintf(path, sizeof(path), "build/unit-work-%ld", (long)getpid());
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_DIRECT | O_CLOEXEC, 0600);
	if (fd < 0 && errno == EINVAL) {
		unlink(path);
		cr_skip_test("the build directory's file system has no O_DIRECT");
	}
	cr_assert_geq(fd, 0, "%s: %s", path, strerror(errno));
	unlink(path);
	for (int i = 0; i < BLOCKS; i++)
		memset(content[i], i, BLOCK);
	cr_assert_eq(pwrite(fd, content, sizeof(content), 0), (ssize_t)sizeof(content));
	return fd;
}

bool
buffer_is(unsigned index, int byte)
{
	return buffers[index][0] == (char)byte &&
	       memcmp(buffers[index], buffers[index] + 1, BLOCK - 1) == 0;
}

/* ---- waking a reactor ---- */

void
wait_for_sleep(uint64_t sleeps)
{
	while (__atomic_load_n(&reactor_counters(reactor)->sleeps, __ATOMIC_RELAXED) <= sleeps)
		usleep(100);
	usleep(10000);
}

#define WAKES 20

static unsigned arrived_count; /* atomic: the sender waits for it */
static uint64_t sent_ns, latency_max_ns;

static void
note_arrival(struct message *message)
{
	uint64_t latency_ns = kernel_clock_ns() - sent_ns;

	(void)message;
	if (latency_ns > latency_max_ns)
		latency_max_ns = latency_ns;
	if (__atomic_add_fetch(&arrived_count, 1, __ATOMIC_RELEASE) == WAKES)
		reactor_stop(reactor);
}

static void *
send_when_asleep(void *argument)
{
	static struct message message = { .deliver = note_arrival };

	for (unsigned i = 0; i < WAKES; i++) {
		wait_for_sleep(i);
		sent_ns = kernel_clock_ns();
		reactor_send(reactor, &message);
		while (__atomic_load_n(&arrived_count, __ATOMIC_ACQUIRE) == i)
			sched_yield();
	}
	return argument;
}

void
assert_messages_wake(void)
{
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, send_when_asleep, NULL), 0);
	reactor_run(reactor);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(arrived_count, WAKES);
	cr_assert_lt(latency_max_ns, 2000 * MS);
}

/* ---- what the process uses ---- */

uint64_t
thread_cpu_ns(void)
{
	struct rusage usage;

	cr_assert_eq(getrusage(RUSAGE_THREAD, &usage), 0);
	return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 * MS +
	       (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000;
}

static unsigned
directory_entries(const char *path)
{
	DIR *directory = opendir(path);
	struct dirent *entry;
	unsigned count = 0;

	cr_assert_not_null(directory);
	while ((entry = readdir(directory)) != NULL)
		count += entry->d_name[0] != '.';
	closedir(directory);
	return count;
}

unsigned
process_fds(void)
{
	return directory_entries("/proc/self/fd");
}

unsigned
process_threads(void)
{
	return directory_entries("/proc/self/task");
}

void
limit_fds(unsigned more)
{
	struct rlimit limit;
	int next;

	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = limit.rlim_max;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	next = dup(STDERR_FILENO);
	cr_assert_geq(next, 0);
	close(next);
	limit.rlim_cur = (rlim_t)next + more;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

unsigned
process_contexts(void)
{
	FILE *file = fopen("/proc/self/maps", "r");
	char line[512];
	unsigned count = 0;

	cr_assert_not_null(file);
	while (fgets(line, sizeof(line), file) != NULL)
		count += strstr(line, "[aio]") != NULL;
	fclose(file);
	return count;
}

void
assert_create_fails(const struct reactor_config *config, int error)
{
	struct reactor *unchanged = (struct reactor *)&unchanged, *result = unchanged;
	unsigned fds = process_fds();

	cr_assert_eq(reactor_create(config, &result), error);
	cr_assert_eq(result, unchanged);
	cr_assert_eq(process_fds(), fds);
	cr_assert_eq(process_contexts(), 0);
}
