/* The values of settings, as text: pure functions.  Those that read one return false, and leave their
 * result alone, when TEXT is anything but one whole value. */
#ifndef DAEMON_CONFIG_VALUE_H
#define DAEMON_CONFIG_VALUE_H

#include "reactor/check.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A decimal number from MIN to MAX, without sign or space. */
bool config_value_number(const char *text, unsigned min, unsigned max, unsigned *number) MUST_USE;

/* A decimal number of bytes from MIN to MAX, below 2^56; K, M, G or T after it is a power of 1024. */
bool config_value_bytes(const char *text, uint64_t min, uint64_t max, uint64_t *bytes) MUST_USE;

/* yes, true, on, 1; no, false, off, 0. */
bool config_value_bool(const char *text, bool *value) MUST_USE;

/* One of WORDS, up to NULL; *index: which. */
bool config_value_word(const char *text, const char *const *words, unsigned *index) MUST_USE;

/* Put BEFORE, ITEM and AFTER behind what TEXT of TEXT_BYTES holds already, cut if they do not fit. */
void config_value_join(char *text, size_t text_bytes, const char *before, const char *item,
		       const char *after);

/* Bytes of the well-formed UTF-8 sequence that TEXT, not empty, begins with; 0: none. */
unsigned config_value_utf8_bytes(const char *text) MUST_USE;

/* True if TEXT is well-formed UTF-8: no overlong form, no surrogate, nothing above U+10FFFF.
 * Source: RFC 3629, section 3. */
bool config_value_utf8(const char *text) MUST_USE;

#endif
