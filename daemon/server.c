/* Starting in the order volumes, cores, service, listeners; stopping in reverse. */
#include "daemon/server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/core_choice.h"
#include "daemon/heartbeat.h"
#include "daemon/limits.h"
#include "daemon/privileges.h"
#include "net/service.h"
#include "reactor/call.h"
#include "reactor/core.h"
#include "reactor/log.h"
#include "reactor/watchdog.h"

#define CALL_THREADS_MAX 16

/* Requests held per core, as a multiple of those with the disk: the others are being received or sent. */
#define REQUESTS_PER_DISK_SLOT 4

struct server {
	const struct config *config;
	struct export_table exports;
	struct tls_store tls;
	struct call_pool *calls;
	struct cores cores;
	struct watchdog *watchdog;
	struct heartbeat *heartbeat;
	struct service service;
};

/* ---- volumes ---- */

static int
close_volumes(struct export_table *table)
{
	int error = 0;

	for (size_t i = 0; i < table->count; i++) {
		int closed = volume_close(table->exports[i].volume);

		if (table->exports[i].throttle != NULL)
			throttle_destroy(table->exports[i].throttle);
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
		export->tls_only = wanted->tls_only;
		export->allow_names = &wanted->allow_names;
		table->count++;
	}
	return 0;
}

/* Create EXPORT's limits, if WANTED has any; they hold for its read-only view too. */
static int
create_throttle(const struct config_export *wanted, struct cores *cores, struct export *export)
{
	struct throttle_limits limits = {
		.requests_per_s = wanted->limit_iops,
		.bytes_per_s = wanted->limit_bytes,
		.burst_ms = wanted->burst_ms,
	};

	if (limits.requests_per_s == 0 && limits.bytes_per_s == 0)
		return 0;
	return throttle_create(&limits, cores, &export->throttle);
}

static int
start_volumes(const struct config *config, struct server *server)
{
	for (size_t i = 0; i < server->exports.count; i++) {
		struct export *export = &server->exports.exports[i];
		int error = volume_start(export->volume, &server->cores,
					 (unsigned)(i % server->cores.count), server->calls);

		if (error == 0)
			error = create_throttle(&config->exports[i], &server->cores, export);
		if (error < 0)
			return error;
	}
	make_read_only_views(config, &server->exports);
	return 0;
}

/* ---- cores ---- */

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

