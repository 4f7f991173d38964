/* daemon/config.h: each key's values, each mistake with its place, the command line's additions,
 * the check of the whole, and what it is described as.  The random test prints its seed; SEED=n
 * repeats it. */
#include "daemon/config.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "daemon/config_value.h"

#define EXPORT_LINES "[export]\npath=/a\n"

/* A config, and what was said of its mistakes. */
struct trial {
	struct config config;
	FILE *errors;
	char *said;
	size_t said_bytes;
	char path[64]; /* of the file last read */
	int result;
};

static void
trial_init(struct trial *trial)
{
	memset(trial, 0, sizeof(*trial));
	config_init(&trial->config);
	trial->errors = open_memstream(&trial->said, &trial->said_bytes);
	cr_assert_not_null(trial->errors);
}

static void
trial_fini(struct trial *trial)
{
	config_fini(&trial->config);
	fclose(trial->errors);
	free(trial->said);
}

static void
trial_read(struct trial *trial, const char *bytes, size_t count)
{
	int fd;

	strcpy(trial->path, "/tmp/millrace-test-XXXXXX");
	fd = mkstemp(trial->path);
	cr_assert_geq(fd, 0);
	cr_assert_eq(write(fd, bytes, count), (ssize_t)count);
	close(fd);
	trial->result = config_read_file(&trial->config, trial->path, trial->errors);
	unlink(trial->path);
	fflush(trial->errors);
}

/* TEXT must be read without a mistake; the caller looks at *trial and ends it. */
static void
read_good(struct trial *trial, const char *text)
{
	trial_init(trial);
	trial_read(trial, text, strlen(text));
	cr_assert_eq(trial->result, 0, "%s", trial->said);
	cr_assert_str_empty(trial->said);
}

/* COUNT bytes at TEXT must give exactly the lines SAID, where each @ stands for the file's path. */
static void
assert_mistakes_in(const char *text, size_t count, const char *said)
{
	struct trial trial;
	char *expected;
	size_t expected_bytes;
	FILE *out = open_memstream(&expected, &expected_bytes);

	trial_init(&trial);
	trial_read(&trial, text, count);
	for (; *said; said++) {
		if (*said == '@')
			fputs(trial.path, out);
		else
			fputc(*said, out);
	}
	fclose(out);
	cr_assert_str_eq(trial.said, expected);
	cr_assert_eq(trial.result, -EINVAL);
	free(expected);
	trial_fini(&trial);
}

static void
assert_mistakes(const char *text, const char *said)
{
	assert_mistakes_in(text, strlen(text), said);
}

/* Each of VALUES, up to NULL, after "[SECTION]\nKEY = " must be refused for a reason with PART in
 * it. */
static void
assert_values_refused(const char *section, const char *key, const char *part,
		      const char *const *values)
{
	for (; *values; values++) {
		struct trial trial;
		char text[512], where[512];

		snprintf(text, sizeof(text), "[%s]\n%s = %s\n", section, key, *values);
		trial_init(&trial);
		trial_read(&trial, text, strlen(text));
		snprintf(where, sizeof(where), "%s:2: [%s] %s = %s: ", trial.path, section, key,
			 *values);
		cr_assert_eq(trial.result, -EINVAL, "%s", text);
		cr_assert_eq(strncmp(trial.said, where, strlen(where)), 0, "%s", trial.said);
		cr_assert_not_null(strstr(trial.said, part), "%s", trial.said);
		trial_fini(&trial);
	}
}

static void
append(char **text, size_t *bytes, const char *more, size_t more_bytes)
{
	*text = realloc(*text, *bytes + more_bytes + 1);
	cr_assert_not_null(*text);
	memcpy(*text + *bytes, more, more_bytes);
	*bytes += more_bytes;
	(*text)[*bytes] = '\0';
}

/* "BEFORE", COUNT times FILLER, "AFTER"; the caller frees it. */
static char *
padded(const char *before, size_t count, char filler, const char *after)
{
	char *text = NULL;
	size_t bytes = 0;

	append(&text, &bytes, before, strlen(before));
	for (size_t i = 0; i < count; i++)
		append(&text, &bytes, &filler, 1);
	append(&text, &bytes, after, strlen(after));
	return text;
}

Test(config, defaults)
{
	struct config config;

	config_init(&config);
	cr_assert(config.cores_auto);
	cr_assert_eq(config.queue_depth, 256);
	cr_assert_eq(config.poll_us, 200);
	cr_assert_eq(config.stall_ms, 500);
	cr_assert_eq(config.buffer_memory_bytes, (uint64_t)128 << 20);
	cr_assert_eq(config.connections_max, 1024);
	cr_assert_eq(config.listen_count, 0);
	cr_assert_eq(config.export_count, 0);
	config_fini(&config);
}

