/* Ranges locked across two real cores. */
#include <criterion/criterion.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "disk/range_lock.h"
#include "tests/unit/seed.h"

#define CORES  2
#define BLOCKS 16 /* of the random trial: few, so that holders meet */

struct fixture {
	struct cores cores;
	struct range_lock *lock;
};

/* Two threads also where there is one CPU: both on it. */
static void
fixture_start(struct fixture *fixture)
{
	struct reactor_config config = { .disk_slots = 16, .poll_slots = 16 };
	struct cpu_list cpus;

	cr_assert_eq(cpu_list_auto(&cpus), 0);
	if (cpus.count < CORES)
		cpus.cpus[1] = cpus.cpus[0];
	cpus.count = CORES;
	cr_assert_eq(cores_start(&fixture->cores, &cpus, &config, (size_t)4 << 20, (size_t)4 << 20),
		     0);
	cr_assert_eq(range_lock_create(&fixture->cores, 1, &fixture->lock), 0);
}

static void
fixture_stop(struct fixture *fixture)
{
	usleep(20000); /* the last release's messages */
	cores_stop(&fixture->cores);
	range_lock_destroy(fixture->lock);
}

/* A holder of either kind that a test drives from its own thread. */
struct holder {
	struct message message;
	struct fixture *fixture;
	struct core *core;
	bool is_exclusive;
	union {
		struct range_write write;
		struct range_exclusive exclusive;
	};
	atomic_int granted; /* 1 when it was */
	atomic_int released;
};

static void
write_granted(struct range_write *write)
{
	atomic_store(&container_of(write, struct holder, write)->granted, 1);
}

static void
exclusive_granted(struct range_exclusive *exclusive)
{
	atomic_store(&container_of(exclusive, struct holder, exclusive)->granted, 1);
}

static void
on_begin(struct message *message)
{
	struct holder *holder = container_of(message, struct holder, message);

	if (holder->is_exclusive)
		range_exclusive_begin(holder->fixture->lock, holder->core, &holder->exclusive);
	else if (range_write_begin(holder->fixture->lock, holder->core, &holder->write))
		atomic_store(&holder->granted, 1);
}

static void
on_end(struct message *message)
{
	struct holder *holder = container_of(message, struct holder, message);

	if (holder->is_exclusive)
		range_exclusive_end(&holder->exclusive);
	else
		range_write_end(holder->fixture->lock, holder->core, &holder->write);
	atomic_store(&holder->released, 1);
}

static void
holder_begin(struct holder *holder, struct fixture *fixture, unsigned core, bool is_exclusive,
	     uint64_t start, uint64_t end)
{
	holder->fixture = fixture;
	holder->core = &fixture->cores.cores[core];
	holder->is_exclusive = is_exclusive;
	atomic_store(&holder->granted, 0);
	atomic_store(&holder->released, 0);
	if (is_exclusive)
		holder->exclusive = (struct range_exclusive){ .start = start,
							      .end = end,
							      .granted = exclusive_granted };
	else
		holder->write = (struct range_write){ .start = start,
						      .end = end,
						      .granted = write_granted };
	holder->message.deliver = on_begin;
	reactor_send(holder->core->reactor, &holder->message);
}

static void
holder_end(struct holder *holder)
{
	holder->message.deliver = on_end;
	reactor_send(holder->core->reactor, &holder->message);
	while (!atomic_load(&holder->released))
		usleep(100);
}

static void
assert_granted(struct holder *holder)
{
	for (unsigned i = 0; i < 20000 && !atomic_load(&holder->granted); i++)
		usleep(100);
	cr_assert(atomic_load(&holder->granted));
}

static void
assert_waits(struct holder *holder)
{
	usleep(20000);
	cr_assert_not(atomic_load(&holder->granted));
}

