/* Log lines as JSON, an object each (RFC 8259):
 *   {"time":"2026-11-21T13:23:08.123456Z","level":"warning","message":"...","client":"...","export":"...","core":3}
 * with the fields of the line behind the message; numbers as numbers.  Bytes that are no UTF-8 become U+FFFD. */
#ifndef DAEMON_LOG_JSON_H
#define DAEMON_LOG_JSON_H

#include "reactor/log.h"
#include <stddef.h>

/* The longest line: every byte of the text and of the values may take six. */
#define LOG_JSON_BYTES_MAX ((size_t)65536)

/* Write ENTRY and a newline into LINE of LINE_BYTES, at least 256.  Where all does not fit the longest texts are cut, so that it is an object still.
 * Returns how many bytes. */
size_t log_json_format(const struct log_entry *entry, char *line, size_t line_bytes);

/* Write ENTRY to standard error; waits while its reader does not read. */
void log_json_write(const struct log_entry *entry);

#endif