Test(config_file, every_key_is_read)
{
	struct trial trial;
	struct config *config = &trial.config;
	char origin[80], address[ADDRESS_TEXT_BYTES];

	read_good(&trial, "# comment\n"
			  "; comment\n"
			  "\n"
			  "[reactor]\n"
			  "cores = 0-1,5\n"
			  "queue-depth=64\n"
			  "  poll-us =  0  \n"
			  "buffer-memory = 1G\n"
			  "socket-batch = 6\n"
			  "[server]\n"
			  "listen = 127.0.0.1:1\n"
			  "listen = unix:/run/x\n"
			  "max-connections = 7\n"
			  "[export a b]\n"
			  "path = /srv/a ;b = c # d\n"
			  "read-only = yes\n"
			  "priority = latency\n"
			  "description = \xc3\xa9t\xc3\xa9 = #1\n"
			  "[export]\n"
			  "path = relative.img");
	cr_assert_not(config->cores_auto);
	cr_assert_eq(config->cores.count, 3);
	cr_assert_eq(config->cores.cpus[2], 5);
	cr_assert_eq(config->queue_depth, 64);
	cr_assert_eq(config->poll_us, 0);
	cr_assert_eq(config->buffer_memory_bytes, (uint64_t)1 << 30);
	cr_assert_eq(config->listen_count, 2);
	address_format(&config->listen[1], address, sizeof(address));
	cr_assert_str_eq(address, "unix:/run/x");
	cr_assert_eq(config->connections_max, 7);
	cr_assert_eq(config->export_count, 2);
	cr_assert_str_eq(config->exports[0].name, "a b");
	cr_assert_str_eq(config->exports[0].path, "/srv/a ;b = c # d");
	cr_assert_str_eq(config->exports[0].description, "\xc3\xa9t\xc3\xa9 = #1");
	cr_assert(config->exports[0].read_only);
	cr_assert_eq(config->exports[0].priority, PRIORITY_LATENCY);
	cr_assert_eq(config->exports[1].priority, PRIORITY_NORMAL);
	cr_assert_eq(config->socket_batch, 6);
	snprintf(origin, sizeof(origin), "%s:14", trial.path);
	cr_assert_str_eq(config->exports[0].origin, origin);
	cr_assert_str_eq(config->exports[1].name, "");
	cr_assert_str_eq(config->exports[1].path, "relative.img");
	cr_assert_null(config->exports[1].description);
	cr_assert_not(config->exports[1].read_only);
	trial_fini(&trial);
}

Test(config_file, the_example_is_valid_and_holds_the_defaults)
{
	struct trial trial;
	struct config defaults;

	config_init(&defaults);
	trial_init(&trial);
	trial.result = config_read_file(&trial.config, "etc/millrace.conf", trial.errors);
	fflush(trial.errors);
	cr_assert_eq(trial.result, 0, "%s", trial.said);
	cr_assert_eq(trial.config.queue_depth, defaults.queue_depth);
	cr_assert_eq(trial.config.export_count, 1);
	cr_assert_str_eq(trial.config.exports[0].name, "disk");
	trial_fini(&trial);
	config_fini(&defaults);
}

/* What the example shows as a default, uncommented, is the default. */
Test(config_file, the_examples_commented_settings_are_valid)
{
	static const char *const settings[] = { "cores",	   "queue-depth",   "poll-us",
						"stall-ms",	   "buffer-memory", "listen",
						"max-connections", "read-only",	    "socket-batch",
						"priority",	   "type" };
	struct trial trial;
	struct config defaults;
	FILE *example = fopen("etc/millrace.conf", "r");
	char *text = NULL, line[256];
	size_t bytes = 0, shown = 0;

	cr_assert_not_null(example);
	while (fgets(line, sizeof(line), example)) {
		const char *start = line;

		for (size_t i = 0; i < ARRAY_COUNT(settings); i++) {
			size_t name_bytes = strlen(settings[i]);

			if (line[0] != '#' || strncmp(line + 1, settings[i], name_bytes) != 0 ||
			    strncmp(line + 1 + name_bytes, " = ", 3) != 0)
				continue;
			start = line + 1;
			shown++;
		}
		if (strncmp(line, "# More examples:", 16) == 0)
			break;
		append(&text, &bytes, start, strlen(start));
	}
	fclose(example);
	config_init(&defaults);
	read_good(&trial, text);
	cr_assert_eq(shown, ARRAY_COUNT(settings) + 2); /* two more listeners */
	cr_assert(trial.config.cores_auto);
	cr_assert_eq(trial.config.queue_depth, defaults.queue_depth);
	cr_assert_eq(trial.config.poll_us, defaults.poll_us);
	cr_assert_eq(trial.config.buffer_memory_bytes, defaults.buffer_memory_bytes);
	cr_assert_eq(trial.config.connections_max, defaults.connections_max);
	cr_assert_not(trial.config.exports[0].read_only);
	free(text);
	trial_fini(&trial);
	config_fini(&defaults);
}

