/* daemon/config_key.c and config_type.c: each key of the file, its values, and those that are refused; and the example in etc,
 * which shows them all. */
#include "daemon/config_key.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/config_trial.h"

/* TEXT: the ranges of LIST, a space behind each. */
static void
assert_ranges(const struct access_list *list, const char *text)
{
	char found[256] = "";

	for (size_t i = 0; i < list->count; i++) {
		char one[ACCESS_RANGE_TEXT_BYTES];

		access_range_format(&list->ranges[i], one);
		strcat(strcat(found, one), " ");
	}
	cr_assert_str_eq(found, text);
}

Test(config_key, every_key_is_read)
{
	struct trial trial;
	struct config *config = &trial.config;
	char origin[80], address[ADDRESS_TEXT_BYTES];

	trial_read_good(&trial, "# comment\n"
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
				"max-connections-per-client = 8\n"
				"requests-per-connection = 9\n"
				"handshake-s = 11\n"
				"dead-peer-s = 12\n"
				"allow = 10.0.0.0/8,  ::1 ,unix\n"
				"allow = vsock:3\n"
				"deny = 10.0.0.1\n"
				"[export a b]\n"
				"path = /srv/a ;b = c # d\n"
				"read-only = yes\n"
				"priority = latency\n"
				"allow = 10.1.0.0/16\n"
				"deny = 10.1.1.1\n"
				"deny = 10.1.1.2\n"
				"read-only-for = all\n"
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
	cr_assert_eq(config->connections_per_client_max, 8);
	cr_assert_eq(config->requests_per_connection, 9);
	cr_assert_eq(config->handshake_s, 11);
	cr_assert_eq(config->dead_peer_s, 12);
	assert_ranges(&config->access.allow, "10.0.0.0/8 ::1 unix vsock:3 ");
	assert_ranges(&config->access.deny, "10.0.0.1 ");
	cr_assert_eq(config->export_count, 2);
	assert_ranges(&config->exports[0].access.allow, "10.1.0.0/16 ");
	assert_ranges(&config->exports[0].access.deny, "10.1.1.1 10.1.1.2 ");
	assert_ranges(&config->exports[0].read_only_for, "all ");
	assert_ranges(&config->exports[1].access.allow, "");
	cr_assert_str_eq(config->exports[0].name, "a b");
	cr_assert_str_eq(config->exports[0].path, "/srv/a ;b = c # d");
	cr_assert_str_eq(config->exports[0].description, "\xc3\xa9t\xc3\xa9 = #1");
	cr_assert(config->exports[0].read_only);
	cr_assert_eq(config->exports[0].priority, PRIORITY_LATENCY);
	cr_assert_eq(config->exports[1].priority, PRIORITY_NORMAL);
	cr_assert_eq(config->socket_batch, 6);
	snprintf(origin, sizeof(origin), "%s:21", trial.path);
	cr_assert_str_eq(config->exports[0].origin, origin);
	cr_assert_str_eq(config->exports[1].name, "");
	cr_assert_str_eq(config->exports[1].path, "relative.img");
	cr_assert_null(config->exports[1].description);
	cr_assert_not(config->exports[1].read_only);
	trial_fini(&trial);
}

Test(config_key, the_example_is_valid_and_holds_the_defaults)
{
	struct trial trial;
	struct config defaults;

	config_init(&defaults);
	trial_init(&trial);
	trial.result = config_read_file(&trial.config, "etc/millrace.conf", trial.errors);
	fflush(trial.errors);
	cr_assert_eq(trial.result, 0, "%s", trial.said);
	cr_assert_eq(trial.config.queue_depth, defaults.queue_depth);
	cr_assert_eq(trial.config.export_count, 0);
	cr_assert_str_eq(trial.config.exports_dir, "etc/exports.d");
	trial_fini(&trial);
	config_fini(&defaults);
}

/* LINE, "#KEY = VALUE" or "KEY = VALUE" of a SECTION's KEY, as a setting, and that KEY; a section that is commented out as one; or
 * LINE and NULL. */
static const char *
uncommented(const struct config_section *section, const char *line, const struct config_key **key)
{
	const char *setting = line[0] == '#' ? line + 1 : line;

	for (unsigned i = 0; section && i < section->key_count; i++) {
		const char *name = section->keys[i].name;

		*key = &section->keys[i];
		if (strncmp(setting, name, strlen(name)) == 0 &&
		    strncmp(setting + strlen(name), " = ", 3) == 0)
			return setting;
	}
	*key = NULL;
	return setting[0] == '[' ? setting : line;
}

static const struct config_section *
section_of(const char *line, const struct config_section *before)
{
	if (line[0] == '#')
		line++;
	for (unsigned i = 0; line[0] == '[' && i < config_section_count; i++) {
		const char *name = config_sections[i].name;

		if (strncmp(line + 1, name, strlen(name)) == 0)
			return &config_sections[i];
	}
	return before;
}

/* What the example shows as a default, uncommented, is the default; and it shows every key there is. */
Test(config_key, the_examples_commented_settings_are_valid)
{
	struct trial trial;
	struct config defaults;
	const struct config_section *section = NULL;
	bool shown[CONFIG_SECTIONS_MAX][CONFIG_KEYS_MAX] = { 0 };
	FILE *example = fopen("etc/millrace.conf", "r");
	char *text = NULL, line[256];
	size_t bytes = 0;

	cr_assert_not_null(example);
	while (fgets(line, sizeof(line), example) && strncmp(line, "# More examples:", 16) != 0) {
		const struct config_key *key;
		const char *start;

		start = uncommented(section, line, &key);
		section = section_of(start, section);
		if (key)
			shown[section - config_sections][key - section->keys] = true;
		/* There is none beside the trial's file. */
		if (!key || strcmp(key->name, "exports-dir") != 0)
			trial_append(&text, &bytes, start, strlen(start));
	}
	fclose(example);
	for (unsigned i = 0; i < config_section_count; i++) {
		for (unsigned j = 0; j < config_sections[i].key_count; j++)
			cr_assert(shown[i][j], "[%s] %s is not in the example",
				  config_sections[i].name, config_sections[i].keys[j].name);
	}
	config_init(&defaults);
	trial_read_good(&trial, text);
	cr_assert(trial.config.cores_auto);
	cr_assert_eq(trial.config.queue_depth, defaults.queue_depth);
	cr_assert_eq(trial.config.poll_us, defaults.poll_us);
	cr_assert_eq(trial.config.stall_ms, defaults.stall_ms);
	cr_assert_eq(trial.config.buffer_memory_bytes, defaults.buffer_memory_bytes);
	cr_assert_eq(trial.config.connections_max, defaults.connections_max);
	cr_assert_eq(trial.config.connections_per_client_max, defaults.connections_per_client_max);
	cr_assert_eq(trial.config.requests_per_connection, defaults.requests_per_connection);
	cr_assert_eq(trial.config.handshake_s, defaults.handshake_s);
	cr_assert_eq(trial.config.slow_ms, defaults.slow_ms);
	cr_assert_eq(trial.config.dead_peer_s, defaults.dead_peer_s);
	cr_assert_not(trial.config.exports[0].read_only);
	free(text);
	trial_fini(&trial);
	config_fini(&defaults);
}

Test(config_key, an_export_may_have_what_holds_for_all_for_itself)
{
	struct trial trial;

	trial_read_good(&trial, "[server]\nslow-ms = 7\n[export a]\npath = /a\n"
				"[export b]\npath = /b\nslow-ms = 0\n");
	cr_assert_eq(trial.config.slow_ms, 7);
	cr_assert_eq(trial.config.exports[0].slow_ms, CONFIG_SLOW_MS_UNSET);
	cr_assert_eq(trial.config.exports[1].slow_ms, 0);
	trial_fini(&trial);
	trial_assert_mistakes("[export]\nslow-ms = 3600001\npath = /a\n",
			      "@:2: [export] slow-ms = 3600001: expected a number from 0 to "
			      "3600000\n");
}

Test(config_key, an_unknown_key_is_refused_with_those_that_exist)
{
	static const char *const texts[] = { "[reactor]\npoll_us = 1\n", "[server]\ncores = 1\n",
					     "[export]\nreadonly = 1\npath = /a\n" };
	static const char *const wrong[] = { "poll_us", "cores", "readonly" };

	for (size_t i = 0; i < ARRAY_COUNT(texts); i++) {
		const struct config_section *section = section_of(texts[i], NULL);
		char keys[1024], said[2048];

		config_key_list(section, keys, sizeof(keys));
		snprintf(said, sizeof(said), "@:2: [%s] %s = 1: unknown key; [%s] has %s\n",
			 section->name, wrong[i], section->name, keys);
		trial_assert_mistakes(texts[i], said);
	}
}

Test(config_key, lists_name_all_there_are)
{
	static const struct config_key three[] = { { .name = "a" },
						   { .name = "b" },
						   { .name = "c" } };
	struct config_section section = { .name = "s", .keys = three, .key_count = 3 };
	char text[1024];

	config_key_list(&section, text, sizeof(text));
	cr_assert_str_eq(text, "a, b, c");
	config_key_list(&section, text, 5);
	cr_assert_str_eq(text, "a, b");
	config_section_list("and", text, sizeof(text));
	cr_assert_eq(strncmp(text, "[reactor], [server]", 19), 0, "%s", text);
	cr_assert_str_eq(text + strlen(text) - strlen(" and [export NAME]"), " and [export NAME]");
}

Test(config_key, names_and_descriptions_must_be_utf8_of_4096_bytes)
{
	char *name = trial_padded("[export ", 4097, 'n', "]\npath=/a\n");
	char *description = trial_padded("[export a]\npath=/a\ndescription=", 4097, 'd',
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
	trial_assert_mistakes(
		description, "@:1: [export a]: the description has 4097 bytes; at most 4096\n"
			     "@:4: [export \xff]: the name is not UTF-8; save it in that encoding\n"
			     "@:8: [export c] description = \xc0\x80: the description is not "
			     "UTF-8; save it in that encoding\n");
	free(description);
}

Test(config_key, numbers_have_limits)
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

	trial_assert_refused("reactor", "queue-depth", "a number from 16 to 16384", bad);
	trial_assert_refused("reactor", "poll-us", "a number from 0 to 10000",
			     (const char *const[]){ "-1", "10001", "", NULL });
	trial_assert_refused("server", "max-connections", "a number from 1 to 20000",
			     (const char *const[]){ "0", "20001", NULL });
	trial_assert_refused("server", "requests-per-connection", "a number from 1 to 4096",
			     (const char *const[]){ "0", "4097", NULL });
	trial_assert_refused("server", "handshake-s", "a number from 1 to 3600",
			     (const char *const[]){ "0", "3601", NULL });
	trial_assert_refused("server", "dead-peer-s", "a number from 5 to 3600",
			     (const char *const[]){ "0", "4", "3601", NULL });
	for (const char *const *value = limits; *value; value++) {
		struct trial trial;
		char text[64];

		snprintf(text, sizeof(text), "[reactor]\nqueue-depth = %s\n", *value);
		trial_read_good(&trial, text);
		cr_assert_eq(trial.config.queue_depth, strtoul(*value, NULL, 10));
		trial_fini(&trial);
	}
}

Test(config_key, memory_takes_suffixes_of_powers_of_1024)
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

	trial_assert_refused("reactor", "buffer-memory", "expected bytes from 64M to 64G", bad);
	for (size_t i = 0; i < ARRAY_COUNT(good); i++) {
		struct trial trial;
		char text[64];

		snprintf(text, sizeof(text), "[reactor]\nbuffer-memory = %s\n", good[i].text);
		trial_read_good(&trial, text);
		cr_assert_eq(trial.config.buffer_memory_bytes, good[i].bytes, "%s", good[i].text);
		trial_fini(&trial);
	}
}

