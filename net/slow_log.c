/* A stopwatch with three hands for each request. */
#include "net/slow_log.h"

#include <string.h>

#include "net/request.h"
#include "reactor/log.h"

#define NS_PER_MS 1e6
#define NS_PER_US 1000u
#define REASON	  "took longer than slow-ms"

void
slow_log_settle(struct connection *connection)
{
	const struct export *began = connection->session.export;
	const struct export *now;

	if (began == NULL)
		return; /* chosen later */
	now = export_find(&connection->home->settings->exports, began->name, strlen(began->name));
	connection->slow_ns = now == NULL ? began->slow_ns : now->slow_ns;
}

void
slow_log_begin(struct nbd_request *request)
{
	request->slow.since_ns = 0;
	if (request->connection->slow_ns == 0)
		return;
	request->slow = (struct slow_watch){ .since_ns = kernel_clock_ns() };
}

void
slow_log_enter(struct nbd_request *request, enum slow_stage stage)
{
	struct slow_watch *watch = &request->slow;
	uint64_t now_ns;

	if (watch->since_ns == 0)
		return;
	now_ns = kernel_clock_ns();
	watch->spent_ns[watch->stage] += now_ns - watch->since_ns;
	watch->since_ns = now_ns;
	watch->stage = stage;
}

static void
add_fields(struct log_fields *fields, const struct nbd_request *request)
{
	const uint64_t *spent_ns = request->slow.spent_ns;

	log_fields_add(fields, "operation", nbd_command_name(request->header.command));
	log_fields_add_number(fields, "offset", request->header.offset);
	log_fields_add_number(fields, "length", request->header.length);
	log_fields_add_number(fields, "queue_us", spent_ns[SLOW_STAGE_QUEUE] / NS_PER_US);
	log_fields_add_number(fields, "disk_us", spent_ns[SLOW_STAGE_DISK] / NS_PER_US);
	log_fields_add_number(fields, "socket_us", spent_ns[SLOW_STAGE_SOCKET] / NS_PER_US);
}

static void
log_slow(const struct nbd_request *request, uint64_t total_ns)
{
	const struct connection *connection = request->connection;
	const struct nbd_header *header = &request->header;
	const uint64_t *spent_ns = request->slow.spent_ns;
	struct log_fields fields = connection_log_fields(connection);

	add_fields(&fields, request);
	service_log(connection->home, &fields, REASON,
		    "client %s: %s: %s of %llu bytes at offset %llu " REASON
		    ": %.1f ms: queue %.1f, disk %.1f, socket %.1f",
		    connection->peer, connection->session.export->name,
		    nbd_command_name(header->command), (unsigned long long)header->length,
		    (unsigned long long)header->offset, (double)total_ns / NS_PER_MS,
		    (double)spent_ns[SLOW_STAGE_QUEUE] / NS_PER_MS,
		    (double)spent_ns[SLOW_STAGE_DISK] / NS_PER_MS,
		    (double)spent_ns[SLOW_STAGE_SOCKET] / NS_PER_MS);
}

void
slow_log_end(struct nbd_request *request)
{
	uint64_t limit_ns = request->connection->slow_ns, total_ns = 0;

	if (request->slow.since_ns == 0)
		return;
	slow_log_enter(request, request->slow.stage);
	for (unsigned i = 0; i < SLOW_STAGE_COUNT; i++)
		total_ns += request->slow.spent_ns[i];
	/* 0: a reload has put an end to it meanwhile. */
	if (limit_ns > 0 && total_ns > limit_ns)
		log_slow(request, total_ns);
}
