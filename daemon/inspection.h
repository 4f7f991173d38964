/* --check: what a configuration would come to on this machine, and every mistake that can be known without serving. */
#ifndef DAEMON_INSPECTION_H
#define DAEMON_INSPECTION_H

#include "reactor/check.h"
#include <stdio.h>

struct config;

/* Look at everything that CONFIG names, and write what would be done to OUT.  It changes nothing, and may run beside a daemon with the same
 * configuration; so what another process has at the moment (addresses, locks of images, AIO slots) is no mistake here.
 * Returns 0, or a negative errno if the server could not start (each reason is logged). */
int inspection_run(const struct config *config, FILE *out) MUST_USE;

#endif