Test(range_lock, plain_writes_do_not_exclude_each_other)
{
	struct fixture fixture;
	struct holder a, b;

	fixture_start(&fixture);
	holder_begin(&a, &fixture, 0, false, 0, 4096);
	holder_begin(&b, &fixture, 1, false, 0, 4096);
	assert_granted(&a);
	assert_granted(&b);
	holder_end(&a);
	holder_end(&b);
	fixture_stop(&fixture);
}

Test(range_lock, exclusive_waits_for_plain_writes_of_every_core)
{
	struct fixture fixture;
	struct holder writes[CORES], exclusive;

	fixture_start(&fixture);
	for (unsigned c = 0; c < CORES; c++) {
		holder_begin(&writes[c], &fixture, c, false, 4096, 8192);
		assert_granted(&writes[c]);
	}
	holder_begin(&exclusive, &fixture, 0, true, 0, 4097);
	assert_waits(&exclusive);
	holder_end(&writes[0]);
	assert_waits(&exclusive);
	holder_end(&writes[1]);
	assert_granted(&exclusive);
	holder_end(&exclusive);
	fixture_stop(&fixture);
}

Test(range_lock, exclusive_does_not_wait_for_its_neighbours)
{
	struct fixture fixture;
	struct holder below, above, exclusive;

	fixture_start(&fixture);
	holder_begin(&below, &fixture, 0, false, 0, 4096);
	holder_begin(&above, &fixture, 1, false, 8192, 12288);
	assert_granted(&below);
	assert_granted(&above);
	holder_begin(&exclusive, &fixture, 1, true, 4096, 8192);
	assert_granted(&exclusive);
	holder_end(&exclusive);
	holder_end(&below);
	holder_end(&above);
	fixture_stop(&fixture);
}

Test(range_lock, plain_write_waits_for_an_exclusive_holder_on_another_core)
{
	struct fixture fixture;
	struct holder write, exclusive;

	fixture_start(&fixture);
	holder_begin(&exclusive, &fixture, 1, true, 0, 4096);
	assert_granted(&exclusive);
	holder_begin(&write, &fixture, 0, false, 4095, 4096);
	assert_waits(&write);
	holder_end(&exclusive);
	assert_granted(&write);
	holder_end(&write);
	fixture_stop(&fixture);
}

Test(range_lock, exclusive_holders_take_turns)
{
	struct fixture fixture;
	struct holder first, second;

	fixture_start(&fixture);
	holder_begin(&first, &fixture, 0, true, 0, 8192);
	assert_granted(&first);
	holder_begin(&second, &fixture, 1, true, 4096, 12288);
	assert_waits(&second);
	holder_end(&first);
	assert_granted(&second);
	holder_end(&second);
	fixture_stop(&fixture);
}

Test(range_lock, more_exclusive_holders_than_slots_all_get_their_turn)
{
	enum {
		COUNT = 2 * RANGE_EXCLUSIVE_MAX
	};
	struct fixture fixture;
	struct holder *holders = calloc(COUNT, sizeof(*holders));
	unsigned ended = 0;

	fixture_start(&fixture);
	for (unsigned i = 0; i < COUNT; i++)
		holder_begin(&holders[i], &fixture, i % CORES, true, i * 4096ull,
			     (i + 1) * 4096ull);
	/* They arrive in any order, so end whichever has its turn. */
	for (unsigned looks = 0; ended < COUNT && looks < 10000; looks++) {
		for (unsigned i = 0; i < COUNT; i++) {
			if (!atomic_load(&holders[i].granted) || atomic_load(&holders[i].released))
				continue;
			holder_end(&holders[i]);
			ended++;
		}
		usleep(100);
	}
	cr_assert_eq(ended, COUNT);
	fixture_stop(&fixture);
	free(holders);
}

/* ---- the end of a lock */

/* Two cores whose turns the test takes itself: each delivers what had been sent to it. */
static void
deliver_round(struct cores *cores)
{
	for (unsigned c = 0; c < cores->count; c++)
		(void)reactor_turn(cores->cores[c].reactor);
}

