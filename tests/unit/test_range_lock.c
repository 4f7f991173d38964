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

/* A round delivers no more than so many messages of one kind. */
static void
deliver_many(struct bench *bench, unsigned count)
{
	for (unsigned i = 0; i < count; i += 16)
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

static double
cpu_seconds(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void
bench_end(struct bench *bench, struct holder *holder)
{
	while (!atomic_load(&holder->granted))
		deliver_round(&bench->cores);
	range_exclusive_end(&holder->exclusive);
}

/* SECONDS, of so many: thousands take the home core no longer each than hundreds do, and others are served there, too. */
static void
check_cost(double (*seconds)(struct bench *bench, struct holder *holders, unsigned count))
{
	static struct holder holders[4000];
	double best[2] = { 1e9, 1e9 };

	for (unsigned i = 0; i < 6; i++) {
		struct bench bench;
		double now;

		bench_start(&bench);
		now = seconds(&bench, holders, i % 2 == 0 ? 500 : 4000);
		deliver_all(&bench);
		bench_stop(&bench);
		if (now < best[i % 2])
			best[i % 2] = now;
	}
	cr_assert_lt(best[1], 24 * best[0], "4,000 took %f s, 500 %f s", best[1], best[0]);
}

static double
seconds_for_one_range(struct bench *bench, struct holder *holders, unsigned count)
{
	double begin = cpu_seconds();

	for (unsigned i = 0; i < count; i++)
		bench_begin(bench, &holders[i], 0, 4096);
	for (unsigned i = 0; i < count; i++)
		bench_end(bench, &holders[i]);
	return cpu_seconds() - begin;
}

Test(range_lock, a_long_queue_does_not_make_each_turn_longer)
{
	check_cost(seconds_for_one_range);
}

/* Somebody has a part, the next wants it all, and each of the others a part of it that nobody else wants. */
static void
begin_parts_behind_the_whole(struct bench *bench, struct holder *holders, unsigned count)
{
	bench_begin(bench, &holders[0], 0, 1);
	bench_begin(bench, &holders[1], 0, count);
	for (unsigned i = 2; i < count; i++)
		bench_begin(bench, &holders[i], i, i + 1);
	deliver_many(bench, count);
}

static double
seconds_behind_the_whole(struct bench *bench, struct holder *holders, unsigned count)
{
	double begin;

	begin_parts_behind_the_whole(bench, holders, count);
	begin = cpu_seconds();
	for (unsigned i = 0; i < count; i++)
		bench_end(bench, &holders[i]);
	return cpu_seconds() - begin;
}

Test(range_lock, a_long_queue_behind_the_whole_does_not_make_each_turn_longer)
{
	check_cost(seconds_behind_the_whole);
}

/* Others go past that queue, and wait for slots. */
static double
seconds_of_others(struct bench *bench, struct holder *holders, unsigned count)
{
	enum {
		OTHERS = 2 * RANGE_EXCLUSIVE_MAX,
		ENDS = 1000
	};
	struct holder others[OTHERS];
	double begin, seconds;

	begin_parts_behind_the_whole(bench, holders, count - OTHERS);
	begin = cpu_seconds();
	for (unsigned i = 0; i < OTHERS; i++)
		bench_begin(bench, &others[i], count + i, count + i + 1);
	for (unsigned i = 0; i < ENDS; i++) {
		struct holder *other = &others[i % OTHERS];

		bench_end(bench, other);
		bench_begin(bench, other, other->exclusive.start, other->exclusive.end);
	}
	seconds = cpu_seconds() - begin;
	for (unsigned i = 0; i < OTHERS; i++)
		bench_end(bench, &others[(ENDS + i) % OTHERS]);
	for (unsigned i = 0; i < count - OTHERS; i++)
		bench_end(bench, &holders[i]);
	return seconds;
}

Test(range_lock, a_long_queue_does_not_make_the_turns_of_others_longer)
{
	check_cost(seconds_of_others);
}

/* An exclusive holder waits for the last of these plain writes while the others end. */
static double
seconds_beside_a_drain(struct bench *bench, struct holder *holders, unsigned count)
{
	struct holder exclusive;
	double begin, seconds;

	for (unsigned i = 0; i < count; i++) {
		holders[i].write = (struct range_write){ .start = i, .end = i + 1 };
		cr_assert(range_write_begin(bench->lock, &bench->core, &holders[i].write));
	}
	bench_begin(bench, &exclusive, count - 1, count);
	deliver_all(bench);
	begin = cpu_seconds();
	for (unsigned i = 0; i < count - 1; i++)
		range_write_end(bench->lock, &bench->core, &holders[i].write);
	seconds = cpu_seconds() - begin;
	deliver_all(bench);
	cr_assert_not(atomic_load(&exclusive.granted));
	range_write_end(bench->lock, &bench->core, &holders[count - 1].write);
	bench_end(bench, &exclusive);
	return seconds;
}

Test(range_lock, the_end_of_a_write_does_not_look_for_those_of_others)
{
	check_cost(seconds_beside_a_drain);
}

/* Behind more than the queue takes, everybody has his turn, in order where they overlap. */
Test(range_lock, more_than_the_queue_takes_have_their_turns_in_order)
{
	enum {
		COUNT = 10000,
		RANGES = 7
	};
	struct bench bench;
	struct holder *holders = calloc(COUNT, sizeof(*holders));
	unsigned next[RANGES], ended = 0;

	bench_start(&bench);
	for (unsigned i = 0; i < COUNT; i++)
		bench_begin(&bench, &holders[i], i % RANGES, i % RANGES + 1);
	deliver_many(&bench, COUNT);
	for (unsigned r = 0; r < RANGES; r++)
		next[r] = r;
	while (ended < COUNT) {
		unsigned before = ended;

		deliver_all(&bench);
		for (unsigned r = 0; r < RANGES; r++) {
			if (next[r] + RANGES < COUNT)
				cr_assert_not(atomic_load(&holders[next[r] + RANGES].granted));
			if (next[r] >= COUNT || !atomic_load(&holders[next[r]].granted))
				continue;
			range_exclusive_end(&holders[next[r]].exclusive);
			next[r] += RANGES;
			ended++;
		}
		cr_assert_gt(ended, before);
	}
	deliver_all(&bench);
	bench_stop(&bench);
	free(holders);
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
