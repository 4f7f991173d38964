/* The names of the kinds, and which options each takes. */
#include "disk/volume_options.h"

#include <stdio.h>

#include "disk/fault_settings.h"

const char *const volume_kind_names[VOLUME_KIND_COUNT + 1] = {
	[VOLUME_KIND_FILE] = "file",
	[VOLUME_KIND_MEMORY] = "memory",
	[VOLUME_KIND_NULL] = "null",
	[VOLUME_KIND_FAULT] = "fault",
};

/* What is wrong with path and size, or NULL. */
static const char *
place_mistake(const struct volume_options *options)
{
	bool has_path = options->path != NULL && options->path[0] != '\0';
	bool has_size = options->size_bytes > 0;

	switch (options->kind) {
	case VOLUME_KIND_FILE:
		if (!has_path)
			return "the export has no path; give it that of an image file or block "
			       "device";
		if (has_size)
			return "a volume of type file has the size of its file; remove size, or "
			       "set type = memory";
		break;
	case VOLUME_KIND_MEMORY:
	case VOLUME_KIND_NULL:
		if (options->path != NULL)
			return "a volume of type memory or null has no path; remove it, or set "
			       "type = file";
		if (!has_size)
			return "a volume of type memory or null needs a size, such as size = 10G";
		break;
	case VOLUME_KIND_FAULT:
		if (has_path == has_size)
			return "a volume of type fault needs a path, for faults in a file, or a "
			       "size, for faults in memory; give it one of them";
		break;
	case VOLUME_KIND_COUNT:
		break;
	}
	CHECK(options->kind < VOLUME_KIND_COUNT);
	return NULL;
}

bool
volume_options_mistake(const struct volume_options *options, char *text, size_t text_bytes)
{
	const char *mistake = place_mistake(options);
	struct fault_settings settings;

	if (mistake == NULL && options->kind == VOLUME_KIND_FAULT && options->fault == NULL)
		mistake = "a volume of type fault needs to know what to do wrong, such as fault = "
			  "read-error=0.01 delay-ms=5";
	if (mistake == NULL && options->kind != VOLUME_KIND_FAULT && options->fault != NULL)
		mistake = "only a volume of type fault goes wrong on purpose; remove fault, or "
			  "set type = fault";
	if (mistake != NULL)
		snprintf(text, text_bytes, "%s", mistake);
	else if (options->kind == VOLUME_KIND_FAULT)
		return fault_settings_parse(options->fault, &settings, text, text_bytes) < 0;
	return mistake != NULL;
}
