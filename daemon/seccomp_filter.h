/* A filter of system calls: what serving needs is allowed, all else fails with EPERM.  A client that finds a way to run code in
 * here can neither start a program nor trace another process, mount, load a module or gain rights. */
#ifndef DAEMON_SECCOMP_FILTER_H
#define DAEMON_SECCOMP_FILTER_H

#include "reactor/check.h"

/* Set the filter for all threads of the process, for good; those that are started later inherit it.
 * Returns 0, or a negative errno, logged.  Source: seccomp(2), SECCOMP_FILTER_FLAG_TSYNC. */
int seccomp_filter_load(void) MUST_USE;

#endif
