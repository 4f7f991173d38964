/* A thread that writes the log, so that nobody else waits for whoever reads it: neither a core, whose clients would all wait with it,
 * nor the main thread.  Lines go through a queue of fixed size; when that is full they are lost, and the next line
 * that is written says how many. */
#ifndef DAEMON_LOG_THREAD_H
#define DAEMON_LOG_THREAD_H

#include "reactor/check.h"
#include "reactor/log.h"

#define LOG_THREAD_LINES       256u
#define LOG_THREAD_VALUE_BYTES 1024u /* of a line's values together: what is more is cut */

struct log_thread;

/* Writes ENTRY, and may wait for as long as that takes.  The log's thread only. */
typedef void (*log_writer)(const struct log_entry *entry);

/* Lines that are logged from now on go through the queue to WRITER.  While no other thread logs.
 * Returns 0, -ENOMEM or -EAGAIN (no thread); then nothing has changed. */
int log_thread_start(log_writer writer, struct log_thread **thread) MUST_USE;

/* Have WRITER write lines from now on; the last ones of before may come by it too. */
void log_thread_set_writer(struct log_thread *thread, log_writer writer);

/* Wait until all lines are written, a second at most, and free THREAD.  If its reader has not read by then, lines are lost from now
 * on; else they are written at once again, as text.  When no other thread logs any more. */
void log_thread_stop(struct log_thread *thread);

#endif
