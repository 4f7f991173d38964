/* What a volume is opened from: its kind and what the kind needs to know.  Plain data, for whoever reads a configuration. */
#ifndef DISK_VOLUME_OPTIONS_H
#define DISK_VOLUME_OPTIONS_H

#include "reactor/check.h"
#include <stdbool.h>
#include <stdint.h>

enum volume_kind {
	VOLUME_KIND_FILE, /* a regular file or block device */
	VOLUME_KIND_COUNT,
};

/* The strings belong to the caller, who may free them after the call that they were given to. */
struct volume_options {
	enum volume_kind kind;
	const char *path;
	bool read_only;
};

#endif
