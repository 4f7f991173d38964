/* Beginning, listening, and stopping in order. */
#include "net/service.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "net/connection.h"
#include "net/request.h"
#include "net/service_parts.h"

#define DRAIN_DEADLINE_NS ((uint64_t)10 * 1000000000)

/* A connection may hold this share of its core's buffers, and that is kept for those that hold none. */
#define CONNECTION_SHARE 8
#define RESERVE_SHARE	 16

/* A listener, on its core. */
struct service_listener {
	struct listener listener;
	struct service_core *home;
	struct list_node node; /* in service->listeners */
	bool started;
	struct message message;
};

static void drain_expired(struct timer *timer);

/* ---- beginning ---- */

static unsigned
connections_per_core(const struct service *service, const struct service_settings *settings)
{
	return (settings->limits.connections_max + service->core_count - 1) / service->core_count;
}

static int
service_core_init(struct service_core *home, struct service *service, struct core *core,
		  struct service_settings *settings)
{
	unsigned kept_count = connections_per_core(service, settings);
	size_t total_bytes = buffer_pool_total_bytes(core->buffers);
	struct request_block *requests =
		request_block_create(settings->limits.requests_per_core + kept_count);

	if (requests == NULL)
		return -ENOMEM;

	*home = (struct service_core){ .core = core, .service = service };
	list_init(&home->unused_requests);
	service_share_init(home);
	service_idle_init(home);
	service_log_init(home);
	tls_line_init(&home->tls_line, core->reactor);
	timer_init(&home->drain_deadline, drain_expired);
	home->bytes_per_connection_max = total_bytes / CONNECTION_SHARE;
	home->bytes_reserved = total_bytes / RESERVE_SHARE;
	request_pool_add(home, requests);
	home->kept_request_count = kept_count;
	hold_get(&settings->hold);
	home->settings = settings;
	return 0;
}

static void
service_core_fini(struct service_core *home)
{
	request_pool_free(home);
	hold_put(&home->settings->hold);
}

int
service_init(struct service *service, struct cores *cores, struct service_settings *settings)
{
	void *per_core;
	unsigned count = 0;
	int error;

	*service = (struct service){ .cores = cores, .core_count = cores->count };
	list_init(&service->listeners);
	error = client_table_init(&service->clients, settings->limits.connections_max);
	if (error < 0)
		return error;
	error = cpu_usage_init(&service->cpu_usage, cores, "/proc/stat");
	if (error < 0)
		goto err_after_clients;
	error = -ENOMEM;
	if (posix_memalign(&per_core, 64, cores->count * sizeof(struct service_core)) != 0)
		goto err_after_usage;
	service->per_core = per_core;
	for (; count < cores->count; count++) {
		error = service_core_init(&service->per_core[count], service, &cores->cores[count],
					  settings);
		if (error < 0)
			goto err_after_cores;
	}
	client_log_init(&service->client_log);
	sem_init(&service->done, 0, 0);
	return 0;

err_after_cores:
	while (count-- > 0)
		service_core_fini(&service->per_core[count]);
	free(per_core);
err_after_usage:
	cpu_usage_fini(&service->cpu_usage);
err_after_clients:
	client_table_fini(&service->clients);
	return error;
}

void
service_fini(struct service *service)
{
	struct list_node *node;

	(void)client_log_flush(&service->client_log, UINT64_MAX);
	client_log_fini(&service->client_log);
	for (unsigned i = 0; i < service->core_count; i++)
		service_core_fini(&service->per_core[i]);
	free(service->per_core);
	cpu_usage_fini(&service->cpu_usage);
	client_table_fini(&service->clients);
	while ((node = list_take_first(&service->listeners)) != NULL) {
		struct service_listener *added = container_of(node, struct service_listener, node);

		listener_close(&added->listener);
		free(added);
	}
	sem_destroy(&service->done);
}

/* ---- listening ---- */

static void
on_accept(struct listener *listener, int fd, const struct address *peer)
{
	struct service_listener *added = container_of(listener, struct service_listener, listener);

	service_place(added->home, fd, peer);
}

static void
on_listener_stopped(struct listener *listener)
{
	sem_post(&container_of(listener, struct service_listener, listener)->home->service->done);
}

/* ADDED's listener is open. */
static void
add_listener(struct service *service, struct service_listener *added, struct address *bound)
{
	added->listener.on_accept = on_accept;
	added->listener.on_stopped = on_listener_stopped;
	/* Listeners are spread over the cores, too. */
	added->home = &service->per_core[service->listener_count % service->core_count];
	service->listener_count++;
	list_append(&service->listeners, &added->node);
	if (bound != NULL)
		*bound = added->listener.address;
}

