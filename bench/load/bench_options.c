/* Each option is a row of a table: its name, its subcommands, its setter and its line of help. */
#include "bench/load/bench_options.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_S ((uint64_t)1000000000)

#define ON_RUN	  (1u << BENCH_COMMAND_RUN)
#define ON_VERIFY (1u << BENCH_COMMAND_VERIFY)
#define ON_RAMP	  (1u << BENCH_COMMAND_RAMP)
#define ON_LOAD	  (ON_RUN | ON_RAMP)
#define ON_ALL	  (ON_LOAD | ON_VERIFY)

#define BLOCK_BYTES_MAX (32u << 20)
#define SHARE_MAX	1000000u

/* Each setter returns NULL, or what is allowed. */
struct option_row {
	const char *name;
	const char *argument; /* NULL: none */
	unsigned commands;
	const char *(*set)(struct bench_options *options, const char *value);
	const char *help;
};

/* ---- values ---- */

static bool
parse_number(const char *text, double min, double max, double *number)
{
	char *end;
	double value;

	errno = 0;
	value = strtod(text, &end);
	if (end == text || *end != '\0' || errno != 0 || !(value >= min) || !(value <= max))
		return false;
	*number = value;
	return true;
}

static bool
parse_count(const char *text, uint64_t min, uint64_t max, uint64_t *count)
{
	char *end;
	unsigned long long value;

	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	value = strtoull(text, &end, 10);
	if (*end != '\0' || errno != 0 || value < min || value > max)
		return false;
	*count = value;
	return true;
}

/* A number of bytes at *text, with k, m, g or t behind it; moves *text behind that. */
static bool
take_bytes(const char **text, uint64_t *bytes)
{
	static const char units[] = "kmgt";
	const char *unit;
	char *end;
	unsigned long long value;
	unsigned shift = 0;

	if (**text < '0' || **text > '9')
		return false;
	errno = 0;
	value = strtoull(*text, &end, 10);
	if (errno != 0)
		return false;
	unit = *end == '\0' ? NULL : strchr(units, *end | 0x20);
	if (unit != NULL) {
		shift = 10 * (unsigned)(unit - units + 1);
		end++;
	}
	if (value > UINT64_MAX >> shift)
		return false;
	*bytes = (uint64_t)value << shift;
	*text = end;
	return true;
}

static bool
parse_bytes(const char *text, uint64_t *bytes)
{
	return take_bytes(&text, bytes) && *text == '\0';
}

static const char *
set_seconds(const char *value, double max, uint64_t *ns)
{
	double seconds;

	if (!parse_number(value, 0, max, &seconds))
		return "expected seconds";
	*ns = (uint64_t)(seconds * (double)NS_PER_S);
	return NULL;
}

/* ---- setters ---- */

static const struct kind {
	const char *name;
	enum pattern_order order;
	unsigned reads, writes;
} kinds[] = {
	{ "read", PATTERN_ORDER_SEQUENTIAL, 1, 0 },  { "write", PATTERN_ORDER_SEQUENTIAL, 0, 1 },
	{ "rw", PATTERN_ORDER_SEQUENTIAL, 70, 30 },  { "randread", PATTERN_ORDER_RANDOM, 1, 0 },
	{ "randwrite", PATTERN_ORDER_RANDOM, 0, 1 }, { "randrw", PATTERN_ORDER_RANDOM, 70, 30 },
	{ "zipfread", PATTERN_ORDER_ZIPF, 1, 0 },    { "zipfwrite", PATTERN_ORDER_ZIPF, 0, 1 },
	{ "zipfrw", PATTERN_ORDER_ZIPF, 70, 30 },
};

static const char *
set_rw(struct bench_options *options, const char *value)
{
	struct pattern_mix *mix = &options->load.mix;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		if (strcmp(value, kinds[i].name) != 0)
			continue;
		mix->order = kinds[i].order;
		options->rw = value;
		/* Whichever of the two comes first, the mix counts. */
		if (options->mix == NULL) {
			mix->read_share = kinds[i].reads;
			mix->write_share = kinds[i].writes;
		}
		return NULL;
	}
	return "expected read, write or rw, with rand or zipf in front or not";
}

