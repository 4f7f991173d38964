/* Limits, measured: on two real cores that take turns as fast as they get them. */
#include "disk/throttle.h"

#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/unit/stolen.h"
#include "tests/unit/volume_fixture.h"

#define WAITERS_MAX 8
#define SECOND_NS   ((uint64_t)1000000000)

/* Somebody who takes turn after turn until told to stop. */
struct taker {
	struct throttle_wait wait;
	struct throttle *throttle;
	struct core *core;
	uint64_t bytes;
	struct message message;
	struct task again;
	_Atomic uint64_t turns;
	atomic_bool stop, stopped;
};

struct fixture {
	struct cores cores;
	struct throttle *throttle;
	struct taker takers[WAITERS_MAX];
	unsigned count;
};

static void
fixture_start(struct fixture *fixture, const struct throttle_limits *limits)
{
	struct reactor_config config = { .disk_slots = 16, .poll_slots = 16 };
	struct cpu_list cpus;

	fixture->count = 0;
	cr_assert_eq(cpu_list_auto(&cpus), 0);
	if (cpus.count < 2)
		cpus.cpus[1] = cpus.cpus[0];
	cpus.count = 2;
	cr_assert_eq(cores_start(&fixture->cores, &cpus, &config, (size_t)4 << 20, (size_t)4 << 20),
		     0);
	cr_assert_eq(throttle_create(limits, &fixture->cores, &fixture->throttle), 0);
}

static void
take_turns(struct taker *taker)
{
	if (atomic_load(&taker->stop)) {
		throttle_cancel(&taker->wait);
		atomic_store(&taker->stopped, true);
		return;
	}
	/* One a turn of the reactor: the other takers are to have theirs. */
	if (throttle_take(taker->throttle, taker->core, &taker->wait, taker->bytes)) {
		atomic_fetch_add(&taker->turns, 1);
		reactor_defer(taker->core->reactor, &taker->again);
	}
}

static void
on_again(struct task *task)
{
	take_turns(container_of(task, struct taker, again));
}

static void
on_granted(struct throttle_wait *wait)
{
	struct taker *taker = container_of(wait, struct taker, wait);

	atomic_fetch_add(&taker->turns, 1);
	reactor_defer(taker->core->reactor, &taker->again);
}

static void
on_start(struct message *message)
{
	take_turns(container_of(message, struct taker, message));
}

static void
on_stop(struct message *message)
{
	struct taker *taker = container_of(message, struct taker, message);

	atomic_store(&taker->stop, true);
	if (throttle_waiting(&taker->wait))
		take_turns(taker);
}

static void
add_taker(struct fixture *fixture, unsigned core, uint64_t bytes)
{
	struct taker *taker = &fixture->takers[fixture->count++];

	taker->throttle = fixture->throttle;
	taker->core = &fixture->cores.cores[core];
	taker->bytes = bytes;
	atomic_store(&taker->turns, 0);
	atomic_store(&taker->stop, false);
	atomic_store(&taker->stopped, false);
	throttle_wait_init(&taker->wait, on_granted);
	task_init(&taker->again, on_again);
	taker->message.deliver = on_start;
	reactor_send(taker->core->reactor, &taker->message);
}

static void
fixture_stop(struct fixture *fixture)
{
	for (unsigned i = 0; i < fixture->count; i++) {
		struct taker *taker = &fixture->takers[i];

		taker->message.deliver = on_stop;
		reactor_send(taker->core->reactor, &taker->message);
		while (!atomic_load(&taker->stopped))
			usleep(1000);
	}
	cores_stop(&fixture->cores);
	throttle_destroy(fixture->throttle);
}

/* Change the limits when all cores have delivered what the last change sent to them: on a busy machine that may take longer than a
 * test lets them run. */
struct echo {
	struct message message;
	atomic_bool delivered;
};

static void
on_echo(struct message *message)
{
	atomic_store(&container_of(message, struct echo, message)->delivered, true);
}

static void
change(struct fixture *fixture, const struct throttle_limits *limits)
{
	for (unsigned i = 0; i < fixture->cores.count; i++) {
		struct echo echo = { .message.deliver = on_echo };

		reactor_send(fixture->cores.cores[i].reactor, &echo.message);
		while (!atomic_load(&echo.delivered))
			usleep(100);
	}
	throttle_change(fixture->throttle, limits);
}

static uint64_t
turns(struct fixture *fixture, unsigned index)
{
	return atomic_load(&fixture->takers[index].turns);
}

/* Let the takers go on for MS; *elapsed_ns: how long that took. */
static void
let_run(unsigned ms, uint64_t *elapsed_ns)
{
	uint64_t began_ns = kernel_clock_ns();

	usleep(ms * 1000);
	*elapsed_ns = kernel_clock_ns() - began_ns;
}

