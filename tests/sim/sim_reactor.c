/* The reactor on the simulated kernel: random operations of all kinds and priorities, cancelled and abandoned polls, timers,
 * tasks, messages and notices, streams and what is parked, under random faults, and what must hold throughout.
 *
 *	sim-reactor [--seeds N] [--ops N] [--counts FILE]
 *	SEED=n sim-reactor [--ops N]          one seed, in this process, for a debugger
 *
 * A seed decides everything, the sizes of the reactor and how bad the kernel is included; OPS is part of what it
 * decides upon.  A run first takes turns one by one; waits as a loop of its own would, with reactor_wait; lets reactor_run
 * rest until it is stopped by its own core, by another thread, or when all is done; takes turns again until nothing is left;
 * and at last looks whether every slot is still there.  Each seed has a process of its own, so that the others go on when one fails. */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/sim/sim_run.h"

#define REAL_TIME_S   15 /* a seed that needs longer does not end */
#define SEEDS_DEFAULT 200
#define OPS_DEFAULT   20000

struct sim_run run;

static double
seconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void
on_alarm(int signal_number)
{
	(void)signal_number;
	kernel_sim_fail("not done after %d s of real time", REAL_TIME_S);
}

static void
run_seed(uint64_t seed, uint64_t ops, bool tell)
{
	static const struct kernel_sim_observer observer = {
		.on_taken = ops_on_taken,
		.on_refused = ops_on_refused,
		.on_completed = ops_on_completed,
		.on_transfer = sockets_on_transfer,
		.on_sleep = turns_on_sleep,
		.on_time = turns_on_time,
	};
	const struct kernel_sim_config chance_only = { .seed = seed };
	double started_s = seconds_now();

	signal(SIGALRM, on_alarm);
	alarm(REAL_TIME_S);
	/* The plan comes from the same source of chance, which needs a simulation. */
	kernel_sim_begin(&chance_only, &observer);
	plan_run(seed, ops);
	kernel_sim_end();
	kernel_sim_begin(&run.config, &observer);
	plan_world();
	phases_create();
	kernel_sim_at(0, acts_pump, NULL);
	kernel_sim_at(0, sockets_peer, NULL);
	kernel_sim_at(WATCH_NS, acts_watch, NULL);
	phases_take_turns();
	phases_take_waits();
	phases_run_until_stopped();
	phases_drain();
	phases_check_slots();
	phases_check_counters();
	if (tell)
		phases_report(seconds_now() - started_s);
	reactor_destroy(run.reactor);
	kernel_sim_end();
	alarm(0);
}

/* ---- many seeds ---- */

/* In a process of its own.  Returns whether it passed. */
static bool
seed_passes(uint64_t seed, uint64_t ops)
{
	pid_t child;
	int status;

	fflush(NULL);
	child = fork();
	if (child == 0) {
		run_seed(seed, ops, false);
		exit(0);
	}
	if (child < 0 || waitpid(child, &status, 0) != child) {
		perror("sim-reactor");
		return false;
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return true;
	printf("SEED=%" PRIu64 " failed, of %" PRIu64 " operations; again: SEED=%" PRIu64
	       " PROGRAM --ops %" PRIu64 "\n",
	       seed, ops, seed, ops);
	return false;
}

static uint64_t
seed_from_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return ((uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / MS) % 1000000000000;
}

static bool
write_counts(const char *path, unsigned passed, unsigned failed)
{
	FILE *file = fopen(path, "w");
	bool good = file != NULL && fprintf(file, "%u passed, %u failed\n", passed, failed) > 0;

	if (file != NULL && fclose(file) != 0)
		good = false;
	if (!good)
		perror(path);
	return good;
}

static int
usage(void)
{
	fputs("usage: [SEED=n] sim-reactor [--seeds N] [--ops N] [--counts FILE]\n", stderr);
	return 2;
}

int
main(int argc, char **argv)
{
	unsigned seeds = SEEDS_DEFAULT, passed = 0, failed = 0;
	uint64_t ops = OPS_DEFAULT, base = seed_from_clock();
	const char *counts = NULL, *seed_text = getenv("SEED");
	double started_s = seconds_now();

	for (int i = 1; i < argc; i++) {
		if (i + 1 < argc && strcmp(argv[i], "--seeds") == 0)
			seeds = (unsigned)strtoul(argv[++i], NULL, 10);
		else if (i + 1 < argc && strcmp(argv[i], "--ops") == 0)
			ops = strtoull(argv[++i], NULL, 10);
		else if (i + 1 < argc && strcmp(argv[i], "--counts") == 0)
			counts = argv[++i];
		else
			return usage();
	}
	if (seed_text != NULL) {
		run_seed(strtoull(seed_text, NULL, 10), ops, true);
		return 0;
	}
	printf("sim-reactor: SEED=%" PRIu64 " to SEED=%" PRIu64 ", %" PRIu64 " operations each\n",
	       base, base + seeds - 1, ops);
	for (unsigned i = 0; i < seeds; i++) {
		if (seed_passes(base + i, ops))
			passed++;
		else
			failed++;
	}
	printf("%u passed, %u failed in %.1f s\n", passed, failed, seconds_now() - started_s);
	if (counts != NULL && !write_counts(counts, passed, failed))
		return 1;
	return failed == 0 && passed > 0 ? 0 : 1;
}
