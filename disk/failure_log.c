/* What failed, in words. */
#include "disk/failure_log.h"

#include <string.h>

#include "disk/volume.h"
#include "reactor/log.h"

static const char *const command_names[] = {
	[VOLUME_COMMAND_READ] = "read",
	[VOLUME_COMMAND_WRITE] = "write",
	[VOLUME_COMMAND_FLUSH] = "flush",
	[VOLUME_COMMAND_TRIM] = "trim",
	[VOLUME_COMMAND_WRITE_ZEROES] = "write of zeros",
	[VOLUME_COMMAND_CACHE] = "prefetch",
	[VOLUME_COMMAND_EXTENTS] = "query",
};

void
failure_log_add(struct failure_log *log, const struct volume_request *request, int error,
		uint64_t now_ns)
{
	const char *path = request->volume->path;
	const char *durable = request->durable ? "durable " : "";
	struct log_fields fields = { .count = 0 };
	unsigned missed;

	if (!log_limit_take(&log->limit, now_ns, &missed))
		return;
	log_fields_add(&fields, "volume", path);
	if (missed > 0)
		log_line_about(LOG_LEVEL_ERROR, &fields,
			       "%s: %u more requests failed that are not logged one by one", path,
			       missed);
	if (request->command == VOLUME_COMMAND_FLUSH)
		log_line_about(LOG_LEVEL_ERROR, &fields, "%s: flush failed: %s", path,
			       strerror(-error));
	else
		log_line_about(LOG_LEVEL_ERROR, &fields,
			       "%s: %s%s of %llu bytes at offset %llu failed: %s", path, durable,
			       command_names[request->command], (unsigned long long)request->length,
			       (unsigned long long)request->offset, strerror(-error));
}
