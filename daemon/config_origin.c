/* Tables of texts, beside those of the keys. */
#include "daemon/config_origin.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/config.h"

static const struct config_section *find_section(const char *name);
static const char *find_text(const struct config_origins *origins,
			     const struct config_section *section, const char *key);
static bool any_in_doubt(const struct config_origins *origins, const struct config_section *section,
			 const char *const *keys);

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
		origins->in_doubt[i] = false;
	}
}

void
config_origins_doubt(struct config_origins *origins, const struct config_section *section,
		     const struct config_key *key)
{
	for (unsigned i = 0; i < section->key_count; i++)
		origins->in_doubt[i] |= key == NULL || key == &section->keys[i];
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

bool
config_in_doubt(const struct config *config, const char *section, const char *const *keys)
{
	const struct config_section *found = find_section(section);

	return any_in_doubt(&config->origins[found - config_sections], found, keys);
}

bool
config_export_in_doubt(const struct config_export *export, const char *const *keys)
{
	return any_in_doubt(&export->origins, find_section("export"), keys);
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

static bool
any_in_doubt(const struct config_origins *origins, const struct config_section *section,
	     const char *const *keys)
{
	for (; *keys; keys++) {
		const struct config_key *found = config_key_find(section, *keys);

		CHECK(found != NULL);
		if (origins->in_doubt[found - section->keys])
			return true;
	}
	return false;
}
