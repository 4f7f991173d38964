/* reactor/cpu_list.h: text to list and back, every refusal, and the affinity mask. */
#include "reactor/cpu_list.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <sched.h>
#include <string.h>

#include "tests/unit/kernel_faults.h"

/* Parse TEXT, which must be good, and return it as cpu_list_format writes it. */
static const char *
reformat(const char *text)
{
	static char formatted[2048];
	struct cpu_list list;

	cr_assert_eq(cpu_list_parse(text, &list), 0, "%s", text);
	cpu_list_format(&list, formatted, sizeof(formatted));
	return formatted;
}

/* TEXT must be refused with ERROR, and the list stay as it was. */
static void
assert_refused(const char *text, int error)
{
	struct cpu_list list, before;

	memset(&list, 0x5a, sizeof(list));
	before = list;
	cr_assert_eq(cpu_list_parse(text, &list), error, "\"%s\"", text);
	cr_assert_eq(memcmp(&list, &before, sizeof(list)), 0, "\"%s\"", text);
}

static struct cpu_list
parsed(const char *text)
{
	struct cpu_list list;

	cr_assert_eq(cpu_list_parse(text, &list), 0, "%s", text);
	return list;
}

Test(cpu_list, parses_single_cpu)
{
	struct cpu_list list = parsed("3");

	cr_assert_eq(list.count, 1);
	cr_assert_eq(list.cpus[0], 3);
}

Test(cpu_list, parses_ranges_and_cpus)
{
	struct cpu_list list = parsed("0-3,8");
	const unsigned short cpus[] = { 0, 1, 2, 3, 8 };

	cr_assert_eq(list.count, ARRAY_COUNT(cpus));
	cr_assert_eq(memcmp(list.cpus, cpus, sizeof(cpus)), 0);
}

Test(cpu_list, sorts_what_is_out_of_order)
{
	cr_assert_str_eq(reformat("8,4-5,0,6"), "0,4-6,8");
}

Test(cpu_list, allows_spaces_around_commas)
{
	cr_assert_str_eq(reformat(" 0-1 , 4,  6 "), "0-1,4,6");
}

Test(cpu_list, takes_range_of_one)
{
	cr_assert_str_eq(reformat("7-7"), "7");
}

Test(cpu_list, takes_largest_number)
{
	cr_assert_str_eq(reformat("65535"), "65535");
}

Test(cpu_list, takes_as_many_cpus_as_fit)
{
	cr_assert_eq(parsed("0-255").count, CPU_LIST_MAX);
}

Test(cpu_list, refuses_what_is_not_a_list)
{
	const char *const texts[] = { "",      " ",   ",",    "1,",    ",1",   "1,,2", "-1", "1-",
				      "1--2",  "1 2", "1- 2", "1 -2",  "a",    "1a",   "+1", "0x1",
				      "1-2-3", "1;2", "1\n",  "1\t,2", "auto", "1.5" };

	for (size_t i = 0; i < ARRAY_COUNT(texts); i++)
		assert_refused(texts[i], -EINVAL);
}

Test(cpu_list, refuses_inverted_range)
{
	assert_refused("3-2", -EINVAL);
}

Test(cpu_list, refuses_cpu_twice)
{
	assert_refused("1,1", -EINVAL);
	assert_refused("0-3,2", -EINVAL);
	assert_refused("4,2-6", -EINVAL);
}

Test(cpu_list, refuses_number_out_of_range)
{
	assert_refused("65536", -ERANGE);
	assert_refused("0-65536", -ERANGE);
	assert_refused("99999999999999999999999999", -ERANGE);
}

Test(cpu_list, refuses_more_cpus_than_fit)
{
	assert_refused("0-256", -ERANGE);
	assert_refused("0-65535", -ERANGE);
	assert_refused("1-256,0", -ERANGE);
}

Test(cpu_list, auto_is_the_affinity_mask)
{
	struct cpu_list list;
	cpu_set_t set;

	cr_assert_eq(sched_getaffinity(0, sizeof(set), &set), 0);
	cr_assert_eq(cpu_list_auto(&list), 0);
	cr_assert_eq(list.count, (unsigned)CPU_COUNT(&set));
	for (unsigned i = 0; i < list.count; i++)
		cr_assert(CPU_ISSET(list.cpus[i], &set));
}

Test(cpu_list, auto_follows_a_narrowed_mask)
{
	struct cpu_list list;
	cpu_set_t set;
	unsigned short last;

	cr_assert_eq(cpu_list_auto(&list), 0);
	last = list.cpus[list.count - 1];
	CPU_ZERO(&set);
	CPU_SET(last, &set);
	cr_assert_eq(sched_setaffinity(0, sizeof(set), &set), 0);
	cr_assert_eq(cpu_list_auto(&list), 0);
	cr_assert_eq(list.count, 1);
	cr_assert_eq(list.cpus[0], last);
}

Test(cpu_list, first_missing_finds_lowest)
{
	struct cpu_list list = parsed("0,2,4,6"), allowed = parsed("0-3,6");

	cr_assert_eq(cpu_list_first_missing(&list, &allowed), 4);
}

Test(cpu_list, first_missing_sees_past_the_end)
{
	struct cpu_list list = parsed("1,9"), allowed = parsed("0-3");

	cr_assert_eq(cpu_list_first_missing(&list, &allowed), 9);
}

Test(cpu_list, none_is_missing_from_a_superset)
{
	struct cpu_list list = parsed("1,3"), allowed = parsed("0-3");

	cr_assert_eq(cpu_list_first_missing(&list, &allowed), -1);
	cr_assert_eq(cpu_list_first_missing(&list, &list), -1);
}

/* Any of them may be asked for; those that are taken without asking are the first. */
Test(cpu_list, machine_with_more_cpus_than_a_list_has)
{
	struct cpu_list wanted = parsed("3,300,511,512"), list;

	cpus_claimed = 512;
	cr_assert_eq(cpu_list_auto(&list), 0);
	cr_assert_eq(list.count, CPU_LIST_MAX);
	cr_assert_eq(list.cpus[CPU_LIST_MAX - 1], CPU_LIST_MAX - 1);
	cr_assert_eq(cpu_list_allowed(&wanted, &list), 0);
	cr_assert_eq(list.count, 3);
	cr_assert_eq(list.cpus[2], 511);
	cr_assert_eq(cpu_list_first_missing(&wanted, &list), 512);
}

Test(cpu_list, formats_runs_as_ranges)
{
	cr_assert_str_eq(reformat("0,1,2,3,8"), "0-3,8");
	cr_assert_str_eq(reformat("0,1,3"), "0-1,3");
}

Test(cpu_list, formats_empty_list_as_nothing)
{
	struct cpu_list list = { .count = 0 };
	char text[4] = "abc";

	cpu_list_format(&list, text, sizeof(text));
	cr_assert_str_eq(text, "");
}

Test(cpu_list, format_cuts_at_every_length)
{
	struct cpu_list list = parsed("0-3,8,10-12");
	const char whole[] = "0-3,8,10-12";

	for (size_t bytes = 0; bytes <= sizeof(whole); bytes++) {
		char text[sizeof(whole) + 1];

		memset(text, '#', sizeof(text));
		cpu_list_format(&list, text, bytes);
		cr_assert_eq(text[bytes], '#');
		if (bytes == 0)
			continue;
		cr_assert_lt(strlen(text), bytes);
		cr_assert_eq(strncmp(text, whole, bytes - 1), 0);
	}
}
