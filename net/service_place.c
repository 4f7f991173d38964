/* Letting connections in: who may, how many, and on which core. */
#include "net/connection.h"
#include "net/peer_socket.h"
#include "net/service_parts.h"

#include <stdio.h>

/* Close FD without a word to the client, and say WHY in the log. */
static void
refuse(struct service_core *here, int fd, const struct address *peer, const char *why)
{
	char text[ADDRESS_TEXT_BYTES];
	struct log_fields fields = { .count = 0 };

	kernel_close(fd);
	address_format(peer, text, sizeof(text));
	log_fields_add(&fields, "client", text);
	service_log(here, &fields, why, "client %s: refused: %s", text, why);
}

/* The core with the fewest connections; of several, the one that FD's packets come to (on loopback, where its client runs): data and
 * wake-ups then need not cross CPUs. */
static struct service_core *
choose_core(struct service *service, int fd)
{
	struct service_core *least = NULL;
	unsigned least_count = 0;
	int cpu = peer_socket_cpu(fd);

	for (unsigned i = 0; i < service->core_count; i++) {
		struct service_core *home = &service->per_core[i];
		/* One that is a little old places a little worse. */
		unsigned count = service_connection_count(home);

		if (least == NULL || count < least_count ||
		    (count == least_count && (int)home->core->cpu == cpu)) {
			least = home;
			least_count = count;
		}
	}
	return least;
}

unsigned
service_connection_count(const struct service_core *core)
{
	return __atomic_load_n(&core->connection_count, __ATOMIC_RELAXED);
}

static bool
has_free_core(const struct service *service)
{
	for (unsigned i = 0; i < service->core_count; i++)
		if (service_connection_count(&service->per_core[i]) == 0)
			return true;
	return false;
}

bool
service_wants_help(const struct connection *connection)
{
	const struct service_core *home = connection->home;
	bool more =
		connection->request_count > 1 || connection->input_end > connection->input_start;

	return more && (service_connection_count(home) > 1 || has_free_core(home->service));
}

/* Count one more connection, of CLIENT.  Returns NULL, or why there may not be one. */
static const char *
reserve(struct service_core *here, const struct access_peer *client)
{
	const struct service_limits *limits = &here->settings->limits;
	struct service *service = here->service;

	if (!access_allowed(limits->access, client))
		return "denied to this address (allow and deny of [server])";
	/* Relaxed: only a count. */
	if (__atomic_fetch_add(&service->connection_count, 1, __ATOMIC_RELAXED) >=
	    limits->connections_max) {
		__atomic_sub_fetch(&service->connection_count, 1, __ATOMIC_RELAXED);
		return "there are as many connections as may be (max-connections)";
	}
	if (client_table_enter(&service->clients, client, limits->connections_per_client_max))
		return NULL;
	__atomic_sub_fetch(&service->connection_count, 1, __ATOMIC_RELAXED);
	return "it has as many connections as a client may (max-connections-per-client)";
}

void
service_release_place(struct service_core *home, const struct access_peer *client)
{
	struct service *service = home->service;

	client_table_leave(&service->clients, client);
	__atomic_sub_fetch(&service->connection_count, 1, __ATOMIC_RELAXED);
	__atomic_sub_fetch(&home->connection_count, 1, __ATOMIC_RELAXED);
}

void
service_place(struct service_core *here, int fd, const struct address *peer)
{
	struct access_peer client = access_peer_of(peer);
	const char *why = reserve(here, &client);
	struct service_core *home;

	if (why != NULL) {
		refuse(here, fd, peer, why);
		return;
	}
	home = choose_core(here->service, fd);
	__atomic_add_fetch(&home->connection_count, 1, __ATOMIC_RELAXED);
	if (connection_create(home, here->settings, fd, peer) == 0)
		return;
	service_release_place(home, &client);
	service_log(here, NULL, "out of memory", "a connection was refused: out of memory");
}
