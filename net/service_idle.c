/* Parking the idle: connections that nothing came from, and nothing went to, for a while hold no buffers and no slot of the ring.
 * And noticing that those are gone from which nothing is received for now. */
#include "net/connection.h"
#include "net/export_share.h"
#include "net/service_parts.h"

#include <string.h>

#include "reactor/log.h"

/* How often to look for idle connections.  One that nothing came from, and nothing went to, between two looks is parked; not too
 * many at a time, because each is a system call that searches all polls: the rest of the look follows. */
#define IDLE_LOOK_NS	   ((uint64_t)1000000000)
#define PARKED_PER_LOOK	   32
#define IDLE_LOOK_AGAIN_NS ((uint64_t)1000000) /* after so many, for the rest */

static void idle_look(struct timer *timer);

void
service_idle_init(struct service_core *home)
{
	list_init(&home->connections);
	list_init(&home->parked);
	timer_init(&home->idle_look, idle_look);
}

struct stream_parking *
service_parking(struct service_core *home)
{
	return home->parking_started ? &home->parking : NULL;
}

void
service_idle_start(struct service_core *home)
{
	int error = stream_parking_start(&home->parking, home->core->reactor);

	if (error < 0)
		log_warning("core %u: idle connections cannot be parked: %s", home->core->cpu,
			    strerror(-error));
	home->parking_started = error == 0;
}

void
service_connection_active(struct connection *connection)
{
	struct service_core *home = connection->home;

	list_remove(&connection->node);
	list_append(&home->connections, &connection->node);
	if (!timer_running(&home->idle_look))
		reactor_timer_start(home->core->reactor, &home->idle_look, IDLE_LOOK_NS);
}

void
service_connection_parked(struct connection *connection)
{
	list_remove(&connection->node);
	list_append(&connection->home->parked, &connection->node);
	export_share_leave(connection);
}

static void
idle_look(struct timer *timer)
{
	struct service_core *home = container_of(timer, struct service_core, idle_look);
	struct list_node *node, *after;
	unsigned parked = 0;

	home->idle_looks += !home->idle_rest;
	list_for_each_safe(node, after, &home->connections) {
		struct connection *connection = container_of(node, struct connection, node);

		if (!home->idle_rest)
			connection_notice_end(connection);
		if (connection_park_if_idle(connection) && ++parked == PARKED_PER_LOOK)
			break;
	}
	home->idle_rest = parked == PARKED_PER_LOOK;
	if (!list_empty(&home->connections))
		reactor_timer_start(home->core->reactor, timer,
				    home->idle_rest ? IDLE_LOOK_AGAIN_NS : IDLE_LOOK_NS);
}
