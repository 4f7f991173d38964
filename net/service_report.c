/* What each core serves now, for the log. */
#include "net/connection.h"
#include "net/service_parts.h"

#include <inttypes.h>
#include <stdio.h>

#include "reactor/log.h"

/* Of all cores together, but one of each at least: the log's queue has room for them, and for lines of 20 cores. */
#define REPORTED_CONNECTIONS_MAX 160u

#define MIB ((size_t)1 << 20)

static void
report_connection(const struct connection *connection, bool parked)
{
	const struct export *export = connection->session.export;
	struct log_fields fields = connection_log_fields(connection);
	char text[TRAFFIC_TEXT_BYTES];

	if (export == NULL) {
		log_line_about(LOG_LEVEL_INFO, &fields, "client %s: in the handshake",
			       connection->peer);
		return;
	}
	traffic_format(&connection->traffic, text, sizeof(text));
	log_line_about(LOG_LEVEL_INFO, &fields, "client %s: %s: %s%u under way, %s",
		       connection->peer, export->name, parked ? "idle, " : "",
		       connection->request_count, text);
}

/* Report of CONNECTIONS, *room at most, which becomes less.  Returns of how many. */
static unsigned
report_some(const struct list_node *connections, bool parked, unsigned *room)
{
	struct list_node *node;
	unsigned count = 0;

	list_for_each(node, connections) {
		if (count == *room)
			break;
		report_connection(container_of(node, struct connection, node), parked);
		count++;
	}
	*room -= count;
	return count;
}

/* What HOME has served since its beginning, and counts its connections. */
static struct traffic
sum_up(const struct service_core *home, unsigned *count, unsigned *parked_count)
{
	struct traffic sum = home->traffic_of_gone;
	struct list_node *node;

	*count = 0;
	*parked_count = 0;
	list_for_each(node, &home->connections) {
		traffic_add(&sum, &container_of(node, struct connection, node)->traffic);
		++*count;
	}
	list_for_each(node, &home->parked) {
		traffic_add(&sum, &container_of(node, struct connection, node)->traffic);
		++*parked_count;
	}
	*count += *parked_count;
	return sum;
}

static void
report_reactor(const struct core *core)
{
	struct reactor_counters counters;

	reactor_read_counters(core->reactor, &counters);
	log_info("core %u: %" PRIu64 " turns, %" PRIu64 " sleeps, %" PRIu64
		 " io_submit calls of %" PRIu64 " operations, %" PRIu64 " by helpers, %" PRIu64
		 " times without a free slot",
		 core->cpu, counters.turns, counters.sleeps, counters.submit_calls,
		 counters.ops_submitted, counters.ops_helped, counters.no_slot);
}

void
service_report_core(struct service_core *home)
{
	const struct core *core = home->core;
	unsigned most = REPORTED_CONNECTIONS_MAX / home->service->core_count;
	unsigned room = most > 0 ? most : 1;
	unsigned count, parked_count;
	struct traffic sum = sum_up(home, &count, &parked_count);
	char text[TRAFFIC_TEXT_BYTES];

	traffic_format(&sum, text, sizeof(text));
	log_info("core %u: %u clients, %u of them idle, %zu of %zu MiB of buffers in use; since "
		 "the start "
		 "%s",
		 core->cpu, count, parked_count, buffer_pool_used_bytes(core->buffers) / MIB,
		 buffer_pool_total_bytes(core->buffers) / MIB, text);
	report_reactor(core);
	count -= report_some(&home->connections, false, &room);
	count -= report_some(&home->parked, true, &room);
	if (count > 0)
		log_info("core %u: and %u clients more", core->cpu, count);
}
