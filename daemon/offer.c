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
graveyard_init(struct graveyard *graveyard, int signal)
{
	pthread_mutex_init(&graveyard->lock, NULL);
	list_init(&graveyard->graves);
	graveyard->owner = pthread_self();
	graveyard->signal = signal;
}

void
graveyard_fini(struct graveyard *graveyard)
{
	pthread_mutex_destroy(&graveyard->lock);
}

bool
graveyard_take(struct graveyard *graveyard, struct list_node *graves)
{
	list_init(graves);
	pthread_mutex_lock(&graveyard->lock);
	list_move_all(graves, &graveyard->graves);
	pthread_mutex_unlock(&graveyard->lock);
	return !list_empty(graves);
}

/* On whichever thread was the last to hold it. */
static void
bury(struct graveyard *graveyard, struct grave *grave)
{
	pthread_t owner = graveyard->owner;
	int signal = graveyard->signal;
	bool is_first;

	pthread_mutex_lock(&graveyard->lock);
	is_first = list_empty(&graveyard->graves);
	list_append(&graveyard->graves, &grave->node);
	pthread_mutex_unlock(&graveyard->lock);
	if (is_first)
		(void)pthread_kill(owner, signal);
}

static void
bury_offer(struct hold *hold)
{
	struct offer *offer = container_of(hold, struct offer, settings.hold);

	bury(offer->graveyard, &offer->grave);
}

static void
bury_offered(struct hold *hold)
{
	struct offered *offered = container_of(hold, struct offered, hold);

	bury(offered->grave.offer->graveyard, &offered->grave);
}

/* Returns 0, or the negative errno of the last flush of its volume, if that was closed. */
static int
release(struct offered *offered)
{
	if (offered->throttle != NULL)
		throttle_set_release(offered->throttle);
	offered->grave.offer->released_count++;
	return volume_set_release(offered->volume);
}

static void
free_if_empty(struct offer *offer)
{
	if (offer->released_count < offer->offered_count)
		return;
	if (offer->settings.limits.tls != NULL)
		tls_credentials_put(offer->settings.limits.tls);
	free(offer->offered);
	free(offer->settings.exports.exports);
	config_fini(&offer->config);
	free(offer);
}

int
graveyard_clear(struct list_node *graves)
{
	struct list_node *node;
	int error = 0;

	while ((node = list_take_first(graves)) != NULL) {
		struct grave *grave = container_of(node, struct grave, node);
		struct offer *offer = grave->offer;

		if (grave->offered == NULL) {
			/* Its exports stay for those who have chosen them. */
			for (size_t i = 0; i < offer->offered_count; i++)
				hold_put(&offer->offered[i].hold);
		} else {
			int released = release(grave->offered);

			if (released < 0)
				error = released;
		}
		free_if_empty(offer);
	}
	return error;
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
fill_export(const struct config_export *wanted, unsigned slow_ms, struct offered *offered,
	    struct export *export)
{
	*export = (struct export){
		.name = wanted->name,
		.description = wanted->description,
		.volume = offered->volume->volume,
		.read_only = wanted->read_only,
		.priority = wanted->priority,
		.slow_ns = NS_PER_MS *
			   (wanted->slow_ms == CONFIG_SLOW_MS_UNSET ? slow_ms : wanted->slow_ms),
		.access = &wanted->access,
		.tls_only = wanted->tls_only,
		.allow_names = &wanted->allow_names,
		.hold = &offered->hold,
	};
}

/* The manager must not take it for dead meanwhile.  A signal that is to end the daemon, which are blocked, ends this, too. */
static bool
tell_progress(const struct volume_options *options, uint64_t done_bytes)
{
	sigset_t pending;

	notify_busy();
	notify_status("creating %s: %llu of %llu bytes", options->path,
		      (unsigned long long)done_bytes, (unsigned long long)options->size_bytes);
	return sigpending(&pending) != 0 ||
	       (sigismember(&pending, SIGTERM) != 1 && sigismember(&pending, SIGINT) != 1);
}

static int
open_volumes(struct offer *offer, unsigned number, struct volume_set *set)
{
	struct export_table *table = &offer->settings.exports;
	size_t count = offer->config.export_count;

	offer->offered = calloc(count, sizeof(offer->offered[0]));
	table->exports = calloc(2 * count, sizeof(table->exports[0]));
	if (offer->offered == NULL || table->exports == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		const struct config_export *wanted = &offer->config.exports[i];
		struct volume_options options = config_volume_options(wanted);
		struct offered *offered = &offer->offered[i];
		int error;

		options.progress = tell_progress;
		error = volume_set_acquire(set, number, wanted->name, &options, &offered->volume);
		if (error < 0) {
			log_error("%s: export \"%s\" cannot be served",
				  config_export_origin(wanted, "path"), wanted->name);
			return error;
		}
		hold_init(&offered->hold, bury_offered);
		offered->grave = (struct grave){ .offered = offered, .offer = offer };
		list_init(&offered->grave.node);
		offer->offered_count++;
		fill_export(wanted, offer->config.slow_ms, offered, &table->exports[i]);
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

	for (size_t i = 0; i < table->count; i++) {
		const struct config_export *wanted = &offer->config.exports[i];
		struct throttle_limits limits = throttle_limits_of(wanted);
		int error = throttle_set_acquire(set, wanted->name, &limits,
						 &offer->offered[i].throttle);

		if (error < 0)
			return error;
		table->exports[i].throttle = offer->offered[i].throttle->throttle;
	}
	make_read_only_views(offer);
	return 0;
}

void
offer_set_limits(struct offer *offer)
{
	for (size_t i = 0; i < offer->offered_count; i++) {
		struct throttle_limits limits = throttle_limits_of(&offer->config.exports[i]);

		throttle_change(offer->offered[i].throttle->throttle, &limits);
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
		refresh_export(offer->config.exports[i].name, offer->offered[i].volume->volume);
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

/* One that nobody has had. */
static void
destroy(struct offer *offer)
{
	for (size_t i = 0; i < offer->offered_count; i++)
		(void)release(&offer->offered[i]);
	free_if_empty(offer);
}

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
	offer->grave.offer = offer;
	list_init(&offer->grave.node);
	offer->settings.limits = limits_of(&offer->config);
	hold_init(&offer->settings.hold, bury_offer);
	error = load_tls(offer);
	if (error == 0)
		error = open_volumes(offer, number, set);
	if (error < 0)
		destroy(offer);
	else
		*result = offer;
	return error;
}
