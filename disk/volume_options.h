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

enum volume_create {
	VOLUME_CREATE_NO,
	VOLUME_CREATE_SPARSE,  /* takes no room until it is written */
	VOLUME_CREATE_FALLOC,  /* has all of its room */
	VOLUME_CREATE_WRITTEN, /* has all of its room, and zeros were written there */
	VOLUME_CREATE_COUNT,
};

/* The strings belong to the caller, who may free them after the call that they were given to. */
struct volume_options {
	enum volume_kind kind;
	const char *path;    /* NULL: not given */
	uint64_t size_bytes; /* 0: not given; for a file, which has its own, only with create */
	const char *fault;   /* see fault_settings.h; NULL: not given */
	bool read_only;
	enum volume_cache cache;   /* of files */
	enum volume_create create; /* of a file that does not exist: make one of size_bytes */
	/* Called now and then while a file is made, which can take long; returns whether to go on: else there is none, and -ECANCELED.
	 * NULL: nobody is. */
	bool (*progress)(const struct volume_options *options, uint64_t done_bytes);
	/* The export that has the same image open in this process, with which it may collide: then it
	 * is named.  NULL: none. */
	const char *holder;
};

/* Whether both open the same volume in the same way.  Every option counts, but not the holder,
 * nor what is for making a file: it is there. */
bool volume_options_equal(const struct volume_options *left, const struct volume_options *right);

/* Copy FROM, with strings of its own, but no holder; and free those.  Returns 0 or -ENOMEM; then
 * *to is unchanged. */
int volume_options_copy(const struct volume_options *from, struct volume_options *to) MUST_USE;
void volume_options_clear(struct volume_options *options);

/* The names of all these, as in a configuration; the last is NULL. */
extern const char *const volume_kind_names[VOLUME_KIND_COUNT + 1];
extern const char *const volume_create_names[VOLUME_CREATE_COUNT + 1];
extern const char *const volume_cache_names[VOLUME_CACHE_COUNT + 1];

#define VOLUME_MISTAKE_BYTES 512

struct volume_mistake {
	const char *key; /* of the configuration, the one that is wrong; NULL: one is missing */
	char text[VOLUME_MISTAKE_BYTES]; /* what is wrong, and how to put it right */
};

/* Whether something is missing in OPTIONS, or should not be there.  If so *mistake is filled. */
bool volume_options_mistake(const struct volume_options *options,
			    struct volume_mistake *mistake) MUST_USE;

#endif
