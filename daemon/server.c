/* Starting in the order volumes, cores, service, listeners; stopping in reverse; and changing all but the cores. */
#include "daemon/server.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/alive.h"
#include "daemon/heartbeat.h"
#include "daemon/limits.h"
#include "daemon/listeners.h"
#include "daemon/notify.h"
#include "daemon/offer.h"
#include "daemon/privileges.h"
#include "daemon/throttle_set.h"
#include "daemon/volume_set.h"
#include "net/service.h"
#include "reactor/call.h"
#include "reactor/core.h"
#include "reactor/log.h"
#include "reactor/watchdog.h"

/* Many more than the calls of one volume (file_volume.h, and for each core the resubmitter's and a batch of cached writes): disks that
 * have stopped answering keep theirs.  Of so many, by their shares (reactor/call.h), more than 200 such volumes leave some for others.  What is
 * not needed is not there. */
#define CALL_THREADS_MAX CALL_THREADS_LIMIT

/* What cores and process begin with, and go on with until they stop. */
struct start_settings {
	struct cpu_list cores;
	unsigned queue_depth, poll_us, socket_batch, stall_ms;
	uint64_t buffer_memory_bytes;
	bool lock_memory;
	char user[LOGIN_NAME_MAX]; /* "": none */
	bool seccomp, core_dumps;
};

struct server {
	struct start_settings start_settings;
	struct volume_set volumes;
	struct throttle_set throttles;
	struct graveyard graveyard;
	struct offer *offer; /* the current one; its first reference */
	unsigned offer_count;
	struct call_pool *calls;
	struct cores cores;
	struct watchdog *watchdog;
	struct heartbeat *heartbeat;
	struct alive *alive; /* NULL: nobody asks */
	struct service service;
	struct listeners listeners;
};

/* ---- cores ---- */

static struct start_settings
start_settings_of(const struct config *config)
{
	struct start_settings settings = {
		.cores = config->cores,
		.queue_depth = config->queue_depth,
		.poll_us = config->poll_us,
		.socket_batch = config->socket_batch,
		.stall_ms = config->stall_ms,
		.buffer_memory_bytes = config->buffer_memory_bytes,
		.lock_memory = config->lock_memory,
		.seccomp = config->seccomp,
		.core_dumps = config->core_dumps,
	};

	if (config->user != NULL)
		snprintf(settings.user, sizeof(settings.user), "%s", config->user);
	return settings;
}

#define AIO_TEXT_BYTES 160

/* What there is of slots, and how there would be enough. */
static void
describe_slots(const struct aio_budget *budget, char has[AIO_TEXT_BYTES], char fix[AIO_TEXT_BYTES])
{
	if (budget->known) {
		snprintf(has, AIO_TEXT_BYTES, "is %" PRIu64 " and others use %" PRIu64,
			 budget->limit, budget->used_by_others);
		snprintf(fix, AIO_TEXT_BYTES, "run sysctl -w fs.aio-max-nr=%" PRIu64,
			 budget->used_by_others + budget->needed);
	} else {
		snprintf(has, AIO_TEXT_BYTES, "is too small, and cannot be read here");
		snprintf(fix, AIO_TEXT_BYTES,
			 "set it on the host to %" PRIu64
			 " more than its fs.aio-nr is without this daemon",
			 budget->needed);
	}
}

static void
log_no_slots(const struct config *config, const struct aio_budget *budget)
{
	char has[AIO_TEXT_BYTES], fix[AIO_TEXT_BYTES];

	describe_slots(budget, has, fix);
	log_error("fs.aio-max-nr %s, but %u cores need %" PRIu64
		  ": %s, or lower queue-depth or max-connections",
		  has, config->cores.count, budget->needed, fix);
}

