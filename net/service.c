/* Placing connections, feeding the starved, and stopping in order. */
#include "net/service.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "net/connection.h"
#include "net/transmission.h"
#include "reactor/log.h"

#define DRAIN_DEADLINE_NS ((uint64_t)10 * 1000000000)

/* How often to look for those who let others starve, and how many looks without progress make one. */
#define HUNGER_NS	  ((uint64_t)500000000)
#define STALLED_LOOKS_MAX 4

/* How often to look for idle connections.  One that nothing came from, and nothing went to, between two looks is parked; not too
 * many at a time, because each is a system call that searches all polls. */
#define IDLE_LOOK_NS	   ((uint64_t)1000000000)
#define PARKED_PER_LOOK	   32
#define IDLE_LOOK_AGAIN_NS ((uint64_t)1000000) /* after so many, for the rest */

/* A connection may hold this share of its core's buffers. */
#define CONNECTION_SHARE 8

/* A listener, on its core. */
struct service_listener {
	struct listener listener;
	struct service *service;
	struct core *core;
	struct list_node node; /* in service->listeners */
	struct message message;
};

static void feed_starved(struct task *task);
static void hunger_expired(struct timer *timer);
static void idle_look(struct timer *timer);
static void drain_expired(struct timer *timer);

/* ---- beginning ---- */

static int
service_core_init(struct service_core *home, struct service *service, struct core *core)
{
	size_t total_bytes = buffer_pool_total_bytes(core->buffers);

	*home = (struct service_core){ .core = core, .service = service };
	list_init(&home->connections);
	list_init(&home->parked);
	list_init(&home->unused_requests);
	list_init(&home->starved);
	task_init(&home->feed, feed_starved);
	timer_init(&home->hunger, hunger_expired);
	timer_init(&home->idle_look, idle_look);
	timer_init(&home->drain_deadline, drain_expired);
	home->bytes_per_connection_max = total_bytes / CONNECTION_SHARE;
	home->requests = calloc(service->limits.requests_per_core, sizeof(home->requests[0]));
	if (home->requests == NULL)
		return -ENOMEM;
	for (unsigned i = 0; i < service->limits.requests_per_core; i++) {
		list_init(&home->requests[i].node);
		list_append(&home->unused_requests, &home->requests[i].node);
	}
	return 0;
}

int
service_init(struct service *service, struct cores *cores, const struct export_table *exports,
	     const struct service_limits *limits)
{
	void *per_core;

	*service = (struct service){
		.exports = exports,
		.limits = *limits,
		.cores = cores,
		.core_count = cores->count,
	};
	list_init(&service->listeners);
	if (posix_memalign(&per_core, 64, cores->count * sizeof(struct service_core)) != 0)
		return -ENOMEM;
	service->per_core = per_core;
	for (unsigned i = 0; i < cores->count; i++) {
		int error = service_core_init(&service->per_core[i], service, &cores->cores[i]);

		if (error < 0) {
			while (i-- > 0)
				free(service->per_core[i].requests);
			free(per_core);
			return error;
		}
	}
	sem_init(&service->stopped, 0, 0);
	return 0;
}

void
service_fini(struct service *service)
{
	struct list_node *node;

	for (unsigned i = 0; i < service->core_count; i++)
		free(service->per_core[i].requests);
	free(service->per_core);
	while ((node = list_take_first(&service->listeners)) != NULL) {
		struct service_listener *added = container_of(node, struct service_listener, node);

		listener_close(&added->listener);
		free(added);
	}
	sem_destroy(&service->stopped);
}

/* ---- placing ---- */

/* The CPU that handled the last packet of FD, or -1.  Source: socket(7). */
static int
incoming_cpu(int fd)
{
	socklen_t bytes = sizeof(int);
	int cpu;

	return getsockopt(fd, SOL_SOCKET, SO_INCOMING_CPU, &cpu, &bytes) == 0 ? cpu : -1;
}

/* Raise the count of the core with the fewest connections; of several, the one that FD's packets come to (on loopback,
 * where its client runs): data and wake-ups then need not cross CPUs.  NULL if there are too many already. */
static struct service_core *
reserve_place(struct service *service, int fd)
{
	struct service_core *least = NULL;
	unsigned least_count = 0, total = 0;
	int cpu = incoming_cpu(fd);

	for (unsigned i = 0; i < service->core_count; i++) {
		struct service_core *home = &service->per_core[i];
		/* Relaxed: a count that is a little old places a little worse. */
		unsigned count = __atomic_load_n(&home->connection_count, __ATOMIC_RELAXED);

		total += count;
		if (least == NULL || count < least_count ||
		    (count == least_count && (int)home->core->cpu == cpu)) {
			least = home;
			least_count = count;
		}
	}
	if (total >= service->limits.connections_max)
		return NULL;
	__atomic_add_fetch(&least->connection_count, 1, __ATOMIC_RELAXED);
	return least;
}