Test(config_file, windows_line_ends_and_a_byte_order_mark_are_accepted)
{
	struct trial trial;

	read_good(&trial,
		  "\xef\xbb\xbf[reactor]\r\npoll-us = 9\r\n\r\n# x\r\n[export  x ]\r\npath = "
		  "/a\r\n");
	cr_assert_eq(trial.config.poll_us, 9);
	cr_assert_str_eq(trial.config.exports[0].name, "x");
	cr_assert_str_eq(trial.config.exports[0].path, "/a");
	trial_fini(&trial);
}

Test(config_file, a_section_may_be_continued_later)
{
	struct trial trial;

	read_good(&trial, "[reactor]\npoll-us=1\n[server]\n[reactor]\nqueue-depth=16\n");
	cr_assert_eq(trial.config.poll_us, 1);
	cr_assert_eq(trial.config.queue_depth, 16);
	trial_fini(&trial);
}

Test(config_file, each_export_has_its_own_keys)
{
	struct trial trial;

	read_good(&trial, "[export a]\npath=/a\nread-only=1\npriority=latency\ndescription=A\n"
			  "[export b]\npath=/b\nread-only=0\npriority=normal\ndescription=B\n");
	cr_assert_eq(trial.config.exports[0].priority, PRIORITY_LATENCY);
	cr_assert_eq(trial.config.exports[1].priority, PRIORITY_NORMAL);
	cr_assert(trial.config.exports[0].read_only);
	cr_assert_str_eq(trial.config.exports[0].description, "A");
	cr_assert_not(trial.config.exports[1].read_only);
	cr_assert_str_eq(trial.config.exports[1].description, "B");
	trial_fini(&trial);
}

Test(config_file, an_empty_file_says_nothing)
{
	struct trial trial;

	read_good(&trial, "");
	cr_assert_eq(trial.config.export_count, 0);
	trial_fini(&trial);
}

Test(config_file, lines_up_to_8_kib_work)
{
	struct trial trial;
	char *text = padded("[export a]\npath=", 8192 - 5, 'x', "\n[reactor]\npoll-us=3\n");

	read_good(&trial, text);
	cr_assert_eq(strlen(trial.config.exports[0].path), 8192 - 5);
	cr_assert_eq(trial.config.poll_us, 3);
	trial_fini(&trial);
	free(text);
}

Test(config_file, a_longer_line_ends_the_reading)
{
	char *text = padded("[reactor]\npoll-us=", 8192, 'x', "\nbad\n");

	assert_mistakes(text, "@:2: poll-us=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx: the line is too "
			      "long; at most 8192 bytes; what follows was not read\n");
	free(text);
}

Test(config_file, section_and_key_names_are_not_cut)
{
	struct trial trial;
	char *text = padded("[export ", 4096, 'n', "]\npath=/a\n");

	read_good(&trial, text);
	cr_assert_eq(strlen(trial.config.exports[0].name), 4096);
	trial_fini(&trial);
	free(text);
	assert_mistakes("[reactorreactorreactorreactorreactorreactorreactorreactor]\n",
			"@:1: [reactorreactorreactorreactorreactorreactorreactorreactor]: unknown "
			"section; allowed are [reactor], [server] and [export NAME]\n");
	assert_mistakes(
		"[server]\n"
		"listenlistenlistenlistenlistenlistenlistenlistenlistenlisten = 1\n",
		"@:2: [server] listenlistenlistenlistenlistenlistenlistenlistenlistenlisten "
		"= 1: unknown key; [server] has listen, max-connections\n");
}

Test(config_file, an_unknown_section_is_refused_even_if_empty)
{
	assert_mistakes("[servers]\nlisten = nothing\n[]\n[Reactor]\n[exports a]\n[reactor x]\n",
			"@:1: [servers]: unknown section; allowed are [reactor], [server] and "
			"[export NAME]\n"
			"@:3: []: unknown section; allowed are [reactor], [server] and [export "
			"NAME]\n"
			"@:4: [Reactor]: unknown section; allowed are [reactor], [server] and "
			"[export NAME]\n"
			"@:5: [exports a]: unknown section; allowed are [reactor], [server] and "
			"[export NAME]\n"
			"@:6: [reactor x]: unknown section; allowed are [reactor], [server] and "
			"[export NAME]\n");
}

Test(config_file, a_section_line_must_be_whole)
{
	assert_mistakes("[server\nlisten = nothing\n[server] # x\n[export a]b]\n",
			"@:1: [server: the ] of the section is missing\n"
			"@:3: [server] # x: nothing may follow the ] of a section\n"
			"@:4: [export a]b]: nothing may follow the ] of a section\n");
}

