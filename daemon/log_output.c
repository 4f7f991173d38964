/* One of three. */
#include "daemon/log_output.h"

#include "daemon/log_journal.h"
#include "daemon/log_json.h"

log_writer
log_output_choose(enum log_format format)
{
	if (format == LOG_FORMAT_JSON)
		return log_json_write;
	return log_journal_is_stderr() ? log_journal_write : log_write_text;
}
