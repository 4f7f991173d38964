/* Operations of the disk: every byte of a file is what its place makes it. */
#include "tests/sim/sim_run.h"

#include <string.h>

uint8_t
disk_content(int fd, uint64_t offset)
{
	return (uint8_t)((uint64_t)fd * 31 + offset * 7 + (offset >> 8));
}

void
disk_prepare(struct sim_op *sim_op)
{
	uint64_t offset = kernel_sim_below(FILE_BYTES);
	size_t bytes = 1 + kernel_sim_below(IO_BYTES_MAX);

	sim_op->fd = run.file_fds[kernel_sim_below(FILES)];
	switch (kernel_sim_below(8)) {
	case 0:
		op_fdatasync(&sim_op->op, sim_op->fd);
		break;
	case 1:
	case 2:
	case 3:
		for (size_t i = 0; i < bytes; i++)
			sim_op->buffer[i] = disk_content(sim_op->fd, offset + i);
		op_write(&sim_op->op, sim_op->fd, sim_op->buffer, bytes, offset,
			 kernel_sim_below(2) == 0);
		break;
	default:
		memset(sim_op->buffer, 0, sizeof(sim_op->buffer));
		op_read(&sim_op->op, sim_op->fd, sim_op->buffer, bytes, offset);
	}
}

void
disk_check_read(const struct sim_op *sim_op, long result)
{
	for (long i = 0; i < result; i++)
		SIM_CHECK(sim_op->buffer[i] ==
			  disk_content(sim_op->fd,
				       (uint64_t)sim_op->op.iocb.u.c.offset + (uint64_t)i));
}
