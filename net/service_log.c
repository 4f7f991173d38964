/* Lines that clients cause, through the log that all cores share.  What was left out is reported by the core that left it out
 * first. */
#include "net/service_parts.h"

#include <stdarg.h>
#include <stdio.h>

static void
report_later(struct service_core *home)
{
	if (!timer_running(&home->log_flush))
		reactor_timer_start(home->core->reactor, &home->log_flush, LOG_LIMIT_NS);
}

static void
flush_expired(struct timer *timer)
{
	struct service_core *home = container_of(timer, struct service_core, log_flush);

	if (client_log_flush(&home->service->client_log, kernel_clock_ns()))
		report_later(home);
}

void
service_log_init(struct service_core *home)
{
	timer_init(&home->log_flush, flush_expired);
}

void
service_log(struct service_core *home, const struct log_fields *fields, const char *reason,
	    const char *format, ...)
{
	char line[LOG_LINE_BYTES_MAX];
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	if (client_log_line(&home->service->client_log, kernel_clock_ns(), fields, reason, "%s",
			    line))
		report_later(home);
}
