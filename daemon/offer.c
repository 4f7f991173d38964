/* From a configuration to exports. */
#include "daemon/offer.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

#include "daemon/config_tls.h"
#include "daemon/notify.h"
#include "reactor/log.h"

/* Requests held per core, as a multiple of those with the disk: the others are being received or sent. */
#define REQUESTS_PER_DISK_SLOT 8
#define NS_PER_MS	       UINT64_C(1000000)

/* ---- the graveyard ---- */

void
graveyard_init(struct graveyard *graveyard)
{
	pthread_mutex_init(&graveyard->lock, NULL);
	list_init(&graveyard->offers);
	graveyard->owner = pthread_self();
}

void
graveyard_fini(struct graveyard *graveyard)
{
	pthread_mutex_destroy(&graveyard->lock);
}

struct offer *
graveyard_take(struct graveyard *graveyard)
{
	struct list_node *node;

	pthread_mutex_lock(&graveyard->lock);
	node = list_take_first(&graveyard->offers);
	pthread_mutex_unlock(&graveyard->lock);
	return node == NULL ? NULL : container_of(node, struct offer, node);
}

/* On whichever thread had the last reference. */
static void
bury(struct service_settings *settings)
{
	struct offer *offer = container_of(settings, struct offer, settings);
	struct graveyard *graveyard = offer->graveyard;
	pthread_t owner = graveyard->owner;

	pthread_mutex_lock(&graveyard->lock);
	list_append(&graveyard->offers, &offer->node);
	pthread_mutex_unlock(&graveyard->lock);
	(void)pthread_kill(owner, GRAVEYARD_SIGNAL);
}

/* ---- exports ---- */

/* The second half of the table: what those see who may only read. */
static void
make_read_only_views(struct offer *offer)
{
	struct export_table *table = &offer->settings.exports;

	for (size_t i = 0; i < offer->config.export_count; i++) {
		struct export *export = &table->exports[i];
		struct export *view = &table->exports[offer->config.export_count + i];

		if (offer->config.exports[i].read_only_for.count == 0)
			continue;
		*view = *export;
		view->read_only = true;
		export->read_only_for = &offer->config.exports[i].read_only_for;
		export->read_only_view = view;
	}
}

/* SLOW_MS: for exports that say nothing of it. */
static void
fill_export(const struct config_export *wanted, unsigned slow_ms, struct volume *volume,
	    struct export *export)
{
	*export = (struct export){
		.name = wanted->name,
		.description = wanted->description,
		.volume = volume,
		.read_only = wanted->read_only,
		.priority = wanted->priority,
		.slow_ns = NS_PER_MS *
			   (wanted->slow_ms == CONFIG_SLOW_MS_UNSET ? slow_ms : wanted->slow_ms),
		.access = &wanted->access,
		.tls_only = wanted->tls_only,
		.allow_names = &wanted->allow_names,
	};
}

/* The manager must not take it for dead meanwhile. */
static void
tell_progress(const struct volume_options *options, uint64_t done_bytes)
{
	notify_busy();
	notify_status("creating %s: %llu of %llu bytes", options->path,
		      (unsigned long long)done_bytes, (unsigned long long)options->size_bytes);
}

static int
open_volumes(struct offer *offer, unsigned number, struct volume_set *set)
{
	struct export_table *table = &offer->settings.exports;
	size_t count = offer->config.export_count;

	offer->volumes = calloc(count, sizeof(offer->volumes[0]));
	table->exports = calloc(2 * count, sizeof(table->exports[0]));
	if (offer->volumes == NULL || table->exports == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		const struct config_export *wanted = &offer->config.exports[i];
		struct volume_options options = config_volume_options(wanted);
		int error;

		options.progress = tell_progress;
		error = volume_set_acquire(set, number, wanted->name, &options, &offer->volumes[i]);
		if (error < 0) {
			log_error("%s: export \"%s\" cannot be served",
				  config_export_origin(wanted, "path"), wanted->name);
			return error;
		}
		offer->volume_count++;
		fill_export(wanted, offer->config.slow_ms, offer->volumes[i]->volume,
			    &table->exports[i]);
	}
	table->count = count;
	return 0;
}

