/* The subcommands that measure: run and ramp; and compare. */
#include "bench/load/command.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/load/bench_options.h"
#include "bench/load/report.h"

/* Parse, and answer --help.  Returns true if the command is to go on; else *status is its exit status. */
static bool
begin(enum bench_command command, int argc, char **argv, struct bench_options *options, int *status)
{
	*status = EXIT_FAILURE;
	if (bench_options_parse(command, argc, argv, options, stderr) < 0)
		return false;
	if (!options->help)
		return true;
	bench_options_print_help(command, stdout);
	*status = EXIT_SUCCESS;
	return false;
}

static int
run_once(const struct bench_options *options, struct load_result *result)
{
	struct report_live live;
	int error;

	report_live_init(&live, stderr);
	error = load_run(&options->load, options->quiet ? NULL : &live.progress, result, stderr);
	report_live_end(&live);
	return error;
}

static int
write_reports(const struct bench_options *options, const struct load_result *result)
{
	int error = 0;

	if (options->json_path != NULL)
		error = report_json(options, result, options->json_path, stderr);
	if (options->html_path != NULL &&
	    report_html(options, result, options->html_path, stderr) < 0)
		error = -1;
	return error;
}

/* Find out before a load has run for nothing.  A pipe is left alone: its reader would see the end of it. */
static int
check_path(const char *path)
{
	struct stat status;
	bool was_there = lstat(path, &status) == 0;
	int file, error = 0;

	if (stat(path, &status) == 0 && !S_ISREG(status.st_mode)) {
		if (S_ISDIR(status.st_mode))
			error = -EISDIR;
		else if (access(path, W_OK) != 0)
			error = -errno;
	} else {
		file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
		if (file < 0)
			error = -errno;
		else
			(void)close(file);
		if (file >= 0 && !was_there)
			(void)unlink(path);
	}
	if (error < 0)
		fprintf(stderr, "%s: cannot be written: %s\n", path, strerror(-error));
	return error;
}

static int
check_reports(const struct bench_options *options)
{
	const char *json = options->json_path, *html = options->html_path;

	if (json != NULL && strcmp(json, "-") != 0 && check_path(json) < 0)
		return -1;
	return html != NULL ? check_path(html) : 0;
}

/* Then nothing else may be there. */
static bool
json_on_stdout(const struct bench_options *options)
{
	return options->json_path != NULL && strcmp(options->json_path, "-") == 0;
}

int
command_run(int argc, char **argv)
{
	struct bench_options options;
	struct target target;
	struct load_result result;
	int status;

	if (!begin(BENCH_COMMAND_RUN, argc, argv, &options, &status))
		return status;
	if (target_parse(options.uri, &target, stderr) < 0)
		return EXIT_FAILURE;
	target.replies = options.replies;
	options.load.target = &target;
	status = EXIT_FAILURE;
	if (check_reports(&options) == 0 && run_once(&options, &result) == 0) {
		report_table(&options, &result, json_on_stdout(&options) ? stderr : stdout);
		if (write_reports(&options, &result) == 0 && !result.partial && result.errors == 0)
			status = EXIT_SUCCESS;
		load_result_fini(&result);
	}
	target_fini(&target);
	return status;
}

/* ---- ramp ---- */

/* Whether nearly all that was due was asked for.  When it was answered is the latency's business: of a rate, even one that is kept, what is
 * under way at the end was not answered within the time. */
static bool
kept_up(const struct bench_options *options, const struct load_result *result,
	const struct histogram *all)
{
	double wanted = options->load.rate * (double)options->load.duration_ns * 1e-9;

	return (double)all->count - (double)result->rate_missed >= 0.98 * wanted;
}

/* One step.  Returns 1 if the rate held, 0 if not, or a negative number if the server failed. */
static int
ramp_step(const struct bench_options *options)
{
	struct load_result result;
	struct histogram all;
	double rate, p99_us;
	int held = -1;

	if (run_once(options, &result) < 0)
		return held;
	load_result_latency(&result, &all);
	p99_us = (double)histogram_percentile_ns(&all, 990000) / 1000;
	rate = (double)load_result_requests(&result) / ((double)result.measured_ns * 1e-9);
	printf("%12.0f %12.0f %12.1f %12.1f %12.1f\n", options->load.rate, rate,
	       (double)histogram_percentile_ns(&all, 500000) / 1000, p99_us,
	       (double)all.max_ns / 1000);
	fflush(stdout);
	if (result.partial || result.errors > 0)
		report_table(options, &result, stderr);
	else
		held = p99_us <= options->p99_max_us && kept_up(options, &result, &all);
	load_result_fini(&result);
	return held;
}

/* Raise the rate until it does not hold; then look between the last two, twice.  A rate that does not hold has a second try: what comes above
 * it is never asked for again, and a stall is not the rate's fault. */
static int
ramp(struct bench_options *options, double *best)
{
	double rate = options->rate_start, low = 0, high = 0;
	int held;

	for (unsigned closer = 0; closer < 3;) {
		options->load.rate = rate;
		held = ramp_step(options);
		if (held == 0)
			held = ramp_step(options);
		*best = low;
		if (held < 0)
			return -1;
		if (held)
			low = rate;
		else
			high = rate;
		if (high > 0)
			closer++;
		rate = high > 0 ? (low + high) / 2 : rate * options->rate_factor;
	}
	*best = low;
	return 0;
}

int
command_ramp(int argc, char **argv)
{
	struct bench_options options;
	struct target target;
	double best;
	int status;

	if (!begin(BENCH_COMMAND_RAMP, argc, argv, &options, &status))
		return status;
	if (target_parse(options.uri, &target, stderr) < 0)
		return EXIT_FAILURE;
	target.replies = options.replies;
	options.load.target = &target;
	status = EXIT_FAILURE;
	printf("%12s %12s %12s %12s %12s\n", "wanted/s", "reached/s", "p50 us", "p99 us", "max us");
	if (ramp(&options, &best) == 0)
		status = EXIT_SUCCESS;
	else
		printf("PARTIAL: ended before the limit was found\n");
	if (best > 0)
		printf("%.0f requests/s held a p99 of at most %.0f us\n", best, options.p99_max_us);
	else if (status == EXIT_SUCCESS)
		printf("not even %.0f requests/s held a p99 of at most %.0f us\n",
		       options.rate_start, options.p99_max_us);
	target_fini(&target);
	return status;
}

int
command_compare(int argc, char **argv)
{
	static const char usage[] = "Usage: millrace-bench compare A.json B.json\n";

	if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0))
		return fputs(usage, stdout) < 0;
	if (argc != 3) {
		fputs(usage, stderr);
		return EXIT_FAILURE;
	}
	return report_compare(argv[1], argv[2], stdout, stderr) < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
