/* Starting in the order volumes, cores, service, listeners; stopping in reverse. */
#include "daemon/server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "net/service.h"
#include "reactor/call.h"
#include "reactor/core.h"
#include "reactor/log.h"
#include "reactor/watchdog.h"

#define CALL_THREADS_MAX 16

#define POLL_SLOTS_MAX 1024 /* per core, listeners apart */

/* Requests held per core, as a multiple of those with the disk: the others are being received or sent. */
#define REQUESTS_PER_DISK_SLOT 4

struct server {
	struct export_table exports;
	struct call_pool *calls;
	struct cores cores;
	struct watchdog *watchdog;
	struct service service;
};

/* ---- volumes ---- */

static int
close_volumes(struct export_table *table)
{
	int error = 0;

	for (size_t i = 0; i < table->count; i++) {
		int closed = volume_close(table->exports[i].volume);

		if (closed < 0)
			error = closed;
	}
	free(table->exports);
	return error;
}

/* The second half of TABLE's exports: what those see who may only read. */
static void
make_read_only_views(const struct config *config, struct export_table *table)
{
	for (size_t i = 0; i < config->export_count; i++) {
		struct export *export = &table->exports[i];
		struct export *view = &table->exports[config->export_count + i];

		if (config->exports[i].read_only_for.count == 0)
			continue;
		*view = *export;
		view->read_only = true;
		export->read_only_for = &config->exports[i].read_only_for;
		export->read_only_view = view;
	}
}

static int
open_volumes(const struct config *config, struct export_table *table)
{
	table->count = 0;
	table->exports = calloc(2 * config->export_count, sizeof(table->exports[0]));
	if (table->exports == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < config->export_count; i++) {
		const struct config_export *wanted = &config->exports[i];
		struct export *export = &table->exports[i];
		struct volume_options options = config_volume_options(wanted);
		int error = volume_open(&options, &export->volume);

		if (error < 0) {
			log_error("%s: export \"%s\" cannot be served", wanted->origin,
				  wanted->name);
			(void)close_volumes(table);
			return error;
		}
		export->name = wanted->name;
		export->description = wanted->description;
		export->read_only = wanted->read_only;
		export->priority = wanted->priority;
		export->access = &wanted->access;
		table->count++;
	}
	make_read_only_views(config, table);
	return 0;
}

static int
start_volumes(struct server *server)
{
	for (size_t i = 0; i < server->exports.count; i++) {
		int error = volume_start(server->exports.exports[i].volume, &server->cores,
					 (unsigned)(i % server->cores.count), server->calls);

		if (error < 0)
			return error;
	}
	return 0;
}

/* ---- cores ---- */

/* A connection that finds no slot for a poll waits in the reactor's parking instead, so there need not be one for each. */
static struct reactor_config
reactor_config_of(const struct config *config)
{
	unsigned per_core =
		(config->connections_max + config->cores.count - 1) / config->cores.count;
	unsigned polls = 2 * per_core < POLL_SLOTS_MAX ? 2 * per_core : POLL_SLOTS_MAX;

	return (struct reactor_config){
		.disk_slots = config->queue_depth,
		.poll_slots = polls + (unsigned)config->listen_count,
		.poll_us = config->poll_us,
		.socket_batch_min = config->socket_batch,
	};
}

/* The host's limit and use of AIO slots; 0 if it can't be read. */
static unsigned long
read_aio_sysctl(const char *path)
{
	FILE *file = fopen(path, "re");
	unsigned long value = 0;

	if (file == NULL)
		return 0;
	if (fscanf(file, "%lu", &value) != 1)
		value = 0;
	(void)fclose(file);
	return value;
}

/* What the host gave, and what it would take to have what REACTOR asks for. */
struct aio_budget {
	unsigned long limit, used_by_others, needed;
};

static struct aio_budget
read_aio_budget(const struct config *config, const struct reactor_config *reactor)
{
	return (struct aio_budget){
		.limit = read_aio_sysctl("/proc/sys/fs/aio-max-nr"),
		.used_by_others = read_aio_sysctl("/proc/sys/fs/aio-nr"),
		.needed = (unsigned long)config->cores.count *
			  (reactor->disk_slots + reactor->poll_slots + REACTOR_OWN_SLOTS),
	};
}

static void
log_no_slots(const struct config *config, const struct aio_budget *budget)
{
	log_error("fs.aio-max-nr is %lu and others use %lu, but %u cores need %lu: run sysctl -w "
		  "fs.aio-max-nr=%lu, or lower queue-depth or max-connections",
		  budget->limit, budget->used_by_others, config->cores.count, budget->needed,
		  budget->used_by_others + budget->needed);
}

/* Some core may have to do with less than it was to have: say so, once. */
static void
log_fewer_slots(const struct cores *cores, const struct reactor_config *asked,
		const struct aio_budget *budget)
{
	unsigned disk = asked->disk_slots, polls = asked->poll_slots;

	for (unsigned i = 0; i < cores->count; i++) {
		const struct reactor *reactor = cores->cores[i].reactor;

		if (reactor_slots(reactor, OP_KIND_DISK) < disk)
			disk = reactor_slots(reactor, OP_KIND_DISK);
		if (reactor_slots(reactor, OP_KIND_POLL) < polls)
			polls = reactor_slots(reactor, OP_KIND_POLL);
	}
	if (disk == asked->disk_slots && polls == asked->poll_slots)
		return;
	log_warning("fs.aio-max-nr is %lu and others use %lu: a core has only %u slots for disk "
		    "requests instead of queue-depth = %u, and %u for polls instead of %u; for "
		    "all of them run sysctl -w fs.aio-max-nr=%lu and start again",
		    budget->limit, budget->used_by_others, disk, asked->disk_slots, polls,
		    asked->poll_slots, budget->used_by_others + budget->needed);
}

