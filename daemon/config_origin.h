/* Where each setting was set: for messages about a value that is right by itself, but not beside others or on this machine; and
 * which of them such messages can't be about, because what was meant is not known. */
#ifndef DAEMON_CONFIG_ORIGIN_H
#define DAEMON_CONFIG_ORIGIN_H

#include "daemon/config_key.h"
#include "reactor/check.h"

struct config;
struct config_export;

/* Of the keys of one section, in the order of its table. */
struct config_origins {
	/* "FILE:LINE: [SECTION] KEY = VALUE" or "--OPTION VALUE", or NULL. */
	char *texts[CONFIG_KEYS_MAX];
	/* What was said of it was refused: what it has may not be what was meant. */
	bool in_doubt[CONFIG_KEYS_MAX];
};

/* Remember a copy of WHERE for KEY of SECTION, instead of what was there.  Without memory nothing is remembered. */
void config_origins_set(struct config_origins *origins, const struct config_section *section,
			const struct config_key *key, const char *where);
void config_origins_clear(struct config_origins *origins);

/* A mistake in SECTION, which is reported, leaves open what was meant for KEY; NULL: for which of them.  Checks of several
 * settings are for those that are not in doubt: else each mistake would have false ones in its wake. */
void config_origins_doubt(struct config_origins *origins, const struct config_section *section,
			  const struct config_key *key);

/* Where CONFIG's KEY of the section SECTION was set, or FALLBACK if it was not.  Valid until CONFIG changes. */
const char *config_origin(const struct config *config, const char *section, const char *key,
			  const char *fallback);

/* The same of EXPORT; if KEY was not set, where the export's section begins. */
const char *config_export_origin(const struct config_export *export, const char *key);

/* Whether any of KEYS, up to NULL, of CONFIG's section SECTION, or of EXPORT, is in doubt. */
bool config_in_doubt(const struct config *config, const char *section,
		     const char *const *keys) MUST_USE;
bool config_export_in_doubt(const struct config_export *export, const char *const *keys) MUST_USE;

#endif
