/* Who has time, who has none, and how many go from the one to the other. */
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
#define FREE_PERMILLE_MIN 500u /* of the CPU of one that is not at work */

/* Others have a CPU that is wanted, and not had, for so much of the time, at so many looks in a row. */
#define OTHERS_PERMILLE_MIN 450u
#define OTHERS_LOOKS	    3u

/* What has come back stays for so long. */
#define STAYS_NS ((uint64_t)8000 * 1000000)

/* What a core's time was spent on, in thousandths. */
struct portions {
	unsigned idle; /* it had nothing to do, and its CPU was free */
	unsigned ran;
	unsigned waited; /* for its CPU, which others had */
};

/* Of the time since the last look at HOME, ELAPSED_NS ago. */
static struct portions
take_portions(struct service_core *home, uint64_t elapsed_ns)
{
	struct balance *balance = &home->balance;
	struct core_times times = core_times(home->core);
	uint64_t rest_ns = reactor_counters(home->core->reactor)->rest_ns;
	uint64_t rested_ns = rest_ns - balance->rest_ns;
	uint64_t ran_ns = times.ran_ns - balance->ran_ns;
	uint64_t waited_ns = times.waited_ns - balance->waited_ns;
	uint64_t idle_ns = rested_ns > waited_ns ? rested_ns - waited_ns : 0;

	balance->rest_ns = rest_ns;
	balance->ran_ns = times.ran_ns;
	balance->waited_ns = times.waited_ns;
	return (struct portions){
		.idle = (unsigned)(idle_ns * 1000 / elapsed_ns),
		.ran = (unsigned)(ran_ns * 1000 / elapsed_ns),
		.waited = (unsigned)(waited_ns * 1000 / elapsed_ns),
	};
}

/* Whether CORE has looked lately. */
static bool
at_work(const struct service_core *core, uint64_t now_ns)
{
	/* Relaxed: what is a little old, or of two moments, moves a few connections too many. */
	return __atomic_load_n(&core->balance.known_ns, __ATOMIC_RELAXED) + OLD_NS >= now_ns;
}

/* What its CPU has left for CORE; 0: too little, or nobody knows, for one that is not at work. */
static unsigned
idle_permille_of(const struct service_core *core, uint64_t now_ns)
{
	unsigned idle;

	if (at_work(core, now_ns))
		return __atomic_load_n(&core->balance.idle_permille, __ATOMIC_RELAXED);
	if (!cpu_usage_idle(&core->service->cpu_usage, core->core->index, now_ns, &idle))
		return 0;
	return idle < FREE_PERMILLE_MIN ? 0 : idle;
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

/* Let others know that CORE is idle for IDLE thousandths of its time; 0: what it has is given away until it looks again. */
static void
publish(struct service_core *core, unsigned idle, uint64_t now_ns)
{
	__atomic_store_n(&core->balance.idle_permille, idle, __ATOMIC_RELAXED);
	__atomic_store_n(&core->balance.known_ns, now_ns, __ATOMIC_RELAXED);
}

/* Let those of HOME's connections that are not deep go to TARGET, which has the time. */
static void
make_room(struct service_core *home, struct service_core *target, uint64_t now_ns)
{
	struct list_node *node, *after;

	publish(target, 0, now_ns);
	list_for_each_safe(node, after, &home->connections) {
		struct connection *connection = container_of(node, struct connection, node);

		if (!connection->deep && !service_move_settled(connection) &&
		    service_move_to(connection, target))
			connection->made_room = home;
		connection->deep = false;
	}
}

/* HOME has no time left: one of the connections that came to make room elsewhere goes back, if there is time now. */
static void
give_back(struct service_core *home, uint64_t now_ns)
{
	struct list_node *node, *after;

	list_for_each_safe(node, after, &home->connections) {
		struct connection *connection = container_of(node, struct connection, node);
		struct service_core *from = connection->made_room;

		if (from == NULL || from == home ||
		    idle_permille_of(from, now_ns) < IDLE_PERMILLE_MIN ||
		    !service_move_to(connection, from))
			continue;
		connection->made_room = NULL;
		__atomic_store_n(&from->balance.stays_ns, now_ns + STAYS_NS, __ATOMIC_RELAXED);
		publish(from, 0, now_ns);
		return;
	}
}

/* HOME, with COUNT connections, has no time left: TARGET, which is idle for IDLE thousandths, gets a part of them. */
static void
give(struct service_core *home, struct service_core *target, unsigned count, unsigned idle,
     uint64_t now_ns)
{
	unsigned given = count * (idle - SPARE_PERMILLE) / 2000;
	struct list_node *node, *after;

	publish(target, 0, now_ns);
	__atomic_store_n(&target->balance.stays_ns, now_ns + STAYS_NS, __ATOMIC_RELAXED);
	list_for_each_safe(node, after, &home->connections) {
		struct connection *connection = container_of(node, struct connection, node);

		if (given == 0)
			break;
		if (!service_move_settled(connection))
			given -= service_move_to(connection, target);
	}
}

/* Others have had HOME's CPU for WAITED thousandths.  Returns at how many looks in a row that was too much. */
static unsigned
count_others(struct service_core *home, unsigned waited)
{
	unsigned *looks = &home->balance.others_looks;

	*looks = waited < OTHERS_PERMILLE_MIN ? 0 : *looks + 1;
	return *looks;
}

static void
look(struct service_core *home, uint64_t now_ns, uint64_t elapsed_ns)
{
	struct portions portions = take_portions(home, elapsed_ns);
	unsigned others_looks = count_others(home, portions.waited);
	unsigned count = service_connection_count(home), idle;
	struct service_core *target;

	publish(home, portions.idle, now_ns);
	if (portions.idle > BUSY_PERMILLE_MAX || elapsed_ns > OLD_NS)
		return;
	cpu_usage_look(&home->service->cpu_usage, now_ns);
	target = idlest_core(home->service, now_ns, &idle);
	/* Others may have it for a moment only: that is not known yet. */
	if (target == NULL || (others_looks > 0 && others_looks < OTHERS_LOOKS))
		return;
	if (others_looks > 0 && at_work(target, now_ns) && idle >= portions.ran &&
	    __atomic_load_n(&home->balance.stays_ns, __ATOMIC_RELAXED) < now_ns)
		make_room(home, target, now_ns);
	else if (count >= SERVICE_CROWD_MIN)
		give(home, target, count, idle, now_ns);
	else
		give_back(home, now_ns);
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