/* Returns whether there is any listener that collides with ADDRESS. */
static bool
share_colliding(struct service *service, const struct address *address, bool shares)
{
	struct list_node *node;
	bool found = false;

	list_for_each(node, &service->listeners) {
		struct service_listener *added = container_of(node, struct service_listener, node);

		if (!address_collides(&added->listener.address, address))
			continue;
		listener_share(&added->listener, shares);
		found = true;
	}
	return found;
}

int
service_listen(struct service *service, const struct address *address, struct address *bound)
{
	struct service_listener *added = calloc(1, sizeof(*added));
	int error;

	if (added == NULL)
		return -ENOMEM;
	/* One that is there may be about to go: 127.0.0.1 where every address is wanted now. */
	if (share_colliding(service, address, true)) {
		error = listener_open_beside(&added->listener, address);
		(void)share_colliding(service, address, false);
		if (error == -EADDRINUSE)
			log_error("it may be this daemon itself, which cannot share a port with "
				  "what it opened as another user or was given: restart it");
	} else {
		error = listener_open(&added->listener, address);
	}
	if (error < 0)
		free(added);
	else
		add_listener(service, added, bound);
	return error;
}

int
service_adopt(struct service *service, int fd, struct address *bound)
{
	struct service_listener *added = calloc(1, sizeof(*added));
	int error;

	if (added == NULL)
		return -ENOMEM;
	error = listener_adopt(&added->listener, fd);
	if (error < 0)
		free(added);
	else
		add_listener(service, added, bound);
	return error;
}

static void
start_listener(struct message *message)
{
	struct service_listener *added = container_of(message, struct service_listener, message);

	listener_start(&added->listener, added->home->core);
	sem_post(&added->home->service->done);
}

static void
stop_listener(struct message *message)
{
	listener_stop(&container_of(message, struct service_listener, message)->listener);
}

static void
tell_listener(struct service_listener *added, void (*deliver)(struct message *))
{
	added->message.deliver = deliver;
	reactor_send(added->home->core->reactor, &added->message);
}

static void
start_idle(struct message *message)
{
	struct service_core *home = container_of(message, struct service_core, message);

	service_idle_start(home);
	sem_post(&home->service->done);
}

static void
tell_core(struct service_core *home, void (*deliver)(struct message *))
{
	home->message.deliver = deliver;
	reactor_send(home->core->reactor, &home->message);
}

/* Tell all cores, each by its own message, which each must have had before the next can be told: see wait_done. */
static void
tell_cores(struct service *service, void (*deliver)(struct message *))
{
	for (unsigned i = 0; i < service->core_count; i++)
		tell_core(&service->per_core[i], deliver);
}

static void
wait_done(struct service *service, unsigned count)
{
	while (count > 0) {
		if (sem_wait(&service->done) == 0)
			count--;
	}
}

void
service_start(struct service *service)
{
	struct list_node *node;

	/* First: a connection must find its core ready. */
	if (!service->started) {
		tell_cores(service, start_idle);
		wait_done(service, service->core_count);
	}
	service->started = true;
	list_for_each(node, &service->listeners) {
		struct service_listener *added = container_of(node, struct service_listener, node);

		if (!added->started) {
			tell_listener(added, start_listener);
			wait_done(service, 1);
		}
		added->started = true;
	}
}

bool
service_unlisten(struct service *service, const struct address *bound)
{
	struct list_node *node;

	list_for_each(node, &service->listeners) {
		struct service_listener *added = container_of(node, struct service_listener, node);

		if (!address_equal(&added->listener.address, bound))
			continue;
		if (added->started) {
			tell_listener(added, stop_listener);
			wait_done(service, 1);
		}
		list_remove(&added->node);
		listener_close(&added->listener);
		free(added);
		return true;
	}
	return false;
}

/* ---- changing ---- */

/* Connections keep their settings, but slow-ms follows the new ones. */
static void
settle_all(struct list_node *connections)
{
	struct list_node *node;

	list_for_each(node, connections)
		slow_log_settle(container_of(node, struct connection, node));
}

static bool
any_is_slow(const struct service_settings *settings)
{
	for (size_t i = 0; i < settings->exports.count; i++) {
		if (settings->exports.exports[i].slow_ns > 0)
			return true;
	}
	return false;
}

/* Shut CONNECTION down if its export is no longer offered (removed-exports = drop). */
static void
drop_if_removed(struct connection *connection)
{
	const struct export *export = connection->session.export;
	const struct export_table *exports = &connection->home->settings->exports;

	if (export != NULL && export_find(exports, export->name, strlen(export->name)) == NULL)
		connection_shut_down(connection);
}

static void
drop_removed(struct list_node *connections)
{
	struct list_node *node, *after;

	list_for_each_safe(node, after, connections)
		drop_if_removed(container_of(node, struct connection, node));
}

