/* The values of settings, as text: pure functions.  Each returns false, and leaves its result
 * alone, when TEXT is anything but one whole value. */
#ifndef DAEMON_CONFIG_VALUE_H
#define DAEMON_CONFIG_VALUE_H

#include "reactor/check.h"
#include "reactor/priority.h"
#include <stdbool.h>
#include <stdint.h>

/* A decimal number from MIN to MAX, without sign or space. */
bool config_value_number(const char *text, unsigned min, unsigned max, unsigned *number) MUST_USE;

/* A decimal number of bytes from MIN to MAX, below 2^56; K, M, G or T after it is a power of 1024. */
bool config_value_bytes(const char *text, uint64_t min, uint64_t max, uint64_t *bytes) MUST_USE;

/* yes, true, on, 1; no, false, off, 0. */
bool config_value_bool(const char *text, bool *value) MUST_USE;

/* latency, normal, background; and the word for PRIORITY. */
bool config_value_priority(const char *text, enum priority *priority) MUST_USE;
const char *config_priority_name(enum priority priority);

/* True if TEXT is well-formed UTF-8: no overlong form, no surrogate, nothing above U+10FFFF.
 * Source: RFC 3629, section 3. */
bool config_value_utf8(const char *text) MUST_USE;

#endif
