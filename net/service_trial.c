/* Sizes tell who is tried elsewhere, rates whether it was right. */
#include "net/service_trial.h"

#include "net/connection.h"
#include "net/peer_socket.h"
#include "net/service_parts.h"

/* Requests between two looks at their sizes, whose mean counts; between large and small nothing changes. */
#define LOOK_REQUESTS	256
#define LARGE_BYTES_MIN 65536u
#define SMALL_BYTES_MAX 32768u

/* A trial can still go wrong.  The next is after so long, then after so many times that. */
#define WAIT_NS	    ((uint64_t)250000000)
#define WAIT_FACTOR 4

/* A core that has seen no connection make so many requests for so long has nothing to do. */
#define BUSY_NS ((uint64_t)100 * 1000000)

#define MS_NS ((uint64_t)1000000)

/* What came between two looks. */
struct window {
	uint64_t end_ns;
	uint64_t mean_bytes; /* of a request */
	uint64_t rate;	     /* bytes per ms */
	bool first;	     /* it has no beginning, and so no rate */
	bool settling;	     /* the connection has come to its core meanwhile */
};

/* The core with the fewest connections of those that have nothing to do, and are not on CPU; NULL if there is none. */
static struct service_core *
idle_core(struct service *service, int cpu, uint64_t now_ns)
{
	struct service_core *best = NULL;
	unsigned best_count = 0;

	for (unsigned i = 0; i < service->core_count; i++) {
		struct service_core *core = &service->per_core[i];
		unsigned count = service_connection_count(core);

		if ((int)core->core->cpu == cpu ||
		    __atomic_load_n(&core->busy_ns, __ATOMIC_RELAXED) + BUSY_NS > now_ns)
			continue;
		if (best == NULL || count < best_count) {
			best = core;
			best_count = count;
		}
	}
	return best;
}

/* Where CONNECTION, which has seen WINDOW, should be tried; NULL: nowhere. */
static struct service_core *
better_core(struct connection *connection, const struct window *window)
{
	struct service_core *home = connection->home;
	int cpu;

	if (window->mean_bytes < LARGE_BYTES_MIN || window->end_ns < connection->trial.again_ns ||
	    service_move_settled(connection))
		return NULL;
	cpu = peer_socket_cpu(connection->fd);
	return cpu == (int)home->core->cpu ? idle_core(home->service, cpu, window->end_ns) : NULL;
}

/* Take what was counted since the last look. */
static struct window
take_window(struct connection *connection)
{
	const struct traffic *traffic = &connection->traffic;
	struct trial *trial = &connection->trial;
	uint64_t bytes = traffic->read_bytes + traffic->written_bytes;
	uint64_t requests = traffic->reads + traffic->writes;
	uint64_t count = requests - trial->requests;
	struct window window = {
		.end_ns = kernel_clock_ns(),
		.mean_bytes = (bytes - trial->bytes) / count,
		.first = trial->looked_ns == 0,
		.settling = trial->looked_on != connection->home,
	};

	window.rate = (bytes - trial->bytes) * MS_NS / (window.end_ns - trial->looked_ns + 1);
	trial->requests = requests;
	trial->bytes = bytes;
	trial->looked_ns = window.end_ns;
	trial->looked_on = connection->home;
	return window;
}

/* Forget what was measured. */
static void
measure_anew(struct trial *trial)
{
	trial->windows = 0;
	trial->higher = 0;
	trial->lower = 0;
}

/* Add RATE to those of where TRIAL's connection is, in order. */
static void
add_rate(struct trial *trial, uint64_t rate)
{
	unsigned place = trial->windows++;

	for (; place > 0 && trial->rates[place - 1] > rate; place--)
		trial->rates[place] = trial->rates[place - 1];
	trial->rates[place] = rate;
}

/* TRIAL's connection has seen WINDOW where it is tried.  Returns whether it is known now that it moves less there than before. */
static bool
is_worse(struct trial *trial, const struct window *window)
{
	if (window->settling || trial->higher > TRIAL_WINDOWS / 2)
		return false;
	if (window->rate >= trial->rates[TRIAL_WINDOWS / 2])
		trial->higher++;
	else
		trial->lower++;
	return trial->lower > TRIAL_WINDOWS / 2;
}

/* CONNECTION is on trial, and has seen WINDOW: it may have to go back. */
static void
judge(struct connection *connection, const struct window *window)
{
	struct trial *trial = &connection->trial;
	bool small = window->mean_bytes <= SMALL_BYTES_MAX;
	bool worse = !small && is_worse(trial, window);

	if (worse) {
		trial->wait_ns = trial->wait_ns == 0 ? WAIT_NS : trial->wait_ns * WAIT_FACTOR;
		trial->again_ns = window->end_ns + trial->wait_ns;
	}
	if (worse || small)
		(void)service_move_to(connection, trial->placed);
}

/* CONNECTION, not on trial, has seen WINDOW: it may be tried elsewhere. */
static void
try_elsewhere(struct connection *connection, const struct window *window)
{
	struct trial *trial = &connection->trial;
	struct service_core *target = better_core(connection, window);

	if (target == NULL || window->settling) {
		measure_anew(trial);
		return;
	}
	if (trial->windows < TRIAL_WINDOWS)
		add_rate(trial, window->rate);
	if (trial->windows < TRIAL_WINDOWS || !service_move_to(connection, target))
		return;
	/* So that no other one chooses it, too. */
	__atomic_store_n(&target->busy_ns, window->end_ns, __ATOMIC_RELAXED);
	trial->placed = connection->home;
}

void
service_trial_look(struct connection *connection)
{
	const struct traffic *traffic = &connection->traffic;
	struct trial *trial = &connection->trial;
	struct window window;

	if (traffic->reads + traffic->writes - trial->requests < LOOK_REQUESTS)
		return;
	window = take_window(connection);
	/* Relaxed: how long ago is all that it tells. */
	__atomic_store_n(&connection->home->busy_ns, window.end_ns, __ATOMIC_RELAXED);
	if (window.first || connection->move.target != NULL)
		return;
	/* It has come back, or could not leave. */
	if (trial->placed == connection->home) {
		trial->placed = NULL;
		measure_anew(trial);
	}
	if (trial->placed != NULL)
		judge(connection, &window);
	else if (window.mean_bytes <= SMALL_BYTES_MAX)
		service_gather_look(connection, window.end_ns);
	else
		try_elsewhere(connection, &window);
}
