/* What the daemon gives up once all is open and before it reads from a client: root, system calls that serving needs not, core
 * dumps, which would hold keys and clients' data. */
#ifndef DAEMON_PRIVILEGES_H
#define DAEMON_PRIVILEGES_H

#include "reactor/check.h"
#include <stdbool.h>

struct config;

/* Look whether the user that CONFIG names is there, and this process can become it.  Returns 0, or a negative errno, logged: -ENOENT no such
 * user; -EPERM it is somebody else, and not root. */
int privileges_check(const struct config *config) MUST_USE;

/* Give up what CONFIG says, in all threads of the process; those that are started later inherit it.
 * Returns 0, or a negative errno, logged; then the process must end: it may have given up a part.
 * Source: credentials(7), prctl(2), seccomp(2). */
int privileges_drop(const struct config *config) MUST_USE;

#endif