static struct throttle_limits
throttle_limits_of(const struct config_export *wanted)
{
	return (struct throttle_limits){
		.requests_per_s = wanted->limit_iops,
		.bytes_per_s = wanted->limit_bytes,
		.burst_ms = wanted->burst_ms,
	};
}

int
offer_start(struct offer *offer, struct throttle_set *set)
{
	struct export_table *table = &offer->settings.exports;

	offer->throttles = calloc(table->count, sizeof(offer->throttles[0]));
	if (offer->throttles == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < table->count; i++) {
		const struct config_export *wanted = &offer->config.exports[i];
		struct throttle_limits limits = throttle_limits_of(wanted);
		int error = throttle_set_acquire(set, wanted->name, &limits, &offer->throttles[i]);

		if (error < 0)
			return error;
		offer->throttle_count++;
		table->exports[i].throttle = offer->throttles[i]->throttle;
	}
	make_read_only_views(offer);
	return 0;
}

void
offer_set_limits(struct offer *offer)
{
	for (size_t i = 0; i < offer->throttle_count; i++) {
		struct throttle_limits limits = throttle_limits_of(&offer->config.exports[i]);

		throttle_change(offer->throttles[i]->throttle, &limits);
	}
}

static void
refresh_export(const char *name, struct volume *volume)
{
	uint64_t before = volume_size(volume), found;

	if (volume_refresh(volume, &found) < 0)
		log_warning("export \"%s\" keeps its size, %llu bytes", name,
			    (unsigned long long)before);
	else if (found > before)
		log_info("export \"%s\" grew from %llu to %llu bytes", name,
			 (unsigned long long)before, (unsigned long long)found);
	else if (found < before)
		log_warning("export \"%s\": %s has only %llu bytes now, fewer than the %llu that "
			    "clients know of and are told still: what they ask for behind its end "
			    "fails; make it as large again, or restart after they have left",
			    name, volume->path, (unsigned long long)found,
			    (unsigned long long)before);
}

void
offer_refresh(struct offer *offer)
{
	for (size_t i = 0; i < offer->config.export_count; i++)
		refresh_export(offer->config.exports[i].name, offer->volumes[i]->volume);
}

static struct service_limits
limits_of(const struct config *config)
{
	return (struct service_limits){
		.connections_max = config->connections_max,
		.connections_per_client_max = config->connections_per_client_max,
		.requests_per_core = config->queue_depth * REQUESTS_PER_DISK_SLOT,
		.requests_per_connection = config->requests_per_connection,
		.handshake_s = config->handshake_s,
		.dead_peer_s = config->dead_peer_s,
		.access = &config->access,
		.tls_mode = config->tls_mode,
	};
}

static int
load_tls(struct offer *offer)
{
	struct tls_files files = config_tls_files(&offer->config);

	if (offer->config.tls_mode == TLS_MODE_OFF)
		return 0;
	return tls_credentials_load(&files, &offer->settings.limits.tls);
}

/* ---- the whole ---- */

int
offer_create(struct config *config, unsigned number, struct volume_set *set,
	     struct graveyard *graveyard, struct offer **result)
{
	struct offer *offer = calloc(1, sizeof(*offer));
	int error;

	if (offer == NULL) {
		config_fini(config);
		return -ENOMEM;
	}
	offer->config = *config;
	config_init(config);
	offer->graveyard = graveyard;
	list_init(&offer->node);
	offer->settings.limits = limits_of(&offer->config);
	service_settings_init(&offer->settings, bury);
	error = load_tls(offer);
	if (error == 0)
		error = open_volumes(offer, number, set);
	if (error < 0)
		(void)offer_destroy(offer);
	else
		*result = offer;
	return error;
}

int
offer_destroy(struct offer *offer)
{
	int error = 0;

	for (size_t i = 0; i < offer->throttle_count; i++)
		throttle_set_release(offer->throttles[i]);
	for (size_t i = 0; i < offer->volume_count; i++) {
		int released = volume_set_release(offer->volumes[i]);

		if (released < 0)
			error = released;
	}
	if (offer->settings.limits.tls != NULL)
		tls_credentials_put(offer->settings.limits.tls);
	free(offer->throttles);
	free(offer->volumes);
	free(offer->settings.exports.exports);
	config_fini(&offer->config);
	free(offer);
	return error;
}
