/* The simulated kernel's files: contents in memory, and operations that take their time. */
#include "tests/sim/kernel_sim_state.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>

static bool
has_parts(const struct iocb *iocb)
{
	return iocb->aio_lio_opcode == IO_CMD_PREADV || iocb->aio_lio_opcode == IO_CMD_PWRITEV;
}

static uint64_t
transfer_bytes(const struct iocb *iocb)
{
	const struct iovec *parts = iocb->u.c.buf;
	uint64_t bytes = 0;

	if (!has_parts(iocb))
		return iocb->u.c.nbytes;
	for (unsigned long i = 0; i < iocb->u.c.nbytes; i++)
		bytes += parts[i].iov_len;
	return bytes;
}

/* Move the first COUNT bytes of IOCB's to or from CONTENTS, where they belong. */
static void
move_bytes(const struct iocb *iocb, uint8_t *contents, size_t count)
{
	struct iovec whole = { iocb->u.c.buf, iocb->u.c.nbytes };
	const struct iovec *part = has_parts(iocb) ? iocb->u.c.buf : &whole;
	bool reads = iocb->aio_lio_opcode == IO_CMD_PREAD || iocb->aio_lio_opcode == IO_CMD_PREADV;

	for (; count > 0; part++) {
		size_t bytes = part->iov_len < count ? part->iov_len : count;

		if (reads)
			memcpy(part->iov_base, contents, bytes);
		else
			memcpy(contents, part->iov_base, bytes);
		contents += bytes;
		count -= bytes;
	}
}

static long
disk_result(const struct sim_fd *fd, const struct iocb *iocb)
{
	static const int errors[] = { -EIO, -ENOSPC, -EAGAIN };
	uint64_t offset = (uint64_t)iocb->u.c.offset, bytes = transfer_bytes(iocb);

	if (iocb->aio_lio_opcode == IO_CMD_FDSYNC && sim.sync_fails) {
		sim.sync_fails = false;
		return -EIO;
	}
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
	if (result > 0)
		move_bytes(iocb, fd->contents + iocb->u.c.offset, (size_t)result);
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

void
kernel_sim_fail_sync(void)
{
	sim.sync_fails = true;
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
