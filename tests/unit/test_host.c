/* daemon/host.h and daemon/core_choice.h over a tree of files as the kernel writes them. */
#include "daemon/host.h"

#include <criterion/criterion.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/core_choice.h"

static char root[] = "/tmp/millrace-test-XXXXXX";

static void
make_root(void)
{
	cr_assert_not_null(mkdtemp(root));
}

static int
remove_entry(const char *path, const struct stat *stat, int flag, struct FTW *walk)
{
	(void)stat;
	(void)flag;
	(void)walk;
	return remove(path);
}

static void
remove_root(void)
{
	nftw(root, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

TestSuite(host, .init = make_root, .fini = remove_root);
TestSuite(core_choice, .init = make_root, .fini = remove_root);

/* Write TEXT into the file at PATH below the root, and make its directories. */
static void
put(const char *path, const char *text)
{
	char full[512];
	FILE *file;

	snprintf(full, sizeof(full), "%s%s", root, path);
	for (char *slash = full + strlen(root) + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = '\0';
		(void)mkdir(full, 0755);
		*slash = '/';
	}
	file = fopen(full, "w");
	cr_assert_not_null(file, "%s", full);
	fputs(text, file);
	fclose(file);
}

Test(host, a_number_is_read_or_there_is_none)
{
	uint64_t number = 7;

	put("/proc/a", "65536\n");
	put("/proc/b", "no number\n");
	put("/proc/d", "0\n");
	cr_assert_not(host_read_number(root, "/proc/b", &number));
	cr_assert_not(host_read_number(root, "/proc/c", &number));
	cr_assert_eq(number, 7);
	cr_assert(host_read_number(root, "/proc/a", &number));
	cr_assert_eq(number, 65536);
	cr_assert(host_read_number(root, "/proc/d", &number));
	cr_assert_eq(number, 0);
}

Test(host, the_quota_is_the_least_of_all_groups_above)
{
	cr_assert_eq(host_cpu_quota(root), 0);
	put("/proc/self/cgroup", "1:cpu:/other\n0::/system.slice/m.service\n");
	cr_assert_eq(host_cpu_quota(root), 0);
	put("/sys/fs/cgroup/system.slice/m.service/cpu.max", "max 100000\n");
	cr_assert_eq(host_cpu_quota(root), 0);
	put("/sys/fs/cgroup/system.slice/cpu.max", "350000 100000\n");
	cr_assert_eq(host_cpu_quota(root), 3);
	put("/sys/fs/cgroup/system.slice/m.service/cpu.max", "50000 100000\n");
	cr_assert_eq(host_cpu_quota(root), 1);
	put("/sys/fs/cgroup/system.slice/m.service/cpu.max", "800000 100000\n");
	cr_assert_eq(host_cpu_quota(root), 3);
}

Test(host, memory_is_the_machines_or_the_groups)
{
	cr_assert_eq(host_memory_bytes(root), 0);
	put("/proc/meminfo", "MemTotal:       16384 kB\nMemFree: 1 kB\n");
	cr_assert_eq(host_memory_bytes(root), 16384 << 10);
	put("/proc/self/cgroup", "0::/\n");
	cr_assert_eq(host_memory_bytes(root), 16384 << 10);
	put("/proc/self/cgroup", "0::/a/b\n");
	put("/sys/fs/cgroup/a/b/memory.max", "max\n");
	cr_assert_eq(host_memory_bytes(root), 16384 << 10);
	put("/sys/fs/cgroup/a/memory.max", "1000000\n");
	cr_assert_eq(host_memory_bytes(root), 1000000);
}

/* Four cores of two threads: 0 and 4, 1 and 5, ... */
static void
put_cpus(void)
{
	for (int cpu = 0; cpu < 8; cpu++) {
		char path[128], siblings[16];

		snprintf(path, sizeof(path),
			 "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
		snprintf(siblings, sizeof(siblings), "%d,%d\n", cpu % 4, cpu % 4 + 4);
		put(path, siblings);
	}
	put("/sys/devices/system/node/node0/cpulist", "0-1,4-5\n");
	put("/sys/devices/system/node/node2/cpulist", "2-3,6-7\n");
}

static void
assert_chosen_from(unsigned first_cpu, const char *allowed_text, bool skip_core_0, bool skip_smt,
		   const char *expected)
{
	struct cpu_list allowed, chosen;
	char text[128];

	cr_assert_eq(cpu_list_parse(allowed_text, &allowed), 0);
	cr_assert_eq(core_choice_make(root, &allowed, first_cpu, skip_core_0, skip_smt, &chosen),
		     chosen.count);
	cpu_list_format(&chosen, text, sizeof(text));
	cr_assert_str_eq(text, expected);
}

static void
assert_chosen(const char *allowed_text, bool skip_core_0, bool skip_smt, const char *expected)
{
	assert_chosen_from(0, allowed_text, skip_core_0, skip_smt, expected);
}

Test(core_choice, skips_core_0_and_siblings_on_request)
{
	put_cpus();
	assert_chosen("0-7", false, false, "0-7");
	assert_chosen("0-7", true, false, "1-7");
	assert_chosen("0-7", false, true, "0-3");
	assert_chosen("0-7", true, true, "1-4");
	assert_chosen("4-7", false, true, "4-7");
	assert_chosen("0", true, false, "");
}

Test(core_choice, without_topology_every_core_is_one)
{
	assert_chosen("0-3", true, true, "1-3");
}

Test(core_choice, keeps_within_the_cpu_quota)
{
	put_cpus();
	put("/proc/self/cgroup", "0::/m\n");
	put("/sys/fs/cgroup/m/cpu.max", "250000 100000\n");
	assert_chosen("0-7", false, true, "0-1");
	assert_chosen("0-7", true, false, "1-2");
}

Test(core_choice, a_part_of_the_cores_begins_where_it_is_told)
{
	put_cpus();
	assert_chosen_from(5, "0-7", false, false, "0-7");
	put("/proc/self/cgroup", "0::/m\n");
	put("/sys/fs/cgroup/m/cpu.max", "300000 100000\n");
	assert_chosen_from(5, "0-7", false, false, "5-7");
	assert_chosen_from(6, "0-7", false, false, "0,6-7");
	assert_chosen_from(6, "0-7", true, true, "1,6-7");
	assert_chosen_from(7, "0-3,5", false, false, "0-2");
	assert_chosen_from(9, "2-3", false, false, "2-3");
}

Test(core_choice, says_which_nodes_the_cores_are_on)
{
	struct cpu_list cores;
	char *text;
	size_t bytes;
	FILE *out = open_memstream(&text, &bytes);

	put_cpus();
	cr_assert_eq(cpu_list_parse("1-3,5", &cores), 0);
	core_choice_describe(root, &cores, out);
	fclose(out);
	cr_assert_str_eq(text, "NUMA node 0      cores 1,5\nNUMA node 2      cores 2-3\n");
	free(text);
}
