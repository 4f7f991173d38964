/* The page cache is the contents of the simulated file: written at once, and durable when the power model says so. */
#include "tests/sim/storage_calls.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/uio.h>

#include "disk/page_cache.h"
#include "reactor/call.h"
#include "tests/sim/kernel_sim.h"
#include "tests/sim/power_model.h"

#define IOCBS_MAX    64
#define HELPER_NS    300000 /* until a helper thread has run a call */
#define ERROR_ONE_OF 256

static struct {
	struct storage_calls_config config;
	struct storage_calls_counters counters;
} storage;

void
storage_calls_begin(const struct storage_calls_config *config)
{
	storage.config = *config;
	storage.counters = (struct storage_calls_counters){ .merged = 0 };
}

const struct storage_calls_counters *
storage_calls_counters(void)
{
	return &storage.counters;
}

static bool
one_of(unsigned count)
{
	return kernel_sim_below(count) == 0;
}

static bool
fails(void)
{
	return storage.config.errors && one_of(ERROR_ONE_OF);
}

/* ---- by io_submit ---- */

long __real_kernel_submit(io_context_t context, long count, struct iocb **iocbs);
long __wrap_kernel_submit(io_context_t context, long count, struct iocb **iocbs);

/* Point IOCB at the simulated file, and shorten some writes and reads by blocks. */
static void
change(struct iocb *iocb)
{
	unsigned long bytes = iocb->u.c.nbytes;

	if (iocb->aio_lio_opcode == IO_CMD_POLL)
		return;
	iocb->aio_fildes = storage.config.fd;
	if (iocb->aio_lio_opcode == IO_CMD_PREADV || iocb->aio_lio_opcode == IO_CMD_PWRITEV) {
		storage.counters.merged++;
		if (one_of(16))
			iocb->u.c.nbytes = 1 + kernel_sim_below(bytes);
	} else if (iocb->aio_lio_opcode != IO_CMD_FDSYNC && bytes > 4096 && one_of(16)) {
		iocb->u.c.nbytes = 4096 * (1 + kernel_sim_below(bytes / 4096));
	}
}

long
__wrap_kernel_submit(io_context_t context, long count, struct iocb **iocbs)
{
	unsigned long bytes[IOCBS_MAX];
	long taken;

	SIM_CHECK(count <= (long)ARRAY_COUNT(bytes));
	for (long i = 0; i < count; i++) {
		bytes[i] = iocbs[i]->u.c.nbytes;
		change(iocbs[i]);
	}
	taken = __real_kernel_submit(context, count, iocbs);
	for (long i = 0; i < count; i++)
		iocbs[i]->u.c.nbytes = bytes[i];
	return taken;
}

/* ---- the page cache ---- */

ssize_t __wrap_pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags);
ssize_t __wrap_pwrite(int fd, const void *bytes, size_t count, off_t offset);
ssize_t __wrap_preadv(int fd, const struct iovec *parts, int count, off_t offset);
ssize_t __wrap_preadv2(int fd, const struct iovec *parts, int count, off_t offset, int flags);
bool __wrap_page_cache_has(int fd, uint64_t offset, uint64_t length);

/* The last part of a block, durably. */
ssize_t
__wrap_pwritev2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
	(void)fd;
	SIM_CHECK(count == 1 && (flags & RWF_DSYNC) != 0);
	memcpy(storage.config.contents + offset, parts[0].iov_base, parts[0].iov_len);
	power_written_durably((uint64_t)offset, parts[0].iov_len);
	return (ssize_t)parts[0].iov_len;
}

/* Something could not be written back: the next sync is to say so. */
static void
lose(void)
{
	power_lost();
	kernel_sim_fail_sync();
	storage.counters.lost++;
}

