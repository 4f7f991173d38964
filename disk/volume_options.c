/* The names of the kinds, and which options each takes. */
#include "disk/volume_options.h"

#include <stddef.h>

const char *const volume_kind_names[VOLUME_KIND_COUNT + 1] = {
	[VOLUME_KIND_FILE] = "file",
	[VOLUME_KIND_MEMORY] = "memory",
	[VOLUME_KIND_NULL] = "null",
};

const char *
volume_options_mistake(const struct volume_options *options)
{
	bool has_path = options->path != NULL && options->path[0] != '\0';

	switch (options->kind) {
	case VOLUME_KIND_FILE:
		if (!has_path)
			return "the export has no path; give it that of an image file or block "
			       "device";
		if (options->size_bytes > 0)
			return "a volume of type file has the size of its file; remove size, or "
			       "set type = memory";
		break;
	case VOLUME_KIND_MEMORY:
	case VOLUME_KIND_NULL:
		if (options->path != NULL)
			return "a volume of type memory or null has no path; remove it, or set "
			       "type = file";
		if (options->size_bytes == 0)
			return "a volume of type memory or null needs a size, such as size = 10G";
		break;
	case VOLUME_KIND_COUNT:
		CHECK(options->kind < VOLUME_KIND_COUNT);
	}
	return NULL;
}
