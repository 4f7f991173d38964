/* Is my data right?  Rounds of writing, closing all connections, and reading all back over new ones. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <unistd.h>

#include "bench/load/bench_options.h"
#include "bench/load/command.h"
#include "bench/load/verifier.h"

/* Begin a ledger for the part of the export that OPTIONS names. */
static int
begin_ledger(const struct bench_options *options, struct ledger *ledger)
{
	const struct load_options *load = &options->load;
	uint32_t block_bytes = pattern_length_max(&load->mix);
	struct target_session session;
	uint64_t bytes = load->region_bytes, run;

	if (load->mix.size_count != 1 || block_bytes % STAMP_SECTOR_BYTES != 0) {
		fprintf(stderr, "--bs %s: verify takes one size, a multiple of %u\n",
			options->sizes, STAMP_SECTOR_BYTES);
		return -1;
	}
	if (target_connect(load->target, &session, stderr) < 0)
		return -1;
	target_disconnect(&session);
	if ((session.flags & NBD_FLAG_READ_ONLY) != 0) {
		fprintf(stderr, "%s: is read-only; only --check can be done\n", options->uri);
		return -1;
	}
	if (block_bytes % session.block_bytes_min != 0 ||
	    load->region_start % session.block_bytes_min != 0 ||
	    block_bytes > session.block_bytes_max) {
		fprintf(stderr,
			"%s: takes multiples of %u bytes, at most %u; change --bs or --offset\n",
			options->uri, session.block_bytes_min, session.block_bytes_max);
		return -1;
	}
	if (load->region_start > session.size_bytes ||
	    bytes > session.size_bytes - load->region_start) {
		fprintf(stderr, "%s: has %" PRIu64 " bytes; the region must lie within\n",
			options->uri, session.size_bytes);
		return -1;
	}
	if (bytes == 0)
		bytes = session.size_bytes - load->region_start;
	if (getrandom(&run, sizeof(run), 0) != sizeof(run) ||
	    ledger_init(ledger, run, load->region_start, bytes / block_bytes, block_bytes) < 0) {
		fprintf(stderr, "no memory for %" PRIu64 " blocks; lower --size\n",
			bytes / block_bytes);
		return -1;
	}
	return 0;
}

static void
print_findings(const struct verifier_report *report)
{
	for (unsigned i = 0; i < report->text_count; i++)
		printf("  %s\n", report->texts[i]);
	printf("%" PRIu64 " blocks written, %" PRIu64 " read: %" PRIu64 " right", report->written,
	       report->read, report->findings[STAMP_RIGHT]);
	for (unsigned i = STAMP_RIGHT + 1; i < STAMP_FINDING_COUNT; i++) {
		if (report->findings[i] > 0)
			printf(", %" PRIu64 " %s", report->findings[i],
			       stamp_finding_name((enum stamp_finding)i));
	}
	if (report->errors > 0)
		printf(", %" PRIu64 " requests failed", report->errors);
	putchar('\n');
}

static uint64_t
issued_count(const struct ledger *ledger)
{
	uint64_t count = 0;

	for (uint64_t i = 0; i < ledger->block_count; i++)
		count += ledger->blocks[i].issued > 0;
	return count;
}

/* Blocks that were never written are right whatever is in them, unless it is another block's. */
static void
print_coverage(const struct ledger *ledger)
{
	uint64_t written = issued_count(ledger);

	if (written < ledger->block_count)
		printf("only %" PRIu64 " of %" PRIu64 " blocks were ever written; a longer --time "
		       "or a smaller --size reaches more\n",
		       written, ledger->block_count);
}

/* One pass.  Returns false if nothing more can be done. */
static bool
pass(const struct bench_options *options, enum verifier_pass kind, uint64_t round,
     struct ledger *ledger, struct verifier_report *report)
{
	if (!options->quiet)
		fprintf(stderr, "round %" PRIu64 " of %" PRIu64 ": %s\n", round, options->rounds,
			kind == VERIFIER_PASS_WRITE ? "writing" : "reading all back");
	if (verifier_run(&options->load, kind, ledger, report, stderr) < 0)
		report->failed = true;
	else if (report->failed)
		fprintf(stderr, "%s: %s\n", options->uri, report->why);
	return !report->failed;
}

