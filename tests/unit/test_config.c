/* daemon/config.h: the defaults, the command line's additions, the check of the whole, and what it is described as. */
#include "daemon/config.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/config_trial.h"
#include "tests/unit/kernel_faults.h"

Test(config, defaults)
{
	struct config config;

	config_init(&config);
	cr_assert(config.cores_auto);
	cr_assert_eq(config.queue_depth, 256);
	cr_assert_eq(config.poll_us, 200);
	cr_assert_eq(config.stall_ms, 500);
	cr_assert_eq(config.log_level, LOG_LEVEL_INFO);
	cr_assert_eq(config.buffer_memory_bytes, (uint64_t)128 << 20);
	cr_assert_eq(config.connections_max, 1024);
	cr_assert_eq(config.listen_count, 0);
	cr_assert_eq(config.export_count, 0);
	config_fini(&config);
}

Test(config_option, an_export_is_name_and_path)
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

Test(config_option, a_mistake_leaves_the_config_unchanged)
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
		"[IPV6]:PORT, unix:PATH or vsock:CID:PORT\n"
		"--cores x: not a list of cores, or a core is in it twice; expected auto or a list "
		"such as 0-3,8\n");
	trial_fini(&trial);
}

Test(config_option, memory_and_null_need_no_file)
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
	cr_assert_str_eq(trial.said, "--export x=memory:: expected bytes from 1 to 1024T; K, M, G "
				     "and T are powers of 1024\n");
	trial_fini(&trial);
}

Test(config_option, auto_takes_back_a_list_of_cores)
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
	trial_read_good(&trial, EXPORT_LINES);
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

	trial_read_good(&trial, "[server]\nlisten=unix:/a\n" EXPORT_LINES);
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
	trial_read_good(&trial, "[reactor]\ncores=65534-65535\n" EXPORT_LINES);
	cr_assert_eq(config_finish(&trial.config, trial.errors), -EINVAL);
	fflush(trial.errors);
	snprintf(said, sizeof(said),
		 "%s:2: [reactor] cores = 65534-65535: core 65534 of 65534-65535 does not exist or "
		 "is outside this process's "
		 "affinity mask; allowed: %d\n",
		 trial.path, allowed.cpus[0]);
	cr_assert_str_eq(trial.said, said);
	trial_fini(&trial);
}

Test(config_finish, takes_a_core_behind_those_of_auto)
{
	struct trial trial;

	cpus_claimed = 2 * CPU_LIST_MAX;
	trial_read_good(&trial, "[reactor]\ncores=300\n" EXPORT_LINES);
	cr_assert_eq(config_finish(&trial.config, trial.errors), 0);
	trial_fini(&trial);
}

Test(config_finish, refuses_to_skip_cores_of_a_list)
{
	struct trial trial;
	char said[256];

	trial_read_good(&trial, "[reactor]\ncores=0\nskip-smt=yes\n" EXPORT_LINES);
	cr_assert_eq(config_finish(&trial.config, trial.errors), -EINVAL);
	fflush(trial.errors);
	snprintf(said, sizeof(said),
		 "%s:3: [reactor] skip-smt = yes: is for cores = auto only; leave the cores out of "
		 "the list instead\n",
		 trial.path);
	cr_assert_str_eq(trial.said, said);
	trial_fini(&trial);
}

Test(config_finish, refuses_to_skip_the_only_core)
{
	struct trial trial;
	cpu_set_t one;
	char said[256];

	CPU_ZERO(&one);
	CPU_SET(0, &one);
	if (sched_setaffinity(0, sizeof(one), &one) != 0)
		cr_skip_test("core 0 is not ours");
	trial_read_good(&trial, "[reactor]\nskip-core-0=yes\n" EXPORT_LINES);
	cr_assert_eq(config_finish(&trial.config, trial.errors), -EINVAL);
	fflush(trial.errors);
	snprintf(said, sizeof(said),
		 "%s:2: [reactor] skip-core-0 = yes: no core is left, this process may use only 0; "
		 "take skip-core-0 out, or allow it more\n",
		 trial.path);
	cr_assert_str_eq(trial.said, said);
	trial_fini(&trial);
}

/* Reading TEXT and the check of the whole must say the line SAID, behind the file's path; or, if it is empty, nothing. */
static void
assert_finish_says(const char *text, const char *said)
{
	struct trial trial;
	char expected[512] = "";
	bool is_good;

	trial_init(&trial);
	trial_read(&trial, text, strlen(text));
	is_good = config_finish(&trial.config, trial.errors) == 0 && trial.result == 0;
	fflush(trial.errors);
	if (said[0])
		snprintf(expected, sizeof(expected), "%s%s", trial.path, said);
	cr_assert_str_eq(trial.said, expected);
	cr_assert_eq(is_good, said[0] == '\0');
	trial_fini(&trial);
}

Test(config_finish, refuses_files_of_tls_without_a_mode)
{
	static const char *const keys[] = { "certificate", "key", "ca", "psk-file" };

	for (size_t i = 0; i < ARRAY_COUNT(keys); i++) {
		char text[256], said[256];

		snprintf(text, sizeof(text),
			 "[tls]\npriority=NORMAL\n%s=/x\n" EXPORT_LINES "tls-only=yes\n", keys[i]);
		snprintf(said, sizeof(said),
			 ":3: [tls] %s = /x: mode is not set; say mode = allowed or mode = "
			 "required, or mode = off to leave this unused\n",
			 keys[i]);
		assert_finish_says(text, said);
		snprintf(text, sizeof(text), "[tls]\nmode=off\n%s=/x\n" EXPORT_LINES, keys[i]);
		assert_finish_says(text, "");
	}
	assert_finish_says("[tls]\npriority=NORMAL\n" EXPORT_LINES, "");
}

