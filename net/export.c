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

static bool
has_names(const struct export *export)
{
	return export->allow_names != NULL && export->allow_names->count > 0;
}

bool
export_needs_tls(const struct export *export)
{
	/* Without TLS there are no names. */
	return export->tls_only || has_names(export);
}

bool
export_allows_names(const struct export *export, const struct tls_names *names)
{
	return !has_names(export) || tls_names_meet(export->allow_names, names);
}
