/* The limits are files below the disk's folder in sysfs, which is the parent of that of its parts. */
#include "disk/device_limits.h"

#include <stdio.h>
#include <sys/sysmacros.h>

static uint64_t
read_limit(dev_t device, const char *name)
{
	static const char *const folders[] = { "queue", "../queue" };
	unsigned long long value = 0;

	for (unsigned i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
		char path[128];
		FILE *file;

		(void)snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s/%s", major(device),
			       minor(device), folders[i], name);
		file = fopen(path, "re");
		if (file == NULL)
			continue;
		if (fscanf(file, "%llu", &value) != 1)
			value = 0;
		(void)fclose(file);
		break;
	}
	return value;
}

void
device_limits_find(dev_t device, struct device_limits *limits)
{
	limits->discard_bytes_max = read_limit(device, "discard_max_bytes");
	limits->discard_grain_bytes = read_limit(device, "discard_granularity");
	limits->write_zeroes_bytes_max = read_limit(device, "write_zeroes_max_bytes");
}
