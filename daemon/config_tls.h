/* The settings of TLS as a whole. */
#ifndef DAEMON_CONFIG_TLS_H
#define DAEMON_CONFIG_TLS_H

#include "reactor/check.h"
#include <stdio.h>

struct config;
struct tls_files;

/* Check that [tls] of CONFIG is complete, and that exports which need TLS have it; nothing is opened: that is
 * tls_credentials_load's.  Mistakes go to ERRORS.  Returns 0 or -EINVAL. */
int config_tls_check(const struct config *config, FILE *errors) MUST_USE;

/* After the mistakes of tls_credentials_load, which names files and not settings: say where CONFIG has these files. */
void config_tls_log(const struct config *config);

/* Free the strings. */
void config_tls_fini(struct tls_files *files);

#endif
