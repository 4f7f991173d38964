/* What clients are offered: a configuration brought to life, as far as they see it; its exports with their volumes, and limits.
 * Each time the configuration is read there is a new one.  It lives as long as the service or a connection has its settings; then it
 * comes to the graveyard of its server, which destroys it on the main thread, because closing volumes takes time. */
#ifndef DAEMON_OFFER_H
#define DAEMON_OFFER_H

#include "daemon/config.h"
#include "daemon/throttle_set.h"
#include "daemon/volume_set.h"
#include "net/service_settings.h"
#include <pthread.h>

/* Offers that nobody uses any more. */
struct graveyard {
	/* Private. */
	pthread_mutex_t lock; /* of offers, for a few instructions */
	struct list_node offers;
	pthread_t owner; /* gets GRAVEYARD_SIGNAL for each that comes */
};

/* To be blocked, and waited for, by the thread that makes the graveyard. */
#define GRAVEYARD_SIGNAL SIGRTMIN

struct offer {
	struct service_settings settings;
	struct config config;
	/* Private. */
	size_t volume_count;
	struct volume_entry **volumes; /* [config.export_count]; the first volume_count are there */
	size_t throttle_count;
	struct throttle_entry **throttles; /* as volumes */
	struct graveyard *graveyard;
	struct list_node node;
};

/* The calling thread is its owner. */
void graveyard_init(struct graveyard *graveyard);
void graveyard_fini(struct graveyard *graveyard);

/* An offer of GRAVEYARD's, to be destroyed; or NULL.  Its owner only. */
struct offer *graveyard_take(struct graveyard *graveyard);

/* Make an offer of CONFIG, finished, with its credentials for TLS and with volumes of SET; the first reference to its settings is the caller's.  Takes over what is in
 * CONFIG, also if it fails.  NUMBER: of this configuration, as volume_set_acquire takes it.
 * Returns 0, or a negative errno, logged with the export or the file; then nothing has been changed. */
int offer_create(struct config *config, unsigned number, struct volume_set *set,
		 struct graveyard *graveyard, struct offer **offer) MUST_USE;

/* The cores run: give the exports throttles of SET, which must outlive the offer.  Before the settings are used.
 * Returns 0 or -ENOMEM. */
int offer_start(struct offer *offer, struct throttle_set *set) MUST_USE;

/* OFFER is what is offered now: its limits hold for all connections to exports of these names, also those that came before.  No core may
 * have a message about its throttles any more, and all will have some then. */
void offer_set_limits(struct offer *offer);

/* Look whether the files and devices of the exports have become larger, and if so let them grow; what has changed is logged, and what
 * could not be done.  After offer_start, on the main thread. */
void offer_refresh(struct offer *offer);

/* One from the graveyard: release its volumes and free it.  No core may have a message about its volumes any more.
 * Returns 0, or the negative errno of the last flush of a volume that was closed (logged). */
int offer_destroy(struct offer *offer);

#endif
