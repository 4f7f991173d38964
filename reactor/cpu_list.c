/* Lists of CPUs, to and from text.  Both parsers keep the invariant of struct cpu_list: ascending, no
 * duplicates, at most CPU_LIST_MAX; results are written to the caller's list only when they are complete. */
#include "reactor/cpu_list.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#define CPU_NUMBER_MAX 65535

/* Enough masks for every CPU number: the kernel refuses a mask shorter than its own (sched_getaffinity(2)),
 * which may be longer than one cpu_set_t. */
#define CPU_SET_COUNT ((CPU_NUMBER_MAX + 1) / CPU_SETSIZE)

static int parse_number(const char **text, unsigned *number);
static int parse_range(const char **text, struct cpu_list *list);
static int insert_cpu(struct cpu_list *list, unsigned cpu);
static void skip_spaces(const char **text);
static unsigned run_length(const struct cpu_list *list, unsigned index);

int
cpu_list_parse(const char *text, struct cpu_list *list)
{
	struct cpu_list parsed = { .count = 0 };

	for (;;) {
		int status;

		skip_spaces(&text);
		status = parse_range(&text, &parsed);
		if (status < 0)
			return status;
		skip_spaces(&text);
		if (*text == '\0')
			break;
		if (*text++ != ',')
			return -EINVAL;
	}
	*list = parsed;
	return 0;
}

int
cpu_list_auto(struct cpu_list *list)
{
	cpu_set_t sets[CPU_SET_COUNT];

	memset(sets, 0, sizeof(sets));
	if (sched_getaffinity(0, sizeof(sets), sets) < 0)
		return -errno;

	list->count = 0;
	for (unsigned cpu = 0; cpu <= CPU_NUMBER_MAX && list->count < CPU_LIST_MAX; cpu++)
		if (CPU_ISSET_S(cpu, sizeof(sets), sets))
			list->cpus[list->count++] = (unsigned short)cpu;
	return 0;
}

int
cpu_list_allowed(const struct cpu_list *wanted, struct cpu_list *allowed)
{
	cpu_set_t sets[CPU_SET_COUNT];

	memset(sets, 0, sizeof(sets));
	if (sched_getaffinity(0, sizeof(sets), sets) < 0)
		return -errno;

	allowed->count = 0;
	for (unsigned i = 0; i < wanted->count; i++)
		if (CPU_ISSET_S(wanted->cpus[i], sizeof(sets), sets))
			allowed->cpus[allowed->count++] = wanted->cpus[i];
	return 0;
}

int
cpu_list_first_missing(const struct cpu_list *list, const struct cpu_list *allowed)
{
	unsigned j = 0;

	for (unsigned i = 0; i < list->count; i++) {
		while (j < allowed->count && allowed->cpus[j] < list->cpus[i])
			j++;
		if (j == allowed->count || allowed->cpus[j] != list->cpus[i])
			return list->cpus[i];
	}
	return -1;
}

void
cpu_list_format(const struct cpu_list *list, char *text, size_t text_bytes)
{
	size_t used = 0;
	unsigned length;

	if (text_bytes == 0)
		return;
	text[0] = '\0';
	for (unsigned i = 0; i < list->count && used < text_bytes; i += length) {
		const char *comma = i == 0 ? "" : ",";
		int written;

		length = run_length(list, i);
		if (length == 1)
			written = snprintf(text + used, text_bytes - used, "%s%u", comma,
					   list->cpus[i]);
		else
			written = snprintf(text + used, text_bytes - used, "%s%u-%u", comma,
					   list->cpus[i], list->cpus[i + length - 1]);
		CHECK(written > 0);
		used += (size_t)written;
	}
}

/* One CPU or a range of them, at *TEXT, which is moved past it. */
static int
parse_range(const char **text, struct cpu_list *list)
{
	unsigned first, last;
	int status = parse_number(text, &first);

	if (status < 0)
		return status;
	last = first;
	if (**text == '-') {
		(*text)++;
		status = parse_number(text, &last);
		if (status < 0)
			return status;
	}
	if (last < first)
		return -EINVAL;
	for (unsigned cpu = first; cpu <= last; cpu++) {
		status = insert_cpu(list, cpu);
		if (status < 0)
			return status;
	}
	return 0;
}

/* Not strtoul(3), which takes signs, leading spaces and other bases. */
static int
parse_number(const char **text, unsigned *number)
{
	unsigned value = 0;

	if (**text < '0' || **text > '9')
		return -EINVAL;
	for (; **text >= '0' && **text <= '9'; (*text)++) {
		value = value * 10 + (unsigned)(**text - '0');
		if (value > CPU_NUMBER_MAX)
			return -ERANGE;
	}
	*number = value;
	return 0;
}

static int
insert_cpu(struct cpu_list *list, unsigned cpu)
{
	unsigned index = list->count;

	while (index > 0 && list->cpus[index - 1] > cpu)
		index--;
	if (index > 0 && list->cpus[index - 1] == cpu)
		return -EINVAL;
	if (list->count == CPU_LIST_MAX)
		return -ERANGE;
	memmove(&list->cpus[index + 1], &list->cpus[index],
		(list->count - index) * sizeof(list->cpus[0]));
	list->cpus[index] = (unsigned short)cpu;
	list->count++;
	return 0;
}

static void
skip_spaces(const char **text)
{
	while (**text == ' ')
		(*text)++;
}

/* How many consecutive CPU numbers stand from INDEX on; at least 1. */
static unsigned
run_length(const struct cpu_list *list, unsigned index)
{
	unsigned length = 1;

	while (index + length < list->count &&
	       list->cpus[index + length] == list->cpus[index] + length)
		length++;
	return length;
}