Test(config_key, priority_takes_three_words)
{
	static const char *const words[] = { "latency", "normal", "background" };
	struct trial trial;

	for (size_t i = 0; i < ARRAY_COUNT(words); i++) {
		char text[64];

		snprintf(text, sizeof(text), EXPORT_LINES "priority = %s\n", words[i]);
		trial_read_good(&trial, text);
		cr_assert_eq(trial.config.exports[0].priority, (enum priority)i);
		trial_fini(&trial);
	}
	trial_assert_mistakes(
		EXPORT_LINES "priority = high\n",
		"@:3: [export] priority = high: expected latency, normal or background\n");
}

Test(config_key, read_only_takes_words)
{
	static const char *const words[] = { "no", "yes", "false", "true", "off", "on", "0", "1" };
	static const char *const bad[] = { "y", "YES", "2", "", "yes no", NULL };

	for (size_t i = 0; i < ARRAY_COUNT(words); i++) {
		struct trial trial;
		char text[64];

		snprintf(text, sizeof(text), EXPORT_LINES "read-only = %s\n", words[i]);
		trial_read_good(&trial, text);
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

Test(config_key, wrong_cores_and_addresses_are_refused)
{
	trial_assert_refused(
		"reactor", "cores", "expected auto or a list",
		(const char *const[]){ "", "all", "3-1", "1,1", "-1", "70000", "0-999", NULL });
	trial_assert_refused(
		"server", "listen", "expected",
		(const char *const[]){ "", "10809", "localhost", "::1:1", "unix:", NULL });
}

Test(config_key, wrong_ranges_are_refused_with_the_one)
{
	static const char *const wrong[] = { "10.0.0.0/8, 10.0.0.1/8, ::1", "10.0.0.1/8", NULL };
	static const char *const none[] = { "", ",", NULL };

	trial_assert_refused("server", "allow", "10.0.0.1/8: the address has bits", wrong);
	trial_assert_refused("server", "deny", "10.0.0.1/8: the address has bits", wrong);
	trial_assert_refused("server", "deny", "no address range", none);
	trial_assert_refused("export", "allow", "10.0.0.1/8: ", wrong);
	trial_assert_refused("export", "deny", "10.0.0.1/8: ", wrong);
	trial_assert_refused("export", "read-only-for", "10.0.0.1/8: ", wrong);
}

Test(config_key, an_empty_range_line_behind_a_good_one_is_refused)
{
	trial_assert_mistakes(
		"[server]\nallow = ::1\nallow =\n",
		"@:3: [server] allow = : no address range; expected one or more, such as "
		"10.0.0.0/8, ::1, unix, or all\n");
}

Test(config_key, a_listener_twice_is_refused_unless_its_port_is_any)
{
	trial_assert_mistakes("[server]\nlisten = 127.0.0.1:1\nlisten = 127.0.0.1:0\n"
			      "listen = unix:/a\nlisten = 127.0.0.1:0\nlisten = 127.0.0.1:1\n"
			      "listen = unix:/a\nlisten = 127.0.0.1:10\nlisten = 127.0.0.1:10\n",
			      "@:6: [server] listen = 127.0.0.1:1: @:2: [server] listen = "
			      "127.0.0.1:1 listens there already; keep one of them\n"
			      "@:7: [server] listen = unix:/a: @:4: [server] listen = unix:/a "
			      "listens there already; keep one of them\n"
			      "@:9: [server] listen = 127.0.0.1:10: @:8: [server] listen = "
			      "127.0.0.1:10 listens there already; keep one of them\n");
}

Test(config_key, every_address_and_one_of_them_are_refused)
{
	trial_assert_mistakes("[server]\nlisten = 127.0.0.1:1\nlisten = 0.0.0.0:1\n",
			      "@:3: [server] listen = 0.0.0.0:1: @:2: [server] listen = "
			      "127.0.0.1:1 listens there already; keep one of them\n");
}

Test(config_key, several_addresses_in_one_line_are_told_apart_from_paths)
{
	struct trial trial;

	trial_assert_refused("server", "listen", "several addresses in one",
			     (const char *const[]){ "127.0.0.1:1, [::1]:1",
						    "127.0.0.1:1,10.0.0.1:1",
						    "127.0.0.1:1 10.0.0.1:1", "[::1]:1; unix:/a",
						    "unix:/a, unix:/b", "unix:/a,[::1]:1",
						    "unix:/a vsock:any:1", NULL });
	trial_read_good(&trial, "[server]\nlisten = unix:/a, b:c d\n" EXPORT_LINES);
	cr_assert_eq(trial.config.listen_count, 1);
	trial_fini(&trial);
}

Test(config_key, values_that_say_nothing_are_refused)
{
	trial_assert_mistakes("[server]\nuser =\nexports-dir =\n[export a]\npath = /a\n"
			      "description =\n",
			      "@:2: [server] user = : expected something; take the line out for "
			      "none\n"
			      "@:3: [server] exports-dir = : expected something; take the line out "
			      "for none\n");
}

Test(config_key, too_many_listeners_are_refused)
{
	struct trial trial;
	char *text = NULL;
	size_t bytes = 0;

	trial_append(&text, &bytes, "[server]\n", 9);
	for (int i = 0; i < CONFIG_LISTEN_MAX + 1; i++)
		trial_append(&text, &bytes, "listen=[::1]:0\n", 15);
	trial_init(&trial);
	trial_read(&trial, text, bytes);
	cr_assert_eq(trial.result, -EINVAL);
	cr_assert_not_null(strstr(trial.said, ":66: [server] listen = [::1]:0: too many addresses; "
					      "at most 64\n"));
	trial_fini(&trial);
	free(text);
}
