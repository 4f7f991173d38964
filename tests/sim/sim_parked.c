/* Descriptors that are parked, without streams: who is parked for once is told once, who is watched each time that something has come,
 * and who was muted or removed not at all, though it was taken from the kernel with the others. */
#include "tests/sim/sim_run.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>

#include "reactor/parking.h"

#define PARKED_COUNT 6
#define NEWS_NS_MAX  40000

enum expected {
	EXPECTED_OUT,
	EXPECTED_AWAKE, /* in the set, and silent */
	EXPECTED_ONCE,
	EXPECTED_EACH_TIME,
};

struct sim_parked {
	struct parked parked;
	int fd;
	enum expected expected;
	uint64_t news_ns; /* something that is to be told came then; 0: nothing */
};

static struct {
	struct parking parking;
	bool started, stopped;
	struct sim_parked parked[PARKED_COUNT];
	uint64_t told;
} all;

static bool
is_ready(const struct sim_parked *sim_parked)
{
	return (kernel_sim_ready(sim_parked->fd) & POLLIN) != 0;
}

static void
set_ready(struct sim_parked *sim_parked, bool ready)
{
	kernel_sim_set_ready(sim_parked->fd, ready ? POLLIN : 0);
	if (!ready)
		sim_parked->news_ns = 0;
	else if (sim_parked->news_ns == 0 && sim_parked->expected >= EXPECTED_ONCE)
		sim_parked->news_ns = kernel_sim_now_ns();
}

/* ---- what the core does ---- */

static void
add(struct sim_parked *sim_parked, bool once)
{
	bool was_out = sim_parked->expected == EXPECTED_OUT;
	int error;

	run.calling = true;
	error = once ? parking_add(&all.parking, &sim_parked->parked, sim_parked->fd)
		     : parking_watch(&all.parking, &sim_parked->parked, sim_parked->fd);
	run.calling = false;
	switch (sim_parked->expected) {
	case EXPECTED_ONCE:
		SIM_CHECK(error == -EINVAL);
		return;
	case EXPECTED_EACH_TIME:
		SIM_CHECK(error == (once ? -EINVAL : 0));
		return;
	default:
		if (error == 0)
			break;
		/* Only the first time needs something of the kernel. */
		SIM_CHECK(was_out && (error == -ENOMEM || error == -ENOSPC));
		return;
	}
	sim_parked->expected = once ? EXPECTED_ONCE : EXPECTED_EACH_TIME;
	sim_parked->news_ns = is_ready(sim_parked) ? kernel_sim_now_ns() : 0;
}

static void
silence(struct sim_parked *sim_parked, bool removed)
{
	if (removed)
		parking_remove(&sim_parked->parked);
	else if (sim_parked->expected == EXPECTED_EACH_TIME)
		parking_mute(&sim_parked->parked);
	else
		return;
	sim_parked->expected = removed ? EXPECTED_OUT : EXPECTED_AWAKE;
	sim_parked->news_ns = 0;
	SIM_CHECK(!parked_is_parked(&sim_parked->parked));
}

void
parked_act(void)
{
	struct sim_parked *sim_parked = &all.parked[kernel_sim_below(PARKED_COUNT)];
	uint64_t choice = kernel_sim_below(8);

	if (run.over || all.stopped)
		return;
	if (choice < 5)
		add(sim_parked, choice < 3);
	else
		silence(sim_parked, choice > 6);
}

static void
on_ready(struct parked *parked)
{
	struct sim_parked *sim_parked = container_of(parked, struct sim_parked, parked);

	turns_enter(PLACE_STREAM);
	SIM_CHECK(sim_parked->expected == EXPECTED_ONCE ||
		  sim_parked->expected == EXPECTED_EACH_TIME);
	SIM_CHECK((parked->events & POLLIN) != 0);
	if (sim_parked->expected == EXPECTED_ONCE)
		sim_parked->expected = EXPECTED_AWAKE;
	SIM_CHECK(parked_is_parked(parked) == (sim_parked->expected == EXPECTED_EACH_TIME));
	sim_parked->news_ns = 0;
	all.told++;
	if (kernel_sim_below(2) == 0)
		set_ready(sim_parked, false);
	/* Another one's turn in the batch may be near. */
	if (kernel_sim_below(2) == 0)
		parked_act();
	turns_leave();
}

/* ---- the world ---- */

/* A step: something comes, to one or to many. */
static void
news(void *context)
{
	bool many = kernel_sim_below(2) == 0;

	if (all.stopped)
		return;
	for (unsigned i = 0; i < PARKED_COUNT && !run.over; i++) {
		if (kernel_sim_below(many ? 2 : PARKED_COUNT) == 0)
			set_ready(&all.parked[i], kernel_sim_below(4) != 0);
	}
	kernel_sim_at(kernel_sim_below(NEWS_NS_MAX), news, context);
}

void
parked_check(void)
{
	uint64_t now_ns = kernel_sim_now_ns();

	for (unsigned i = 0; i < PARKED_COUNT; i++) {
		const struct sim_parked *sim_parked = &all.parked[i];

		if (sim_parked->news_ns > 0 && now_ns - sim_parked->news_ns > run.polls.age_ns_max)
			kernel_sim_fail("parked %u was not told for %" PRIu64 " ns", i,
					now_ns - sim_parked->news_ns);
	}
}

void
parked_start(void)
{
	if (parking_start(&all.parking, run.reactor, POLLIN) < 0)
		kernel_sim_fail("no parking");
	all.started = true;
	for (unsigned i = 0; i < PARKED_COUNT; i++) {
		all.parked[i].fd = kernel_sim_pollable(false);
		SIM_CHECK(all.parked[i].fd >= 0);
		parked_init(&all.parked[i].parked, on_ready);
	}
	kernel_sim_at(0, news, NULL);
}

static void
on_stopped(struct parking *parking)
{
	SIM_CHECK(parking == &all.parking && !all.stopped);
	all.stopped = true;
}

bool
parked_finish(void)
{
	if (!all.started || all.stopped)
		return true;
	for (unsigned i = 0; i < PARKED_COUNT; i++) {
		if (all.parked[i].news_ns > 0)
			return false;
	}
	if (all.parking.on_stopped != NULL)
		return false;
	for (unsigned i = 0; i < PARKED_COUNT; i++)
		silence(&all.parked[i], true);
	parking_stop(&all.parking, on_stopped);
	return false;
}

uint64_t
parked_told(void)
{
	return all.told;
}