static unsigned *
share_named(struct pattern_mix *mix, const char *name, size_t bytes)
{
	struct {
		const char *name;
		unsigned *share;
	} shares[] = {
		{ "read", &mix->read_share },	{ "write", &mix->write_share },
		{ "trim", &mix->trim_share },	{ "zeroes", &mix->zeroes_share },
		{ "flush", &mix->flush_share },
	};

	for (size_t i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
		if (strlen(shares[i].name) == bytes && memcmp(shares[i].name, name, bytes) == 0)
			return shares[i].share;
	}
	return NULL;
}

static const char *
set_mix(struct bench_options *options, const char *value)
{
	static const char allowed[] =
		"expected shares such as read=70,write=25,flush=5; there are read, write, trim, "
		"zeroes and flush";
	struct pattern_mix *mix = &options->load.mix;

	options->mix = value;
	mix->read_share = mix->write_share = 0;
	mix->trim_share = mix->zeroes_share = mix->flush_share = 0;
	while (*value != '\0') {
		size_t name_bytes = strcspn(value, "=");
		unsigned *share = share_named(mix, value, name_bytes);
		unsigned long number;
		char *end;

		if (share == NULL || value[name_bytes] != '=')
			return allowed;
		number = strtoul(value + name_bytes + 1, &end, 10);
		if (end == value + name_bytes + 1 || number > SHARE_MAX ||
		    (*end != '\0' && *end != ','))
			return allowed;
		*share = (unsigned)number;
		value = *end == ',' ? end + 1 : end;
	}
	if (mix->read_share + mix->write_share + mix->trim_share + mix->zeroes_share +
		    mix->flush_share ==
	    0)
		return allowed;
	return NULL;
}

static uint32_t
common_divisor(uint32_t a, uint32_t b)
{
	while (b != 0) {
		uint32_t rest = a % b;

		a = b;
		b = rest;
	}
	return a;
}

static const char *
set_sizes(struct bench_options *options, const char *value)
{
	static const char allowed[] = "expected bytes such as 4k, at most 32m, or up to eight with "
				      "shares such as 4k:80,64k:20; multiples of 512, or of the "
				      "smallest";
	struct pattern_mix *mix = &options->load.mix;
	uint32_t smallest = UINT32_MAX;

	options->sizes = value;
	mix->size_count = 0;
	mix->align_bytes = 0;
	do {
		uint64_t bytes;
		unsigned long share = 1;

		if (*value == ',')
			value++;
		if (mix->size_count == PATTERN_SIZES_MAX || !take_bytes(&value, &bytes) ||
		    bytes == 0 || bytes > BLOCK_BYTES_MAX)
			return allowed;
		if (*value == ':') {
			char *end;

			share = strtoul(value + 1, &end, 10);
			if (end == value + 1 || share == 0 || share > SHARE_MAX)
				return allowed;
			value = end;
		}
		mix->sizes[mix->size_count].bytes = (uint32_t)bytes;
		mix->sizes[mix->size_count++].share = (unsigned)share;
		if (bytes < smallest)
			smallest = (uint32_t)bytes;
		/* The largest that all sizes are multiples of: what takes each of them takes these offsets. */
		mix->align_bytes = common_divisor((uint32_t)bytes, mix->align_bytes);
	} while (*value == ',');
	if (mix->align_bytes != smallest && mix->align_bytes % 512 != 0)
		return allowed;
	return *value == '\0' ? NULL : allowed;
}

static const char *
set_theta(struct bench_options *options, const char *value)
{
	return parse_number(value, 0.01, 0.99, &options->load.mix.zipf_theta)
		       ? NULL
		       : "expected a number from 0.01 to 0.99";
}

static const char *
set_fua(struct bench_options *options, const char *value)
{
	uint64_t percent;

	if (!parse_count(value, 0, 100, &percent))
		return "expected a percentage, 0 to 100";
	options->load.mix.fua_percent = (unsigned)percent;
	return NULL;
}

static const char *
set_depth(struct bench_options *options, const char *value)
{
	uint64_t depth;

	if (!parse_count(value, 1, LOAD_DEPTH_MAX, &depth))
		return "expected a number from 1 to 4096";
	options->load.depth = (unsigned)depth;
	return NULL;
}

