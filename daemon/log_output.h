/* Where the daemon's log goes, by its configuration and by what standard error is. */
#ifndef DAEMON_LOG_OUTPUT_H
#define DAEMON_LOG_OUTPUT_H

#include "daemon/config.h"
#include "daemon/log_thread.h"

/* The writer for FORMAT: JSON; or text, to the journal where standard error goes there. */
log_writer log_output_choose(enum log_format format);

#endif
