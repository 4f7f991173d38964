/* The wrapped calls. */
#include "tests/unit/kernel_faults.h"

#include <errno.h>
#include <limits.h>
#include <stddef.h>

long __real_kernel_submit(io_context_t context, long count, struct iocb **iocbs);
long __wrap_kernel_submit(io_context_t context, long count, struct iocb **iocbs);
int __real_kernel_context_create(unsigned slots, io_context_t *context);
int __wrap_kernel_context_create(unsigned slots, io_context_t *context);
uint64_t __real_kernel_clock_ns(void);
uint64_t __wrap_kernel_clock_ns(void);
int __real_sched_getaffinity(pid_t pid, size_t bytes, cpu_set_t *set);
int __wrap_sched_getaffinity(pid_t pid, size_t bytes, cpu_set_t *set);
ssize_t __real_pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags);
ssize_t __wrap_pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags);

long (*_Atomic submit_fault)(io_context_t context, long count, struct iocb **iocbs);
unsigned context_slots_max = UINT_MAX;
unsigned cpus_claimed;
bool cpus_gone;
int _Atomic sync_write_fault;
_Atomic uint64_t clock_ahead_ns;

long
kernel_submit_unchanged(io_context_t context, long count, struct iocb **iocbs)
{
	return __real_kernel_submit(context, count, iocbs);
}

long
__wrap_kernel_submit(io_context_t context, long count, struct iocb **iocbs)
{
	/* Read once: it may be taken back before the call. */
	long (*fault)(io_context_t, long, struct iocb **) = submit_fault;

	if (fault != NULL)
		return fault(context, count, iocbs);
	return __real_kernel_submit(context, count, iocbs);
}

int
__wrap_kernel_context_create(unsigned slots, io_context_t *context)
{
	if (slots > context_slots_max)
		return -EAGAIN;
	return __real_kernel_context_create(slots, context);
}

uint64_t
__wrap_kernel_clock_ns(void)
{
	return __real_kernel_clock_ns() + clock_ahead_ns;
}

int
__wrap_sched_getaffinity(pid_t pid, size_t bytes, cpu_set_t *set)
{
	int result = __real_sched_getaffinity(pid, bytes, set);

	for (unsigned cpu = 0; cpu < cpus_claimed; cpu++)
		CPU_SET_S(cpu, bytes, set);
	if (cpus_gone) {
		CPU_ZERO_S(bytes, set);
		CPU_SET_S(bytes * 8 - 1, bytes, set);
	}
	return result;
}

ssize_t
__wrap_pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
	ssize_t result = __real_pwritev2(fd, parts, count, offset, flags);

	if ((flags & RWF_DSYNC) == 0 || sync_write_fault == 0)
		return result;
	errno = sync_write_fault;
	return -1;
}
