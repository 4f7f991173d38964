/* What clients are offered: a configuration brought to life, as far as they see it; its exports with their volumes, and limits.
 * Each time the configuration is read there is a new one.  When nobody holds its settings any more it comes to the graveyard of its
 * server, and so does each of its exports whose last client has left by then or leaves later: the main thread closes their volumes, which
 * takes time, and frees it behind the last. */
#ifndef DAEMON_OFFER_H
#define DAEMON_OFFER_H

#include "daemon/config.h"
#include "daemon/throttle_set.h"
#include "daemon/volume_set.h"
#include "net/service_settings.h"
#include <pthread.h>

/* What nobody holds any more. */
struct graveyard {
	/* Private. */
	pthread_mutex_t lock; /* of graves, for a few instructions */
	struct list_node graves;
	pthread_t owner;
	int signal; /* that the owner gets when the first comes */
};

/* A place there, for an offer or for one of its exports. */
struct grave {
	struct list_node node;
	struct offered *offered; /* NULL: OFFER itself */
	struct offer *offer;
};

/* What one of the exports is made of. */
struct offered {
	struct hold hold; /* by the offer, while that is not buried, and by connections */
	struct volume_entry *volume;
	struct throttle_entry *throttle;
	struct grave grave;
};

struct offer {
	struct service_settings settings;
	struct config config;
	/* Private. */
	struct offered *offered; /* [config.export_count] */
	size_t offered_count;	 /* of those, first, that were opened */
	size_t released_count;	 /* of these, that were closed again */
	struct graveyard *graveyard;
	struct grave grave;
};

/* The calling thread is its owner.  signal: when it comes there is something to take; blocked, and waited for, by the owner. */
void graveyard_init(struct graveyard *graveyard, int signal);
void graveyard_fini(struct graveyard *graveyard);

/* Move what is in GRAVEYARD to GRAVES.  Returns whether there was anything.  Its owner only. */
bool graveyard_take(struct graveyard *graveyard, struct list_node *graves);

/* Close the volumes of what was taken, and free it.  No core may have a message about these volumes any more.  There may be more in the
 * graveyard then.
 * Returns 0, or the negative errno of the last flush of a volume that was closed (logged). */
int graveyard_clear(struct list_node *graves);

/* Make an offer of CONFIG, finished, with its credentials for TLS and with volumes of SET; its
 * settings are held by the caller.  Takes over what is in CONFIG, also if it fails.  NUMBER: of
 * this configuration, as volume_set_acquire takes it.
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

#endif
