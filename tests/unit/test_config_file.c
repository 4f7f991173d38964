/* daemon/config_file.c: the form of the file, and each mistake in it with its place.  The random test prints its seed; SEED=n
 * repeats it. */
#include "daemon/config.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/config_trial.h"
#include "tests/unit/seed.h"

Test(config_file, windows_line_ends_and_a_byte_order_mark_are_accepted)
{
	struct trial trial;

	trial_read_good(&trial,
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

	trial_read_good(&trial, "[reactor]\npoll-us=1\n[server]\n[reactor]\nqueue-depth=16\n");
	cr_assert_eq(trial.config.poll_us, 1);
	cr_assert_eq(trial.config.queue_depth, 16);
	trial_fini(&trial);
}

Test(config_file, each_export_has_its_own_keys)
{
	struct trial trial;

	trial_read_good(&trial,
			"[export a]\npath=/a\nread-only=1\npriority=latency\ndescription=A\n"
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

	trial_read_good(&trial, "");
	cr_assert_eq(trial.config.export_count, 0);
	trial_fini(&trial);
}

Test(config_file, lines_up_to_8_kib_work)
{
	struct trial trial;
	char *text = trial_padded("[export a]\npath=", 8192 - 5, 'x', "\n[reactor]\npoll-us=3\n");

	trial_read_good(&trial, text);
	cr_assert_eq(strlen(trial.config.exports[0].path), 8192 - 5);
	cr_assert_eq(trial.config.poll_us, 3);
	trial_fini(&trial);
	free(text);
}

Test(config_file, a_longer_line_ends_the_reading)
{
	char *text = trial_padded("[reactor]\npoll-us=", 8192, 'x', "\nbad\n");

	trial_assert_mistakes(text,
			      "@:2: poll-us=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx: the line is too "
			      "long; at most 8192 bytes; what follows was not read\n");
	free(text);
}

Test(config_file, section_and_key_names_are_not_cut)
{
	struct trial trial;
	char *text = trial_padded("[export ", 4096, 'n', "]\npath=/a\n");

	trial_read_good(&trial, text);
	cr_assert_eq(strlen(trial.config.exports[0].name), 4096);
	trial_fini(&trial);
	free(text);
	trial_assert_mistakes(
		"[reactorreactorreactorreactorreactorreactorreactorreactor]\n",
		"@:1: [reactorreactorreactorreactorreactorreactorreactorreactor]: unknown "
		"section; allowed are [reactor], [server], [tls] and [export NAME]\n");
	trial_assert_refused(
		"server", "listenlistenlistenlistenlistenlistenlistenlistenlistenlisten",
		"unknown key; [server] has listen", (const char *const[]){ "1", NULL });
}

Test(config_file, an_unknown_section_is_refused_even_if_empty)
{
	trial_assert_mistakes(
		"[servers]\nlisten = nothing\n[]\n[Reactor]\n[exports a]\n[reactor x]\n",
		"@:1: [servers]: unknown section; allowed are [reactor], [server], [tls] and "
		"[export NAME]\n"
		"@:3: []: unknown section; allowed are [reactor], [server], [tls] and [export "
		"NAME]\n"
		"@:4: [Reactor]: unknown section; allowed are [reactor], [server], [tls] and "
		"[export NAME]\n"
		"@:5: [exports a]: unknown section; allowed are [reactor], [server], [tls] and "
		"[export NAME]\n"
		"@:6: [reactor x]: unknown section; allowed are [reactor], [server], [tls] and "
		"[export NAME]\n");
}

Test(config_file, a_section_line_must_be_whole)
{
	trial_assert_mistakes("[server\nlisten = nothing\n[server] # x\n[export a]b]\n",
			      "@:1: [server: the ] of the section is missing\n"
			      "@:3: [server] # x: nothing may follow the ] of a section\n"
			      "@:4: [export a]b]: nothing may follow the ] of a section\n");
}

Test(config_file, a_setting_before_any_section_is_refused)
{
	trial_assert_mistakes("cores = 1\n",
			      "@:1: cores = 1: a setting before the first section; begin with "
			      "[reactor], [server], [tls] or [export NAME]\n");
}

Test(config_file, other_lines_are_refused)
{
	trial_assert_mistakes(
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
	trial_assert_mistakes_in("[server]\nlis\0ten = 1\n", 21,
				 "@:2: lis: a NUL byte follows; expected a text file\n");
}

Test(config_file, a_key_twice_is_refused)
{
	trial_assert_mistakes(
		"[reactor]\npoll-us = 1\n[server]\nmax-connections = 1\nmax-connections = "
		"2\n[reactor]\npoll-us = 1\n[export]\npath = /a\npath = /b\n",
		"@:5: [server] max-connections = 2: line 4 has set it already; keep one of "
		"them\n"
		"@:7: [reactor] poll-us = 1: line 2 has set it already; keep one of them\n"
		"@:10: [export] path = /b: line 9 has set it already; keep one of them\n");
}

Test(config_file, an_export_without_a_path_is_refused_at_its_section)
{
	trial_assert_mistakes(
		"\n[export a]\nread-only = yes\n[export b]\npath =\n[export]\n",
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

	trial_read_good(&trial, "[export m]\ntype=memory\nsize=1024T\n"
				"[export n]\ntype=null\nsize=1\n"
				"[export f]\ntype=file\npath=/f\n");
	cr_assert_eq(trial.config.exports[0].type, VOLUME_KIND_MEMORY);
	cr_assert_eq(trial.config.exports[0].size_bytes, (uint64_t)1 << 50);
	cr_assert_eq(trial.config.exports[1].type, VOLUME_KIND_NULL);
	trial_fini(&trial);
	trial_assert_mistakes(
		"[export a]\ntype=tape\npath=/a\n[export b]\ntype=memory\n"
		"[export c]\ntype=null\nsize=1G\npath=/c\n[export d]\npath=/d\nsize=1G\n"
		"[export e]\ntype=null\nsize=1025T\n",
		"@:2: [export a] type = tape: expected file, memory, null or fault\n"
		"@:5: [export b] type = memory: a volume of type memory or null needs a size, such "
		"as "
		"size = 10G\n"
		"@:9: [export c] path = /c: a volume of type memory or null has no path; remove "
		"it, "
		"or set type = file\n"
		"@:12: [export d] size = 1G: a volume of type file has the size of its file; "
		"remove "
		"size, or set type = memory, or create if the file is to be made\n"
		"@:15: [export e] size = 1025T: expected bytes from 1 to 1024T; K, M, G and T are "
		"powers of 1024\n");
	trial_assert_mistakes(
		"[export a]\ntype=fault\nsize=1M\n[export b]\ntype=fault\npath=/b\nsize=1M\n"
		"fault=read-error=1\n[export c]\npath=/c\nfault=read-error=1\n"
		"[export d]\ntype=fault\nsize=1M\nfault=read-error=2\n",
		"@:2: [export a] type = fault: a volume of type fault needs to know what to do "
		"wrong, such as "
		"fault = read-error=0.01 delay-ms=5\n"
		"@:7: [export b] size = 1M: a volume of type fault needs a path, for faults in a "
		"file, or a "
		"size, for faults in memory; give it one of them\n"
		"@:11: [export c] fault = read-error=1: only a volume of type fault goes wrong on "
		"purpose; remove fault, "
		"or set type = fault\n"
		"@:15: [export d] fault = read-error=2: fault: read-error=2: expected a "
		"probability, 0 to 1\n");
}

/* Each is one line: what was meant is not known, so nothing more can be said of it. */
Test(config_file, a_mistake_in_an_export_has_no_false_one_in_its_wake)
{
	trial_assert_mistakes(
		"[export a]\ntype = memroy\n",
		"@:2: [export a] type = memroy: expected file, memory, null or fault\n");
	trial_assert_mistakes(
		"[export a]\ncreate = falloc\npath = /a\nsize = 10GB\n",
		"@:4: [export a] size = 10GB: expected bytes from 1 to 1024T; K, M, G "
		"and T are powers of 1024\n");
	trial_assert_mistakes(
		"[export a]\ncreate = yes\npath = /a\nsize = 10G\n",
		"@:2: [export a] create = yes: expected no, sparse, falloc or written\n");
	trial_assert_mistakes("[export a]\npath /a\n",
			      "@:2: path /a: not understood; expected [SECTION], KEY = VALUE, or a "
			      "comment after #\n");
	trial_assert_mistakes("[export a]\npath = /a\nread-only = y\n"
			      "[export b]\npath = /a\nread-only = yes\n",
			      "@:3: [export a] read-only = y: expected yes or no (or true, false, "
			      "on, off, 1, 0)\n");
}

Test(config_file, an_unknown_key_may_be_the_one_that_is_missing)
{
	struct trial trial;
	const char *text = "[export a]\npth = /a\n", *end;

	trial_init(&trial);
	trial_read(&trial, text, strlen(text));
	cr_assert_not_null(strstr(trial.said, ":2: [export a] pth = /a: unknown key; "));
	end = strchr(trial.said, '\n');
	cr_assert_str_eq(end, "\n", "%s", trial.said);
	trial_fini(&trial);
}

Test(config_file, what_is_wrong_in_any_case_is_said_beside_a_mistake)
{
	trial_assert_mistakes(
		"[export a]\nlimit-iops = x\n[export b]\npath = /b\nread-only = y\n"
		"[export c]\npath = /b\n[export b]\npath = /d\n",
		"@:2: [export a] limit-iops = x: expected a number from 0 to 1000000000\n"
		"@:1: [export a]: the export has no path; give it that of an image file or "
		"block device\n"
		"@:5: [export b] read-only = y: expected yes or no (or true, false, on, off, 1, "
		"0)\n"
		"@:7: [export c] path = /b: export \"b\" of @:3 has this image already; give each "
		"its own, or make both read-only\n"
		"@:8: [export b]: export \"b\" of @:3 has this name already; give each export a "
		"name of its own\n");
}

Test(config_file, an_image_twice_is_refused_unless_both_only_read)
{
	struct trial trial;

	trial_read_good(&trial, "[export a]\npath=/a\nread-only=yes\n"
				"[export b]\nread-only=yes\npath=/a\n");
	cr_assert_eq(trial.config.export_count, 2);
	trial_fini(&trial);
	trial_assert_mistakes("[export a]\npath=/a\nread-only=yes\n[export b]\npath=/a\n",
			      "@:5: [export b] path = /a: export \"a\" of @:1 has this image "
			      "already; give each its own, or make both read-only\n");
}

Test(config_file, an_export_name_twice_is_refused_with_both_places)
{
	trial_assert_mistakes(
		"[export a]\npath=/a\n[export b]\npath=/b\n[export  a]\npath=/c\n",
		"@:5: [export  a]: export \"a\" of @:1 has this name already; give each "
		"export a name of its own\n");
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
	char *text = trial_padded("", 0, ' ', "");
	size_t bytes = 0, lines = 0;

	for (int i = 0; i < 500; i++)
		trial_append(&text, &bytes, "bad\n", 4);
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
	uint64_t state = test_seed() | 1;

	for (int round = 0; round < 2000; round++) {
		struct trial trial;
		char *text = trial_padded("", 0, ' ', "");
		size_t bytes = 0;

		for (unsigned i = draw(&state, 200); i > 0; i--) {
			unsigned kind = draw(&state, 16);
			const char *piece = pieces[draw(&state, ARRAY_COUNT(pieces))];
			char byte = (char)draw(&state, 256);

			if (kind == 0)
				trial_append(&text, &bytes, &byte, 1);
			else
				trial_append(&text, &bytes, piece, strlen(piece));
		}
		if (draw(&state, 50) == 0)
			for (unsigned i = 0; i < 9000; i++) {
				char byte = (char)draw(&state, 256);

				trial_append(&text, &bytes, &byte, 1);
			}
		trial_init(&trial);
		trial_read(&trial, text, bytes);
		cr_assert_eq(trial.result == 0, trial.said_bytes == 0);
		trial_fini(&trial);
		free(text);
	}
}