/* SLOTS times ROOM / NEEDED, but not too few. */
static unsigned
scale_slots(unsigned slots, unsigned long room, unsigned long needed)
{
	unsigned scaled = (unsigned)(slots * room / needed);

	return scaled > REACTOR_SLOTS_MIN ? scaled : REACTOR_SLOTS_MIN;
}

/* If the host has not enough slots for all cores, give each the same share: the first ones would leave nothing for the last. */
static void
share_slots(struct reactor_config *reactor, const struct aio_budget *budget, unsigned core_count)
{
	unsigned long needed = reactor->disk_slots + reactor->poll_slots, room = 0;

	if (budget->limit > budget->used_by_others)
		room = (budget->limit - budget->used_by_others) / core_count;
	room = room > REACTOR_OWN_SLOTS ? room - REACTOR_OWN_SLOTS : 0;
	if (room >= needed)
		return;
	reactor->disk_slots = scale_slots(reactor->disk_slots, room, needed);
	reactor->poll_slots = scale_slots(reactor->poll_slots, room, needed);
}

static int
start_cores(struct server *server, const struct config *config)
{
	struct reactor_config asked = reactor_config_of(config), given = asked;
	struct aio_budget budget = read_aio_budget(config, &asked);
	int error;

	share_slots(&given, &budget, config->cores.count);
	given.calls = server->calls;
	error = cores_start(&server->cores, &config->cores, &given, config->buffer_memory_bytes,
			    SERVICE_BUFFER_BYTES_LARGEST);
	if (error == 0)
		log_fewer_slots(&server->cores, &asked, &budget);
	else if (error == -EAGAIN)
		log_no_slots(config, &budget);
	else if (error == -EOPNOTSUPP)
		log_error("this kernel cannot poll with AIO: Linux 4.18 or later is needed");
	else
		log_error("the cores cannot be started: %s", strerror(-error));
	return error;
}

/* ---- the whole ---- */

static int
listen_all(struct service *service, const struct config *config)
{
	for (size_t i = 0; i < config->listen_count; i++) {
		char text[ADDRESS_TEXT_BYTES];
		struct address bound;
		int error = service_listen(service, &config->listen[i], &bound);

		if (error < 0)
			return error;
		address_format(&bound, text, sizeof(text));
		log_info("listening on %s", text);
	}
	return 0;
}

int
server_start(const struct config *config, struct server **result)
{
	struct service_limits limits = {
		.connections_max = config->connections_max,
		.connections_per_client_max = config->connections_per_client_max,
		.requests_per_core = config->queue_depth * REQUESTS_PER_DISK_SLOT,
		.requests_per_connection = config->requests_per_connection,
		.handshake_s = config->handshake_s,
		.dead_peer_s = config->dead_peer_s,
		.access = &config->access,
	};
	struct server *server = calloc(1, sizeof(*server));
	int error = -ENOMEM;

	if (server == NULL)
		return error;
	error = open_volumes(config, &server->exports);
	if (error < 0)
		goto err_after_server;
	error = call_pool_create(CALL_THREADS_MAX, &server->calls);
	if (error < 0)
		goto err_after_volumes;
	error = start_cores(server, config);
	if (error < 0)
		goto err_after_calls;
	error = watchdog_start(&server->cores, config->stall_ms, &server->watchdog);
	if (error < 0)
		goto err_after_cores;
	error = start_volumes(server);
	if (error < 0)
		goto err_after_watchdog;
	error = service_init(&server->service, &server->cores, &server->exports, &limits);
	if (error < 0)
		goto err_after_watchdog;
	error = listen_all(&server->service, config);
	if (error < 0)
		goto err_after_service;
	service_start(&server->service);
	*result = server;
	return 0;

err_after_service:
	service_fini(&server->service);
err_after_watchdog:
	watchdog_stop(server->watchdog);
err_after_cores:
	cores_stop(&server->cores);
err_after_calls:
	call_pool_destroy(server->calls);
err_after_volumes:
	(void)close_volumes(&server->exports);
err_after_server:
	free(server);
	return error;
}

int
server_stop(struct server *server)
{
	int error;

	service_stop(&server->service);
	watchdog_stop(server->watchdog);
	/* Before the cores: a helper may still be waking the one that it has sent its last result to. */
	call_pool_destroy(server->calls);
	cores_stop(&server->cores);
	service_fini(&server->service);
	error = close_volumes(&server->exports);
	free(server);
	return error;
}

int
server_check(const struct config *config, FILE *out)
{
	int error = 0;

	config_describe(config, out);
	for (size_t i = 0; i < config->export_count; i++) {
		const struct config_export *export = &config->exports[i];
		struct volume_options options = config_volume_options(export);
		uint64_t size_bytes;
		int result = volume_check(&options, &size_bytes);

		if (result < 0) {
			log_error("%s: export \"%s\" cannot be served", export->origin,
				  export->name);
			error = result;
			continue;
		}
		fprintf(out, "export \"%s\": %llu bytes\n", export->name,
			(unsigned long long)size_bytes);
	}
	return error;
}
