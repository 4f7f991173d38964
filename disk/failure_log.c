/* What failed, in words. */
#include "disk/failure_log.h"

#include <stdio.h>
#include <string.h>

#include "disk/volume.h"

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
failure_log_where(const struct volume_request *request, char *text, size_t text_bytes)
{
	const char *path = request->volume->path;

	if (request->export_name == NULL)
		(void)snprintf(text, text_bytes, "%s", path);
	else
		(void)snprintf(text, text_bytes, "export \"%s\": %s", request->export_name, path);
}

struct log_fields
failure_log_fields(const struct volume_request *request)
{
	struct log_fields fields = { .count = 0 };

	if (request->export_name != NULL)
		log_fields_add(&fields, "export", request->export_name);
	log_fields_add(&fields, "volume", request->volume->path);
	return fields;
}

void
failure_log_add(struct failure_log *log, const struct volume_request *request, int error,
		uint64_t now_ns)
{
	const char *durable = request->durable ? "durable " : "";
	struct log_fields fields = failure_log_fields(request);
	char where[FAILURE_LOG_WHERE_BYTES];
	unsigned missed;

	if (!log_limit_take(&log->limit, now_ns, &missed))
		return;
	failure_log_where(request, where, sizeof(where));
	if (missed > 0)
		log_line_about(LOG_LEVEL_ERROR, &fields,
			       "%s: %u more requests failed that are not logged one by one", where,
			       missed);
	if (request->command == VOLUME_COMMAND_FLUSH)
		log_line_about(LOG_LEVEL_ERROR, &fields, "%s: flush failed: %s", where,
			       strerror(-error));
	else
		log_line_about(LOG_LEVEL_ERROR, &fields,
			       "%s: %s%s of %llu bytes at offset %llu failed: %s", where, durable,
			       command_names[request->command], (unsigned long long)request->length,
			       (unsigned long long)request->offset, strerror(-error));
}