static void
deny(int fd, const struct address *peer)
{
	char text[ADDRESS_TEXT_BYTES];

	kernel_close(fd);
	address_format(peer, text, sizeof(text));
	log_warning("client %s: refused: denied to this address (allow and deny of [server])",
		    text);
}

static void
refuse(struct service *service, int fd, const struct address *peer)
{
	char text[ADDRESS_TEXT_BYTES];

	kernel_close(fd);
	/* One line for a run of refusals. */
	if (__atomic_fetch_add(&service->refused_count, 1, __ATOMIC_RELAXED) > 0)
		return;
	address_format(peer, text, sizeof(text));
	log_warning("client %s: refused: there are %u connections already (max-connections); more "
		    "are refused "
		    "without a word until one has left",
		    text, service->limits.connections_max);
}

static void
on_accept(struct listener *listener, int fd, const struct address *peer)
{
	struct service *service =
		container_of(listener, struct service_listener, listener)->service;
	struct access_peer key = access_peer_of(peer);
	struct service_core *home;

	if (!access_allowed(service->limits.access, &key)) {
		deny(fd, peer);
		return;
	}
	home = reserve_place(service, fd);
	if (home == NULL) {
		refuse(service, fd, peer);
		return;
	}
	__atomic_store_n(&service->refused_count, 0, __ATOMIC_RELAXED);
	if (connection_create(home, fd, peer) < 0) {
		log_warning("a connection was refused: out of memory");
		__atomic_sub_fetch(&home->connection_count, 1, __ATOMIC_RELAXED);
	}
}

/* ---- listening ---- */

static void
on_listener_stopped(struct listener *listener)
{
	sem_post(&container_of(listener, struct service_listener, listener)->service->stopped);
}

int
service_listen(struct service *service, const struct address *address, struct address *bound)
{
	struct service_listener *added = calloc(1, sizeof(*added));
	int error;

	if (added == NULL)
		return -ENOMEM;
	error = listener_open(&added->listener, address);
	if (error < 0) {
		free(added);
		return error;
	}
	added->service = service;
	added->listener.on_accept = on_accept;
	added->listener.on_stopped = on_listener_stopped;
	/* Listeners are spread over the cores, too. */
	added->core = &service->cores->cores[service->listener_count % service->core_count];
	service->listener_count++;
	list_append(&service->listeners, &added->node);
	if (bound != NULL)
		*bound = added->listener.address;
	return 0;
}

static void
start_listener(struct message *message)
{
	struct service_listener *added = container_of(message, struct service_listener, message);

	listener_start(&added->listener, added->core);
}

static void
stop_listener(struct message *message)
{
	listener_stop(&container_of(message, struct service_listener, message)->listener);
}

static void
tell_listeners(struct service *service, void (*deliver)(struct message *))
{
	struct list_node *node;

	list_for_each(node, &service->listeners) {
		struct service_listener *added = container_of(node, struct service_listener, node);

		added->message.deliver = deliver;
		reactor_send(added->core->reactor, &added->message);
	}
}

/* ---- sharing a core ---- */

void
service_feed(struct service_core *home)
{
	if (!list_empty(&home->starved))
		reactor_defer(home->core->reactor, &home->feed);
}

/* Let those that starve try again, in the order in which they began to. */
static void
feed_starved(struct task *task)
{
	struct service_core *home = container_of(task, struct service_core, feed);
	struct list_node now, *node;

	list_init(&now);
	list_move_all(&now, &home->starved);
	while ((node = list_take_first(&now)) != NULL) {
		struct connection *connection = container_of(node, struct connection, starved_node);

		connection_retry(connection);
		if (!list_empty(&connection->starved_node))
			break; /* there is nothing left; it stays the first */
	}
	if (node != NULL) {
		list_remove(node);
		list_prepend(&now, node);
	}
	list_move_all(&now, &home->starved);
	list_move_all(&home->starved, &now);
}

/* Look at CONNECTION once more.  Returns whether it has held something for long without using it. */
static bool
is_stalled(struct connection *connection)
{
	unsigned own_hunger = connection->starved != NULL ? 1 : 0;
	bool waits_for_peer = connection->request_count > own_hunger && connection->io_count == 0;

	if (!waits_for_peer || connection->channel.moved != connection->moved_seen)
		connection->stalled_looks = 0;
	else
		connection->stalled_looks++;
	connection->moved_seen = connection->channel.moved;
	return connection->stalled_looks >= STALLED_LOOKS_MAX;
}

