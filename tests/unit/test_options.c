/* daemon/options.h: each option, what comes on top of the file, the order of options, and every
 * refusal. */
#include "daemon/options.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/config.h"

#define ARGUMENTS_MAX 16

/* One command line, parsed. */
struct trial {
	struct config config;
	struct options options;
	char *argv[ARGUMENTS_MAX];
	char *said;
	int result;
};

/* A configuration file for the time of one test. */
static char file_path[] = "/tmp/millrace-test-XXXXXX";

static void
make_file(void)
{
	static const char text[] = "[reactor]\ncores = 7\npoll-us = 3\n"
				   "[server]\nlisten = 127.0.0.1:1\nlisten = 127.0.0.1:2\n"
				   "[export f]\npath = /f\n";
	int fd = mkstemp(file_path);

	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	close(fd);
}

static void
remove_file(void)
{
	unlink(file_path);
}

TestSuite(options);
TestSuite(options_file, .init = make_file, .fini = remove_file);

/* Parse ARGUMENTS, up to NULL, after the program's name. */
static void
parse(struct trial *trial, const char *const *arguments)
{
	size_t said_bytes;
	FILE *errors = open_memstream(&trial->said, &said_bytes);
	int argc = 1;

	memset(trial->argv, 0, sizeof(trial->argv));
	trial->argv[0] = strdup("millraced");
	for (; *arguments; arguments++) {
		cr_assert_lt(argc, ARGUMENTS_MAX - 1);
		trial->argv[argc++] = strdup(*arguments);
	}
	config_init(&trial->config);
	trial->result = options_parse(argc, trial->argv, &trial->config, &trial->options, errors);
	fclose(errors);
}

static void
end(struct trial *trial)
{
	for (int i = 0; i < ARGUMENTS_MAX; i++)
		free(trial->argv[i]);
	config_fini(&trial->config);
	free(trial->said);
}

#define ARGUMENTS(...) ((const char *const[]){ __VA_ARGS__, NULL })

/* ARGUMENTS must be refused with exactly the lines SAID. */
static void
assert_refused(const char *const *arguments, const char *said)
{
	struct trial trial;

	parse(&trial, arguments);
	cr_assert_str_eq(trial.said, said);
	cr_assert_eq(trial.result, -EINVAL);
	end(&trial);
}

Test(options, none_is_fine)
{
	struct trial trial;

	parse(&trial, (const char *const[]){ NULL });
	cr_assert_eq(trial.result, 0);
	cr_assert_null(trial.options.config_path);
	cr_assert_not(trial.options.check || trial.options.help || trial.options.version);
	cr_assert_str_empty(trial.said);
	end(&trial);
}

Test(options, everything_works_without_a_file)
{
	struct trial trial;
	const struct config *config = &trial.config;

	parse(&trial, ARGUMENTS("-e", "a=/a", "--export=b=/b", "-l", "127.0.0.1:5", "--listen",
				"unix:/u", "--cores", "0,2", "--check"));
	cr_assert_eq(trial.result, 0, "%s", trial.said);
	cr_assert(trial.options.check);
	cr_assert_eq(config->export_count, 2);
	cr_assert_str_eq(config->exports[1].name, "b");
	cr_assert_eq(config->listen_count, 2);
	cr_assert_eq(config->listen[1].storage.ss_family, AF_UNIX);
	cr_assert_eq(config->cores.count, 2);
	end(&trial);
}

Test(options, help_and_version_leave_the_config_alone)
{
	struct trial trial;

	parse(&trial, ARGUMENTS("-h", "-c", "/nonexistent", "-e", "bad"));
	cr_assert_eq(trial.result, 0, "%s", trial.said);
	cr_assert(trial.options.help);
	cr_assert_eq(trial.config.export_count, 0);
	end(&trial);
	parse(&trial, ARGUMENTS("--cores", "bad", "--version"));
	cr_assert_eq(trial.result, 0, "%s", trial.said);
	cr_assert(trial.options.version);
	end(&trial);
}

Test(options_file, the_file_is_read)
{
	struct trial trial;

	parse(&trial, ARGUMENTS("--config", file_path));
	cr_assert_eq(trial.result, 0, "%s", trial.said);
	cr_assert_str_eq(trial.options.config_path, file_path);
	cr_assert_eq(trial.config.poll_us, 3);
	cr_assert_eq(trial.config.listen_count, 2);
	cr_assert_eq(trial.config.cores.cpus[0], 7);
	end(&trial);
}

/* Wherever --config stands: cores and listeners are replaced, exports added, the rest stays. */
static void
assert_on_top(const char *const *arguments)
{
	struct trial trial;
	const struct config *config = &trial.config;
	char address[ADDRESS_TEXT_BYTES];

	parse(&trial, arguments);
	cr_assert_eq(trial.result, 0, "%s", trial.said);
	cr_assert_eq(config->poll_us, 3);
	cr_assert_eq(config->cores.count, 1);
	cr_assert_eq(config->cores.cpus[0], 1);
	cr_assert_eq(config->listen_count, 1);
	address_format(&config->listen[0], address, sizeof(address));
	cr_assert_str_eq(address, "127.0.0.1:9");
	cr_assert_eq(config->export_count, 2);
	cr_assert_str_eq(config->exports[0].name, "f");
	cr_assert_str_eq(config->exports[1].name, "x");
	end(&trial);
}

