/* The choice of cores, after what sysfs says of them. */
#include "daemon/core_choice.h"

#include <stdlib.h>

#include "daemon/host.h"

#define LIST_TEXT_BYTES 4096
#define NODES_MAX	1024 /* that the kernel can be built for */

static bool has_sibling_in(const char *root, unsigned cpu, const struct cpu_list *list);
static bool contains(const struct cpu_list *list, unsigned cpu);

static int
compare(const void *left, const void *right)
{
	return (int)*(const unsigned short *)left - (int)*(const unsigned short *)right;
}

/* Where in ALLOWED the choice begins: only where some must be left out does it matter which. */
static unsigned
first_index(const struct cpu_list *allowed, unsigned quota, unsigned first_cpu)
{
	unsigned i = 0;

	if (quota == 0 || quota >= allowed->count)
		return 0;
	while (i < allowed->count && allowed->cpus[i] < first_cpu)
		i++;
	return i % allowed->count;
}

unsigned
core_choice_make(const char *root, const struct cpu_list *allowed, unsigned first_cpu,
		 bool skip_core_0, bool skip_smt, struct cpu_list *chosen)
{
	unsigned quota = host_cpu_quota(root);
	unsigned first = first_index(allowed, quota, first_cpu);
	struct cpu_list kept = { .count = 0 };

	for (unsigned i = 0; i < allowed->count && (quota == 0 || kept.count < quota); i++) {
		unsigned cpu = allowed->cpus[(first + i) % allowed->count];

		if (skip_core_0 && cpu == 0)
			continue;
		if (skip_smt && has_sibling_in(root, cpu, &kept))
			continue;
		kept.cpus[kept.count++] = (unsigned short)cpu;
	}
	qsort(kept.cpus, kept.count, sizeof(kept.cpus[0]), compare);
	*chosen = kept;
	return kept.count;
}

void
core_choice_describe(const char *root, const struct cpu_list *cores, FILE *out)
{
	for (unsigned node = 0; node < NODES_MAX; node++) {
		char line[LIST_TEXT_BYTES];
		struct cpu_list of_node, here = { .count = 0 };

		if (!host_read_line(root, line, sizeof(line),
				    "/sys/devices/system/node/node%u/cpulist", node) ||
		    cpu_list_parse(line, &of_node) < 0)
			continue;
		for (unsigned i = 0; i < cores->count; i++)
			if (contains(&of_node, cores->cpus[i]))
				here.cpus[here.count++] = cores->cpus[i];
		if (here.count == 0)
			continue;
		cpu_list_format(&here, line, sizeof(line));
		fprintf(out, "NUMA node %-6u cores %s\n", node, line);
	}
}

/* True if LIST has a sibling of CPU, a hardware thread of the same core. */
static bool
has_sibling_in(const char *root, unsigned cpu, const struct cpu_list *list)
{
	char line[LIST_TEXT_BYTES];
	struct cpu_list siblings;

	if (!host_read_line(root, line, sizeof(line),
			    "/sys/devices/system/cpu/cpu%u/topology/thread_siblings_list", cpu) ||
	    cpu_list_parse(line, &siblings) < 0)
		return false;
	for (unsigned i = 0; i < siblings.count; i++)
		if (siblings.cpus[i] != cpu && contains(list, siblings.cpus[i]))
			return true;
	return false;
}

static bool
contains(const struct cpu_list *list, unsigned cpu)
{
	for (unsigned i = 0; i < list->count; i++)
		if (list->cpus[i] == cpu)
			return true;
	return false;
}