static const char *
set_connections(struct bench_options *options, const char *value)
{
	uint64_t connections;

	if (!parse_count(value, 1, LOAD_CONNECTIONS_MAX, &connections))
		return "expected a number from 1 to 20000";
	options->load.connections = (unsigned)connections;
	return NULL;
}

static const char *
set_cores(struct bench_options *options, const char *value)
{
	return cpu_list_parse(value, &options->load.cores) < 0 ? "expected a list such as 0-3,8"
							       : NULL;
}

static const char *
set_rate(struct bench_options *options, const char *value)
{
	return parse_number(value, 0.001, 1e9, &options->load.rate)
		       ? NULL
		       : "expected requests a second, above 0";
}

static const char *
set_time(struct bench_options *options, const char *value)
{
	return set_seconds(value, 1e6, &options->load.duration_ns);
}

static const char *
set_warmup(struct bench_options *options, const char *value)
{
	return set_seconds(value, 1e6, &options->load.warmup_ns);
}

static const char *
set_timeout(struct bench_options *options, const char *value)
{
	const char *allowed = set_seconds(value, 1e6, &options->load.silence_ns);

	return allowed == NULL && options->load.silence_ns == 0 ? "expected more than 0 seconds"
								: allowed;
}

static const char *
set_requests(struct bench_options *options, const char *value)
{
	return parse_count(value, 1, UINT64_MAX / 2, &options->load.requests_max)
		       ? NULL
		       : "expected a number of requests";
}

static const char *
set_offset(struct bench_options *options, const char *value)
{
	return parse_bytes(value, &options->load.region_start) ? NULL : "expected bytes such as 1g";
}

static const char *
set_size(struct bench_options *options, const char *value)
{
	return parse_bytes(value, &options->load.region_bytes) ? NULL : "expected bytes such as 1g";
}

static const char *
set_seed(struct bench_options *options, const char *value)
{
	return parse_count(value, 0, UINT64_MAX, &options->load.seed) ? NULL : "expected a number";
}

static const char *
set_poll(struct bench_options *options, const char *value)
{
	uint64_t us;

	if (!parse_count(value, 0, 10000, &us))
		return "expected microseconds, 0 to 10000";
	options->load.poll_us = (unsigned)us;
	return NULL;
}

static const char *
set_replies(struct bench_options *options, const char *value)
{
	static const char *const names[] = {
		[TARGET_REPLIES_AUTO] = "auto",
		[TARGET_REPLIES_SIMPLE] = "simple",
		[TARGET_REPLIES_STRUCTURED] = "structured",
		[TARGET_REPLIES_EXTENDED] = "extended",
	};

	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (strcmp(value, names[i]) == 0) {
			options->replies = (enum target_replies)i;
			return NULL;
		}
	}
	return "expected auto, simple, structured or extended";
}

static const char *
set_json(struct bench_options *options, const char *value)
{
	options->json_path = value;
	return NULL;
}

static const char *
set_html(struct bench_options *options, const char *value)
{
	options->html_path = value;
	return NULL;
}

static const char *
set_quiet(struct bench_options *options, const char *value)
{
	(void)value;
	options->quiet = true;
	return NULL;
}

static const char *
set_p99(struct bench_options *options, const char *value)
{
	return parse_number(value, 1, 1e9, &options->p99_max_us) ? NULL : "expected microseconds";
}

static const char *
set_rate_start(struct bench_options *options, const char *value)
{
	return parse_number(value, 1, 1e9, &options->rate_start) ? NULL
								 : "expected requests a second";
}

static const char *
set_rate_factor(struct bench_options *options, const char *value)
{
	return parse_number(value, 1.01, 10, &options->rate_factor)
		       ? NULL
		       : "expected a factor from 1.01 to 10";
}

static const char *
set_rounds(struct bench_options *options, const char *value)
{
	return parse_count(value, 1, 1000000, &options->rounds) ? NULL
								: "expected a number of rounds";
}

static const char *
set_state(struct bench_options *options, const char *value)
{
	options->state_path = value;
	return NULL;
}

static const char *
set_check_only(struct bench_options *options, const char *value)
{
	(void)value;
	options->check_only = true;
	return NULL;
}

static const char *
set_help(struct bench_options *options, const char *value)
{
	(void)value;
	options->help = true;
	return NULL;
}

