/* reactor/reactor.h: a core that spins does not hold up the kernel's worker that finishes a sync.
 *
 * The device's own time is unknown here, so a reactor that spins is compared with one that sleeps at once, in rounds that
 * alternate.  Another thread's notices, less apart than the spin is long, keep both busy and the first one spinning. */
#include "tests/unit/reactor_fixture.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SYNCS	   200 /* of each reactor, one at a time */
#define ROUNDS	   4
#define TRICKLE_US 30 /* from one message to the next */
#define GAP	   5  /* messages between two syncs, for which it spins */
#define TRIES	   6

static struct op sync_op;
static int file;
static unsigned syncs_left;
static unsigned gap; /* notices until the next sync; 0: one is under way */
static uint64_t started_ns, took_ns[2][SYNCS], spins;
static unsigned kind, taken[2]; /* 0: sleeps; 1: spins */
static bool trickling;		/* atomic */

static void
start_sync(void)
{
	char byte = (char)syncs_left;

	/* Something to sync. */
	memset(buffers[0], byte, BLOCK);
	cr_assert_eq(pwrite(file, buffers[0], BLOCK, 0), BLOCK);
	started_ns = kernel_clock_ns();
	op_fdatasync(&sync_op, file);
	reactor_start(reactor, &sync_op);
}

static void
sync_done(struct op *op, long result)
{
	(void)op;
	cr_assert_eq(result, 0);
	took_ns[kind][taken[kind]++] = kernel_clock_ns() - started_ns;
	gap = GAP;
	if (--syncs_left == 0)
		reactor_stop(reactor);
}

static void
count_gap(struct notice *raised, uint32_t bits)
{
	(void)raised;
	(void)bits;
	if (gap > 0 && --gap == 0 && syncs_left > 0)
		start_sync();
}

static struct notice notice;

static void *
trickle(void *argument)
{
	while (__atomic_load_n(&trickling, __ATOMIC_RELAXED)) {
		reactor_notify(reactor, &notice, 1);
		usleep(TRICKLE_US);
	}
	return argument;
}

static void
sync_round(unsigned poll_us)
{
	pthread_t thread;

	kind = poll_us > 0;
	create_reactor(DISK_SLOTS, POLL_SLOTS, poll_us);
	notice_init(&notice, count_gap);
	op_init(&sync_op, sync_done);
	syncs_left = SYNCS / ROUNDS;
	gap = 0;
	trickling = true;
	cr_assert_eq(pthread_create(&thread, NULL, trickle, NULL), 0);
	start_sync();
	reactor_run(reactor);
	__atomic_store_n(&trickling, false, __ATOMIC_RELAXED);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	spins += reactor_counters(reactor)->spins; /* none without poll_us */
	reactor_destroy(reactor);
}

static int
compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* Returns the median of the one that spins, so many hundredths of the other's. */
static unsigned
measure(void)
{
	uint64_t p50_ns[2];

	taken[0] = taken[1] = 0;
	spins = 0;
	for (unsigned i = 0; i < ROUNDS; i++) {
		sync_round(0);
		sync_round(200);
	}
	for (unsigned i = 0; i < 2; i++) {
		cr_assert_eq(taken[i], SYNCS);
		qsort(took_ns[i], SYNCS, sizeof(took_ns[i][0]), compare);
		p50_ns[i] = took_ns[i][SYNCS / 2];
	}
	printf("fdatasync p50: %.1f us with poll_us = 0, %.1f us with 200 (%llu spins)\n",
	       (double)p50_ns[0] / 1e3, (double)p50_ns[1] / 1e3, (unsigned long long)spins);
	fflush(stdout);
	cr_assert_gt(spins, SYNCS);
	return (unsigned)(p50_ns[1] * 100 / p50_ns[0]);
}

TestSuite(reactor_sync, .timeout = 120);

Test(reactor_sync, spinning_does_not_hold_up_a_sync)
{
	unsigned tries = 0;

	file = open_file();
	while (measure() > 200)
		cr_assert_lt(++tries, TRIES);
	close(file);
}
