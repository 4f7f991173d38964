/* The hand-over is a message, as when a connection is placed. */
#include "net/service_move.h"

#include <errno.h>
#include <string.h>

#include "net/connection.h"
#include "net/export_share.h"
#include "net/service_parts.h"
#include "net/slow_log.h"
#include "reactor/log.h"

/* How long a connection takes nothing more because it is to move.  A client may send requests for as long as it reads no reply. */
#define LEAVE_NS     ((uint64_t)20 * 1000000)
#define FAILURES_MAX 3

static void leave(struct task *task);
static void stay(struct timer *timer);

void
service_move_init(struct connection *connection)
{
	task_init(&connection->move.leave, leave);
	timer_init(&connection->move.deadline, stay);
}

void
service_move_cancel(struct connection *connection)
{
	connection->move.target = NULL;
	task_cancel(&connection->move.leave);
	reactor_timer_stop(connection->home->core->reactor, &connection->move.deadline);
}

static void
stay(struct timer *timer)
{
	struct connection *connection = container_of(timer, struct connection, move.deadline);

	connection->move.failures++;
	service_move_cancel(connection);
	connection_resume(connection);
}

bool
service_move_to(struct connection *connection, struct service_core *target)
{
	struct move *move = &connection->move;

	if (move->target != NULL || connection->state != CONNECTION_STATE_TRANSMISSION ||
	    connection->shutting_down)
		return false;
	move->target = target;
	reactor_timer_start(connection->home->core->reactor, &move->deadline, LEAVE_NS);
	service_move_go_on(connection);
	return true;
}

bool
service_move_settled(const struct connection *connection)
{
	return connection->move.failures >= FAILURES_MAX;
}

static void
log_moved(const struct connection *connection)
{
	struct log_fields fields = connection_log_fields(connection);

	log_line_about(LOG_LEVEL_DEBUG, &fields, "client %s: %s: moved to core %u",
		       connection->peer, connection->session.export->name,
		       connection->home->core->cpu);
}

/* On the core that it comes to. */
static void
arrive(struct message *message)
{
	struct connection *connection = container_of(message, struct connection, message);
	struct service_core *home = connection->home;

	channel_attach(&connection->channel, home->core->reactor, service_parking(home),
		       connection->fd);
	stream_set_priority(&connection->channel.stream, connection->session.export->priority);
	service_connection_active(connection);
	if (export_share_join(connection) < 0) {
		connection_drop(connection, strerror(ENOMEM)); /* UNTESTED: no fault for malloc */
		return;
	}
	log_moved(connection);
	/* What it may have missed on its way. */
	slow_log_settle(connection);
	if (home->draining)
		connection_shut_down(connection);
	else
		service_connection_began(connection);
	connection_resume(connection);
}

static bool
may_leave(const struct connection *connection)
{
	/* Relaxed: service_stop has a barrier behind it. */
	return connection->move.target != NULL &&
	       connection->state == CONNECTION_STATE_TRANSMISSION &&
	       connection->request_count == 0 && connection->io_count == 0 &&
	       channel_quiet(&connection->channel) &&
	       !__atomic_load_n(&connection->home->service->stopping, __ATOMIC_RELAXED);
}

static void
leave(struct task *task)
{
	struct connection *connection = container_of(task, struct connection, move.leave);
	struct service_core *from = connection->home, *to = connection->move.target;

	if (!may_leave(connection))
		return;
	service_move_cancel(connection);
	task_cancel(&connection->receive);
	task_cancel(&connection->flush);
	list_remove(&connection->node);
	list_remove(&connection->starved_node);
	export_share_leave(connection);
	channel_detach(&connection->channel);
	connection->home = to;
	connection->message.deliver = arrive;
	/* In this order: a core that is not empty waits for what comes. */
	__atomic_add_fetch(&to->connection_count, 1, __ATOMIC_RELAXED);
	__atomic_sub_fetch(&from->connection_count, 1, __ATOMIC_RELAXED);
	reactor_send(to->core->reactor, &connection->message);
}

void
service_move_go_on(struct connection *connection)
{
	if (connection->move.target != NULL && connection->request_count == 0)
		reactor_defer(connection->home->core->reactor, &connection->move.leave);
}
