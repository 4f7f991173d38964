/* Looking exports up, and who sees what of them. */
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

const struct export *
export_view(const struct export *export, const struct access_peer *peer)
{
	if (export->access != NULL && !access_allowed(export->access, peer))
		return NULL;
	if (export->read_only_for != NULL && access_list_contains(export->read_only_for, peer))
		return export->read_only_view;
	return export;
}
