/* Where each setting was set: for messages about a value that is right by itself, but not beside others or on this machine. */
#ifndef DAEMON_CONFIG_ORIGIN_H
#define DAEMON_CONFIG_ORIGIN_H

#include "daemon/config_key.h"

struct config;
struct config_export;

/* Of the keys of one section, in the order of its table: "FILE:LINE: [SECTION] KEY = VALUE" or "--OPTION VALUE", or NULL. */
struct config_origins {
	char *texts[CONFIG_KEYS_MAX];
};

/* Remember a copy of WHERE for KEY of SECTION, instead of what was there.  Without memory nothing is remembered. */
void config_origins_set(struct config_origins *origins, const struct config_section *section,
			const struct config_key *key, const char *where);
void config_origins_clear(struct config_origins *origins);

/* Where CONFIG's KEY of the section SECTION was set, or FALLBACK if it was not.  Valid until CONFIG changes. */
const char *config_origin(const struct config *config, const char *section, const char *key,
			  const char *fallback);

/* The same of EXPORT; if KEY was not set, where the export's section begins. */
const char *config_export_origin(const struct config_export *export, const char *key);

#endif
