/* One configuration file.  For daemon/config_dir.c, which knows which files belong together. */
#ifndef DAEMON_CONFIG_FILE_H
#define DAEMON_CONFIG_FILE_H

#include "reactor/check.h"
#include <stdbool.h>
#include <stdio.h>

struct config;

/* Read the file at PATH into CONFIG, as config_read_file does, but no other file that it names.
 * exports_only: refuse every section but those of exports. */
int config_file_read(struct config *config, const char *path, bool exports_only,
		     FILE *errors) MUST_USE;

#endif
