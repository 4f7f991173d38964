/* When and where to, and the hand-over: a message, as when a connection is placed. */
#include "net/service_move.h"

#include "net/connection.h"
#include "net/peer_socket.h"
#include "net/service_parts.h"
#include "net/slow_log.h"
#include "reactor/log.h"

/* Requests between two looks at their sizes, whose mean counts; between large and small nothing changes. */
#define LOOK_REQUESTS	256
#define LARGE_BYTES_MIN 131072u
#define SMALL_BYTES_MAX 32768u

/* A core that has seen no connection make so many requests for so long has nothing to do. */
#define BUSY_NS ((uint64_t)100 * 1000000)

/* How long a connection takes nothing more because it is to move.  A client may send requests for as long as it reads no reply. */
#define LEAVE_NS     ((uint64_t)20 * 1000000)
#define FAILURES_MAX 3

#define MS_NS ((uint64_t)1000000)

/* What came between two looks. */
struct window {
	uint64_t end_ns;
	uint64_t mean_bytes, mean_written_bytes; /* of a request */
	uint64_t rate;				 /* bytes per ms */
};

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

/* ---- where to ---- */

/* The core with the fewest connections of those that have nothing to do, and are not on CPU; NULL if there is none. */
static struct service_core *
idle_core(struct service *service, int cpu, uint64_t now_ns)
{
	struct service_core *best = NULL;
	unsigned best_count = 0;

	for (unsigned i = 0; i < service->core_count; i++) {
		struct service_core *core = &service->per_core[i];
		/* Relaxed: as in placement. */
		unsigned count = __atomic_load_n(&core->connection_count, __ATOMIC_RELAXED);

		if ((int)core->core->cpu == cpu ||
		    __atomic_load_n(&core->busy_ns, __ATOMIC_RELAXED) + BUSY_NS > now_ns)
			continue;
		if (best == NULL || count < best_count) {
			best = core;
			best_count = count;
		}
	}
	return best;
}

/* Where CONNECTION, which has seen WINDOW since its last look, should be; NULL: where it is. */
static struct service_core *
better_core(struct connection *connection, const struct window *window)
{
	struct service_core *home = connection->home;
	struct move *move = &connection->move;
	bool large;
	int cpu;

	if (move->placed != NULL) {
		bool worse = !move->settling && window->rate < move->rate;

		move->rate = move->settling ? move->rate : 0;
		move->settling = false;
		move->failures += worse ? FAILURES_MAX : 0;
		return worse || window->mean_bytes <= SMALL_BYTES_MAX ? move->placed : NULL;
	}
	large = window->mean_written_bytes >= LARGE_BYTES_MIN ||
		(channel_tls(&connection->channel) != NULL &&
		 window->mean_bytes >= LARGE_BYTES_MIN);
	if (!large || move->failures >= FAILURES_MAX)
		return NULL;
	move->rate = window->rate;
	cpu = peer_socket_cpu(connection->fd);
	return cpu == (int)home->core->cpu ? idle_core(home->service, cpu, window->end_ns) : NULL;
}

/* Take what was counted since the last look. */
static struct window
take_window(struct connection *connection)
{
	const struct traffic *traffic = &connection->traffic;
	struct move *move = &connection->move;
	uint64_t bytes = traffic->read_bytes + traffic->written_bytes;
	uint64_t requests = traffic->reads + traffic->writes;
	uint64_t count = requests - move->requests;
	struct window window = {
		.end_ns = kernel_clock_ns(),
		.mean_bytes = (bytes - move->bytes) / count,
		.mean_written_bytes = (traffic->written_bytes - move->written_bytes) / count,
	};

	window.rate = (bytes - move->bytes) * MS_NS / (window.end_ns - move->looked_ns + 1);
	move->requests = requests;
	move->bytes = bytes;
	move->written_bytes = traffic->written_bytes;
	move->looked_ns = window.end_ns;
	return window;
}

void
service_move_look(struct connection *connection)
{
	const struct traffic *traffic = &connection->traffic;
	struct move *move = &connection->move;
	bool first = move->looked_ns == 0;
	struct window window;

	if (traffic->reads + traffic->writes - move->requests < LOOK_REQUESTS)
		return;
	window = take_window(connection);
	/* Relaxed: how long ago is all that it tells. */
	__atomic_store_n(&connection->home->busy_ns, window.end_ns, __ATOMIC_RELAXED);
	/* The first window has no beginning, and so no rate. */
	if (first || move->target != NULL || connection->state != CONNECTION_STATE_TRANSMISSION)
		return;
	move->target = better_core(connection, &window);
	if (move->target == NULL)
		return;
	/* So that no other one chooses it, too. */
	__atomic_store_n(&move->target->busy_ns, window.end_ns, __ATOMIC_RELAXED);
	reactor_timer_start(connection->home->core->reactor, &move->deadline, LEAVE_NS);
}

/* ---- the hand-over ---- */

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
	log_moved(connection);
	/* What it may have missed on its way. */
	slow_log_settle(connection);
	if (home->draining)
		connection_finish(connection);
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
	channel_detach(&connection->channel);
	connection->move.placed = connection->move.placed == NULL ? from : NULL;
	connection->move.settling = true;
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
