/* Who has time, and how many go there. */
#include "net/service_balance.h"

#include "net/connection.h"
#include "net/service_parts.h"

/* Between two looks. */
#define LOOK_RECEIVES 128
#define LOOK_NS	      ((uint64_t)20 * 1000000)

/* What a core saw longer ago says nothing: it has nothing to do since. */
#define OLD_NS ((uint64_t)100 * 1000000)

#define BUSY_PERMILLE_MAX 50u  /* a core that is idle for less has no time left */
#define IDLE_PERMILLE_MIN 250u /* of one that can take more */
#define SPARE_PERMILLE	  100u /* of which so much is left */

/* The part of the time since the last look in which HOME had nothing to do, and its CPU was free. */
static unsigned
idle_permille(struct service_core *home, uint64_t elapsed_ns)
{
	struct balance *balance = &home->balance;
	uint64_t rest_ns = reactor_counters(home->core->reactor)->rest_ns;
	uint64_t waited_ns = core_waited_ns(home->core);
	uint64_t rested_ns = rest_ns - balance->rest_ns;
	uint64_t lost_ns = waited_ns - balance->waited_ns;

	balance->rest_ns = rest_ns;
	balance->waited_ns = waited_ns;
	return rested_ns <= lost_ns ? 0 : (unsigned)((rested_ns - lost_ns) * 1000 / elapsed_ns);
}

static unsigned
idle_permille_of(const struct service_core *core, uint64_t now_ns)
{
	/* Relaxed: what is a little old, or of two moments, moves a few connections too many. */
	uint64_t known_ns = __atomic_load_n(&core->balance.known_ns, __ATOMIC_RELAXED);

	if (known_ns + OLD_NS < now_ns)
		return 1000;
	return __atomic_load_n(&core->balance.idle_permille, __ATOMIC_RELAXED);
}

/* The core that is idle most; NULL if none is. */
static struct service_core *
idlest_core(struct service *service, uint64_t now_ns, unsigned *permille)
{
	struct service_core *best = NULL;

	*permille = IDLE_PERMILLE_MIN - 1;
	for (unsigned i = 0; i < service->core_count; i++) {
		unsigned idle = idle_permille_of(&service->per_core[i], now_ns);

		if (idle > *permille) {
			*permille = idle;
			best = &service->per_core[i];
		}
	}
	return best;
}

/* Let COUNT connections of HOME go to TARGET. */
static void
give(struct service_core *home, struct service_core *target, unsigned count)
{
	struct list_node *node, *after;

	list_for_each_safe(node, after, &home->connections) {
		struct connection *connection = container_of(node, struct connection, node);

		if (count == 0)
			break;
		if (!service_move_settled(connection))
			count -= service_move_to(connection, target);
	}
}

/* Let others know that CORE is idle for IDLE thousandths of its time. */
static void
publish(struct service_core *core, unsigned idle, uint64_t now_ns)
{
	__atomic_store_n(&core->balance.idle_permille, idle, __ATOMIC_RELAXED);
	__atomic_store_n(&core->balance.known_ns, now_ns, __ATOMIC_RELAXED);
}

static void
look(struct service_core *home, uint64_t now_ns, uint64_t elapsed_ns)
{
	unsigned count = service_connection_count(home);
	unsigned idle = idle_permille(home, elapsed_ns), target_idle;
	struct service_core *target;

	publish(home, idle, now_ns);
	if (idle > BUSY_PERMILLE_MAX || elapsed_ns > OLD_NS || count < SERVICE_CROWD_MIN)
		return;
	target = idlest_core(home->service, now_ns, &target_idle);
	if (target == NULL)
		return;
	/* What it has is given away until it looks again. */
	publish(target, 0, now_ns);
	give(home, target, count * (target_idle - SPARE_PERMILLE) / 2000);
}

void
service_balance_look(struct service_core *home)
{
	struct balance *balance = &home->balance;
	uint64_t now_ns, elapsed_ns;

	if (++balance->receives < LOOK_RECEIVES)
		return;
	balance->receives = 0;
	now_ns = kernel_clock_ns();
	elapsed_ns = now_ns - balance->looked_ns;
	if (elapsed_ns < LOOK_NS)
		return;
	balance->looked_ns = now_ns;
	look(home, now_ns, elapsed_ns);
}