Test(config_file, an_unknown_key_is_refused_with_those_that_exist)
{
	assert_mistakes("[reactor]\npoll_us = 1\n[server]\ncores = 1\n[export a]\npath = "
			"/a\nreadonly=1\n",
			"@:2: [reactor] poll_us = 1: unknown key; [reactor] has cores, "
			"queue-depth, poll-us, socket-batch, stall-ms, buffer-memory\n"
			"@:4: [server] cores = 1: unknown key; [server] has listen, "
			"max-connections\n"
			"@:7: [export a] readonly = 1: unknown key; [export] has type, path, size, "
			"read-only, priority, description\n");
}

Test(config_file, a_setting_before_any_section_is_refused)
{
	assert_mistakes("cores = 1\n", "@:1: cores: a setting before the first section; begin with "
				       "[reactor], [server] or [export NAME]\n");
}

Test(config_file, other_lines_are_refused)
{
	assert_mistakes(
		"[server]\nlisten\nlisten: x\n = 1\n  what\t!\n",
		"@:2: listen: not understood; expected [SECTION], KEY = VALUE, or a comment after "
		"#\n"
		"@:3: listen: x: not understood; expected [SECTION], KEY = VALUE, or a comment "
		"after #\n"
		"@:4: = 1: not understood; expected [SECTION], KEY = VALUE, or a comment after #\n"
		"@:5: what?!: not understood; expected [SECTION], KEY = VALUE, or a comment after "
		"#\n");
}

Test(config_file, a_nul_byte_is_refused)
{
	assert_mistakes_in("[server]\nlis\0ten = 1\n", 21,
			   "@:2: lis: a NUL byte follows; expected a text file\n");
}

Test(config_file, a_key_twice_is_refused)
{
	assert_mistakes("[reactor]\npoll-us = 1\n[server]\nmax-connections = 1\nmax-connections = "
			"2\n[reactor]\npoll-us = 1\n[export]\npath = /a\npath = /b\n",
			"@:5: [server] max-connections = 2: line 4 has set it already; keep one of "
			"them\n"
			"@:7: [reactor] poll-us = 1: line 2 has set it already; keep one of them\n"
			"@:10: [export] path = /b: line 9 has set it already; keep one of them\n");
}

Test(config_file, an_export_without_a_path_is_refused_at_its_section)
{
	assert_mistakes("\n[export a]\nread-only = yes\n[export b]\npath =\n[export]\n",
			"@:2: [export a]: the export has no path; give it that of an image file or "
			"block device\n"
			"@:4: [export b]: the export has no path; give it that of an image file or "
			"block device\n"
			"@:6: [export]: the export has no path; give it that of an image file or "
			"block device\n");
}

Test(config_file, each_type_of_volume_needs_its_own_keys)
{
	struct trial trial;

	read_good(&trial, "[export m]\ntype=memory\nsize=1024T\n[export n]\ntype=null\nsize=1\n"
			  "[export f]\ntype=file\npath=/f\n");
	trial_fini(&trial);
	assert_mistakes("[export a]\ntype=tape\npath=/a\n[export b]\ntype=memory\n"
			"[export c]\ntype=null\nsize=1G\npath=/c\n[export d]\npath=/d\nsize=1G\n",
			"@:2: [export a] type = tape: expected file, memory or null\n"
			"@:4: [export b]: a volume of type memory or null needs a size, such as "
			"size = 10G\n"
			"@:6: [export c]: a volume of type memory or null has no path; remove it, "
			"or set type = file\n"
			"@:10: [export d]: a volume of type file has the size of its file; remove "
			"size, or set type = memory\n");
}

Test(config_file, an_export_name_twice_is_refused_with_both_places)
{
	assert_mistakes("[export a]\npath=/a\n[export b]\npath=/a\n[export  a]\npath=/b\n",
			"@:5: [export  a]: export \"a\" of @:1 has this name already; give each "
			"export a name of its own\n");
}

Test(config_file, names_and_descriptions_must_be_utf8_of_4096_bytes)
{
	char *name = padded("[export ", 4097, 'n', "]\npath=/a\n");
	char *description = padded("[export a]\npath=/a\ndescription=", 4097, 'd',
				   "\n[export \xff]\npath=/a\n"
				   "[export c]\npath=/a\n"
				   "description=\xc0\x80\n");
	struct trial trial;

	trial_init(&trial);
	trial_read(&trial, name, strlen(name));
	cr_assert_eq(trial.result, -EINVAL);
	cr_assert_not_null(strstr(trial.said, ": the name has 4097 bytes; at most 4096\n"));
	trial_fini(&trial);
	free(name);
	assert_mistakes(
		description,
		"@:1: [export a]: the description has 4097 bytes; at most 4096\n"
		"@:4: [export \xff]: the name is not UTF-8; save it in that encoding\n"
		"@:6: [export c]: the description is not UTF-8; save it in that encoding\n");
	free(description);
}

