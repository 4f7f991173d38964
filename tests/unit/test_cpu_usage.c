/* net/cpu_usage.h: what a file like /proc/stat says of two cores' CPUs, and what is claimed of it. */
#include "net/cpu_usage.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define MS_NS ((uint64_t)1000000)

/* CPU 1 is in none of them. */
static struct core two[] = { { .index = 0, .cpu = 0 }, { .index = 1, .cpu = 2 } };
static const struct cores cores = { .count = 2, .cores = two };

static struct cpu_usage usage;
static char path[] = "/tmp/millrace-cpu-usage-XXXXXX";
static int file;
static uint64_t now_ns;

static void
setup(void)
{
	file = mkstemp(path);
	cr_assert_geq(file, 0);
	cr_assert_eq(cpu_usage_init(&usage, &cores, path), 0);
	now_ns = 1000 * 1000 * MS_NS;
}

static void
teardown(void)
{
	cpu_usage_fini(&usage);
	close(file);
	unlink(path);
}

TestSuite(cpu_usage, .init = setup, .fini = teardown, .timeout = 60);

/* MS later, CPU 0 and CPU 2 have counted so much since the beginning: ticks with nothing to do, of all. */
static void
pass(unsigned ms, unsigned idle_0, unsigned all_0, unsigned idle_2, unsigned all_2)
{
	char text[512];
	int bytes = snprintf(text, sizeof(text),
			     "cpu  1 2 3 4 5 6 7 8 0 0\n"
			     "cpu0 %u 0 0 %u 0 0 0 0 0 0\n"
			     "cpu1 7 0 0 9 0 0 0 0 0 0\n"
			     "cpu2 0 0 %u 0 %u 0 0 0 0 0\n"
			     "intr 17 3\nctxt 5\n",
			     all_0 - idle_0, idle_0, all_2 - idle_2, idle_2);

	cr_assert_eq(ftruncate(file, 0), 0);
	cr_assert_eq(pwrite(file, text, (size_t)bytes, 0), bytes);
	now_ns += ms * MS_NS;
	cpu_usage_look(&usage, now_ns);
}

static void
assert_idle(unsigned index, unsigned expected)
{
	unsigned idle;

	cr_assert(cpu_usage_idle(&usage, index, now_ns, &idle));
	cr_assert_eq(idle, expected, "%u: %u", index, idle);
}

static void
assert_left(unsigned index, int expected)
{
	int left;

	cr_assert(cpu_usage_left(&usage, index, now_ns, &left));
	cr_assert_eq(left, expected, "%u: %d", index, left);
}

static void
assert_unknown(void)
{
	unsigned idle;
	int left;

	cr_assert_not(cpu_usage_idle(&usage, 0, now_ns, &idle));
	cr_assert_not(cpu_usage_left(&usage, 0, now_ns, &left));
}

Test(cpu_usage, two_readings_tell_what_was_idle)
{
	assert_unknown();
	pass(0, 900, 1000, 500, 2000);
	assert_unknown();
	/* Of 25 ticks: 20, and, waiting for a disk, 5. */
	pass(250, 920, 1025, 505, 2025);
	assert_idle(0, 800);
	assert_idle(1, 200);
	pass(250, 920, 1050, 530, 2050);
	assert_idle(0, 0);
	assert_idle(1, 1000);
}

Test(cpu_usage, it_is_read_four_times_a_second)
{
	pass(0, 0, 0, 0, 0);
	pass(250, 10, 25, 0, 25);
	assert_idle(0, 400);
	pass(249, 35, 50, 0, 50);
	assert_idle(0, 400);
	pass(1, 35, 50, 0, 50);
	assert_idle(0, 1000);
}

Test(cpu_usage, what_is_old_is_not_known)
{
	pass(0, 0, 0, 0, 0);
	pass(250, 10, 25, 0, 25);
	now_ns += 999 * MS_NS;
	assert_idle(0, 400);
	now_ns += MS_NS;
	assert_unknown();
	/* Nor is the mean of a long time. */
	pass(0, 135, 150, 100, 150);
	assert_unknown();
	pass(250, 135, 175, 125, 175);
	assert_idle(0, 0);
}

Test(cpu_usage, counter_that_goes_back_is_not_idle)
{
	pass(0, 100, 1000, 100, 1000);
	pass(250, 99, 1025, 110, 999);
	assert_idle(0, 0);
	assert_idle(1, 0);
	pass(250, 124, 1050, 120, 1024);
	assert_idle(0, 1000);
	assert_idle(1, 400);
}

/* CPU 0 is busy for 300, CPU 2 idle for 400. */
static void
make_known(void)
{
	pass(0, 0, 0, 0, 0);
	pass(1000, 70, 100, 40, 100);
	pass(999, 140, 200, 80, 200);
	assert_idle(0, 700);
	assert_idle(1, 400);
}

Test(cpu_usage, what_is_claimed_is_not_left)
{
	make_known();
	assert_left(0, 700);
	assert_left(1, 400);
	cpu_usage_claim(&usage, 1, 100);
	cpu_usage_claim(&usage, 0, -200);
	assert_left(0, 900);
	assert_left(1, 300);
	/* More than there was. */
	cpu_usage_claim(&usage, 1, 350);
	assert_left(1, -50);
	assert_idle(0, 700);
	assert_idle(1, 400);
}

Test(cpu_usage, claim_counts_until_both_were_read_again)
{
	make_known();
	cpu_usage_claim(&usage, 1, 300);
	cpu_usage_claim(&usage, 0, -300);
	/* A part of this time was before. */
	pass(250, 155, 225, 90, 225);
	assert_idle(0, 600);
	assert_idle(1, 400);
	assert_left(0, 600);
	assert_left(1, 100);
	pass(250, 170, 250, 100, 250);
	assert_left(0, 600);
	assert_left(1, 400);
}

Test(cpu_usage, without_the_file_nothing_is_known)
{
	struct cpu_usage none;
	unsigned idle;
	int left;

	cr_assert_eq(cpu_usage_init(&none, &cores, "/nowhere/stat"), 0);
	cpu_usage_look(&none, now_ns);
	cpu_usage_look(&none, now_ns + 250 * MS_NS);
	cr_assert_not(cpu_usage_idle(&none, 0, now_ns + 250 * MS_NS, &idle));
	cr_assert_not(cpu_usage_left(&none, 0, now_ns + 250 * MS_NS, &left));
	cpu_usage_fini(&none);
}

Test(cpu_usage, core_that_the_file_does_not_name_is_busy)
{
	two[1].cpu = 77;
	pass(0, 0, 0, 0, 0);
	pass(250, 20, 25, 25, 25);
	assert_idle(0, 800);
	assert_idle(1, 0);
	assert_left(1, 0);
}
