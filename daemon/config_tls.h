/* The settings of TLS as a whole. */
#ifndef DAEMON_CONFIG_TLS_H
#define DAEMON_CONFIG_TLS_H

#include "net/tls_credentials.h"
#include "reactor/check.h"
#include <stdio.h>

struct config;

/* Check that [tls] of CONFIG is complete, and that exports which need TLS have it; nothing is opened: that is
 * tls_credentials_load's.  Mistakes go to ERRORS.  Returns 0 or -EINVAL. */
int config_tls_check(const struct config *config, FILE *errors) MUST_USE;

/* What CONFIG's credentials are loaded from, with where each was set, for messages; all is CONFIG's. */
struct tls_files config_tls_files(const struct config *config);

/* Free the strings. */
void config_tls_fini(struct tls_files *files);

#endif