Test(config_file, numbers_have_limits)
{
	static const char *const limits[] = { "16", "16384", NULL };
	static const char *const bad[] = { "15",
					   "16385",
					   "-1",
					   "+16",
					   "16x",
					   "0x10",
					   "1 6",
					   "",
					   "1.5",
					   "64K",
					   "18446744073709551632",
					   "4294967312",
					   NULL };

	assert_values_refused("reactor", "queue-depth", "a number from 16 to 16384", bad);
	assert_values_refused("reactor", "poll-us", "a number from 0 to 10000",
			      (const char *const[]){ "-1", "10001", "", NULL });
	assert_values_refused("server", "max-connections", "a number from 1 to 20000",
			      (const char *const[]){ "0", "20001", NULL });
	for (const char *const *value = limits; *value; value++) {
		struct trial trial;
		char text[64];

		snprintf(text, sizeof(text), "[reactor]\nqueue-depth = %s\n", *value);
		read_good(&trial, text);
		cr_assert_eq(trial.config.queue_depth, strtoul(*value, NULL, 10));
		trial_fini(&trial);
	}
}

Test(config_file, memory_takes_suffixes_of_powers_of_1024)
{
	static const struct {
		const char *text;
		uint64_t bytes;
	} good[] = {
		{ "67108864", (uint64_t)64 << 20 }, { "65536K", (uint64_t)64 << 20 },
		{ "64M", (uint64_t)64 << 20 },	    { "100000001", 100000001 },
		{ "3G", (uint64_t)3 << 30 },	    { "64G", (uint64_t)64 << 30 },
	};
	static const char *const bad[] = { "67108863",
					   "63M",
					   "65G",
					   "64",
					   "64T",
					   "64MB",
					   "64m",
					   "64 M",
					   "M",
					   "-1G",
					   "",
					   "1.5G",
					   "18446744073709551615G",
					   "17179869185G",
					   NULL };

	assert_values_refused("reactor", "buffer-memory", "expected bytes from 64M to 64G", bad);
	for (size_t i = 0; i < ARRAY_COUNT(good); i++) {
		struct trial trial;
		char text[64];

		snprintf(text, sizeof(text), "[reactor]\nbuffer-memory = %s\n", good[i].text);
		read_good(&trial, text);
		cr_assert_eq(trial.config.buffer_memory_bytes, good[i].bytes, "%s", good[i].text);
		trial_fini(&trial);
	}
}

Test(config_file, priority_takes_three_words)
{
	static const char *const words[] = { "latency", "normal", "background" };
	struct trial trial;

	for (size_t i = 0; i < ARRAY_COUNT(words); i++) {
		char text[64];

		snprintf(text, sizeof(text), EXPORT_LINES "priority = %s\n", words[i]);
		read_good(&trial, text);
		cr_assert_eq(trial.config.exports[0].priority, (enum priority)i);
		trial_fini(&trial);
	}
	assert_mistakes(EXPORT_LINES "priority = high\n",
			"@:3: [export] priority = high: expected latency, normal or background\n");
}

Test(config_file, read_only_takes_words)
{
	static const char *const words[] = { "no", "yes", "false", "true", "off", "on", "0", "1" };
	static const char *const bad[] = { "y", "YES", "2", "", "yes no", NULL };

	for (size_t i = 0; i < ARRAY_COUNT(words); i++) {
		struct trial trial;
		char text[64];

		snprintf(text, sizeof(text), EXPORT_LINES "read-only = %s\n", words[i]);
		read_good(&trial, text);
		cr_assert_eq(trial.config.exports[0].read_only, i % 2 == 1, "%s", words[i]);
		trial_fini(&trial);
	}
	for (const char *const *word = bad; *word; word++) {
		struct trial trial;
		char text[64];

		snprintf(text, sizeof(text), EXPORT_LINES "read-only = %s\n", *word);
		trial_init(&trial);
		trial_read(&trial, text, strlen(text));
		cr_assert_eq(trial.result, -EINVAL);
		cr_assert_not_null(strstr(trial.said, "expected yes or no"));
		trial_fini(&trial);
	}
}

Test(config_file, wrong_cores_and_addresses_are_refused)
{
	assert_values_refused(
		"reactor", "cores", "expected auto or a list",
		(const char *const[]){ "", "all", "3-1", "1,1", "-1", "70000", "0-999", NULL });
	assert_values_refused(
		"server", "listen", "expected",
		(const char *const[]){ "", "10809", "localhost", "::1:1", "unix:", NULL });
}