/* Some core may have to do with less than it was to have: say so, once. */
static void
log_fewer_slots(const struct cores *cores, const struct reactor_config *asked,
		const struct aio_budget *budget)
{
	unsigned disk = asked->disk_slots, polls = asked->poll_slots;
	char has[AIO_TEXT_BYTES], fix[AIO_TEXT_BYTES];

	for (unsigned i = 0; i < cores->count; i++) {
		const struct reactor *reactor = cores->cores[i].reactor;

		if (reactor_slots(reactor, OP_KIND_DISK) < disk)
			disk = reactor_slots(reactor, OP_KIND_DISK);
		if (reactor_slots(reactor, OP_KIND_POLL) < polls)
			polls = reactor_slots(reactor, OP_KIND_POLL);
	}
	if (disk == asked->disk_slots && polls == asked->poll_slots)
		return;
	describe_slots(budget, has, fix);
	log_warning("fs.aio-max-nr %s: a core has only %u slots for disk requests instead of "
		    "queue-depth = %u, and %u for polls instead of %u; for all of them %s and "
		    "start again",
		    has, disk, asked->disk_slots, polls, asked->poll_slots, fix);
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

/* ---- the whole ---- */

static void
log_no_threads(int error)
{
	log_error(
		"the threads beside the cores cannot be started: %s: raise TasksMax= of the unit, "
		"or ulimit -u",
		strerror(-error));
}

/* What the service manager, if it wants to hear it, is told of the life of the cores and of this thread. */
static int
start_signs_of_life(struct server *server)
{
	unsigned interval_ms = notify_alive_interval_ms();
	int error = heartbeat_create(&server->cores, &server->heartbeat);

	if (error < 0 || interval_ms == 0)
		return error;
	return alive_start(server->heartbeat, interval_ms, ALIVE_BUSY_S_MAX, &server->alive);
}

/* Start the helpers, the cores, and what watches these.  Returns 0, or a negative errno, logged; threads_stop is to follow in any
 * case. */
static int
threads_start(struct server *server, const struct config *config)
{
	int error = call_pool_create(CALL_THREADS_MAX, &server->calls);

	if (error == 0) {
		error = start_cores(server, config);
		if (error < 0)
			return error;
		error = watchdog_start(&server->cores, config->stall_ms, &server->watchdog);
	}
	if (error == 0)
		error = start_signs_of_life(server);
	if (error < 0)
		log_no_threads(error);
	return error;
}

static void
threads_stop(struct server *server)
{
	if (server->watchdog != NULL)
		watchdog_stop(server->watchdog);
	/* Before the cores: a helper may still be waking the one that it has sent its last result to. */
	if (server->calls != NULL)
		call_pool_destroy(server->calls);
	alive_forget_cores(server->alive);
	cores_stop(&server->cores);
	heartbeat_destroy(server->heartbeat);
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

/* Take back what was offered, after the cores or before they ran. */
static int
withdraw(struct server *server)
{
	struct list_node graves;
	int error = 0;

	hold_put(&server->offer->settings.hold);
	while (graveyard_take(&server->graveyard, &graves)) {
		int cleared = graveyard_clear(&graves);

		if (cleared < 0)
			error = cleared;
	}
	return error;
}

int
server_start(struct config *config, const struct server_sockets *sockets, struct server **result)
{
	struct server *server = calloc(1, sizeof(*server));
	int error = -ENOMEM;

	if (server != NULL)
		error = limits_check(config);
	if (error == 0)
		error = privileges_check(config);
	if (error < 0) {
		config_fini(config);
		free(server);
		return error;
	}
	limits_raise_files();
	volume_set_init(&server->volumes);
	throttle_set_init(&server->throttles);
	graveyard_init(&server->graveyard, SERVER_SIGNAL);
	error = offer_create(config, ++server->offer_count, &server->volumes, &server->graveyard,
			     &server->offer);
	if (error < 0)
		goto err_after_server;
	config = &server->offer->config;
	server->start_settings = start_settings_of(config);
	error = threads_start(server, config);
	if (error < 0)
		goto err_after_offer;
	error = volume_set_start(&server->volumes, &server->cores, server->calls);
	throttle_set_start(&server->throttles, &server->cores);
	if (error == 0)
		error = offer_start(server->offer, &server->throttles);
	if (error == 0)
		error = service_init(&server->service, &server->cores, &server->offer->settings);
	if (error < 0)
		goto err_after_offer;
	error = listeners_start(&server->listeners, &server->service, config, sockets);
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
err_after_offer:
	threads_stop(server);
	(void)withdraw(server);
	alive_stop(server->alive);
err_after_server:
	graveyard_fini(&server->graveyard);
	free(server);
	return error;
}

/* ---- changing ---- */

/* Say what CONFIG has otherwise: cores and process go on as they began. */
static void
log_next_start(const struct start_settings *before, const struct config *config)
{
	const struct start_settings settings_after = start_settings_of(config);
	const struct start_settings *after = &settings_after;
	const struct {
		const char *section, *key;
		bool changed;
	} settings[] = {
		{ "reactor", "cores",
		  before->cores.count != after->cores.count ||
			  memcmp(before->cores.cpus, after->cores.cpus,
				 before->cores.count * sizeof(before->cores.cpus[0])) },
		{ "reactor", "queue-depth", before->queue_depth != after->queue_depth },
		{ "reactor", "poll-us", before->poll_us != after->poll_us },
		{ "reactor", "socket-batch", before->socket_batch != after->socket_batch },
		{ "reactor", "stall-ms", before->stall_ms != after->stall_ms },
		{ "reactor", "buffer-memory",
		  before->buffer_memory_bytes != after->buffer_memory_bytes },
		{ "reactor", "lock-memory", before->lock_memory != after->lock_memory },
		{ "server", "user", strcmp(before->user, after->user) != 0 },
		{ "server", "seccomp", before->seccomp != after->seccomp },
		{ "server", "core-dumps", before->core_dumps != after->core_dumps },
	};

	for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
		if (settings[i].changed)
			log_warning("%s of [%s] has changed: that is for the next start",
				    settings[i].key, settings[i].section);
	}
}

int
server_reload(struct server *server, struct config *config)
{
	struct listeners_change listeners;
	struct offer *offer, *before = server->offer;
	int error = limits_check_files(config);

	if (error < 0) {
		config_fini(config);
		return error;
	}
	error = offer_create(config, ++server->offer_count, &server->volumes, &server->graveyard,
			     &offer);
	if (error < 0)
		return error;
	error = offer_start(offer, &server->throttles);
	if (error == 0)
		error = listeners_prepare(&server->listeners, &offer->config, &listeners);
	if (error < 0)
		goto err_after_offer;
	error = service_change(&server->service, &offer->settings,
			       offer->config.removed_exports == CONFIG_REMOVED_DROP);
	if (error < 0)
		goto err_after_listeners;
	log_next_start(&server->start_settings, &offer->config);
	listeners_commit(&server->listeners, &listeners);
	server->offer = offer;
	offer_set_limits(offer);
	service_barrier(&server->service);
	offer_refresh(offer);
	hold_put(&before->settings.hold);
	return 0;

err_after_listeners:
	listeners_revert(&server->listeners, &listeners);
err_after_offer:
	hold_put(&offer->settings.hold);
	server_tidy(server);
	return error;
}

void
server_tidy(struct server *server)
{
	struct list_node graves;

	while (graveyard_take(&server->graveyard, &graves)) {
		/* The last request is done, but messages about a locked range may still be on their way. */
		for (unsigned i = 0; i < VOLUME_CLOSE_ROUNDS; i++)
			service_barrier(&server->service);
		(void)graveyard_clear(&graves);
	}
}

void
server_report(struct server *server)
{
	log_info("report: serving %zu exports", server_export_count(server));
	service_report(&server->service);
	log_info("report: that is all");
}

size_t
server_export_count(const struct server *server)
{
	return server->offer->config.export_count;
}

void
server_busy(struct server *server, const char *what)
{
	alive_busy(server->alive, what);
}

int
server_stop(struct server *server)
{
	int error;

	service_stop(&server->service);
	threads_stop(server);
	service_fini(&server->service);
	error = withdraw(server);
	alive_stop(server->alive);
	graveyard_fini(&server->graveyard);
	free(server);
	return error;
}
