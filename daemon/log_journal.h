/* Log lines to the journal of systemd, with their fields: PRIORITY=, MESSAGE=, and those of the line in capital letters (EXPORT=,
 * CLIENT=, CORE=, ...), by which journalctl finds them. */
#ifndef DAEMON_LOG_JOURNAL_H
#define DAEMON_LOG_JOURNAL_H

#include "reactor/check.h"
#include "reactor/log.h"
#include <stdbool.h>

/* Whether standard error goes to the journal: then lines for people should go there by log_journal_write.
 * Source: systemd.exec(5), $JOURNAL_STREAM. */
bool log_journal_is_stderr(void) MUST_USE;

/* Write ENTRY to the journal, or, where it does not take it, to standard error.  Waits while the journal does not read. */
void log_journal_write(const struct log_entry *entry);

#endif