Test(config_file, too_many_listeners_are_refused)
{
	struct trial trial;
	char *text = NULL;
	size_t bytes = 0;

	append(&text, &bytes, "[server]\n", 9);
	for (int i = 0; i < CONFIG_LISTEN_MAX + 1; i++)
		append(&text, &bytes, "listen=[::1]:1\n", 15);
	trial_init(&trial);
	trial_read(&trial, text, bytes);
	cr_assert_eq(trial.result, -EINVAL);
	cr_assert_not_null(strstr(trial.said, ":66: [server] listen = [::1]:1: too many addresses; "
					      "at most 64\n"));
	trial_fini(&trial);
	free(text);
}

Test(config_file, reading_goes_on_after_a_mistake)
{
	struct trial trial;
	const char *text = "[reactor]\npoll-us = x\nqueue-depth = 99\n";

	trial_init(&trial);
	trial_read(&trial, text, strlen(text));
	cr_assert_eq(trial.result, -EINVAL);
	cr_assert_eq(trial.config.queue_depth, 99);
	trial_fini(&trial);
}

Test(config_file, a_hundred_mistakes_end_the_reading)
{
	struct trial trial;
	char *text = padded("", 0, ' ', "");
	size_t bytes = 0, lines = 0;

	for (int i = 0; i < 500; i++)
		append(&text, &bytes, "bad\n", 4);
	trial_init(&trial);
	trial_read(&trial, text, bytes);
	for (const char *at = trial.said; (at = strchr(at, '\n')); at++)
		lines++;
	cr_assert_eq(lines, 101);
	cr_assert_not_null(strstr(trial.said, "too many mistakes; what follows line 100 was not "
					      "read\n"));
	trial_fini(&trial);
	free(text);
}

Test(config_file, a_file_that_cannot_be_read_is_named)
{
	struct trial trial;

	trial_init(&trial);
	cr_assert_eq(config_read_file(&trial.config, "/nonexistent/m.conf", trial.errors), -EINVAL);
	cr_assert_eq(config_read_file(&trial.config, "/", trial.errors), -EINVAL);
	fflush(trial.errors);
	cr_assert_str_eq(trial.said, "/nonexistent/m.conf: cannot open: No such file or directory\n"
				     "/: cannot read: Is a directory\n");
	trial_fini(&trial);
}

static uint64_t
seed(void)
{
	const char *text = getenv("SEED");
	uint64_t value = text ? strtoull(text, NULL, 10) : (uint64_t)time(NULL);

	fprintf(stderr, "SEED=%llu\n", (unsigned long long)value);
	return value;
}

/* xorshift64* */
static unsigned
draw(uint64_t *state, unsigned below)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return (unsigned)(*state * 0x2545f4914f6cdd1d >> 33) % below;
}

/* Bytes at random, and pieces of real files in random order, never crash; mistakes are counted
 * right: none said means 0. */
Test(config_file, random_files_never_crash)
{
	static const char *const pieces[] = {
		"[",	       "]",
		"\n",	       "=",
		" = ",	       "#",
		";",	       ":",
		"\r\n",	       "[reactor]\n",
		"[server]\n",  "[export a]\n",
		"[export ",    "export",
		"cores",       "queue-depth",
		"poll-us",     "buffer-memory",
		"listen",      "max-connections",
		"path",	       "read-only",
		"description", "path=/a\n",
		"auto",	       "0-3",
		"128",	       "64M",
		"[::1]:1",     "unix:/a",
		"yes",	       "\xc3\xa9",
		"\xff",	       "\xef\xbb\xbf",
		"\x01",	       " ",
		"\t",
	};
	uint64_t state = seed() | 1;

	for (int round = 0; round < 2000; round++) {
		struct trial trial;
		char *text = padded("", 0, ' ', "");
		size_t bytes = 0;

		for (unsigned i = draw(&state, 200); i > 0; i--) {
			unsigned kind = draw(&state, 16);
			const char *piece = pieces[draw(&state, ARRAY_COUNT(pieces))];
			char byte = (char)draw(&state, 256);

			if (kind == 0)
				append(&text, &bytes, &byte, 1);
			else
				append(&text, &bytes, piece, strlen(piece));
		}
		if (draw(&state, 50) == 0)
			for (unsigned i = 0; i < 9000; i++) {
				char byte = (char)draw(&state, 256);

				append(&text, &bytes, &byte, 1);
			}
		trial_init(&trial);
		trial_read(&trial, text, bytes);
		cr_assert_eq(trial.result == 0, trial.said_bytes == 0);
		trial_fini(&trial);
		free(text);
	}
}

Test(config_line, an_export_is_name_and_path)
{
	struct trial trial;
	const struct config_export *exports;

	trial_init(&trial);
	cr_assert_eq(config_add_export(&trial.config, "a=/b=c", trial.errors), 0);
	cr_assert_eq(config_add_export(&trial.config, "=rel", trial.errors), 0);
	exports = trial.config.exports;
	cr_assert_eq(trial.config.export_count, 2);
	cr_assert_str_eq(exports[0].name, "a");
	cr_assert_str_eq(exports[0].path, "/b=c");
	cr_assert_str_eq(exports[0].origin, "--export");
	cr_assert_null(exports[0].description);
	cr_assert_str_eq(exports[1].name, "");
	cr_assert_str_eq(exports[1].path, "rel");
	trial_fini(&trial);
}

