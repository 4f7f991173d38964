/* Counts of seconds in which something failed; relaxed throughout: a line more or less at the turn of a second does no harm. */
#include "disk/failure_log.h"

#include <string.h>

#include "disk/volume.h"
#include "reactor/log.h"

#define SECOND_NS ((uint64_t)1000000000)

static const char *const command_names[] = {
	[VOLUME_COMMAND_READ] = "read",
	[VOLUME_COMMAND_WRITE] = "write",
	[VOLUME_COMMAND_FLUSH] = "flush",
	[VOLUME_COMMAND_TRIM] = "trim",
	[VOLUME_COMMAND_WRITE_ZEROES] = "write of zeros",
	[VOLUME_COMMAND_CACHE] = "prefetch",
	[VOLUME_COMMAND_EXTENTS] = "query",
};

/* Whether a line may be written at NOW_NS; *missed: how many were not since the last second with failures. */
static bool
take_line(struct failure_log *log, uint64_t now_ns, uint64_t *missed)
{
	uint64_t second = now_ns / SECOND_NS, count = 0;

	*missed = 0;
	if (__atomic_exchange_n(&log->second, second, __ATOMIC_RELAXED) != second) {
		count = __atomic_exchange_n(&log->count, 0, __ATOMIC_RELAXED);
		*missed = count > FAILURE_LINES_PER_SECOND ? count - FAILURE_LINES_PER_SECOND : 0;
	}
	return __atomic_add_fetch(&log->count, 1, __ATOMIC_RELAXED) <= FAILURE_LINES_PER_SECOND;
}

void
failure_log_add(struct failure_log *log, const struct volume_request *request, int error,
		uint64_t now_ns)
{
	const char *path = request->volume->path;
	const char *durable = request->durable ? "durable " : "";
	uint64_t missed;

	if (!take_line(log, now_ns, &missed))
		return;
	if (missed > 0)
		log_error("%s: %llu more requests failed that are not logged one by one", path,
			  (unsigned long long)missed);
	if (request->command == VOLUME_COMMAND_FLUSH)
		log_error("%s: flush failed: %s", path, strerror(-error));
	else
		log_error("%s: %s%s of %llu bytes at offset %llu failed: %s", path, durable,
			  command_names[request->command], (unsigned long long)request->length,
			  (unsigned long long)request->offset, strerror(-error));
}
