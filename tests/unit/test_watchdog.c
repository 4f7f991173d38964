/* The watchdog, on a real core. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "reactor/core.h"
#include "reactor/log.h"
#include "reactor/watchdog.h"
#include "tests/unit/kernel_faults.h"

#define STALL_MS 40
#define STALLS	 9 /* more than are logged in a minute */

struct fixture {
	struct cores cores;
	struct watchdog *watchdog;
};

static void
fixture_start(struct fixture *fixture)
{
	struct reactor_config config = { .disk_slots = 16, .poll_slots = 16, .poll_us = 50 };
	struct cpu_list cpus;

	cr_assert_eq(cpu_list_auto(&cpus), 0);
	cpus.count = 1;
	cr_assert_eq(cores_start(&fixture->cores, &cpus, &config, (size_t)4 << 20, (size_t)4 << 20),
		     0);
	cr_assert_eq(watchdog_start(&fixture->cores, STALL_MS, &fixture->watchdog), 0);
}

static void
fixture_stop(struct fixture *fixture)
{
	watchdog_stop(fixture->watchdog);
	cores_stop(&fixture->cores);
}

/* ---- what it logs ---- */

static atomic_uint stalls_logged, frames_logged,
	names_logged;	      /* lines; names: that have the function's */
static atomic_uint last_core; /* the field */

static void
note_line(void *context, const struct log_entry *entry)
{
	(void)context;
	if (strstr(entry->text, "has been busy with one turn for more than") != NULL)
		atomic_fetch_add(&stalls_logged, 1);
	if (strstr(entry->text, ":   ") != NULL)
		atomic_fetch_add(&frames_logged, 1);
	if (strstr(entry->text, "watchdog_test_stalls_here") != NULL)
		atomic_fetch_add(&names_logged, 1);
	for (unsigned i = 0; i < entry->fields.count; i++) {
		if (strcmp(entry->fields.fields[i].key, "core") == 0)
			atomic_store(&last_core, (unsigned)entry->fields.fields[i].number);
	}
}

/* ---- cores that stall ---- */

/* Keeps its core busy for some time when it is delivered. */
struct hog {
	struct message message;
	uint64_t busy_ns;
	atomic_bool done;
};

void watchdog_test_stalls_here(uint64_t busy_ns);

/* Not static: a backtrace has the names of those that are exported. */
__attribute__((noinline)) void
watchdog_test_stalls_here(uint64_t busy_ns)
{
	uint64_t until_ns = kernel_clock_ns() + busy_ns;

	while (kernel_clock_ns() < until_ns)
		;
}

static void
hog_deliver(struct message *message)
{
	struct hog *hog = container_of(message, struct hog, message);

	watchdog_test_stalls_here(hog->busy_ns);
	atomic_store(&hog->done, true);
}

static void
hog_run(struct fixture *fixture, unsigned busy_ms)
{
	struct hog hog = { .message.deliver = hog_deliver, .busy_ns = (uint64_t)busy_ms * 1000000 };

	reactor_send(fixture->cores.cores[0].reactor, &hog.message);
	while (!atomic_load(&hog.done))
		usleep(1000);
}

/* Where others take a CPU away for longer than the limit a core has stalled for it, and the watchdog may look too late: one of so
 * many tries is enough. */
#define TRIES 8

static void
assert_stalls(void (*happen)(struct fixture *), uint64_t expected)
{
	uint64_t stalls = expected + 1;

	for (unsigned tries = 0; stalls != expected && tries < TRIES; tries++) {
		struct fixture fixture;

		fixture_start(&fixture);
		happen(&fixture);
		stalls = watchdog_stall_count(fixture.watchdog);
		fixture_stop(&fixture);
	}
	cr_assert_eq(stalls, expected, "%u times, the last time %u", TRIES, (unsigned)stalls);
}

static void
stall_once(struct fixture *fixture)
{
	hog_run(fixture, 6 * STALL_MS);
}

static void
stall_twice(struct fixture *fixture)
{
	stall_once(fixture);
	usleep(2 * STALL_MS * 1000);
	stall_once(fixture);
}

static void
sleep_only(struct fixture *fixture)
{
	(void)fixture;
	usleep(6 * STALL_MS * 1000);
}

static void
take_turns(struct fixture *fixture)
{
	for (unsigned i = 0; i < 24; i++)
		hog_run(fixture, STALL_MS / 4);
}

Test(watchdog, stall_is_counted_once)
{
	assert_stalls(stall_once, 1);
}

Test(watchdog, second_stall_is_counted_too)
{
	assert_stalls(stall_twice, 2);
}

Test(watchdog, sleeping_core_does_not_stall)
{
	assert_stalls(sleep_only, 0);
}