static const struct option_row rows[] = {
	{ "rw", "KIND", ON_LOAD, set_rw,
	  "read, write, rw (70/30); with rand or zipf in front: at random, or some\n"
	  "blocks more often than others; default randread" },
	{ "mix", "SHARES", ON_LOAD, set_mix,
	  "instead of KIND's: read=70,write=25,flush=5; also trim and zeroes" },
	{ "fua", "PERCENT", ON_LOAD, set_fua, "of the writes carry FUA; default 0" },
	{ "bs", "SIZES", ON_ALL, set_sizes,
	  "bytes of a request: 4k, or with shares 4k:80,64k:20; verify takes one; default 4k" },
	{ "zipf-theta", "T", ON_LOAD, set_theta, "how uneven zipf is, 0.01 to 0.99; default 0.9" },
	{ "depth", "N", ON_ALL, set_depth, "requests under way per connection; default 32" },
	{ "connections", "N", ON_ALL, set_connections, "default 1" },
	{ "cores", "LIST", ON_ALL, set_cores,
	  "to run on, such as 0-3; verify takes one; default: the last one" },
	{ "rate", "N", ON_RUN, set_rate,
	  "requests a second in all, made when they are due whether or not the\n"
	  "server keeps up; default: the next when one is answered" },
	{ "time", "S", ON_ALL, set_time,
	  "seconds to measure; of verify: of a round; of ramp: of a step; default 10" },
	{ "warmup", "S", ON_LOAD, set_warmup, "seconds before; default 0" },
	{ "requests", "N", ON_RUN, set_requests, "end after so many, not counting the warm-up's" },
	{ "offset", "BYTES", ON_ALL, set_offset,
	  "of the part of the export that is used; default 0" },
	{ "size", "BYTES", ON_ALL, set_size, "of that part; default: to the export's end" },
	{ "timeout", "S", ON_ALL, set_timeout,
	  "give up after so many seconds without an answer (10 until connected); default 30" },
	{ "seed", "N", ON_ALL, set_seed, "repeats the same requests; default 1" },
	{ "poll-us", "N", ON_ALL, set_poll, "spin so long before sleeping; default 0" },
	{ "replies", "STYLE", ON_ALL, set_replies,
	  "simple, structured, extended (with 64 bit lengths), or auto: the last of\n"
	  "these that the server has; default auto" },
	{ "json", "FILE", ON_RUN, set_json, "write the result there; -: to standard output" },
	{ "html", "FILE", ON_RUN, set_html, "write a report with pictures there" },
	{ "p99-max", "US", ON_RAMP, set_p99, "the latency that must hold; default 1000" },
	{ "rate-start", "N", ON_RAMP, set_rate_start, "the first rate; default 1000" },
	{ "rate-factor", "F", ON_RAMP, set_rate_factor, "from step to step; default 1.5" },
	{ "rounds", "N", ON_VERIFY, set_rounds,
	  "of writing, reconnecting and reading all back; default 3" },
	{ "state", "FILE", ON_VERIFY, set_state, "keep what was written there, to check it later" },
	{ "check", NULL, ON_VERIFY, set_check_only,
	  "write nothing: compare the export with the state FILE" },
	{ "quiet", NULL, ON_ALL, set_quiet, "no live line" },
	{ "help", NULL, ON_ALL, set_help, "print this, and exit" },
};

#define ROW_COUNT (sizeof(rows) / sizeof(rows[0]))

/* ---- the whole ---- */

static void
set_defaults(struct bench_options *options)
{
	struct cpu_list allowed;

	*options = (struct bench_options){
		.load = { .connections = 1,
			  .depth = 32,
			  .duration_ns = 10 * NS_PER_S,
			  .silence_ns = 30 * NS_PER_S,
			  .seed = 1,
			  .mix = { .zipf_theta = 0.9 } },
		.p99_max_us = 1000,
		.rate_start = 1000,
		.rate_factor = 1.5,
		.rounds = 3,
	};
	(void)set_rw(options, "randread");
	(void)set_sizes(options, "4k");
	if (cpu_list_auto(&allowed) == 0) {
		options->load.cores.count = 1;
		options->load.cores.cpus[0] = allowed.cpus[allowed.count - 1];
	}
}