Test(config_finish, says_nothing_false_of_tls_behind_a_mistake)
{
	struct trial trial;
	const char *text = "[tls]\nmod=required\npsk-file=/x\n" EXPORT_LINES "tls-only=yes\n";

	assert_finish_says("[tls]\nmode=requird\ncertificate=/x\n" EXPORT_LINES "tls-only=yes\n",
			   ":2: [tls] mode = requird: expected off, allowed or required\n");
	assert_finish_says("[tls]\nmode=required\ncertificate=\nkey=/x\n" EXPORT_LINES,
			   ":3: [tls] certificate = : expected something; take the line out for "
			   "none\n");
	trial_init(&trial);
	trial_read(&trial, text, strlen(text));
	cr_assert_not_null(strstr(trial.said, "unknown key"));
	cr_assert_str_eq(strchr(trial.said, '\n'), "\n");
	cr_assert_eq(config_finish(&trial.config, trial.errors), 0);
	fflush(trial.errors);
	cr_assert_str_eq(strchr(trial.said, '\n'), "\n", "%s", trial.said);
	trial_fini(&trial);
}

Test(config_describe, says_everything)
{
	struct trial trial;
	char *text;
	size_t bytes;
	FILE *out = open_memstream(&text, &bytes);

	trial_read_good(
		&trial,
		"[reactor]\ncores=0-2\nbuffer-memory=96M\npoll-us=0\n"
		"[server]\nlisten=127.0.0.1:1\nlisten=unix:/a\n"
		"deny=10.0.0.0/8,::1\nuser=u\nseccomp=yes\ncore-dumps=no\n"
		"[tls]\nmode=required\npsk-file=/keys\n"
		"[export]\npath=/a\nallow=unix all\nread-only-for=::/0\n"
		"[export b]\npath=/b\nread-only=1\ncache=host\npriority=background\ndescription=B\n"
		"allow-names=x, y.example\nallow-names=z\n"
		"[export m]\ntype=memory\nsize=3T\n");
	config_describe(&trial.config, out);
	fclose(out);
	cr_assert_str_eq(text, "cores            0-2\n"
			       "skip-core-0      no\n"
			       "skip-smt         no\n"
			       "queue-depth      256 disk requests per core\n"
			       "poll-us          0 (sleep at once)\n"
			       "socket-batch     0 (never)\n"
			       "stall-ms         500\n"
			       "buffer-memory    96M per core\n"
			       "lock-memory      no\n"
			       "listen           127.0.0.1:1\n"
			       "listen           unix:/a\n"
			       "max-connections  1024\n"
			       "max-connections-per-client 0 (any number)\n"
			       "requests-per-connection 128\n"
			       "handshake-s      10\n"
			       "dead-peer-s      60\n"
			       "deny             10.0.0.0/8, ::1\n"
			       "removed-exports  drain\n"
			       "log-level        info\n"
			       "log-format       text\n"
			       "slow-ms          0 (off)\n"
			       "user             u\n"
			       "seccomp          yes\n"
			       "core-dumps       no\n"
			       "mode             required\n"
			       "verify-client    yes\n"
			       "psk-file         /keys\n"
			       "kernel           yes\n"
			       "export           \"\" (the default export)\n"
			       "  type           file\n"
			       "  path           /a\n"
			       "  create         no\n"
			       "  cache          none\n"
			       "  read-only      no\n"
			       "  read-only-for  ::/0\n"
			       "  allow          unix, all\n"
			       "  tls-only       no\n"
			       "  priority       normal\n"
			       "  limit-iops     0 (none)\n"
			       "  limit-bytes    0 (none)\n"
			       "  burst-ms       100\n"
			       "export           \"b\"\n"
			       "  type           file\n"
			       "  path           /b\n"
			       "  create         no\n"
			       "  cache          host\n"
			       "  read-only      yes\n"
			       "  tls-only       no\n"
			       "  allow-names    x, y.example, z\n"
			       "  priority       background\n"
			       "  limit-iops     0 (none)\n"
			       "  limit-bytes    0 (none)\n"
			       "  burst-ms       100\n"
			       "  description    B\n"
			       "export           \"m\"\n"
			       "  type           memory\n"
			       "  size           3T\n"
			       "  create         no\n"
			       "  cache          none\n"
			       "  read-only      no\n"
			       "  tls-only       no\n"
			       "  priority       normal\n"
			       "  limit-iops     0 (none)\n"
			       "  limit-bytes    0 (none)\n"
			       "  burst-ms       100\n");
	free(text);
	trial_fini(&trial);
}

Test(config_describe, memory_is_in_the_largest_whole_unit)
{
	struct trial trial;
	char *text;
	size_t bytes;
	FILE *out = open_memstream(&text, &bytes);

	trial_read_good(&trial, "[reactor]\ncores=0-1\nbuffer-memory=100000001\n");
	config_describe(&trial.config, out);
	fclose(out);
	cr_assert_not_null(strstr(text, "100000001 per core"));
	free(text);
	trial_fini(&trial);
	out = open_memstream(&text, &bytes);
	trial_read_good(&trial, "[reactor]\ncores=0-1\nbuffer-memory=1024M\n");
	config_describe(&trial.config, out);
	fclose(out);
	cr_assert_not_null(strstr(text, "1G per core"));
	free(text);
	trial_fini(&trial);
}
