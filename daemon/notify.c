/* A thin layer over libsystemd.  Its results are ignored: where there is nobody to tell, nothing is lost. */
#include "daemon/notify.h"

#include <stdarg.h>
#include <stdio.h>
#include <systemd/sd-daemon.h>
#include <time.h>

#define LOOKS_PER_LIMIT	 4
#define STATUS_BYTES_MAX 512

void
notify_ready(void)
{
	(void)sd_notify(0, "READY=1");
}

void
notify_stopping(void)
{
	(void)sd_notify(0, "STOPPING=1");
}

void
notify_alive(void)
{
	(void)sd_notify(0, "WATCHDOG=1");
}

void
notify_busy(void)
{
	(void)sd_notify(0, "WATCHDOG=1\nEXTEND_TIMEOUT_USEC=60000000");
}

void
notify_status(const char *format, ...)
{
	char status[STATUS_BYTES_MAX];
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(status, sizeof(status), format, arguments);
	va_end(arguments);
	(void)sd_notifyf(0, "STATUS=%s", status);
}

void
notify_reloading(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	(void)sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%lld",
			 (long long)now.tv_sec * 1000000 + now.tv_nsec / 1000);
}

unsigned
notify_alive_interval_ms(void)
{
	uint64_t limit_us;

	if (sd_watchdog_enabled(0, &limit_us) <= 0)
		return 0;
	limit_us /= LOOKS_PER_LIMIT * 1000;
	return limit_us > 0 ? (unsigned)limit_us : 1;
}

unsigned
notify_take_sockets(int *first)
{
	/* It makes them close on exec, and takes what it was told from the environment. */
	int count = sd_listen_fds(1);

	*first = SD_LISTEN_FDS_START;
	return count > 0 ? (unsigned)count : 0;
}
