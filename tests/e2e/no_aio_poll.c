/* Preloaded (LD_PRELOAD): io_submit knows no IOCB_CMD_POLL, as before Linux 4.18.  tests/e2e/test_bad_input.py uses it. */
#include <errno.h>
#include <libaio.h>
#include <sys/syscall.h>
#include <unistd.h>

int
io_submit(io_context_t context, long count, struct iocb **iocbs)
{
	long known = 0, taken;

	while (known < count && iocbs[known]->aio_lio_opcode != IO_CMD_POLL)
		known++;
	if (known == 0)
		return -EINVAL;
	taken = syscall(SYS_io_submit, context, known, iocbs);
	return taken < 0 ? -errno : (int)taken;
}
