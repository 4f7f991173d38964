/* The command line of the load generator: what it means, and every mistake. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "bench/load/bench_options.h"

#define ARGUMENTS_MAX 24

static struct bench_options options;
static char *errors;
static size_t error_bytes;
static FILE *errors_file;

static void
set_up(void)
{
	errors_file = open_memstream(&errors, &error_bytes);
}

static void
tear_down(void)
{
	fclose(errors_file);
	free(errors);
}

TestSuite(bench_options, .init = set_up, .fini = tear_down);

/* TEXT: arguments with one space between. */
static int
parse(enum bench_command command, const char *text)
{
	static char copy[512];
	char *argv[ARGUMENTS_MAX], *next = copy;
	int argc = 0;

	snprintf(copy, sizeof(copy), *text == '\0' ? "run%s" : "run %s", text);
	while (argc + 1 < ARGUMENTS_MAX && (argv[argc] = strsep(&next, " ")) != NULL)
		argc++;
	argv[argc] = NULL;
	return bench_options_parse(command, argc, argv, &options, errors_file);
}

Test(bench_options, defaults_are_those_of_the_help)
{
	cr_assert_eq(parse(BENCH_COMMAND_RUN, "nbd://h/x"), 0);
	cr_assert_str_eq(options.uri, "nbd://h/x");
	cr_assert_eq(options.load.depth, 32);
	cr_assert_eq(options.load.connections, 1);
	cr_assert_eq(options.load.duration_ns, 10000000000u);
	cr_assert_eq(options.load.mix.order, PATTERN_ORDER_RANDOM);
	cr_assert_eq(options.load.mix.write_share, 0);
	cr_assert_eq(options.load.mix.sizes[0].bytes, 4096);
	cr_assert_eq(options.load.cores.count, 1);
}

Test(bench_options, reports_are_written_by_run_alone)
{
	cr_assert_eq(parse(BENCH_COMMAND_RUN, "u --json f --html g"), 0);
	cr_assert_eq(parse(BENCH_COMMAND_RAMP, "u --json f"), -EINVAL);
	cr_assert_eq(parse(BENCH_COMMAND_VERIFY, "u --json f"), -EINVAL);
}

Test(bench_options, replies_have_a_style)
{
	cr_assert_eq(parse(BENCH_COMMAND_RUN, "u"), 0);
	cr_assert_eq(options.replies, TARGET_REPLIES_AUTO);
	cr_assert_eq(parse(BENCH_COMMAND_VERIFY, "u --replies structured"), 0);
	cr_assert_eq(options.replies, TARGET_REPLIES_STRUCTURED);
	cr_assert_eq(parse(BENCH_COMMAND_RAMP, "u --replies best"), -EINVAL);
}

Test(bench_options, kinds_and_shares)
{
	cr_assert_eq(parse(BENCH_COMMAND_RUN, "--rw zipfrw nbd://h"), 0);
	cr_assert_eq(options.load.mix.order, PATTERN_ORDER_ZIPF);
	cr_assert_eq(options.load.mix.read_share, 70);
	cr_assert_eq(options.load.mix.write_share, 30);
	cr_assert_eq(parse(BENCH_COMMAND_RUN, "--mix write=8,flush=1 --fua 20 nbd://h"), 0);
	cr_assert_eq(options.load.mix.read_share, 0);
	cr_assert_eq(options.load.mix.write_share, 8);
	cr_assert_eq(options.load.mix.flush_share, 1);
	cr_assert_eq(options.load.mix.fua_percent, 20);
	cr_assert_str_eq(options.mix, "write=8,flush=1");
}

Test(bench_options, the_mix_counts_before_and_behind_the_kind)
{
	cr_assert_eq(parse(BENCH_COMMAND_RUN, "--mix write=8,flush=1 --rw zipfread nbd://h"), 0);
	cr_assert_eq(options.load.mix.order, PATTERN_ORDER_ZIPF);
	cr_assert_eq(options.load.mix.read_share, 0);
	cr_assert_eq(options.load.mix.write_share, 8);
	cr_assert_eq(options.load.mix.flush_share, 1);
	cr_assert_eq(parse(BENCH_COMMAND_RUN, "--mix trim=1 --mix read=2 nbd://h"), 0);
	cr_assert_eq(options.load.mix.trim_share, 0);
	cr_assert_eq(options.load.mix.read_share, 2);
}

Test(bench_options, sizes_with_shares_and_their_alignment)
{
	cr_assert_eq(parse(BENCH_COMMAND_RUN, "--bs 4k:80,64K:20 nbd://h"), 0);
	cr_assert_eq(options.load.mix.size_count, 2);
	cr_assert_eq(options.load.mix.sizes[1].bytes, 65536);
	cr_assert_eq(options.load.mix.sizes[1].share, 20);
	cr_assert_eq(options.load.mix.align_bytes, 4096);
	cr_assert_eq(parse(BENCH_COMMAND_RUN, "--bs 4k,6k nbd://h"), 0);
	cr_assert_eq(options.load.mix.align_bytes, 2048);
	cr_assert_eq(parse(BENCH_COMMAND_RUN, "--bs 8k:50,12k:50 nbd://h"), 0);
	cr_assert_eq(options.load.mix.align_bytes, 4096);
	cr_assert_eq(parse(BENCH_COMMAND_RUN, "--bs 1536,4k,10k nbd://h"), 0);
	cr_assert_eq(options.load.mix.align_bytes, 512);
	cr_assert_eq(parse(BENCH_COMMAND_RUN, "--bs 1000 nbd://h"), 0);
	cr_assert_eq(options.load.mix.align_bytes, 1000);
}

