/* The command line, in two passes over argv: the first finds mistakes of form and the
 * configuration file; the second, after the file was read, applies the options that come on top of
 * it. */
#include "daemon/options.h"

#include <errno.h>
#include <getopt.h>
#include <string.h>

#include "daemon/config.h"

/* Options without a short form; above every character. */
enum long_option {
	LONG_OPTION_CORES = 256,
	LONG_OPTION_CHECK,
};

/* What the first pass counts. */
struct tally {
	unsigned configs;
	unsigned cores;
	unsigned listens;
};

static void restart(void);
static int next_option(int argc, char **argv);
static int scan(int argc, char **argv, struct options *options, struct tally *tally, FILE *errors);
static int check_tally(const struct tally *tally, FILE *errors);
static int check_strays(int argc, char **argv, FILE *errors);
static int report(int option, char **argv, FILE *errors);
static int apply(int argc, char **argv, struct config *config, FILE *errors);
static int apply_option(int option, struct config *config, FILE *errors);

/* The colon makes getopt_long tell a missing argument, ":", from an unknown option, "?". */
static const char short_options[] = ":c:e:l:hV";

static const struct option long_options[] = {
	{ "config", required_argument, NULL, 'c' },
	{ "export", required_argument, NULL, 'e' },
	{ "listen", required_argument, NULL, 'l' },
	{ "cores", required_argument, NULL, LONG_OPTION_CORES },
	{ "check", no_argument, NULL, LONG_OPTION_CHECK },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'V' },
	{ NULL, 0, NULL, 0 },
};

int
options_parse(int argc, char **argv, struct config *config, struct options *options, FILE *errors)
{
	struct tally tally = { 0 };
	int error;

	*options = (struct options){ 0 };
	error = scan(argc, argv, options, &tally, errors);
	if (error)
		return error;
	if (options->help || options->version)
		return 0;
	/* Before: this machine need not know the hosts that the file names, and to ask for them takes its time. */
	config->listen_replaced = tally.listens > 0;
	if (options->config_path)
		error = config_read_file(config, options->config_path, errors);
	if (apply(argc, argv, config, errors))
		error = -EINVAL;
	return error;
}

void
options_print_help(FILE *out)
{
	fputs("Usage: millraced --config FILE [OPTION]...\n"
	      "       millraced --export NAME=PATH [OPTION]...\n"
	      "Serve disk images and block devices over NBD.\n"
	      "\n"
	      "  -c, --config FILE        read settings from FILE\n"
	      "  -e, --export NAME=PATH   serve PATH as NAME, besides the file's exports;\n"
	      "                           =PATH is the default export; NAME=memory:SIZE and\n"
	      "                           NAME=null:SIZE need no file; may be repeated\n"
	      "  -l, --listen ADDR        listen on HOST:PORT, [IPV6]:PORT, unix:PATH or\n"
	      "                           vsock:CID:PORT instead of what the file says;\n"
	      "                           may be repeated; default 127.0.0.1:10809\n"
	      "      --cores LIST         run on these cores, auto or a list such as 0-3,8,\n"
	      "                           instead of what the file says; default auto\n"
	      "      --check              check the settings, say what they would do, and exit\n"
	      "  -h, --help               print this, and exit\n"
	      "  -V, --version            print the version, and exit\n",
	      out);
}

/* Source: getopt(3), NOTES: 0 makes the GNU implementation start over. */
static void
restart(void)
{
	optind = 0;
	opterr = 0;
}

static int
next_option(int argc, char **argv)
{
	return getopt_long(argc, argv, short_options, long_options, NULL);
}

static int
scan(int argc, char **argv, struct options *options, struct tally *tally, FILE *errors)
{
	int option, error = 0;

	restart();
	while ((option = next_option(argc, argv)) != -1) {
		switch (option) {
		case 'c':
			options->config_path = optarg;
			tally->configs++;
			break;
		case 'e':
			break;
		case 'l':
			tally->listens++;
			break;
		case LONG_OPTION_CORES:
			tally->cores++;
			break;
		case LONG_OPTION_CHECK:
			options->check = true;
			break;
		case 'h':
			options->help = true;
			break;
		case 'V':
			options->version = true;
			break;
		default:
			error = report(option, argv, errors);
		}
	}
	if (check_strays(argc, argv, errors) || check_tally(tally, errors))
		error = -EINVAL;
	return error;
}

static int
check_tally(const struct tally *tally, FILE *errors)
{
	int error = 0;

	if (tally->configs > 1) {
		fprintf(errors, "--config: given %u times; one file is read\n", tally->configs);
		error = -EINVAL;
	}
	if (tally->cores > 1) {
		fprintf(errors, "--cores: given %u times; give one list\n", tally->cores);
		error = -EINVAL;
	}
	return error;
}

/* getopt_long has moved what is no option to the end. */
static int
check_strays(int argc, char **argv, FILE *errors)
{
	for (int i = optind; i < argc; i++)
		fprintf(errors,
			"%s: not an option; an image is given with --export NAME=PATH, a "
			"configuration with --config FILE\n",
			argv[i]);
	return optind < argc ? -EINVAL : 0;
}

/* Report the mistake that getopt_long returned OPTION for.  optopt says which: 0 for a long option
 * whose name is unknown or ambiguous; the value of a known one that was given an argument, as in
 * --help=yes; else an unknown short option's character, which may have others behind it in its
 * argument, so that optind has not moved past that yet. */
static int
report(int option, char **argv, FILE *errors)
{
	static const char without_argument[] = { 'h', 'V' };
	const char *name = argv[optind - 1];

	if (option == ':')
		fprintf(errors, "%s: its argument is missing; see --help\n", name);
	else if (optopt == 0)
		fprintf(errors, "%s: unknown or ambiguous option; see --help\n", name);
	else if (optopt == LONG_OPTION_CHECK ||
		 memchr(without_argument, optopt, sizeof(without_argument)))
		fprintf(errors, "%s: takes no argument; see --help\n", name);
	else
		fprintf(errors, "-%c: unknown option; see --help\n", optopt);
	return -EINVAL;
}

static int
apply(int argc, char **argv, struct config *config, FILE *errors)
{
	int option, error = 0;

	restart();
	while ((option = next_option(argc, argv)) != -1)
		if (apply_option(option, config, errors))
			error = -EINVAL;
	return error;
}

static int
apply_option(int option, struct config *config, FILE *errors)
{
	switch (option) {
	case 'e':
		return config_add_export(config, optarg, errors);
	case 'l':
		return config_add_listen(config, optarg, errors);
	case LONG_OPTION_CORES:
		return config_set_cores(config, optarg, errors);
	default:
		return 0;
	}
}
