/* Preloaded (LD_PRELOAD): every fdatasync takes as many milliseconds as the environment's SLOW_SYNC_MS says, as on a disk that is slow
 * to flush its cache.  That of AIO is not changed.  tests/e2e/test_service.py uses it. */
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int
fdatasync(int fd)
{
	const char *text = getenv("SLOW_SYNC_MS");
	long ms = text == NULL ? 0 : strtol(text, NULL, 10);
	struct timespec rest = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	(void)nanosleep(&rest, NULL);
	return (int)syscall(SYS_fdatasync, fd);
}