static uint64_t
all_turns(struct fixture *fixture)
{
	uint64_t count = 0;

	for (unsigned i = 0; i < fixture->count; i++)
		count += turns(fixture, i);
	return count;
}

/* Turns of COST each go at PER_SECOND: none of some windows of MS milliseconds has more, and one has not much less.  What a host takes of a
 * CPU meanwhile is lost to the others. */
static void
check_rate(struct fixture *fixture, double cost, double per_second, unsigned ms, double burst_s)
{
	unsigned long long stolen = stolen_ticks();
	double count = 0, seconds = 1;

	for (unsigned try = 0; try < 5 && count <= per_second * seconds * 0.8; try++) {
		uint64_t before = all_turns(fixture), elapsed_ns;

		let_run(ms, &elapsed_ns);
		count = (double)(all_turns(fixture) - before) * cost;
		seconds = (double)elapsed_ns / 1e9;
		cr_assert_lt(count, per_second * (seconds + burst_s + 0.05) * 1.02, "%f in %f s",
			     count, seconds);
	}
	if (count <= per_second * seconds * 0.8 && was_disturbed(stolen))
		cr_skip("the host took CPUs");
	cr_assert_gt(count, per_second * seconds * 0.8, "%f in %f s", count, seconds);
}

static void
wait_for_turns(struct fixture *fixture, uint64_t count)
{
	uint64_t before = all_turns(fixture), until_ns = kernel_clock_ns() + 10000000000;

	while (all_turns(fixture) - before < count) {
		cr_assert_lt(kernel_clock_ns(), until_ns);
		usleep(1000);
	}
}

Test(throttle, requests_per_second_on_all_cores_together, .timeout = 30)
{
	struct throttle_limits limits = { .requests_per_s = 5000, .burst_ms = 20 };
	struct fixture fixture;

	fixture_start(&fixture, &limits);
	for (unsigned i = 0; i < 4; i++)
		add_taker(&fixture, i % 2, 1 << 20);
	check_rate(&fixture, 1, 5000, 1000, 0.02);
	fixture_stop(&fixture);
}

Test(throttle, bytes_per_second, .timeout = 30)
{
	struct throttle_limits limits = { .bytes_per_s = 100 << 20, .burst_ms = 20 };
	struct fixture fixture;

	fixture_start(&fixture, &limits);
	add_taker(&fixture, 0, 65536);
	add_taker(&fixture, 1, 65536);
	check_rate(&fixture, 65536, 100 << 20, 1000, 0.02);
	fixture_stop(&fixture);
}

/* Four takers run for a while: the turns of the one that had least and of the one that had most. */
static void
measure_shares(uint64_t *least, uint64_t *most)
{
	struct throttle_limits limits = { .requests_per_s = 2000, .burst_ms = 10 };
	struct fixture fixture;
	uint64_t elapsed_ns;

	*least = UINT64_MAX;
	*most = 0;
	fixture_start(&fixture, &limits);
	/* Three on one core, one on the other. */
	for (unsigned i = 0; i < 4; i++)
		add_taker(&fixture, i == 3, 4096);
	let_run(1000, &elapsed_ns);
	for (unsigned i = 0; i < 4; i++) {
		*least = turns(&fixture, i) < *least ? turns(&fixture, i) : *least;
		*most = turns(&fixture, i) > *most ? turns(&fixture, i) : *most;
	}
	fixture_stop(&fixture);
}

/* In one of five tries: a host may take a CPU from the one core for longer than from the other. */
Test(throttle, cores_and_takers_have_equal_shares, .timeout = 30)
{
	unsigned long long stolen = stolen_ticks();
	uint64_t least = 0, most = 1;

	for (unsigned try = 0; try < 5 && most > 2 * least; try++)
		measure_shares(&least, &most);
	if (most > 2 * least && was_disturbed(stolen))
		cr_skip("the host took CPUs");
	cr_assert_leq(most, 2 * least, "%lu to %lu", (unsigned long)least, (unsigned long)most);
}

/* After a rest a burst goes at once, and no more than that. */
Test(throttle, what_was_not_used_is_saved_up_as_far_as_the_burst, .timeout = 30)
{
	struct throttle_limits limits = { .requests_per_s = 100, .burst_ms = 500 };
	struct fixture fixture;
	unsigned long long stolen = stolen_ticks();
	uint64_t elapsed_ns;

	fixture_start(&fixture, &limits);
	usleep(50000);
	add_taker(&fixture, 0, 0);
	let_run(100, &elapsed_ns);
	cr_assert(turns(&fixture, 0) >= 50 || was_disturbed(stolen));
	cr_assert_leq((double)turns(&fixture, 0), 51 + 100 * ((double)elapsed_ns / 1e9 + 0.1));
	fixture_stop(&fixture);
}