Test(config_line, memory_and_null_need_no_file)
{
	struct trial trial;
	const struct config_export *exports;

	trial_init(&trial);
	cr_assert_eq(config_add_export(&trial.config, "m=memory:10G", trial.errors), 0);
	cr_assert_eq(config_add_export(&trial.config, "=null:1000", trial.errors), 0);
	cr_assert_eq(config_add_export(&trial.config, "f=./null:1000", trial.errors), 0);
	cr_assert_eq(config_add_export(&trial.config, "x=memory:", trial.errors), -EINVAL);
	fflush(trial.errors);
	exports = trial.config.exports;
	cr_assert_eq(trial.config.export_count, 3);
	cr_assert_eq(exports[0].type, VOLUME_KIND_MEMORY);
	cr_assert_eq(exports[0].size_bytes, (uint64_t)10 << 30);
	cr_assert_null(exports[0].path);
	cr_assert_eq(exports[1].type, VOLUME_KIND_NULL);
	cr_assert_eq(exports[1].size_bytes, 1000);
	cr_assert_eq(exports[2].type, VOLUME_KIND_FILE);
	cr_assert_str_eq(exports[2].path, "./null:1000");
	cr_assert_str_eq(trial.said, "--export x=memory:: expected a size in bytes from 1 to "
				     "1024T; K, M, G and T are powers of 1024\n");
	trial_fini(&trial);
}

Test(config_line, a_mistake_leaves_the_config_unchanged)
{
	struct trial trial;
	struct config *config = &trial.config;

	trial_init(&trial);
	cr_assert_eq(config_add_export(config, "a=/a", trial.errors), 0);
	cr_assert_eq(config_add_export(config, "/disk.img", trial.errors), -EINVAL);
	cr_assert_eq(config_add_export(config, "b=", trial.errors), -EINVAL);
	cr_assert_eq(config_add_export(config, "a=/b", trial.errors), -EINVAL);
	cr_assert_eq(config_add_listen(config, "[::1]", trial.errors), -EINVAL);
	cr_assert_eq(config_set_cores(config, "x", trial.errors), -EINVAL);
	fflush(trial.errors);
	cr_assert_eq(config->export_count, 1);
	cr_assert_eq(config->listen_count, 0);
	cr_assert(config->cores_auto);
	cr_assert_str_eq(
		trial.said,
		"--export /disk.img: no \"=\"; expected NAME=PATH, or =PATH for the default "
		"export\n"
		"--export b=: the export has no path; give it that of an image file or block "
		"device\n"
		"--export a=/b: export \"a\" of --export has this name already; give each export a "
		"name of its own\n"
		"--listen [::1]: no port from 0 to 65535 at the end; expected HOST:PORT, "
		"[IPV6]:PORT "
		"or unix:PATH\n"
		"--cores x: not a list of cores, or a core is in it twice; expected auto or a list "
		"such as 0-3,8\n");
	trial_fini(&trial);
}

Test(config_line, auto_takes_back_a_list_of_cores)
{
	struct trial trial;

	trial_init(&trial);
	cr_assert_eq(config_set_cores(&trial.config, "0-1", trial.errors), 0);
	cr_assert_not(trial.config.cores_auto);
	cr_assert_eq(config_set_cores(&trial.config, "auto", trial.errors), 0);
	cr_assert(trial.config.cores_auto);
	trial_fini(&trial);
}

Test(config_finish, fills_in_cores_and_the_listener)
{
	struct trial trial;
	struct cpu_list allowed;
	char address[ADDRESS_TEXT_BYTES];

	cr_assert_eq(cpu_list_auto(&allowed), 0);
	read_good(&trial, EXPORT_LINES);
	cr_assert_eq(config_finish(&trial.config, trial.errors), 0);
	cr_assert_eq(trial.config.cores.count, allowed.count);
	cr_assert_eq(trial.config.listen_count, 1);
	address_format(&trial.config.listen[0], address, sizeof(address));
	cr_assert_str_eq(address, "127.0.0.1:10809");
	trial_fini(&trial);
}

Test(config_finish, keeps_the_listeners_that_are_set)
{
	struct trial trial;

	read_good(&trial, "[server]\nlisten=unix:/a\n" EXPORT_LINES);
	cr_assert_eq(config_finish(&trial.config, trial.errors), 0);
	cr_assert_eq(trial.config.listen_count, 1);
	cr_assert_eq(trial.config.listen[0].storage.ss_family, AF_UNIX);
	trial_fini(&trial);
}

