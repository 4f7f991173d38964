/* Opening, keeping and closing listeners. */
#include "daemon/listeners.h"

#include <errno.h>
#include <unistd.h>

#include "reactor/log.h"

static void
log_listener(const struct address *address, const char *what, const char *how)
{
	char text[ADDRESS_TEXT_BYTES];

	address_format(address, text, sizeof(text));
	log_info("%s %s%s", what, text, how);
}

/* One for WANTED that is not kept yet: several may be wanted with a port of the kernel's choice. */
static struct listeners_entry *
find(struct listeners *listeners, const struct address *wanted)
{
	for (unsigned i = 0; i < listeners->count; i++) {
		struct listeners_entry *entry = &listeners->entries[i];

		if (!entry->kept && address_equal(&entry->wanted, wanted))
			return entry;
	}
	return NULL;
}

static void
add(struct listeners *listeners, const struct address *wanted, const struct address *bound)
{
	listeners->entries[listeners->count++] =
		(struct listeners_entry){ .wanted = *wanted, .bound = *bound };
}

/* ENTRY, of those from before, stays. */
static void
keep(struct listeners *listeners, struct listeners_entry *entry)
{
	entry->kept = true;
	listeners->entries[listeners->count++] = *entry;
}

/* Returns 0, or the first one's negative errno; then the others are closed. */
static int
adopt_all(struct listeners *listeners, const struct server_sockets *sockets)
{
	int error = 0;

	for (unsigned i = 0; i < sockets->count; i++) {
		int fd = sockets->first + (int)i;
		struct address bound;

		if (error == 0 && i == CONFIG_LISTEN_MAX) {
			log_error("%u sockets from the service manager, at most %d are listened on",
				  sockets->count, CONFIG_LISTEN_MAX);
			error = -E2BIG;
		}
		if (error == 0)
			error = service_adopt(listeners->service, fd, &bound);
		if (error < 0) {
			(void)close(fd);
			continue;
		}
		add(listeners, &bound, &bound);
		log_listener(&bound, "listening on", " (the service manager's socket)");
	}
	listeners->adopted_count = listeners->count;
	return error;
}

/* The default listener is for those who have no other. */
static size_t
wanted_count(const struct listeners *listeners, const struct config *config)
{
	return listeners->adopted_count > 0 && config->listen_default ? 0 : config->listen_count;
}

int
listeners_start(struct listeners *listeners, struct service *service, const struct config *config,
		const struct server_sockets *sockets)
{
	struct listeners_change change;
	int error;

	*listeners = (struct listeners){ .service = service };
	error = adopt_all(listeners, sockets);
	return error < 0 ? error : listeners_prepare(listeners, config, &change);
}

int
listeners_prepare(struct listeners *listeners, const struct config *config,
		  struct listeners_change *change)
{
	struct listeners *before = &change->before;
	struct address bound;
	int error = 0;

	for (unsigned i = 0; i < listeners->count; i++)
		listeners->entries[i].kept = false;
	change->before = *listeners;
	listeners->count = listeners->adopted_count;
	for (size_t i = 0; error == 0 && i < wanted_count(listeners, config); i++) {
		const struct address *wanted = &config->listen[i];
		struct listeners_entry *there = find(before, wanted);

		if (there != NULL) {
			/* An adopted one is here already. */
			if (there >= &before->entries[before->adopted_count])
				keep(listeners, there);
			continue;
		}
		error = service_listen(listeners->service, wanted, &bound);
		if (error == 0) {
			add(listeners, wanted, &bound);
			log_listener(&bound, "listening on", "");
		} else if (config->listen_origins[i] != NULL) {
			log_error("%s: cannot be listened on", config->listen_origins[i]);
		}
	}
	if (error < 0)
		listeners_revert(listeners, change);
	return error;
}

/* Close those of SOME that are not kept; WHAT is said of them. */
static void
close_others(const struct listeners *some, const char *what)
{
	for (unsigned i = some->adopted_count; i < some->count; i++) {
		const struct listeners_entry *entry = &some->entries[i];

		if (entry->kept)
			continue;
		(void)service_unlisten(some->service, &entry->bound);
		log_listener(&entry->bound, what, "");
	}
}

void
listeners_commit(struct listeners *listeners, const struct listeners_change *change)
{
	close_others(&change->before, "no longer listening on");
	service_start(listeners->service);
}

void
listeners_revert(struct listeners *listeners, const struct listeners_change *change)
{
	close_others(listeners, "not listening on");
	*listeners = change->before;
}
