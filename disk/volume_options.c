/* The names of the kinds, and which options each takes. */
#include "disk/volume_options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "disk/fault_settings.h"

const char *const volume_kind_names[VOLUME_KIND_COUNT + 1] = {
	[VOLUME_KIND_FILE] = "file",
	[VOLUME_KIND_MEMORY] = "memory",
	[VOLUME_KIND_NULL] = "null",
	[VOLUME_KIND_FAULT] = "fault",
};

const char *const volume_cache_names[VOLUME_CACHE_COUNT + 1] = {
	[VOLUME_CACHE_NONE] = "none",
	[VOLUME_CACHE_HOST] = "host",
};

const char *const volume_create_names[VOLUME_CREATE_COUNT + 1] = {
	[VOLUME_CREATE_NO] = "no",
	[VOLUME_CREATE_SPARSE] = "sparse",
	[VOLUME_CREATE_FALLOC] = "falloc",
	[VOLUME_CREATE_WRITTEN] = "written",
};

/* Fill MISTAKE.  Returns true. */
static bool
mistake_is(struct volume_mistake *mistake, const char *key, const char *text)
{
	mistake->key = key;
	(void)snprintf(mistake->text, sizeof(mistake->text), "%s", text);
	return true;
}

/* Whether something is wrong with path and size of a file. */
static bool
has_file_mistake(const struct volume_options *options, struct volume_mistake *mistake)
{
	bool has_size = options->size_bytes > 0;
	bool creates = options->create != VOLUME_CREATE_NO;

	if (options->path == NULL || options->path[0] == '\0')
		return mistake_is(mistake, NULL,
				  "the export has no path; give it that of an image file or block "
				  "device");
	if (has_size && !creates)
		return mistake_is(mistake, "size",
				  "a volume of type file has the size of its file; remove size, or "
				  "set type = memory, or create if the file is to be made");
	if (!has_size && creates)
		return mistake_is(mistake, "create",
				  "a file that is to be created needs a size, such as size = 10G");
	if (creates && options->read_only)
		return mistake_is(
			mistake, "create",
			"a file that is created empty and is read-only stays empty; remove "
			"create or read-only");
	return false;
}

/* The same for all kinds. */
static bool
has_place_mistake(const struct volume_options *options, struct volume_mistake *mistake)
{
	bool has_path = options->path != NULL && options->path[0] != '\0';
	bool has_size = options->size_bytes > 0;

	switch (options->kind) {
	case VOLUME_KIND_FILE:
		return has_file_mistake(options, mistake);
	case VOLUME_KIND_MEMORY:
	case VOLUME_KIND_NULL:
		if (options->path != NULL)
			return mistake_is(mistake, "path",
					  "a volume of type memory or null has no path; remove it, "
					  "or set type = file");
		if (!has_size)
			return mistake_is(mistake, "type",
					  "a volume of type memory or null needs a size, such as "
					  "size = 10G");
		break;
	case VOLUME_KIND_FAULT:
		if (has_path == has_size)
			return mistake_is(mistake, has_path ? "size" : "type",
					  "a volume of type fault needs a path, for faults in a "
					  "file, or a size, for faults in memory; give it one of "
					  "them");
		break;
	case VOLUME_KIND_COUNT:
		break;
	}
	CHECK(options->kind < VOLUME_KIND_COUNT);
	return false;
}

bool
volume_options_mistake(const struct volume_options *options, struct volume_mistake *mistake)
{
	bool is_fault = options->kind == VOLUME_KIND_FAULT;
	struct fault_settings settings;

	if (has_place_mistake(options, mistake))
		return true;
	if (is_fault && options->fault == NULL)
		return mistake_is(mistake, "type",
				  "a volume of type fault needs to know what to do wrong, such as "
				  "fault = read-error=0.01 delay-ms=5");
	if (!is_fault && options->fault != NULL)
		return mistake_is(
			mistake, "fault",
			"only a volume of type fault goes wrong on purpose; remove fault, "
			"or set type = fault");
	if (options->kind != VOLUME_KIND_FILE && options->create != VOLUME_CREATE_NO)
		return mistake_is(
			mistake, "create",
			"only a volume of type file can be created; remove create, or set "
			"type = file");
	if (options->path == NULL && options->cache != VOLUME_CACHE_NONE)
		return mistake_is(mistake, "cache",
				  "only a file can be read and written through the page cache; "
				  "remove cache, or give it a path");
	mistake->key = "fault";
	return is_fault && fault_settings_parse(options->fault, &settings, mistake->text,
						sizeof(mistake->text)) < 0;
}

static bool
is_same_text(const char *left, const char *right)
{
	return left == NULL || right == NULL ? left == right : strcmp(left, right) == 0;
}

bool
volume_options_equal(const struct volume_options *left, const struct volume_options *right)
{
	bool same_size = left->kind == VOLUME_KIND_FILE || left->size_bytes == right->size_bytes;

	return left->kind == right->kind && same_size && left->read_only == right->read_only &&
	       left->cache == right->cache && is_same_text(left->path, right->path) &&
	       is_same_text(left->fault, right->fault);
}

int
volume_options_copy(const struct volume_options *from, struct volume_options *to)
{
	struct volume_options copy = *from;

	copy.path = from->path == NULL ? NULL : strdup(from->path);
	copy.fault = from->fault == NULL ? NULL : strdup(from->fault);
	copy.holder = NULL;
	if ((from->path != NULL && copy.path == NULL) ||
	    (from->fault != NULL && copy.fault == NULL)) {
		volume_options_clear(&copy);
		return -ENOMEM;
	}
	*to = copy;
	return 0;
}

void
volume_options_clear(struct volume_options *options)
{
	free((char *)(uintptr_t)options->path);
	free((char *)(uintptr_t)options->fault);
	*options = (struct volume_options){ .kind = options->kind };
}