Test(range_lock, after_its_rounds_no_message_is_under_way)
{
	struct reactor_config config = { .disk_slots = 4, .poll_slots = 4 };
	struct core core[CORES] = { { .index = 0 }, { .index = 1 } };
	struct cores cores = { .count = CORES, .cores = core };
	struct range_lock *lock;
	struct holder holder = { .exclusive = { .end = 4096, .granted = exclusive_granted } };

	for (unsigned c = 0; c < CORES; c++)
		cr_assert_eq(reactor_create(&config, &core[c].reactor), 0);
	cr_assert_eq(range_lock_create(&cores, 0, &lock), 0);
	range_exclusive_begin(lock, &core[1], &holder.exclusive);
	for (unsigned i = 0; i < 10; i++)
		deliver_round(&cores);
	cr_assert(atomic_load(&holder.granted));
	range_exclusive_end(&holder.exclusive);
	for (unsigned i = 0; i < RANGE_LOCK_ROUNDS; i++)
		deliver_round(&cores);
	range_lock_destroy(lock);
	for (unsigned i = 0; i < 10; i++)
		deliver_round(&cores); /* what is left over uses what is freed */
	for (unsigned c = 0; c < CORES; c++)
		reactor_destroy(core[c].reactor);
}

/* ---- many that wait */

/* A lock whose turns the test takes itself, on one core. */
struct bench {
	struct core core;
	struct cores cores;
	struct range_lock *lock;
};

static void
bench_start(struct bench *bench)
{
	struct reactor_config config = { .disk_slots = 4, .poll_slots = 4 };

	bench->core = (struct core){ .index = 0 };
	bench->cores = (struct cores){ .count = 1, .cores = &bench->core };
	cr_assert_eq(reactor_create(&config, &bench->core.reactor), 0);
	cr_assert_eq(range_lock_create(&bench->cores, 0, &bench->lock), 0);
}

static void
bench_stop(struct bench *bench)
{
	deliver_round(&bench->cores);
	range_lock_destroy(bench->lock);
	reactor_destroy(bench->core.reactor);
}

static void
deliver_all(struct bench *bench)
{
	for (unsigned i = 0; i < 8; i++)
		deliver_round(&bench->cores);
}

static void
bench_begin(struct bench *bench, struct holder *holder, uint64_t start, uint64_t end)
{
	atomic_store(&holder->granted, 0);
	holder->exclusive = (struct range_exclusive){
		.start = start,
		.end = end,
		.granted = exclusive_granted,
	};
	range_exclusive_begin(bench->lock, &bench->core, &holder->exclusive);
}

/* Whoever waits for a slot alone gets that of any other; whoever waits for a range too, that of the range. */
Test(range_lock, what_waits_for_a_slot_gets_the_next_that_is_free)
{
	struct bench bench;
	struct holder holders[RANGE_EXCLUSIVE_MAX], same, elsewhere, between;

	bench_start(&bench);
	for (unsigned i = 0; i < RANGE_EXCLUSIVE_MAX; i++)
		bench_begin(&bench, &holders[i], 10 * i, 10 * i + 10);
	bench_begin(&bench, &same, 0, 10);
	bench_begin(&bench, &elsewhere, 5000, 5010);
	bench_begin(&bench, &between, 5005, 5015);
	deliver_all(&bench);
	cr_assert_not(atomic_load(&same.granted) || atomic_load(&elsewhere.granted));
	range_exclusive_end(&holders[7].exclusive);
	deliver_all(&bench);
	cr_assert(atomic_load(&elsewhere.granted));
	cr_assert_not(atomic_load(&same.granted) || atomic_load(&between.granted));
	range_exclusive_end(&holders[0].exclusive);
	deliver_all(&bench);
	cr_assert(atomic_load(&same.granted));
	cr_assert_not(atomic_load(&between.granted));
	range_exclusive_end(&elsewhere.exclusive);
	deliver_all(&bench);
	cr_assert(atomic_load(&between.granted));
	range_exclusive_end(&same.exclusive);
	range_exclusive_end(&between.exclusive);
	for (unsigned i = 1; i < RANGE_EXCLUSIVE_MAX; i++) {
		if (i != 7)
			range_exclusive_end(&holders[i].exclusive);
	}
	deliver_all(&bench);
	bench_stop(&bench);
}