void
service_connection_began(struct connection *connection)
{
	/* The handshake may have begun before. */
	if (connection->home->drops)
		drop_if_removed(connection);
}

/* Make the requests that CORES are to have for more connections.  Those that were made for more than SETTINGS say are kept. */
static int
prepare_requests(struct service *service, const struct service_settings *settings)
{
	unsigned wanted = connections_per_core(service, settings);

	for (unsigned i = 0; i < service->core_count; i++) {
		struct service_core *home = &service->per_core[i];

		/* The core changes it only while this thread waits. */
		if (wanted <= home->kept_request_count)
			continue;
		home->more_requests = request_block_create(wanted - home->kept_request_count);
		if (home->more_requests == NULL)
			return -ENOMEM;
	}
	return 0;
}

static void
forget_requests(struct service *service)
{
	for (unsigned i = 0; i < service->core_count; i++) {
		request_block_destroy(service->per_core[i].more_requests);
		service->per_core[i].more_requests = NULL;
	}
}

static void
take_more_requests(struct service_core *home)
{
	if (home->more_requests == NULL)
		return;
	home->kept_request_count += home->more_requests->count;
	request_pool_add(home, home->more_requests);
	home->more_requests = NULL;
	service_feed(home);
}

static void
change_core(struct message *message)
{
	struct service_core *home = container_of(message, struct service_core, message);
	struct service_settings *before = home->settings;

	home->settings = home->service->next_settings;
	hold_get(&home->settings->hold);
	if (any_is_slow(before) || any_is_slow(home->settings)) {
		settle_all(&home->connections);
		settle_all(&home->parked);
	}
	hold_put(&before->hold);
	take_more_requests(home);
	home->drops = home->service->next_drops;
	if (home->drops) {
		drop_removed(&home->connections);
		drop_removed(&home->parked);
	}
	sem_post(&home->service->done);
}

int
service_change(struct service *service, struct service_settings *settings, bool drop)
{
	int error = client_table_resize(&service->clients, settings->limits.connections_max);

	if (error == 0)
		error = prepare_requests(service, settings);
	if (error < 0) {
		forget_requests(service);
		return error;
	}
	service->next_settings = settings;
	service->next_drops = drop;
	tell_cores(service, change_core);
	wait_done(service, service->core_count);
	return 0;
}

static void
pass_barrier(struct message *message)
{
	sem_post(&container_of(message, struct service_core, message)->service->done);
}

void
service_barrier(struct service *service)
{
	tell_cores(service, pass_barrier);
	wait_done(service, service->core_count);
}

/* ---- reporting ---- */

static void
report(struct message *message)
{
	struct service_core *home = container_of(message, struct service_core, message);

	service_report_core(home);
	sem_post(&home->service->done);
}

void
service_report(struct service *service)
{
	/* One after the other, so that their lines do not mix. */
	for (unsigned i = 0; i < service->core_count; i++) {
		tell_core(&service->per_core[i], report);
		wait_done(service, 1);
	}
}

/* ---- stopping ---- */

static void
parking_stopped(struct stream_parking *parking)
{
	sem_post(&container_of(parking, struct service_core, parking)->service->done);
}

/* Its last connection is gone. */
static void
core_stopped(struct service_core *home)
{
	reactor_timer_stop(home->core->reactor, &home->idle_look);
	reactor_timer_stop(home->core->reactor, &home->log_flush);
	tls_line_fini(&home->tls_line);
	if (home->parking_started)
		stream_parking_stop(&home->parking, parking_stopped);
	else
		sem_post(&home->service->done);
}

void
service_connection_gone(struct service_core *home, const struct access_peer *client)
{
	service_release_place(home, client);
	if (home->draining && __atomic_load_n(&home->connection_count, __ATOMIC_RELAXED) == 0)
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
shut_down_all(struct service_core *home)
{
	struct list_node *node, *after;

	list_for_each_safe(node, after, &home->connections)
		connection_shut_down(container_of(node, struct connection, node));
	list_for_each_safe(node, after, &home->parked)
		connection_shut_down(container_of(node, struct connection, node));
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
	shut_down_all(home);
	reactor_timer_start(home->core->reactor, &home->drain_deadline, DRAIN_DEADLINE_NS);
}

void
service_stop(struct service *service)
{
	struct list_node *node;
	unsigned count = 0;

	list_for_each(node, &service->listeners) {
		tell_listener(container_of(node, struct service_listener, node), stop_listener);
		count++;
	}
	wait_done(service, count);
	/* A core that is empty when it is told stays so: nobody moves there any more, and who is on the way counts already. */
	__atomic_store_n(&service->stopping, true, __ATOMIC_RELAXED);
	service_barrier(service);
	tell_cores(service, drain);
	wait_done(service, service->core_count);
}
