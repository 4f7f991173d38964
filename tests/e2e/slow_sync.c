/* Preloaded (LD_PRELOAD): a slow disk.  Every fdatasync takes as many milliseconds as the environment's SLOW_SYNC_MS says, as on a disk
 * that is slow to flush its cache; and each preadv of a file with "hung" in its name as many as SLOW_READ_MS says.  Those of AIO are
 * not changed.  tests/e2e/test_service.py and test_cache.py use it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* As many milliseconds as the environment's VARIABLE says. */
static void
rest(const char *variable)
{
	const char *text = getenv(variable);
	long ms = text == NULL ? 0 : strtol(text, NULL, 10);
	struct timespec time = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	(void)nanosleep(&time, NULL);
}

static int
is_hung(int fd)
{
	char link[64], path[512];
	ssize_t bytes;

	(void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	bytes = readlink(link, path, sizeof(path) - 1);
	path[bytes < 0 ? 0 : bytes] = '\0';
	return strstr(path, "hung") != NULL;
}

int
fdatasync(int fd)
{
	rest("SLOW_SYNC_MS");
	return (int)syscall(SYS_fdatasync, fd);
}

ssize_t
preadv(int fd, const struct iovec *parts, int count, off_t offset)
{
	if (is_hung(fd))
		rest("SLOW_READ_MS");
	return syscall(SYS_preadv, fd, parts, (long)count, (long)offset, 0L);
}