Test(bench_options, times_and_bytes)
{
	cr_assert_eq(
		parse(BENCH_COMMAND_RUN,
		      "--time 0.5 --warmup 2 --offset 1m --size 2G --cores 0-1 --connections 2 "
		      "--rate 1e4 nbd://h"),
		0);
	cr_assert_eq(options.load.duration_ns, 500000000u);
	cr_assert_eq(options.load.warmup_ns, 2000000000u);
	cr_assert_eq(options.load.region_start, 1u << 20);
	cr_assert_eq(options.load.region_bytes, 2ull << 30);
	cr_assert_eq(options.load.cores.count, 2);
	cr_assert_float_eq(options.load.rate, 10000, 1e-9);
}

struct wrong {
	const char *text, *said;
};

Test(bench_options, every_mistake_is_named_with_what_is_allowed)
{
	static const struct wrong wrongs[] = {
		{ "", "no server" },
		{ "nbd://h nbd://i", "nbd://i: one server" },
		{ "--rw sideways nbd://h", "--rw sideways: expected read" },
		{ "--mix read=1,what=2 nbd://h", "--mix read=1,what=2: expected shares" },
		{ "--mix read=0 nbd://h", "--mix read=0: expected shares" },
		{ "--mix read nbd://h", "--mix read: expected shares" },
		{ "--bs 0 nbd://h", "--bs 0: expected bytes" },
		{ "--bs 64m nbd://h", "--bs 64m: expected bytes" },
		{ "--bs 4k: nbd://h", "--bs 4k:: expected bytes" },
		{ "--bs 4k,1000 nbd://h", "--bs 4k,1000: expected bytes" },
		{ "--depth 0 nbd://h", "--depth 0: expected a number from 1" },
		{ "--depth 1x nbd://h", "--depth 1x: expected a number from 1" },
		{ "--connections 20001 nbd://h", "--connections 20001: expected" },
		{ "--cores 1-0 nbd://h", "--cores 1-0: expected a list" },
		{ "--cores 0-1 nbd://h", "--cores: there are more than connections" },
		{ "--rate 0 nbd://h", "--rate 0: expected requests" },
		{ "--time 0 nbd://h", "--time 0: expected more" },
		{ "--time -1 nbd://h", "--time -1: expected seconds" },
		{ "--time nan nbd://h", "--time nan: expected seconds" },
		{ "--timeout 0 nbd://h", "--timeout 0: expected more" },
		{ "--size 99999999999t nbd://h", "--size 99999999999t: expected bytes" },
		{ "--fua 101 nbd://h", "--fua 101: expected a percentage" },
		{ "--zipf-theta 1 nbd://h", "--zipf-theta 1: expected" },
		{ "--nothing nbd://h", "--nothing: unknown option" },
		{ "--p99-max 5 nbd://h", "unknown option" },
		{ "nbd://h --depth", "--depth: needs a value" },
	};

	for (size_t i = 0; i < sizeof(wrongs) / sizeof(wrongs[0]); i++) {
		rewind(errors_file);
		cr_assert_eq(parse(BENCH_COMMAND_RUN, wrongs[i].text), -EINVAL, "%s",
			     wrongs[i].text);
		fputc('\0', errors_file);
		fflush(errors_file);
		cr_assert_not_null(strstr(errors, wrongs[i].said), "%s: %s", wrongs[i].text,
				   errors);
	}
}

Test(bench_options, verify_runs_on_one_cpu)
{
	rewind(errors_file);
	cr_assert_eq(parse(BENCH_COMMAND_VERIFY, "--cores 0-1 --connections 2 nbd://h"), -EINVAL);
	fflush(errors_file);
	cr_assert_not_null(strstr(errors, "--cores: verify runs on one"), "%s", errors);
	cr_assert_eq(parse(BENCH_COMMAND_VERIFY, "--cores 1 --connections 2 nbd://h"), 0);
}

Test(bench_options, check_needs_a_state)
{
	cr_assert_eq(parse(BENCH_COMMAND_VERIFY, "--check nbd://h"), -EINVAL);
	cr_assert_eq(parse(BENCH_COMMAND_VERIFY, "--check --state f nbd://h"), 0);
	cr_assert(options.check_only);
}

Test(bench_options, help_names_every_option_of_its_command)
{
	char *text;
	size_t bytes;
	FILE *out = open_memstream(&text, &bytes);

	bench_options_print_help(BENCH_COMMAND_RAMP, out);
	fclose(out);
	cr_assert_not_null(strstr(text, "--p99-max US"));
	cr_assert_not_null(strstr(text, "--depth N"));
	cr_assert_null(strstr(text, "--rounds"));
	free(text);
}
