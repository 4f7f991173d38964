/* Whether what a connection takes of one CPU fits on another. */
#include "net/service_gather.h"

#include "net/connection.h"
#include "net/peer_socket.h"
#include "net/service_parts.h"

#define MS_NS ((uint64_t)1000000)

/* Between two looks. */
#define LOOK_NS (100 * MS_NS)

/* A client may change its CPU as it likes: it is followed less and less. */
#define WAIT_NS	    (1000 * MS_NS)
#define WAIT_NS_MAX (64 * WAIT_NS)

/* What has come stays for so long. */
#define STAYS_NS (1000 * MS_NS)

/* Of a CPU's time: idle when what comes is there; and, if it is idle for less, it has no time left. */
#define SPARE_PERMILLE 50
#define FULL_PERMILLE  20

/* Where its packets come, what a connection does takes so much less time. */
#define GAIN 3

/* The core on CPU, which is not HOME; NULL if there is none. */
static struct service_core *
other_core_on(const struct service_core *home, int cpu)
{
	struct service *service = home->service;

	if (cpu == (int)home->core->cpu)
		return NULL;
	for (unsigned i = 0; i < service->core_count; i++)
		if ((int)service->per_core[i].core->cpu == cpu)
			return &service->per_core[i];
	return NULL;
}

static bool
go(struct connection *connection, struct service_core *target, uint64_t now_ns)
{
	struct gather *gather = &connection->gather;

	if (!service_move_to(connection, target))
		return false;
	gather->wait_ns = gather->wait_ns == 0 ? WAIT_NS : gather->wait_ns * 2;
	if (gather->wait_ns > WAIT_NS_MAX)
		gather->wait_ns = WAIT_NS_MAX;
	gather->moved_ns = now_ns;
	return true;
}

/* *SHARE is what each of HOME's connections takes of its CPU, *LEFT what that has left.  Returns false if nobody knows. */
static bool
share_of(const struct service_core *home, uint64_t now_ns, int *share, int *left)
{
	if (!cpu_usage_left(&home->service->cpu_usage, home->core->index, now_ns, left))
		return false;
	*share = (CPU_USAGE_WHOLE - *left) / (int)service_connection_count(home);
	return true;
}

/* CONNECTION may go where its packets come. */
static void
follow(struct connection *connection, uint64_t now_ns)
{
	struct service_core *home = connection->home;
	struct cpu_usage *usage = &home->service->cpu_usage;
	struct service_core *target;
	int share, left, target_left;

	if (connection->request_count < SERVICE_DEEP_MIN || service_move_settled(connection))
		return;
	target = other_core_on(home, peer_socket_cpu(connection->fd));
	if (target == NULL ||
	    service_connection_count(target) + service_connection_count(home) >= SERVICE_CROWD_MIN)
		return;
	if (!share_of(home, now_ns, &share, &left) ||
	    !cpu_usage_left(usage, target->core->index, now_ns, &target_left) ||
	    target_left < share / GAIN + SPARE_PERMILLE || !go(connection, target, now_ns))
		return;
	connection->gather.placed = home;
	cpu_usage_claim(usage, home->core->index, -share);
	cpu_usage_claim(usage, target->core->index, share / GAIN);
}

/* CONNECTION was moved here: it goes back if there is no time for it. */
static void
go_back(struct connection *connection, uint64_t now_ns)
{
	struct service_core *home = connection->home;
	struct service_core *placed = connection->gather.placed;
	int share, left;

	/* It takes two or three readings until what it changes is known. */
	if (now_ns < connection->gather.moved_ns + STAYS_NS)
		return;
	if (!share_of(home, now_ns, &share, &left) || left >= FULL_PERMILLE ||
	    !go(connection, placed, now_ns))
		return;
	connection->gather.placed = NULL;
	cpu_usage_claim(&home->service->cpu_usage, home->core->index, -share);
	cpu_usage_claim(&home->service->cpu_usage, placed->core->index, share * GAIN);
}

void
service_gather_look(struct connection *connection, uint64_t now_ns)
{
	struct gather *gather = &connection->gather;

	if (now_ns < gather->look_ns || connection->home->service->core_count == 1)
		return;
	gather->look_ns = now_ns + LOOK_NS;
	cpu_usage_look(&connection->home->service->cpu_usage, now_ns);
	/* It did not come away, or has been moved since for other reasons. */
	if (gather->placed == connection->home)
		gather->placed = NULL;
	if (gather->placed != NULL)
		go_back(connection, now_ns);
	else if (now_ns >= gather->moved_ns + gather->wait_ns)
		follow(connection, now_ns);
}