/* A request that costs more than the burst goes, and those behind it pay. */
Test(throttle, request_larger_than_the_burst_gets_its_turn, .timeout = 30)
{
	struct throttle_limits limits = { .bytes_per_s = 10 << 20, .burst_ms = 1 };
	struct fixture fixture;
	uint64_t elapsed_ns;

	fixture_start(&fixture, &limits);
	add_taker(&fixture, 0, 2 << 20);
	let_run(1000, &elapsed_ns);
	cr_assert_leq((double)turns(&fixture, 0), 2 + 5 * (double)elapsed_ns / 1e9 + 1);
	wait_for_turns(&fixture, 4);
	fixture_stop(&fixture);
}

/* Also for those who wait already. */
Test(throttle, change_holds_at_once, .timeout = 30)
{
	struct throttle_limits slow = { .requests_per_s = 1, .burst_ms = 1 };
	struct throttle_limits limits = { .requests_per_s = 3000, .burst_ms = 20 };
	struct fixture fixture;
	unsigned long long stolen = stolen_ticks();
	uint64_t elapsed_ns;

	fixture_start(&fixture, &slow);
	for (unsigned i = 0; i < 4; i++)
		add_taker(&fixture, i % 2, 4096);
	let_run(100, &elapsed_ns);
	cr_assert_leq(all_turns(&fixture), 2);
	change(&fixture, &limits);
	check_rate(&fixture, 1, 3000, 500, 0.02);
	for (unsigned i = 0; i < 4; i++)
		cr_assert(turns(&fixture, i) > 100 || was_disturbed(stolen), "taker %u", i);
	limits = (struct throttle_limits){ .bytes_per_s = 4096000, .burst_ms = 20 };
	change(&fixture, &limits);
	check_rate(&fixture, 1, 1000, 500, 0.02);
	fixture_stop(&fixture);
}

Test(throttle, no_limits_come_and_go, .timeout = 30)
{
	struct throttle_limits none = { .burst_ms = 1 };
	struct throttle_limits slow = { .requests_per_s = 1, .burst_ms = 1 };
	struct fixture fixture;
	uint64_t elapsed_ns, before;

	fixture_start(&fixture, &none);
	for (unsigned i = 0; i < 4; i++)
		add_taker(&fixture, i % 2, 4096);
	for (unsigned round = 0; round < 3; round++) {
		change(&fixture, &none);
		wait_for_turns(&fixture, 1000);
		change(&fixture, &slow);
		let_run(50, &elapsed_ns);
		before = all_turns(&fixture);
		let_run(50, &elapsed_ns);
		cr_assert_leq(all_turns(&fixture) - before, 1);
	}
	fixture_stop(&fixture);
}

/* What is the same changes nothing: whoever has used the burst does not get it again. */
Test(throttle, same_limits_again_are_no_new_burst, .timeout = 30)
{
	struct throttle_limits limits = { .requests_per_s = 100, .burst_ms = 500 };
	struct fixture fixture;
	uint64_t began_ns = kernel_clock_ns(), elapsed_ns;

	fixture_start(&fixture, &limits);
	add_taker(&fixture, 0, 0);
	for (unsigned i = 0; i < 10; i++) {
		let_run(10, &elapsed_ns);
		change(&fixture, &limits);
	}
	/* Ten bursts would be 500. */
	cr_assert_leq((double)turns(&fixture, 0),
		      51 + 100 * ((double)(kernel_clock_ns() - began_ns) / 1e9 + 0.5));
	fixture_stop(&fixture);
}

/* Takes turns that are far away, and gives each back. */
static void
come_and_go(struct message *message)
{
	struct taker *taker = container_of(message, struct taker, message);

	for (unsigned i = 0; i < 1000; i++) {
		if (!throttle_take(taker->throttle, taker->core, &taker->wait, taker->bytes))
			throttle_cancel(&taker->wait);
	}
	atomic_store(&taker->stopped, true);
}

/* Nobody has to wait for what nobody will use. */
Test(throttle, turns_that_are_given_back_cost_nothing, .timeout = 30)
{
	struct throttle_limits limits = { .requests_per_s = 1000,
					  .bytes_per_s = 1 << 20,
					  .burst_ms = 1 };
	struct fixture fixture;
	struct taker *leaver = &fixture.takers[0];

	fixture_start(&fixture, &limits);
	*leaver = (struct taker){ .throttle = fixture.throttle,
				  .core = &fixture.cores.cores[0],
				  .bytes = 64 << 10,
				  .message.deliver = come_and_go };
	throttle_wait_init(&leaver->wait, on_granted);
	reactor_send(leaver->core->reactor, &leaver->message);
	while (!atomic_load(&leaver->stopped))
		usleep(100);
	fixture.count = 1;
	add_taker(&fixture, 1, 1 << 10);
	/* One of the leaver's turns came at once, and cost 62 ms; all of them would cost a minute. */
	wait_for_turns(&fixture, 100);
	fixture_stop(&fixture);
}