static void
hunger_expired(struct timer *timer)
{
	struct service_core *home = container_of(timer, struct service_core, hunger);
	struct list_node *node, *after;

	if (list_empty(&home->starved))
		return;
	list_for_each_safe(node, after, &home->connections) {
		struct connection *connection = container_of(node, struct connection, node);

		if (is_stalled(connection))
			connection_drop(connection,
					"took no replies, or sent no payload, for 2 s while others "
					"waited for the buffers it held");
	}
	service_hungry(home);
}

void
service_hungry(struct service_core *home)
{
	if (!timer_running(&home->hunger))
		reactor_timer_start(home->core->reactor, &home->hunger, HUNGER_NS);
}

/* ---- parking the idle ---- */

struct stream_parking *
service_parking(struct service_core *home)
{
	return home->parking_started ? &home->parking : NULL;
}

static void
start_parking(struct message *message)
{
	struct service_core *home = container_of(message, struct service_core, message);
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
}

static void
idle_look(struct timer *timer)
{
	struct service_core *home = container_of(timer, struct service_core, idle_look);
	struct list_node *node, *after;
	unsigned parked = 0;

	list_for_each_safe(node, after, &home->connections) {
		if (connection_park_if_idle(container_of(node, struct connection, node)) &&
		    ++parked == PARKED_PER_LOOK)
			break;
	}
	if (!list_empty(&home->connections))
		reactor_timer_start(home->core->reactor, timer,
				    parked == PARKED_PER_LOOK ? IDLE_LOOK_AGAIN_NS : IDLE_LOOK_NS);
}

/* Tell all cores, each by its own message. */
static void
tell_cores(struct service *service, void (*deliver)(struct message *))
{
	for (unsigned i = 0; i < service->core_count; i++) {
		struct service_core *home = &service->per_core[i];

		home->message.deliver = deliver;
		reactor_send(home->core->reactor, &home->message);
	}
}

void
service_start(struct service *service)
{
	/* In this order: a connection comes to its core behind this message. */
	tell_cores(service, start_parking);
	tell_listeners(service, start_listener);
}

/* ---- stopping ---- */

static void
parking_stopped(struct stream_parking *parking)
{
	sem_post(&container_of(parking, struct service_core, parking)->service->stopped);
}

/* Its last connection is gone. */
static void
core_stopped(struct service_core *home)
{
	reactor_timer_stop(home->core->reactor, &home->idle_look);
	if (home->parking_started)
		stream_parking_stop(&home->parking, parking_stopped);
	else
		sem_post(&home->service->stopped);
}

void
service_connection_gone(struct service_core *home)
{
	unsigned left = __atomic_sub_fetch(&home->connection_count, 1, __ATOMIC_RELAXED);

	if (home->draining && left == 0)
		core_stopped(home);
}

static void
drop_all(struct service_core *home, const char *why)
{
	struct list_node *node, *after;

	list_for_each_safe(node, after, &home->connections)
		connection_drop(container_of(node, struct connection, node), why);
	list_for_each_safe(node, after, &home->parked)
		connection_drop(container_of(node, struct connection, node), why);
}

static void
finish_all(struct service_core *home)
{
	struct list_node *node, *after;

	list_for_each_safe(node, after, &home->connections)
		connection_finish(container_of(node, struct connection, node));
	list_for_each_safe(node, after, &home->parked)
		connection_finish(container_of(node, struct connection, node));
}

static void
drain_expired(struct timer *timer)
{
	drop_all(container_of(timer, struct service_core, drain_deadline),
		 "did not read its replies in 10 s while the server was stopping");
}

/* On each core: nobody new comes any more. */
static void
drain(struct message *message)
{
	struct service_core *home = container_of(message, struct service_core, message);

	home->draining = true;
	if (__atomic_load_n(&home->connection_count, __ATOMIC_RELAXED) == 0) {
		core_stopped(home);
		return;
	}
	finish_all(home);
	reactor_timer_start(home->core->reactor, &home->drain_deadline, DRAIN_DEADLINE_NS);
}

static void
wait_stopped(struct service *service, unsigned count)
{
	while (count > 0) {
		if (sem_wait(&service->stopped) == 0)
			count--;
	}
}

void
service_stop(struct service *service)
{
	tell_listeners(service, stop_listener);
	wait_stopped(service, service->listener_count);
	tell_cores(service, drain);
	wait_stopped(service, service->core_count);
}
