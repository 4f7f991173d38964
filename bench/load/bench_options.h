/* The command line of millrace-bench's subcommands that put a load on a server. */
#ifndef BENCH_LOAD_BENCH_OPTIONS_H
#define BENCH_LOAD_BENCH_OPTIONS_H

#include "bench/load/load.h"
#include "reactor/check.h"
#include <stdio.h>

enum bench_command {
	BENCH_COMMAND_RUN,
	BENCH_COMMAND_VERIFY,
	BENCH_COMMAND_RAMP,
};

struct bench_options {
	struct load_options load; /* load.target is not set */
	const char *uri;
	enum target_replies replies;
	const char *json_path, *html_path; /* or NULL */
	bool quiet;			   /* no live line */
	bool help;
	/* ramp */
	double p99_max_us;
	double rate_start, rate_factor;
	/* verify */
	uint64_t rounds;
	const char *state_path; /* or NULL */
	bool check_only;
	/* For reports: as it was given, or is by default. */
	const char *rw, *sizes;
	const char *mix; /* instead of rw's shares; or NULL */
};

/* Parse ARGV, of which ARGV[0] is the subcommand.  The strings stay ARGV's.  A mistake is written to ERRORS with the option, its value and
 * what is allowed.  Returns 0 or -EINVAL. */
int bench_options_parse(enum bench_command command, int argc, char **argv,
			struct bench_options *options, FILE *errors) MUST_USE;

void bench_options_print_help(enum bench_command command, FILE *out);

#endif
