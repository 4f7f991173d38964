/* Preloaded into a daemon under valgrind, which knows io_getevents(2) but not io_pgetevents(2).  The daemon passes no signal mask, and
 * without one they are the same.  The system call is made here: libaio has two functions of that name, and without linking to it the
 * older one would be found. */
#include <errno.h>
#include <libaio.h>
#include <sys/syscall.h>
#include <unistd.h>

int
io_pgetevents(io_context_t context, long min, long max, struct io_event *events,
	      struct timespec *timeout, sigset_t *mask)
{
	long result = syscall(SYS_io_getevents, context, min, max, events, timeout);

	(void)mask;
	return result < 0 ? -errno : (int)result;
}
