/* What files below /proc and /sys say of the host and of the process's cgroup. */
#ifndef DAEMON_HOST_H
#define DAEMON_HOST_H

#include "reactor/check.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Read the first line of the file at ROOT and what FORMAT, as printf(3), says, without its newline, into LINE of LINE_BYTES,
 * cut if it is longer.  ROOT: "", or a directory that takes the place of /, for tests.
 * Returns false if there is no such file, or nothing in it. */
bool host_read_line(const char *root, char *line, size_t line_bytes, const char *format,
		    ...) MUST_USE PRINTF_LIKE(4, 5);

/* Find the number that the file at PATH holds.  Returns false if there is none, or no such file; then
 * *number is unchanged. */
bool host_read_number(const char *root, const char *path, uint64_t *number) MUST_USE;

/* The CPUs' worth of time that the process's cgroup and those above it (version 2) leave, rounded down, at least 1; or 0: no
 * limit.  Source: Documentation/admin-guide/cgroup-v2.rst, cpu.max. */
unsigned host_cpu_quota(const char *root);

/* Bytes of memory that the process may have at most: of the machine, or what its cgroups (version 2, memory.max) leave.
 * 0: not known. */
uint64_t host_memory_bytes(const char *root);

#endif