/* How long COUNT holders take that want one range and come at once. */
static double
seconds_in_line(unsigned count)
{
	struct bench bench;
	struct holder *holders = calloc(count, sizeof(*holders));
	struct timespec begin, end;

	bench_start(&bench);
	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
	for (unsigned i = 0; i < count; i++)
		bench_begin(&bench, &holders[i], 0, 4096);
	for (unsigned i = 0; i < count; i++) {
		while (!atomic_load(&holders[i].granted))
			deliver_round(&bench.cores);
		range_exclusive_end(&holders[i].exclusive);
	}
	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
	deliver_all(&bench);
	bench_stop(&bench);
	free(holders);
	return (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
}

/* Thousands of requests for one block take the home core no longer each than a few do: others are served there, too. */
Test(range_lock, a_long_queue_does_not_make_each_turn_longer)
{
	double few = 1e9, many = 1e9;

	for (unsigned i = 0; i < 3; i++) {
		double few_now = seconds_in_line(1500), many_now = seconds_in_line(12000);

		few = few_now < few ? few_now : few;
		many = many_now < many ? many_now : many;
	}
	cr_assert_lt(many, 24 * few, "12,000 took %f s, 1,500 %f s", many, few);
}

/* ---- taking turns with many */

#define STREAM 4 /* exclusive holders at one time; whoever ends comes again */

/* A plain write that overlaps them all has its turn, though one of them always holds its range. */
Test(range_lock, a_stream_of_exclusive_holders_keeps_no_plain_write_waiting)
{
	struct bench bench;
	struct holder holders[STREAM], write;
	unsigned ends = 0;

	bench_start(&bench);
	for (unsigned i = 0; i < STREAM; i++)
		bench_begin(&bench, &holders[i], 10 * i, 10 * i + 10);
	deliver_all(&bench);
	atomic_store(&write.granted, 0);
	write.write = (struct range_write){ .end = 10 * STREAM, .granted = write_granted };
	cr_assert_not(range_write_begin(bench.lock, &bench.core, &write.write));
	for (; ends < 100 && !atomic_load(&write.granted); ends++) {
		struct holder *holder = &holders[ends % STREAM];

		if (!atomic_load(&holder->granted))
			continue;
		range_exclusive_end(&holder->exclusive);
		bench_begin(&bench, holder, 10 * (ends % STREAM), 10 * (ends % STREAM) + 10);
		deliver_all(&bench);
	}
	cr_assert(atomic_load(&write.granted), "not after %u ends of exclusive holders", ends);
	cr_assert_leq(ends, STREAM);
	/* Now they wait for it, and so does whoever comes behind them. */
	for (unsigned i = 0; i < STREAM; i++)
		cr_assert_not(atomic_load(&holders[i].granted));
	range_write_end(bench.lock, &bench.core, &write.write);
	deliver_all(&bench);
	for (unsigned i = 0; i < STREAM; i++) {
		cr_assert(atomic_load(&holders[i].granted));
		range_exclusive_end(&holders[i].exclusive);
	}
	deliver_all(&bench);
	bench_stop(&bench);
}

/* ---- many holders at random on both cores, checked block by block */

#define HOLDERS_PER_CORE 24
#define ROUNDS		 1500

/* Plain holders of a block, or minus one for an exclusive holder. */
static atomic_int owners[BLOCKS];
static atomic_uint violations;
static atomic_uint finished;

struct random_holder {
	struct task again; /* begin, or end what was granted */
	struct fixture *fixture;
	struct core *core;
	unsigned seed, rounds_left;
	bool is_exclusive, holds;
	uint64_t start, end;
	struct message message;
	union {
		struct range_write write;
		struct range_exclusive exclusive;
	};
};

static void
enter(struct random_holder *holder)
{
	for (uint64_t b = holder->start; b < holder->end; b++) {
		if (holder->is_exclusive) {
			if (atomic_exchange(&owners[b], -1) != 0)
				atomic_fetch_add(&violations, 1);
		} else if (atomic_fetch_add(&owners[b], 1) < 0) {
			atomic_fetch_add(&violations, 1);
		}
	}
	holder->holds = true;
	reactor_defer(holder->core->reactor, &holder->again);
}

static void
random_write_granted(struct range_write *write)
{
	enter(container_of(write, struct random_holder, write));
}

static void
random_exclusive_granted(struct range_exclusive *exclusive)
{
	enter(container_of(exclusive, struct random_holder, exclusive));
}

static void
leave(struct random_holder *holder)
{
	for (uint64_t b = holder->start; b < holder->end; b++) {
		if (holder->is_exclusive) {
			if (atomic_exchange(&owners[b], 0) != -1)
				atomic_fetch_add(&violations, 1);
		} else {
			atomic_fetch_sub(&owners[b], 1);
		}
	}
	holder->holds = false;
	if (holder->is_exclusive)
		range_exclusive_end(&holder->exclusive);
	else
		range_write_end(holder->fixture->lock, holder->core, &holder->write);
}

static void
random_step(struct task *task)
{
	struct random_holder *holder = container_of(task, struct random_holder, again);

	if (holder->holds) {
		if (rand_r(&holder->seed) % 3 == 0) {
			reactor_defer(holder->core->reactor, task); /* hold on for a turn */
			return;
		}
		leave(holder);
	}
	if (holder->rounds_left-- == 0) {
		atomic_fetch_add(&finished, 1);
		return;
	}
	holder->start = (unsigned)rand_r(&holder->seed) % BLOCKS;
	holder->end = holder->start + 1 + (unsigned)rand_r(&holder->seed) % 3;
	if (holder->end > BLOCKS)
		holder->end = BLOCKS;
	holder->is_exclusive = rand_r(&holder->seed) % 4 == 0;
	if (holder->is_exclusive) {
		holder->exclusive = (struct range_exclusive){ .start = holder->start,
							      .end = holder->end,
							      .granted = random_exclusive_granted };
		range_exclusive_begin(holder->fixture->lock, holder->core, &holder->exclusive);
		return;
	}
	holder->write = (struct range_write){ .start = holder->start,
					      .end = holder->end,
					      .granted = random_write_granted };
	if (range_write_begin(holder->fixture->lock, holder->core, &holder->write))
		enter(holder);
}

static void
random_start(struct message *message)
{
	struct random_holder *holder = container_of(message, struct random_holder, message);

	task_init(&holder->again, random_step);
	reactor_defer(holder->core->reactor, &holder->again);
}

Test(range_lock, random_holders_never_share_what_one_has_alone, .timeout = 120)
{
	unsigned seed = (unsigned)test_seed();
	struct random_holder *holders = calloc(CORES * HOLDERS_PER_CORE, sizeof(*holders));
	struct fixture fixture;

	fixture_start(&fixture);
	for (unsigned i = 0; i < CORES * HOLDERS_PER_CORE; i++) {
		holders[i].fixture = &fixture;
		holders[i].core = &fixture.cores.cores[i % CORES];
		holders[i].seed = seed + i;
		holders[i].rounds_left = ROUNDS;
		holders[i].message.deliver = random_start;
		reactor_send(holders[i].core->reactor, &holders[i].message);
	}
	while (atomic_load(&finished) < CORES * HOLDERS_PER_CORE)
		usleep(1000);
	cr_assert_eq(atomic_load(&violations), 0);
	fixture_stop(&fixture);
	free(holders);
}
