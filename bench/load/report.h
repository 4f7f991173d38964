/* A result, shown: as a table, as JSON, as a page with pictures; and two JSON results side by side. */
#ifndef BENCH_LOAD_REPORT_H
#define BENCH_LOAD_REPORT_H

#include "bench/load/bench_options.h"
#include "bench/load/load.h"
#include "reactor/check.h"
#include <stdio.h>

/* Write RESULT as a table for people. */
void report_table(const struct bench_options *options, const struct load_result *result, FILE *out);

const char *report_style_name(enum nbd_style style);

/* Write RESULT to the file at PATH ("-": standard output), replacing it.
 * Returns 0, or a negative errno; then why is written to ERRORS. */
int report_json(const struct bench_options *options, const struct load_result *result,
		const char *path, FILE *errors) MUST_USE;
int report_html(const struct bench_options *options, const struct load_result *result,
		const char *path, FILE *errors) MUST_USE;

/* Write the figures of the JSON results at both paths side by side, with B / A.  Returns 0 or a negative errno, said on ERRORS. */
int report_compare(const char *path_a, const char *path_b, FILE *out, FILE *errors) MUST_USE;

/* The live line: on a terminal with a bar, drawn over itself; otherwise a line each time.  OUT must outlive it. */
struct report_live {
	struct load_progress progress;
	/* Private. */
	FILE *out;
	bool on_terminal;
	double last_s;
	uint64_t last_requests, last_bytes;
};

void report_live_init(struct report_live *live, FILE *out);

/* Before anything else is written to its OUT. */
void report_live_end(struct report_live *live);

#endif
