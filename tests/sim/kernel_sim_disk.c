/* The simulated kernel's files: contents in memory, and operations that take their time. */
#include "tests/sim/kernel_sim_state.h"

#include <errno.h>
#include <string.h>

static long
disk_result(const struct sim_fd *fd, const struct iocb *iocb)
{
	static const int errors[] = { -EIO, -ENOSPC, -EAGAIN };
	uint64_t offset = (uint64_t)iocb->u.c.offset, bytes = iocb->u.c.nbytes;

	if (kernel_sim_chance(sim.config.manner.error_result))
		return errors[kernel_sim_below(ARRAY_COUNT(errors))];
	if (iocb->aio_lio_opcode == IO_CMD_FDSYNC || offset >= fd->bytes)
		return 0;
	if (bytes > fd->bytes - offset)
		bytes = fd->bytes - offset;
	if (kernel_sim_chance(sim.config.manner.short_result))
		bytes = kernel_sim_below(bytes);
	return (long)bytes;
}

void
disk_finish(struct request *request)
{
	const struct iocb *iocb = &request->iocb;
	const struct sim_fd *fd = fd_find(iocb->aio_fildes);
	long result;

	SIM_CHECK(fd != NULL); /* closed under an operation */
	result = disk_result(fd, iocb);
	if (result > 0 && iocb->aio_lio_opcode == IO_CMD_PREAD)
		memcpy(iocb->u.c.buf, fd->contents + iocb->u.c.offset, (size_t)result);
	else if (result > 0)
		memcpy(fd->contents + iocb->u.c.offset, iocb->u.c.buf, (size_t)result);
	request_complete(request, result);
}

void
disk_start(struct request *request)
{
	const struct kernel_sim_manner *manner = &sim.config.manner;
	uint64_t delay_ns = manner->disk_ns_min +
			    kernel_sim_below(manner->disk_ns_max - manner->disk_ns_min + 1);

	request->state = REQUEST_DISK;
	request->worker =
		request->iocb.aio_lio_opcode == IO_CMD_FDSYNC || request->iocb.aio_rw_flags != 0;
	if (!request->worker && kernel_sim_chance(manner->at_once)) {
		disk_finish(request);
		return;
	}
	if (kernel_sim_below(64) == 0)
		delay_ns *= 10;
	time_request_later(request, ITEM_REQUEST, delay_ns);
}

int
kernel_sim_file(void *contents, size_t bytes)
{
	int fd = fd_create(FD_FILE);

	if (fd >= 0) {
		fd_find(fd)->contents = contents;
		fd_find(fd)->bytes = bytes;
	}
	return fd;
}
