/* What a volume is opened from: its kind and what the kind needs to know.  Plain data, for whoever reads a configuration. */
#ifndef DISK_VOLUME_OPTIONS_H
#define DISK_VOLUME_OPTIONS_H

#include "reactor/check.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum volume_kind {
	VOLUME_KIND_FILE,   /* a regular file or block device */
	VOLUME_KIND_MEMORY, /* RAM, of the size given; gone when it is closed */
	VOLUME_KIND_NULL,   /* zeros, of the size given; what is written is forgotten */
	VOLUME_KIND_FAULT, /* the file at path, or memory of the size given, and what it does wrong */
	VOLUME_KIND_COUNT,
};

enum volume_cache {
	VOLUME_CACHE_NONE, /* straight to the device */
	VOLUME_CACHE_HOST, /* through the kernel's page cache: what was not flushed is lost with the power */
	VOLUME_CACHE_COUNT,
};

/* The strings belong to the caller, who may free them after the call that they were given to. */
struct volume_options {
	enum volume_kind kind;
	const char *path;    /* NULL: not given */
	uint64_t size_bytes; /* 0: not given */
	const char *fault;   /* see fault_settings.h; NULL: not given */
	bool read_only;
	enum volume_cache cache; /* of files */
};

/* Whether both open the same volume in the same way.  Every option counts. */
bool volume_options_equal(const struct volume_options *left, const struct volume_options *right);

/* Copy FROM, with strings of its own; and free those.  Returns 0 or -ENOMEM; then *to is unchanged. */
int volume_options_copy(const struct volume_options *from, struct volume_options *to) MUST_USE;
void volume_options_clear(struct volume_options *options);

/* The kinds' and the caches' names, as in a configuration; the last is NULL. */
extern const char *const volume_kind_names[VOLUME_KIND_COUNT + 1];
extern const char *const volume_cache_names[VOLUME_CACHE_COUNT + 1];

#define VOLUME_MISTAKE_BYTES 512 /* room for any text of volume_options_mistake */

/* Whether something is missing in OPTIONS, or should not be there.  If so TEXT of TEXT_BYTES says what, and how to put it right. */
bool volume_options_mistake(const struct volume_options *options, char *text,
			    size_t text_bytes) MUST_USE;

#endif
