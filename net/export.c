/* Looking exports up. */
#include "net/export.h"

#include <string.h>

const struct export *
export_find(const struct export_table *table, const char *name, size_t name_bytes)
{
	for (size_t i = 0; i < table->count; i++) {
		const struct export *export = &table->exports[i];

		if (strlen(export->name) == name_bytes &&
		    memcmp(export->name, name, name_bytes) == 0)
			return export;
	}
	return NULL;
}
