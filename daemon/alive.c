/* A look each interval, under a lock that is held for a moment only. */
#include "daemon/alive.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#include "daemon/notify.h"
#include "reactor/kernel.h"
#include "reactor/log.h"

#define NS_PER_MS   UINT64_C(1000000)
#define NS_PER_S    UINT64_C(1000000000)
#define BUSY_WARN_S 30u /* busy for so long: said, once */

struct alive {
	struct heartbeat *heartbeat; /* NULL: forgotten */
	unsigned interval_ms, busy_s_max;
	/* The rest under lock. */
	const char *busy_with; /* NULL: the main thread waits */
	uint64_t busy_since_ns;
	bool said;
	bool stopping;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	pthread_t thread;
};

static unsigned
busy_s(const struct alive *alive)
{
	if (alive->busy_with == NULL)
		return 0;
	return (unsigned)((kernel_clock_ns() - alive->busy_since_ns) / NS_PER_S);
}

/* Also says so when the main thread takes long, and when it takes too long. */
static bool
main_lives(struct alive *alive)
{
	unsigned busy = busy_s(alive);

	if (busy >= BUSY_WARN_S && !alive->said) {
		alive->said = true;
		log_warning("%s has taken %u s so far: a disk, or what it is asked of a name "
			    "server, is slow; no signal is answered meanwhile",
			    alive->busy_with, busy);
	}
	return busy < alive->busy_s_max;
}

static bool
all_live(struct alive *alive)
{
	/* Both are always looked at: cores must be asked again each time. */
	bool cores_live = alive->heartbeat == NULL || heartbeat_beat(alive->heartbeat);

	return main_lives(alive) && cores_live;
}

/* Without the lock: a manager that does not read must not stop the main thread here. */
static void
tell(struct alive *alive)
{
	pthread_mutex_unlock(&alive->lock);
	notify_alive();
	pthread_mutex_lock(&alive->lock);
}

static void
wait_interval(struct alive *alive)
{
	uint64_t end_ns = kernel_clock_ns() + alive->interval_ms * NS_PER_MS;
	struct timespec end = { .tv_sec = (time_t)(end_ns / NS_PER_S),
				.tv_nsec = (long)(end_ns % NS_PER_S) };
	int error = 0;

	while (!alive->stopping && error != ETIMEDOUT)
		error = pthread_cond_timedwait(&alive->wake, &alive->lock, &end);
}

static void *
run(void *argument)
{
	struct alive *alive = argument;

	pthread_mutex_lock(&alive->lock);
	for (wait_interval(alive); !alive->stopping; wait_interval(alive)) {
		if (all_live(alive))
			tell(alive);
	}
	pthread_mutex_unlock(&alive->lock);
	return NULL;
}

int
alive_start(struct heartbeat *heartbeat, unsigned interval_ms, unsigned busy_s_max,
	    struct alive **result)
{
	struct alive *alive = calloc(1, sizeof(*alive));
	pthread_condattr_t clock;
	int error;

	if (alive == NULL)
		return -ENOMEM;
	*alive = (struct alive){
		.heartbeat = heartbeat,
		.interval_ms = interval_ms,
		.busy_s_max = busy_s_max,
	};
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_mutex_init(&alive->lock, NULL);
	pthread_cond_init(&alive->wake, &clock);
	pthread_condattr_destroy(&clock);
	error = -pthread_create(&alive->thread, NULL, run, alive);
	if (error < 0) {
		pthread_cond_destroy(&alive->wake);
		pthread_mutex_destroy(&alive->lock);
		free(alive);
		return error;
	}
	(void)pthread_setname_np(alive->thread, "alive");
	*result = alive;
	return 0;
}

void
alive_busy(struct alive *alive, const char *what)
{
	if (alive == NULL)
		return;
	pthread_mutex_lock(&alive->lock);
	alive->busy_with = what;
	alive->busy_since_ns = kernel_clock_ns();
	alive->said = false;
	pthread_mutex_unlock(&alive->lock);
}

void
alive_forget_cores(struct alive *alive)
{
	if (alive == NULL)
		return;
	pthread_mutex_lock(&alive->lock);
	alive->heartbeat = NULL;
	pthread_mutex_unlock(&alive->lock);
}

void
alive_stop(struct alive *alive)
{
	if (alive == NULL)
		return;
	pthread_mutex_lock(&alive->lock);
	alive->stopping = true;
	pthread_cond_signal(&alive->wake);
	pthread_mutex_unlock(&alive->lock);
	pthread_join(alive->thread, NULL);
	pthread_cond_destroy(&alive->wake);
	pthread_mutex_destroy(&alive->lock);
	free(alive);
}
