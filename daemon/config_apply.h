/* Settings that both the configuration file and the command line can give: checked and put into a
 * config in one place.  For daemon/config.c and daemon/config_file.c only.
 * where: begins a message, such as "FILE:LINE: [server] listen = VALUE" or "--listen VALUE". */
#ifndef DAEMON_CONFIG_APPLY_H
#define DAEMON_CONFIG_APPLY_H

#include "reactor/check.h"
#include <stdio.h>

#define CONFIG_TEXT_BYTES_MAX 4096 /* an export's name or description; NBD protocol, "Values" */

struct config;
struct config_export;

/* Write "WHERE: " and FORMAT as printf(3) to ERRORS, as one line, with "?" for control characters.
 * Returns -EINVAL, for the caller to return. */
int config_mistake(FILE *errors, const char *where, const char *format, ...) PRINTF_LIKE(3, 4);

/* An export without name, path and description, and the other settings' defaults; and its end, which frees what it
 * points to. */
void config_export_init(struct config_export *export);
void config_export_fini(struct config_export *export);

/* Each checks what it is given and puts it into CONFIG: the cores replace those that were set, a listener or an export
 * is added.  What an export points to is CONFIG's then, and EXPORT is as config_export_fini leaves it.  Where a mistake leaves
 * open what an export's keys are meant to be, it is added for what can be said of it all the same.
 * Returns 0, or -EINVAL after one line to ERRORS; then CONFIG is unchanged but for `mistaken`, and EXPORT its owner's. */
int config_apply_cores(struct config *config, const char *text, const char *where,
		       FILE *errors) MUST_USE;
int config_apply_listen(struct config *config, const char *text, const char *where,
			FILE *errors) MUST_USE;
int config_apply_export(struct config *config, struct config_export *export, const char *where,
			FILE *errors) MUST_USE;

/* Set EXPORT's size from TEXT, as the key size does.  Returns 0, or -EINVAL after one line to ERRORS. */
int config_apply_size(const char *text, struct config_export *export, const char *where,
		      FILE *errors) MUST_USE;

#endif
