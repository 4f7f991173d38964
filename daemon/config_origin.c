/* Tables of texts, beside those of the keys. */
#include "daemon/config_origin.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/config.h"

static const struct config_section *find_section(const char *name);
static const char *find_text(const struct config_origins *origins,
			     const struct config_section *section, const char *key);

void
config_origins_set(struct config_origins *origins, const struct config_section *section,
		   const struct config_key *key, const char *where)
{
	char **text = &origins->texts[key - section->keys];

	free(*text);
	*text = strdup(where);
}

void
config_origins_clear(struct config_origins *origins)
{
	for (unsigned i = 0; i < CONFIG_KEYS_MAX; i++) {
		free(origins->texts[i]);
		origins->texts[i] = NULL;
	}
}

const char *
config_origin(const struct config *config, const char *section, const char *key,
	      const char *fallback)
{
	const struct config_section *found = find_section(section);
	const char *text = find_text(&config->origins[found - config_sections], found, key);

	return text ? text : fallback;
}

const char *
config_export_origin(const struct config_export *export, const char *key)
{
	const char *text = find_text(&export->origins, find_section("export"), key);

	return text ? text : export->origin;
}

static const struct config_section *
find_section(const char *name)
{
	const struct config_section *section = config_sections;

	while (strcmp(section->name, name) != 0) {
		section++;
		CHECK(section < config_sections + config_section_count);
	}
	return section;
}

static const char *
find_text(const struct config_origins *origins, const struct config_section *section,
	  const char *key)
{
	const struct config_key *found = config_key_find(section, key);

	CHECK(found != NULL);
	return origins->texts[found - section->keys];
}