Test(options_file, the_command_line_comes_on_top_of_the_file)
{
	assert_on_top(
		ARGUMENTS("-c", file_path, "--cores", "1", "-l", "127.0.0.1:9", "-e", "x=/x"));
	assert_on_top(
		ARGUMENTS("--cores", "1", "-l", "127.0.0.1:9", "-e", "x=/x", "-c", file_path));
	assert_on_top(ARGUMENTS("-l127.0.0.1:9", "--config", file_path, "-ex=/x", "--cores=1"));
}

/* Neither what auto leaves out, nor a host that no machine knows (RFC 6761, section 6.4), is a mistake then. */
Test(options_file, what_the_command_line_replaces_is_no_mistake_beside_it)
{
	struct trial trial;
	struct cpu_list allowed;
	char cores[16];
	FILE *file = fopen(file_path, "w");

	cr_assert_not_null(file);
	fputs("[reactor]\nskip-core-0 = yes\nskip-smt = yes\n"
	      "[server]\nlisten = millrace.invalid:10809\n[export f]\npath = /f\n",
	      file);
	fclose(file);
	cr_assert_eq(cpu_list_auto(&allowed), 0);
	snprintf(cores, sizeof(cores), "%d", allowed.cpus[0]);
	parse(&trial, ARGUMENTS("-c", file_path, "--cores", cores, "-l", "127.0.0.1:9"));
	cr_assert_eq(trial.result, 0, "%s", trial.said);
	cr_assert_eq(config_finish(&trial.config, stderr), 0);
	cr_assert_eq(trial.config.cores.count, 1);
	cr_assert_eq(trial.config.cores.cpus[0], allowed.cpus[0]);
	cr_assert_eq(trial.config.listen_count, 1);
	end(&trial);
}

Test(options_file, an_export_of_the_file_again_is_refused_with_its_place)
{
	struct trial trial;
	char said[256];

	snprintf(said, sizeof(said),
		 "--export f=/x: export \"f\" of %s:7 has this name already; give each export a "
		 "name of its own\n",
		 file_path);
	parse(&trial, ARGUMENTS("-e", "f=/x", "-c", file_path));
	cr_assert_eq(trial.result, -EINVAL);
	cr_assert_str_eq(trial.said, said);
	end(&trial);
}

Test(options, mistakes_of_the_file_and_the_command_line_are_all_said)
{
	assert_refused(ARGUMENTS("-c", "/nonexistent", "-e", "x", "-l", "1"),
		       "/nonexistent: cannot open: No such file or directory\n"
		       "--export x: no \"=\"; expected NAME=PATH, or =PATH for the default export\n"
		       "--listen 1: no port from 0 to 65535 at the end; expected HOST:PORT, "
		       "[IPV6]:PORT, unix:PATH or vsock:CID:PORT\n");
}

Test(options, single_ones_twice_are_refused)
{
	assert_refused(ARGUMENTS("-c", "a", "-c", "b", "--cores", "1", "--cores", "2"),
		       "--config: given 2 times; one file is read\n"
		       "--cores: given 2 times; give one list\n");
}

Test(options, stray_arguments_are_refused)
{
	assert_refused(ARGUMENTS("disk.img", "--check"),
		       "disk.img: not an option; an image is given with --export NAME=PATH, a "
		       "configuration with --config FILE\n");
}

Test(options, unknown_ones_are_refused_by_name)
{
	assert_refused(ARGUMENTS("--port", "5"),
		       "--port: unknown or ambiguous option; see --help\n"
		       "5: not an option; an image is given with --export NAME=PATH, a "
		       "configuration with --config FILE\n");
	assert_refused(ARGUMENTS("--port=5"),
		       "--port=5: unknown or ambiguous option; see --help\n");
	assert_refused(ARGUMENTS("--co", "1"),
		       "--co: unknown or ambiguous option; see --help\n"
		       "1: not an option; an image is given with --export NAME=PATH, a "
		       "configuration with --config FILE\n");
	assert_refused(ARGUMENTS("-xz"), "-x: unknown option; see --help\n"
					 "-z: unknown option; see --help\n");
	assert_refused(ARGUMENTS("--check", "-x:"), "-x: unknown option; see --help\n"
						    "-:: unknown option; see --help\n");
}

Test(options, a_missing_argument_is_refused)
{
	assert_refused(ARGUMENTS("--listen"), "--listen: its argument is missing; see --help\n");
	assert_refused(ARGUMENTS("--cores"), "--cores: its argument is missing; see --help\n");
	assert_refused(ARGUMENTS("--check", "-he"), "-he: its argument is missing; see --help\n");
	assert_refused(ARGUMENTS("-e"), "-e: its argument is missing; see --help\n");
}

Test(options, a_superfluous_argument_is_refused)
{
	assert_refused(ARGUMENTS("--check=1"), "--check=1: takes no argument; see --help\n");
	assert_refused(ARGUMENTS("--help=1"), "--help=1: takes no argument; see --help\n");
}

Test(options, help_names_every_option)
{
	static const char *const names[] = { "-c, --config", "-e, --export", "-l, --listen",
					     "--cores",	     "--check",	     "-h, --help",
					     "-V, --version" };
	char *text;
	size_t bytes;
	FILE *out = open_memstream(&text, &bytes);

	options_print_help(out);
	fclose(out);
	for (size_t i = 0; i < ARRAY_COUNT(names); i++)
		cr_assert_not_null(strstr(text, names[i]), "%s", names[i]);
	free(text);
}