/* From OFFSET on, how many of COUNT bytes go on at once: all, or to the end of any sector. */
static size_t
step_bytes(uint64_t offset, size_t count)
{
	size_t to_end = POWER_SECTOR_BYTES - offset % POWER_SECTOR_BYTES;

	if (to_end >= count || one_of(2))
		return count;
	return to_end +
	       kernel_sim_below((count - to_end) / POWER_SECTOR_BYTES + 1) * POWER_SECTOR_BYTES;
}

static ssize_t
refuse(int error)
{
	errno = error;
	return -1;
}

ssize_t
__wrap_pwrite(int fd, const void *bytes, size_t count, off_t offset)
{
	size_t wanted = one_of(8) ? step_bytes((uint64_t)offset, count) : count, moved = 0;

	(void)fd;
	if (one_of(32))
		return refuse(EINTR);
	if (fails())
		return refuse(one_of(2) ? EIO : ENOSPC);
	while (moved < wanted) {
		uint64_t start = (uint64_t)offset + moved;
		size_t step = step_bytes(start, wanted - moved);

		memcpy(storage.config.contents + start, (const uint8_t *)bytes + moved, step);
		power_written(start, step);
		moved += step;
		storage.config.on_step();
	}
	if (fails())
		lose();
	storage.counters.written++;
	return (ssize_t)moved;
}

static ssize_t
read_some(const struct iovec *part, off_t offset)
{
	size_t count = part->iov_len > 1 && one_of(8) ? 1 + kernel_sim_below(part->iov_len)
						      : part->iov_len;

	memcpy(part->iov_base, storage.config.contents + offset, count);
	return (ssize_t)count;
}

ssize_t
__wrap_preadv(int fd, const struct iovec *parts, int count, off_t offset)
{
	(void)fd;
	SIM_CHECK(count == 1);
	if (one_of(32))
		return refuse(EINTR);
	if (fails())
		return refuse(EIO);
	storage.counters.misses++;
	return read_some(parts, offset);
}

ssize_t
__wrap_preadv2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
	(void)fd;
	SIM_CHECK(count == 1 && flags == RWF_NOWAIT);
	if (storage.config.never_nowait)
		return refuse(EOPNOTSUPP);
	if (one_of(8))
		return refuse(EAGAIN);
	storage.counters.hits++;
	return read_some(parts, offset);
}

bool
__wrap_page_cache_has(int fd, uint64_t offset, uint64_t length)
{
	(void)fd;
	(void)offset;
	(void)length;
	return !one_of(4);
}

/* ---- helper threads ---- */

void __wrap_call_submit(struct call_pool *pool, struct reactor *reactor, struct call *call);
void __wrap_call_submit_keyed(struct call_pool *pool, struct reactor *reactor, struct call *call,
			      uintptr_t key, struct call_share *share);
void __wrap_call_submit_near(struct call_pool *pool, struct reactor *reactor, struct call *call,
			     uintptr_t key, struct call_share *share);

static void
deliver_call(struct message *message)
{
	struct call *call = container_of(message, struct call, message);

	call->done(call);
}

static void
run_call(void *context)
{
	struct call *call = context;

	call->run(call);
	call->status = 0;
	call->message.deliver = deliver_call;
	reactor_send(call->reactor, &call->message);
}

void
__wrap_call_submit(struct call_pool *pool, struct reactor *reactor, struct call *call)
{
	(void)pool;
	call->reactor = reactor;
	kernel_sim_at(kernel_sim_below(HELPER_NS), run_call, call);
}

/* Keys and shares only keep calls from filling the pool: in any order they may run. */
void
__wrap_call_submit_keyed(struct call_pool *pool, struct reactor *reactor, struct call *call,
			 uintptr_t key, struct call_share *share)
{
	(void)key;
	(void)share;
	__wrap_call_submit(pool, reactor, call);
}

void
__wrap_call_submit_near(struct call_pool *pool, struct reactor *reactor, struct call *call,
			uintptr_t key, struct call_share *share)
{
	__wrap_call_submit_keyed(pool, reactor, call, key, share);
}
