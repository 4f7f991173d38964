/* The watchdog, on a real core. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdatomic.h>
#include <unistd.h>

#include "reactor/core.h"
#include "reactor/watchdog.h"

#define STALL_MS 40

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

/* Keeps its core busy for some time when it is delivered. */
struct hog {
	struct message message;
	uint64_t busy_ns;
	atomic_bool done;
};

static void
hog_deliver(struct message *message)
{
	struct hog *hog = container_of(message, struct hog, message);
	uint64_t until_ns = kernel_clock_ns() + hog->busy_ns;

	while (kernel_clock_ns() < until_ns)
		;
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

Test(watchdog, stall_is_counted_once)
{
	struct fixture fixture;

	fixture_start(&fixture);
	hog_run(&fixture, 6 * STALL_MS);
	cr_assert_eq(watchdog_stall_count(fixture.watchdog), 1);
	fixture_stop(&fixture);
}

Test(watchdog, second_stall_is_counted_too)
{
	struct fixture fixture;

	fixture_start(&fixture);
	hog_run(&fixture, 6 * STALL_MS);
	usleep(2 * STALL_MS * 1000);
	hog_run(&fixture, 6 * STALL_MS);
	cr_assert_eq(watchdog_stall_count(fixture.watchdog), 2);
	fixture_stop(&fixture);
}

Test(watchdog, sleeping_core_does_not_stall)
{
	struct fixture fixture;

	fixture_start(&fixture);
	usleep(6 * STALL_MS * 1000);
	cr_assert_eq(watchdog_stall_count(fixture.watchdog), 0);
	fixture_stop(&fixture);
}

/* Where others take the CPU away for longer than the limit that is a stall: then once more. */
Test(watchdog, busy_core_that_takes_turns_does_not_stall)
{
	uint64_t stalls = 1;

	for (unsigned tries = 0; stalls > 0 && tries < 8; tries++) {
		struct fixture fixture;

		fixture_start(&fixture);
		for (unsigned i = 0; i < 24; i++)
			hog_run(&fixture, STALL_MS / 4);
		stalls = watchdog_stall_count(fixture.watchdog);
		fixture_stop(&fixture);
	}
	cr_assert_eq(stalls, 0);
}

Test(watchdog, unusable_time_is_refused)
{
	struct cores cores = { .count = 0 };
	struct watchdog *watchdog = NULL;

	cr_assert_eq(watchdog_start(&cores, 9, &watchdog), -EINVAL);
	cr_assert_eq(watchdog_start(&cores, 3600001, &watchdog), -EINVAL);
	cr_assert_null(watchdog);
}