static int
mistake(FILE *errors, const char *option, const char *value, const char *what)
{
	fprintf(errors, "--%s%s%s: %s\n", option, value == NULL ? "" : " ",
		value == NULL ? "" : value, what);
	return -EINVAL;
}

/* What belongs together. */
static int
check(enum bench_command command, const struct bench_options *options, FILE *errors)
{
	const struct load_options *load = &options->load;

	if (options->uri == NULL) {
		fprintf(errors, "no server; give its URI, such as nbd://127.0.0.1/disk\n");
		return -EINVAL;
	}
	if (load->duration_ns == 0)
		return mistake(errors, "time", "0", "expected more than 0 seconds");
	if (command == BENCH_COMMAND_VERIFY && load->cores.count > 1)
		return mistake(errors, "cores", NULL, "verify runs on one; give one CPU");
	if (load->cores.count > load->connections)
		return mistake(errors, "cores", NULL,
			       "there are more than connections; raise --connections");
	if (command == BENCH_COMMAND_VERIFY && options->check_only && options->state_path == NULL)
		return mistake(errors, "check", NULL, "needs --state FILE of an earlier run");
	return 0;
}

static const struct option_row *
row_of(enum bench_command command, int index)
{
	const struct option_row *row = &rows[index];

	return (row->commands & (1u << command)) != 0 ? row : NULL;
}

int
bench_options_parse(enum bench_command command, int argc, char **argv,
		    struct bench_options *options, FILE *errors)
{
	struct option longs[ROW_COUNT + 1] = { { 0 } };
	int index, found;

	set_defaults(options);
	for (size_t i = 0; i < ROW_COUNT; i++)
		longs[i] = (struct option){ rows[i].name, rows[i].argument != NULL, NULL, 0 };
	optind = 0;
	opterr = 0;
	while ((found = getopt_long(argc, argv, ":h", longs, &index)) != -1) {
		const struct option_row *row;
		const char *allowed;

		if (found == 'h') {
			options->help = true;
			continue;
		}
		if (found != 0 || (row = row_of(command, index)) == NULL) {
			fprintf(errors, "%s: %s; see %s --help\n", argv[optind - 1],
				found == ':' ? "needs a value" : "unknown option", argv[0]);
			return -EINVAL;
		}
		allowed = row->set(options, optarg);
		if (allowed != NULL)
			return mistake(errors, row->name, optarg, allowed);
	}
	if (options->help)
		return 0;
	if (optind < argc)
		options->uri = argv[optind++];
	if (optind < argc) {
		fprintf(errors, "%s: one server at a time\n", argv[optind]);
		return -EINVAL;
	}
	return check(command, options, errors);
}

/* HELP may have several lines, each indented alike. */
static void
print_row(const struct option_row *row, FILE *out)
{
	char left[40];
	const char *help = row->help;

	snprintf(left, sizeof(left), "--%s%s%s", row->name, row->argument == NULL ? "" : " ",
		 row->argument == NULL ? "" : row->argument);
	while (help != NULL) {
		const char *end = strchrnul(help, '\n');

		fprintf(out, "  %-22s %.*s\n", left, (int)(end - help), help);
		left[0] = '\0';
		help = *end == '\0' ? NULL : end + 1;
	}
}

void
bench_options_print_help(enum bench_command command, FILE *out)
{
	static const char *const what[] = {
		[BENCH_COMMAND_RUN] = "run URI [OPTION]...\nPut a load on an NBD server and "
				      "measure it.",
		[BENCH_COMMAND_VERIFY] =
			"verify URI [OPTION]...\nWrite blocks that say what they are, over several "
			"connections, and read them back.\nOverwrites the export.",
		[BENCH_COMMAND_RAMP] =
			"ramp URI [OPTION]...\nRaise the rate step by step until the p99 latency "
			"passes a limit, twice in a row; then look\nbetween the last two rates, "
			"twice: the result is right within a quarter of their distance,\nan "
			"eighth of the last good rate if --rate-factor is 1.5.",
	};

	fprintf(out, "Usage: millrace-bench %s\n\n", what[command]);
	for (size_t i = 0; i < ROW_COUNT; i++) {
		const struct option_row *row = row_of(command, (int)i);

		if (row != NULL)
			print_row(row, out);
	}
}