static bool
all_right(const struct verifier_report *report)
{
	return !report->failed && report->errors == 0 &&
	       report->findings[STAMP_RIGHT] == report->read;
}

/* What an earlier run had acknowledged and flushed: only of that a check can find that it is lost.  Returns whether there is any. */
static bool
print_promise(const struct ledger *ledger)
{
	uint64_t durable = 0;

	for (uint64_t i = 0; i < ledger->block_count; i++)
		durable += ledger->blocks[i].durable > 0;
	printf("%" PRIu64 " of %" PRIu64 " blocks were flushed when the state was written%s\n",
	       durable, ledger->block_count, durable > 0 ? "" : ": there is nothing to check");
	return durable > 0;
}

/* ---- the state ---- */

/* What PATH says of the export is not so any more from the first write on.  It is not lost either if there is none. */
static void
set_aside(const char *path, char **aside)
{
	char *name;

	*aside = NULL;
	if (path == NULL || asprintf(&name, "%s.old", path) < 0)
		return;
	if (rename(path, name) == 0)
		*aside = name;
	else
		free(name); /* there is none */
}

/* Save what is known of the export now; or, if nothing was written to it, have what was set ASIDE again. */
static int
save(const struct ledger *ledger, const char *path, char *aside)
{
	int error = 0;

	if (issued_count(ledger) > 0)
		error = ledger_save(ledger, path, stderr);
	else if (aside != NULL && rename(aside, path) != 0)
		error = -errno;
	if (error == 0 && aside != NULL)
		(void)unlink(aside);
	free(aside);
	return error;
}

static int
verify(struct bench_options *options, struct ledger *ledger)
{
	struct verifier_report report = { 0 };
	bool saves = options->state_path != NULL && !options->check_only;
	bool go_on = true;
	char *aside;

	if (options->check_only && !print_promise(ledger))
		return EXIT_FAILURE;
	set_aside(saves ? options->state_path : NULL, &aside);

	for (uint64_t round = 1; go_on && round <= options->rounds; round++) {
		options->load.seed++;
		go_on = options->check_only ||
			pass(options, VERIFIER_PASS_WRITE, round, ledger, &report);
		go_on = go_on && pass(options, VERIFIER_PASS_READ, round, ledger, &report);
	}
	print_findings(&report);
	print_coverage(ledger);
	if (report.failed)
		printf("PARTIAL: %s; what was acknowledged and flushed before can be checked with "
		       "--check\n",
		       *report.why == '\0' ? "it could not begin" : report.why);
	if (saves && save(ledger, options->state_path, aside) < 0)
		return EXIT_FAILURE;
	return all_right(&report) ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* Before anything is overwritten, whatever keeps the record of it from being kept must be found. */
static int
make_ledger(const struct bench_options *options, struct ledger *ledger)
{
	if (options->check_only)
		return ledger_load(ledger, options->state_path, stderr);
	if (options->state_path != NULL && ledger_check_path(options->state_path, stderr) < 0)
		return -1;
	return begin_ledger(options, ledger);
}

int
command_verify(int argc, char **argv)
{
	struct bench_options options;
	struct target target;
	struct ledger ledger;
	int status = EXIT_FAILURE;

	if (bench_options_parse(BENCH_COMMAND_VERIFY, argc, argv, &options, stderr) < 0)
		return EXIT_FAILURE;
	if (options.help) {
		bench_options_print_help(BENCH_COMMAND_VERIFY, stdout);
		return EXIT_SUCCESS;
	}
	if (target_parse(options.uri, &target, stderr) < 0)
		return EXIT_FAILURE;
	target.replies = options.replies;
	options.load.target = &target;
	if (options.check_only)
		options.rounds = 1;
	if (make_ledger(&options, &ledger) == 0) {
		status = verify(&options, &ledger);
		ledger_fini(&ledger);
	}
	target_fini(&target);
	return status;
}
