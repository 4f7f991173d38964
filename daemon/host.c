/* Files of one line, and the way up through the cgroups. */
#include "daemon/host.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define PATH_BYTES 4096
#define LINE_BYTES 4096

static bool read_first_line(const char *path, char *line, size_t line_bytes);
static bool own_cgroup(const char *root, char *path, size_t path_bytes);
static bool cgroup_above(char *path);

bool
host_read_line(const char *root, char *line, size_t line_bytes, const char *format, ...)
{
	char path[PATH_BYTES];
	int used = snprintf(path, sizeof(path), "%s", root);
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(path + used, sizeof(path) - (size_t)used, format, arguments);
	va_end(arguments);
	return read_first_line(path, line, line_bytes);
}

bool
host_read_number(const char *root, const char *path, uint64_t *number)
{
	char line[64];

	return host_read_line(root, line, sizeof(line), "%s", path) &&
	       sscanf(line, "%" SCNu64, number) == 1;
}

unsigned
host_cpu_quota(const char *root)
{
	char group[PATH_BYTES], line[LINE_BYTES];
	uint64_t least = 0;

	if (!own_cgroup(root, group, sizeof(group)))
		return 0;
	do {
		uint64_t quota_us, period_us, cpus;

		if (!host_read_line(root, line, sizeof(line), "/sys/fs/cgroup%s/cpu.max", group) ||
		    sscanf(line, "%" SCNu64 " %" SCNu64, &quota_us, &period_us) != 2 ||
		    period_us == 0)
			continue; /* "max": none here */
		cpus = quota_us < period_us ? 1 : quota_us / period_us;
		if (least == 0 || cpus < least)
			least = cpus;
	} while (cgroup_above(group));
	return (unsigned)least;
}

uint64_t
host_memory_bytes(const char *root)
{
	char group[PATH_BYTES], line[LINE_BYTES];
	uint64_t least = 0, bytes;

	/* "MemTotal: 16384 kB", the file's first line.  Source: proc(5). */
	if (host_read_line(root, line, sizeof(line), "/proc/meminfo") &&
	    sscanf(line, "MemTotal: %" SCNu64, &bytes) == 1)
		least = bytes << 10;
	if (!own_cgroup(root, group, sizeof(group)))
		return least;
	do {
		if (!host_read_line(root, line, sizeof(line), "/sys/fs/cgroup%s/memory.max",
				    group) ||
		    sscanf(line, "%" SCNu64, &bytes) != 1)
			continue;
		if (least == 0 || bytes < least)
			least = bytes;
	} while (cgroup_above(group));
	return least;
}

static bool
read_first_line(const char *path, char *line, size_t line_bytes)
{
	FILE *file = fopen(path, "re");
	bool found;

	if (!file)
		return false;
	found = fgets(line, (int)line_bytes, file) != NULL;
	(void)fclose(file);
	if (found)
		line[strcspn(line, "\n")] = '\0';
	return found;
}

/* The process's own group of version 2 below /sys/fs/cgroup: "" or "/a/b".  Its line is "0::PATH"; those of version 1 come
 * before it.  Source: cgroups(7), /proc/[pid]/cgroup. */
static bool
own_cgroup(const char *root, char *path, size_t path_bytes)
{
	char file_path[PATH_BYTES], line[LINE_BYTES];
	bool found = false;
	FILE *file;

	(void)snprintf(file_path, sizeof(file_path), "%s/proc/self/cgroup", root);
	file = fopen(file_path, "re");
	if (!file)
		return false;
	while (!found && fgets(line, sizeof(line), file))
		found = strncmp(line, "0::/", 4) == 0;
	(void)fclose(file);
	if (!found)
		return false;
	line[strcspn(line, "\n")] = '\0';
	(void)snprintf(path, path_bytes, "%s", strcmp(line + 3, "/") == 0 ? "" : line + 3);
	return true;
}

/* Make PATH the group's above it.  Returns false if it was the root. */
static bool
cgroup_above(char *path)
{
	char *slash = strrchr(path, '/');

	if (!slash)
		return false;
	*slash = '\0';
	return true;
}
