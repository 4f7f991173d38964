/* What fault volumes are told: each word, and each mistake. */
#include "disk/fault_settings.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

Test(fault_settings, every_word_is_read)
{
	struct fault_settings settings;
	char mistake[VOLUME_MISTAKE_BYTES];

	cr_assert_eq(fault_settings_parse("seed=18446744073709551615  range=1M-1025T error=ENOSPC "
					  "read-error=0.5 write-error=1 flush-error=0 "
					  "trim-error=.25 zeroes-error=0.125 query-error=1.0 "
					  "torn-write=0.75 short-io=1\tdelay=0.5 delay-ms=60000",
					  &settings, mistake, sizeof(mistake)),
		     0);
	cr_assert_eq(settings.seed, UINT64_MAX);
	cr_assert_eq(settings.range_start, 1 << 20);
	cr_assert_eq(settings.range_end, (uint64_t)1025 << 40);
	cr_assert_eq(settings.error, -ENOSPC);
	cr_assert_eq(settings.fails[VOLUME_COMMAND_READ], (uint64_t)1 << 31);
	cr_assert_eq(settings.fails[VOLUME_COMMAND_WRITE], (uint64_t)1 << 32);
	cr_assert_eq(settings.fails[VOLUME_COMMAND_FLUSH], 0);
	cr_assert_eq(settings.fails[VOLUME_COMMAND_TRIM], (uint64_t)1 << 30);
	cr_assert_eq(settings.fails[VOLUME_COMMAND_WRITE_ZEROES], (uint64_t)1 << 29);
	cr_assert_eq(settings.fails[VOLUME_COMMAND_EXTENTS], (uint64_t)1 << 32);
	cr_assert_eq(settings.torn, (uint64_t)3 << 30);
	cr_assert_eq(settings.split, (uint64_t)1 << 32);
	cr_assert_eq(settings.delays, (uint64_t)1 << 31);
	cr_assert_eq(settings.delay_ms, 60000);
}

Test(fault_settings, what_is_not_said_does_no_harm)
{
	struct fault_settings settings;
	char mistake[VOLUME_MISTAKE_BYTES];

	cr_assert_eq(fault_settings_parse("delay-ms=5", &settings, mistake, sizeof(mistake)), 0);
	cr_assert_eq(settings.range_start, 0);
	cr_assert_eq(settings.range_end, UINT64_MAX);
	cr_assert_eq(settings.error, -EIO);
	for (unsigned i = 0; i < FAULT_COMMANDS; i++)
		cr_assert_eq(settings.fails[i], 0);
	cr_assert_eq(settings.torn + settings.split, 0);
	cr_assert_eq(settings.delays, (uint64_t)1 << 32);
}

Test(fault_settings, each_mistake_is_named)
{
	static const struct {
		const char *text, *mistake;
	} trials[] = {
		{ "", "fault: says nothing; such as read-error=0.01" },
		{ "  ", "fault: says nothing; such as read-error=0.01" },
		{ "seed", "fault: \"seed\" is not KEY=VALUE" },
		{ "seed=", "fault: seed=: expected a number" },
		{ "seed=-1", "fault: seed=-1: expected a number" },
		{ "seed=18446744073709551616",
		  "fault: seed=18446744073709551616: expected a number" },
		{ "seed=1 seed=1", "fault: seed is there twice" },
		{ "read-error=1.1", "fault: read-error=1.1: expected a probability, 0 to 1" },
		{ "read-error=1e0", "fault: read-error=1e0: expected a probability, 0 to 1" },
		{ "read-error=nan", "fault: read-error=nan: expected a probability, 0 to 1" },
		{ "read-error=.", "fault: read-error=.: expected a probability, 0 to 1" },
		{ "delay-ms=60001", "fault: delay-ms=60001: expected milliseconds, 0 to 60000" },
		{ "range=1M", "fault: range=1M: expected START-END in bytes, such as 1M-2M" },
		{ "range=2M-1M", "fault: range=2M-1M: expected START-END in bytes, such as 1M-2M" },
		{ "range=M-2M", "fault: range=M-2M: expected START-END in bytes, such as 1M-2M" },
		{ "range=0-99999999T",
		  "fault: range=0-99999999T: expected START-END in bytes, such as 1M-2M" },
		{ "error=5",
		  "fault: error=5: expected EIO, ENOSPC, EDQUOT, EPERM, ENOMEM or ETIMEDOUT" },
	};
	struct fault_settings settings = { .seed = 99 };
	char mistake[VOLUME_MISTAKE_BYTES];

	for (size_t i = 0; i < ARRAY_COUNT(trials); i++) {
		cr_assert_eq(
			fault_settings_parse(trials[i].text, &settings, mistake, sizeof(mistake)),
			-EINVAL, "%s", trials[i].text);
		cr_assert_str_eq(mistake, trials[i].mistake);
		cr_assert_eq(settings.seed, 99);
	}
	cr_assert_eq(fault_settings_parse("loss=1", &settings, mistake, sizeof(mistake)), -EINVAL);
	cr_assert_not_null(strstr(mistake, "unknown key \"loss\"; there are seed, "));
}