Test(watchdog, busy_core_that_takes_turns_does_not_stall)
{
	assert_stalls(take_turns, 0);
}

/* With its core as a field, and a backtrace that has the function. */
Test(watchdog, stall_is_logged_with_where_the_core_is)
{
	struct fixture fixture;

	log_set_sink(note_line, NULL);
	atomic_store(&last_core, UINT32_MAX);
	fixture_start(&fixture);
	/* A core without a CPU does not answer in time. */
	for (unsigned tries = 0; atomic_load(&names_logged) == 0 && tries < TRIES; tries++)
		hog_run(&fixture, 10 * STALL_MS);
	cr_assert_geq(atomic_load(&stalls_logged), 1);
	cr_assert_eq(atomic_load(&names_logged), 1);
	cr_assert_gt(atomic_load(&frames_logged), 2);
	cr_assert_eq(atomic_load(&last_core), fixture.cores.cores[0].cpu);
	fixture_stop(&fixture);
	log_set_sink(NULL, NULL);
}

/* So often; where others take the CPU away the watchdog may not see one, which is tried again. */
static void
stall(struct fixture *fixture, unsigned times)
{
	uint64_t until = watchdog_stall_count(fixture->watchdog) + times;

	while (watchdog_stall_count(fixture->watchdog) < until) {
		hog_run(fixture, 3 * STALL_MS);
		usleep(2 * STALL_MS * 1000);
	}
}

Test(watchdog, all_stalls_are_counted_and_five_a_minute_are_logged)
{
	struct fixture fixture;

	log_set_sink(note_line, NULL);
	fixture_start(&fixture);
	stall(&fixture, STALLS);
	cr_assert_geq(watchdog_stall_count(fixture.watchdog), STALLS);
	cr_assert_eq(atomic_load(&stalls_logged), 5);
	fixture_stop(&fixture);
	log_set_sink(NULL, NULL);
}

/* Also in one that begins in the middle of another. */
Test(watchdog, five_are_logged_in_any_minute)
{
	struct fixture fixture;
	unsigned before;

	log_set_sink(note_line, NULL);
	fixture_start(&fixture);
	stall(&fixture, 1);
	before = atomic_load(&stalls_logged);
	cr_assert_gt(before, 0);
	clock_ahead_ns += (uint64_t)59 * 1000000000;
	stall(&fixture, 4);
	clock_ahead_ns += (uint64_t)1 * 1000000000;
	stall(&fixture, 3);
	cr_assert_eq(atomic_load(&stalls_logged) - before, WATCHDOG_LOGS_PER_MINUTE);
	fixture_stop(&fixture);
	log_set_sink(NULL, NULL);
}

/* Of the signals that this process may have pending; the kernel sends more, but without what comes with them. */
static void
limit_signals(rlim_t count)
{
	struct rlimit limit;

	cr_assert_eq(getrlimit(RLIMIT_SIGPENDING, &limit), 0);
	limit.rlim_cur = count < limit.rlim_max ? count : limit.rlim_max;
	cr_assert_eq(setrlimit(RLIMIT_SIGPENDING, &limit), 0);
}

/* The next stall has its backtrace again, and the end does not wait for an answer that never comes. */
Test(watchdog, question_that_is_lost_is_not_waited_for, .timeout = 20)
{
	struct fixture fixture;

	log_set_sink(note_line, NULL);
	fixture_start(&fixture);
	limit_signals(0);
	hog_run(&fixture, 6 * STALL_MS);
	cr_assert_eq(atomic_load(&frames_logged), 0);
	usleep(2 * STALL_MS * 1000);
	limit_signals(RLIM_INFINITY);
	for (unsigned tries = 0; atomic_load(&frames_logged) == 0 && tries < TRIES; tries++) {
		hog_run(&fixture, 6 * STALL_MS);
		usleep(2 * STALL_MS * 1000);
	}
	cr_assert_gt(atomic_load(&frames_logged), 0);
	limit_signals(0);
	hog_run(&fixture, 6 * STALL_MS);
	fixture_stop(&fixture);
	log_set_sink(NULL, NULL);
}

Test(watchdog, unusable_time_is_refused)
{
	struct cores cores = { .count = 0 };
	struct watchdog *watchdog = NULL;

	cr_assert_eq(watchdog_start(&cores, 9, &watchdog), -EINVAL);
	cr_assert_eq(watchdog_start(&cores, 3600001, &watchdog), -EINVAL);
	cr_assert_eq(watchdog_start(NULL, 100, &watchdog), -EINVAL);
	cr_assert_eq(watchdog_start(&cores, 100, NULL), -EINVAL);
	cr_assert_null(watchdog);
}