Test(config_finish, says_how_to_add_an_export)
{
	struct trial trial;

	trial_init(&trial);
	cr_assert_eq(config_finish(&trial.config, trial.errors), -EINVAL);
	fflush(trial.errors);
	cr_assert_str_eq(trial.said, "no export: add [export NAME] with path = FILE to the "
				     "configuration, or give --export NAME=FILE\n");
	trial_fini(&trial);
}

Test(config_finish, refuses_a_core_outside_the_affinity_mask)
{
	struct trial trial;
	struct cpu_list allowed;
	cpu_set_t one;
	char said[256];

	cr_assert_eq(cpu_list_auto(&allowed), 0);
	CPU_ZERO(&one);
	CPU_SET(allowed.cpus[0], &one);
	cr_assert_eq(sched_setaffinity(0, sizeof(one), &one), 0);
	read_good(&trial, "[reactor]\ncores=65534-65535\n" EXPORT_LINES);
	cr_assert_eq(config_finish(&trial.config, trial.errors), -EINVAL);
	fflush(trial.errors);
	snprintf(said, sizeof(said),
		 "cores: core 65534 of 65534-65535 does not exist or is outside this process's "
		 "affinity mask; allowed: %d\n",
		 allowed.cpus[0]);
	cr_assert_str_eq(trial.said, said);
	trial_fini(&trial);
}

Test(config_describe, says_everything)
{
	struct trial trial;
	char *text;
	size_t bytes;
	FILE *out = open_memstream(&text, &bytes);

	read_good(&trial, "[reactor]\ncores=0-2\nbuffer-memory=96M\npoll-us=0\n"
			  "[server]\nlisten=127.0.0.1:1\nlisten=unix:/a\n"
			  "[export]\npath=/a\n"
			  "[export b]\npath=/b\nread-only=1\npriority=background\ndescription=B\n"
			  "[export m]\ntype=memory\nsize=3T\n");
	config_describe(&trial.config, out);
	fclose(out);
	cr_assert_str_eq(text, "cores            0-2\n"
			       "queue-depth      256 disk requests per core\n"
			       "poll-us          0 (sleep at once)\n"
			       "socket-batch     0 (never)\n"
			       "stall-ms         500\n"
			       "buffer-memory    96M per core, 288M in total\n"
			       "listen           127.0.0.1:1\n"
			       "listen           unix:/a\n"
			       "max-connections  1024\n"
			       "export           \"\" (the default export)\n"
			       "  type           file\n"
			       "  path           /a\n"
			       "  read-only      no\n"
			       "  priority       normal\n"
			       "export           \"b\"\n"
			       "  type           file\n"
			       "  path           /b\n"
			       "  read-only      yes\n"
			       "  priority       background\n"
			       "  description    B\n"
			       "export           \"m\"\n"
			       "  type           memory\n"
			       "  size           3T\n"
			       "  read-only      no\n"
			       "  priority       normal\n");
	free(text);
	trial_fini(&trial);
}

Test(config_describe, memory_is_in_the_largest_whole_unit)
{
	struct trial trial;
	char *text;
	size_t bytes;
	FILE *out = open_memstream(&text, &bytes);

	read_good(&trial, "[reactor]\ncores=0-1\nbuffer-memory=100000001\n");
	config_describe(&trial.config, out);
	fclose(out);
	cr_assert_not_null(strstr(text, "100000001 per core, 200000002 in total"));
	free(text);
	trial_fini(&trial);
	out = open_memstream(&text, &bytes);
	read_good(&trial, "[reactor]\ncores=0-1\nbuffer-memory=512M\n");
	config_describe(&trial.config, out);
	fclose(out);
	cr_assert_not_null(strstr(text, "512M per core, 1G in total"));
	free(text);
	trial_fini(&trial);
}

Test(config_value, utf8_is_checked_strictly)
{
	static const char *const good[] = { "",
					    "a",
					    "\xc2\x80",
					    "\xe0\xa0\x80",
					    "\xed\x9f\xbf",
					    "\xee\x80\x80",
					    "\xf0\x90\x80\x80",
					    "\xf4\x8f\xbf\xbf" };
	static const char *const bad[] = { "\x80",
					   "\xc2",
					   "\xc1\xbf",
					   "\xe0\x9f\xbf",
					   "\xed\xa0\x80",
					   "\xf0\x8f\xbf\xbf",
					   "\xf4\x90\x80\x80",
					   "\xf8\x88\x80\x80\x80",
					   "\xe2\x82",
					   "\xe2\x28\xa1",
					   "a\xff" };

	for (size_t i = 0; i < ARRAY_COUNT(good); i++)
		cr_assert(config_value_utf8(good[i]), "good %zu", i);
	for (size_t i = 0; i < ARRAY_COUNT(bad); i++)
		cr_assert_not(config_value_utf8(bad[i]), "bad %zu", i);
}
