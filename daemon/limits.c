/* Needs and limits, in the same units. */
#include "daemon/limits.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "daemon/host.h"
#include "reactor/log.h"
#include "reactor/pipe_pool.h"

#define POLL_SLOTS_MAX 1024 /* per core, listeners apart */

/* Files besides connections, listeners and exports: per core its wake-ups and pipes; for all the log, the watches and what libraries open
 * for a moment. */
#define FILES_PER_CORE (4 + PIPE_POOL_FILES)
#define FILES_OTHER    64

/* Memory besides the buffers, for programs that are paged in, threads and what is allocated at start. */
#define MEMORY_OTHER_BYTES ((uint64_t)64 << 20)

static uint64_t files_needed(const struct config *config);
static uint64_t memory_needed(const struct config *config);
static uint64_t hard_limit(int resource);
static bool may_lock_without_limit(void);
static int check_memory(const struct config *config);
static int check_locked_memory(const struct config *config);

/* A connection that finds no slot for a poll waits in the reactor's parking instead, so there need not be one for each. */
struct reactor_config
limits_reactor_config(const struct config *config)
{
	unsigned per_core =
		(config->connections_max + config->cores.count - 1) / config->cores.count;
	unsigned polls = 2 * per_core < POLL_SLOTS_MAX ? 2 * per_core : POLL_SLOTS_MAX;

	return (struct reactor_config){
		.disk_slots = config->queue_depth,
		.poll_slots = polls + CONFIG_LISTEN_MAX, /* a reload may bring as many */
		.poll_us = config->poll_us,
		.socket_batch_min = config->socket_batch,
	};
}

struct aio_budget
limits_aio_budget(const struct config *config)
{
	struct reactor_config reactor = limits_reactor_config(config);
	struct aio_budget budget = {
		.needed = (uint64_t)config->cores.count *
			  (reactor.disk_slots + reactor.poll_slots + REACTOR_OWN_SLOTS),
	};

	budget.known = host_read_number("", "/proc/sys/fs/aio-max-nr", &budget.limit) &&
		       host_read_number("", "/proc/sys/fs/aio-nr", &budget.used_by_others);
	return budget;
}

/* SLOTS times ROOM / NEEDED, but not too few. */
static unsigned
scale_slots(unsigned slots, uint64_t room, uint64_t needed)
{
	unsigned scaled = (unsigned)(slots * room / needed);

	return scaled > REACTOR_SLOTS_MIN ? scaled : REACTOR_SLOTS_MIN;
}

void
limits_share_aio(struct reactor_config *reactor, const struct aio_budget *budget,
		 unsigned core_count)
{
	uint64_t needed = reactor->disk_slots + reactor->poll_slots, room = 0;

	/* Then the kernel says what is too much, and each core makes do with half, a quarter and so on. */
	if (!budget->known)
		return;
	if (budget->limit > budget->used_by_others)
		room = (budget->limit - budget->used_by_others) / core_count;
	room = room > REACTOR_OWN_SLOTS ? room - REACTOR_OWN_SLOTS : 0;
	if (room >= needed)
		return;
	reactor->disk_slots = scale_slots(reactor->disk_slots, room, needed);
	reactor->poll_slots = scale_slots(reactor->poll_slots, room, needed);
}

int
limits_check(const struct config *config)
{
	int error = limits_check_files(config);

	if (check_memory(config) < 0 || check_locked_memory(config) < 0)
		error = -ENOMEM;
	return error;
}

int
limits_check_files(const struct config *config)
{
	uint64_t needed = files_needed(config), limit = hard_limit(RLIMIT_NOFILE);
	char unset[40];

	if (needed <= limit)
		return 0;
	snprintf(unset, sizeof(unset), "max-connections = %u", config->connections_max);
	log_error("%s: this and all else need %" PRIu64 " open files, but RLIMIT_NOFILE "
		  "is %" PRIu64 ": set LimitNOFILE=%" PRIu64 " in the unit (ulimit -n in a shell), "
		  "or lower max-connections",
		  config_origin(config, "server", "max-connections", unset), needed, limit, needed);
	return -EMFILE;
}

void
limits_raise_files(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

void
limits_describe(const struct config *config, FILE *out)
{
	struct aio_budget aio = limits_aio_budget(config);
	uint64_t memory_bytes = host_memory_bytes("");

	fprintf(out, "needs            %" PRIu64 " AIO slots (fs.aio-max-nr ", aio.needed);
	if (aio.known)
		fprintf(out, "%" PRIu64 ", %" PRIu64 " in use)%s\n", aio.limit, aio.used_by_others,
			aio.used_by_others + aio.needed > aio.limit ? ": each core gets its share"
								    : "");
	else
		fprintf(out, "unknown: it cannot be read here)\n");
	fprintf(out, "                 %" PRIu64 " files (RLIMIT_NOFILE %" PRIu64 ")\n",
		files_needed(config), hard_limit(RLIMIT_NOFILE));
	fprintf(out, "                 %" PRIu64 " MiB of memory (", memory_needed(config) >> 20);
	if (memory_bytes > 0)
		fprintf(out, "%" PRIu64 " MiB in all)\n", memory_bytes >> 20);
	else
		fprintf(out, "of how many is unknown)\n");
}

static uint64_t
files_needed(const struct config *config)
{
	return config->connections_max + config->listen_count + config->export_count +
	       (uint64_t)config->cores.count * FILES_PER_CORE + FILES_OTHER;
}

static uint64_t
memory_needed(const struct config *config)
{
	return config->buffer_memory_bytes * config->cores.count + MEMORY_OTHER_BYTES;
}

/* UINT64_MAX: none. */
static uint64_t
hard_limit(int resource)
{
	struct rlimit limit;

	if (getrlimit((__rlimit_resource_t)resource, &limit) != 0 ||
	    limit.rlim_max == RLIM_INFINITY)
		return UINT64_MAX;
	return limit.rlim_max;
}

/* Source: capget(2), mlock(2). */
static bool
may_lock_without_limit(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	if (syscall(SYS_capget, &header, data) != 0)
		return false;
	return (data[0].effective & (1u << CAP_IPC_LOCK)) != 0;
}

static int
check_memory(const struct config *config)
{
	uint64_t needed = memory_needed(config), limit = host_memory_bytes("");

	if (limit == 0 || needed <= limit)
		return 0;
	log_error("%s: this on %u cores and all else need %" PRIu64 " MiB of memory, but there "
		  "are %" PRIu64 " MiB: lower buffer-memory, or run on fewer cores",
		  config_origin(config, "reactor", "buffer-memory", "buffer-memory"),
		  config->cores.count, needed >> 20, limit >> 20);
	return -ENOMEM;
}

static int
check_locked_memory(const struct config *config)
{
	uint64_t needed = memory_needed(config), limit = hard_limit(RLIMIT_MEMLOCK);

	if (!config->lock_memory || needed <= limit || may_lock_without_limit())
		return 0;
	log_error("%s: this needs %" PRIu64 " MiB, but RLIMIT_MEMLOCK is %" PRIu64
		  " KiB: set LimitMEMLOCK=infinity in the unit, lower buffer-memory, or take "
		  "lock-memory out",
		  config_origin(config, "reactor", "lock-memory", "lock-memory"), needed >> 20,
		  limit >> 10);
	return -ENOMEM;
}