static int
start_cores(struct server *server, const struct config *config)
{
	struct reactor_config asked = limits_reactor_config(config), given = asked;
	struct aio_budget budget = limits_aio_budget(config);
	int error;

	limits_share_aio(&given, &budget, config->cores.count);
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

/* ---- TLS ---- */

static int
load_tls(struct server *server, const struct config *config)
{
	struct tls_credentials *first = NULL;
	int error = 0;

	if (config->tls_mode != TLS_MODE_OFF)
		error = tls_credentials_load(&config->tls, &first);
	if (error == 0)
		tls_store_init(&server->tls, first);
	return error;
}

int
server_reload_tls(struct server *server)
{
	const struct config *config = server->config;
	int error = 0;

	if (config->tls_mode == TLS_MODE_OFF)
		return 0;
	error = tls_store_reload(&server->tls, &config->tls);
	if (error < 0)
		log_error("TLS goes on with the certificates and keys that it has");
	else
		log_info("certificates and keys of TLS read again, for connections that begin now");
	return error;
}

/* ---- the whole ---- */

static void
log_listening(const struct address *address, const char *how)
{
	char text[ADDRESS_TEXT_BYTES];

	address_format(address, text, sizeof(text));
	log_info("listening on %s%s", text, how);
}

/* Returns 0, or the first one's negative errno; then the others are closed. */
static int
adopt_all(struct service *service, const struct server_sockets *sockets, struct address *adopted)
{
	int error = 0;

	for (unsigned i = 0; i < sockets->count; i++) {
		int fd = sockets->first + (int)i;

		if (error == 0 && i == CONFIG_LISTEN_MAX) {
			log_error("%u sockets from the service manager, at most %d are listened on",
				  sockets->count, CONFIG_LISTEN_MAX);
			error = -E2BIG;
		}
		if (error == 0)
			error = service_adopt(service, fd, &adopted[i]);
		if (error < 0)
			(void)close(fd);
		else
			log_listening(&adopted[i], " (the service manager's socket)");
	}
	return error;
}

static bool
is_among(const struct address *address, const struct address *others, unsigned count)
{
	char text[ADDRESS_TEXT_BYTES], other[ADDRESS_TEXT_BYTES];

	address_format(address, text, sizeof(text));
	for (unsigned i = 0; i < count; i++) {
		address_format(&others[i], other, sizeof(other));
		if (strcmp(text, other) == 0)
			return true;
	}
	return false;
}

static int
listen_all(struct service *service, const struct config *config,
	   const struct server_sockets *sockets)
{
	struct address adopted[CONFIG_LISTEN_MAX];
	int error = adopt_all(service, sockets, adopted);

	if (error < 0 || (sockets->count > 0 && config->listen_default))
		return error;
	for (size_t i = 0; i < config->listen_count; i++) {
		struct address bound;

		if (is_among(&config->listen[i], adopted, sockets->count))
			continue;
		error = service_listen(service, &config->listen[i], &bound);
		if (error < 0)
			return error;
		log_listening(&bound, "");
	}
	return 0;
}

/* After all is allocated, and without touching what nobody has used yet. */
static int
lock_memory(const struct config *config)
{
	if (!config->lock_memory || mlockall(MCL_CURRENT | MCL_ONFAULT) == 0)
		return 0;
	log_error("lock-memory: %s: set LimitMEMLOCK=infinity in the unit, or take lock-memory out",
		  strerror(errno));
	return -errno;
}

int
server_start(const struct config *config, const struct server_sockets *sockets,
	     struct server **result)
{
	struct service_limits limits = {
		.connections_max = config->connections_max,
		.connections_per_client_max = config->connections_per_client_max,
		.requests_per_core = config->queue_depth * REQUESTS_PER_DISK_SLOT,
		.requests_per_connection = config->requests_per_connection,
		.handshake_s = config->handshake_s,
		.dead_peer_s = config->dead_peer_s,
		.access = &config->access,
		.tls_mode = config->tls_mode,
	};
	struct server *server = calloc(1, sizeof(*server));
	int error = -ENOMEM;

	if (server == NULL)
		return error;
	error = limits_check(config);
	if (error == 0)
		error = privileges_check(config);
	if (error < 0)
		goto err_after_server;
	limits_raise_files();
	server->config = config;
	error = load_tls(server, config);
	if (error < 0)
		goto err_after_server;
	limits.tls = &server->tls;
	error = open_volumes(config, &server->exports);
	if (error < 0)
		goto err_after_tls;
	error = call_pool_create(CALL_THREADS_MAX, &server->calls);
	if (error < 0)
		goto err_after_volumes;
	error = start_cores(server, config);
	if (error < 0)
		goto err_after_calls;
	error = watchdog_start(&server->cores, config->stall_ms, &server->watchdog);
	if (error < 0)
		goto err_after_cores;
	error = heartbeat_create(&server->cores, &server->heartbeat);
	if (error < 0)
		goto err_after_watchdog;
	error = start_volumes(config, server);
	if (error < 0)
		goto err_after_watchdog;
	error = service_init(&server->service, &server->cores, &server->exports, &limits);
	if (error < 0)
		goto err_after_watchdog;
	error = listen_all(&server->service, config, sockets);
	if (error < 0)
		goto err_after_service;
	error = lock_memory(config);
	if (error < 0)
		goto err_after_service;
	error = privileges_drop(config);
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
	heartbeat_destroy(server->heartbeat);
err_after_calls:
	call_pool_destroy(server->calls);
err_after_volumes:
	(void)close_volumes(&server->exports);
err_after_tls:
	tls_store_fini(&server->tls);
err_after_server:
	free(server);
	return error;
}

bool
server_alive(struct server *server)
{
	return heartbeat_beat(server->heartbeat);
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
	heartbeat_destroy(server->heartbeat);
	service_fini(&server->service);
	tls_store_fini(&server->tls);
	error = close_volumes(&server->exports);
	free(server);
	return error;
}

static int
check_tls(const struct config *config)
{
	struct tls_credentials *credentials;
	int error;

	if (config->tls_mode == TLS_MODE_OFF)
		return 0;
	error = tls_credentials_load(&config->tls, &credentials);
	if (error == 0)
		tls_credentials_put(credentials);
	return error;
}

int
server_check(const struct config *config, FILE *out)
{
	int error;

	config_describe(config, out);
	core_choice_describe("", &config->cores, out);
	limits_describe(config, out);
	error = limits_check(config);
	if (privileges_check(config) < 0)
		error = -ENOENT;
	if (check_tls(config) < 0)
		error = -EINVAL;
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
