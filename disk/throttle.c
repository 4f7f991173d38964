/* The clocks, and on each core a list of those whose turn is to come, in its order, with one timer for the first.
 * Source: the generic cell rate algorithm of ITU-T I.371, with the turns of the future given out as well. */
#include "disk/throttle.h"

#include <errno.h>
#include <stdlib.h>

#define SECOND_NS ((uint64_t)1000000000)
#define MS_NS	  ((uint64_t)1000000)

/* What a request can cost at most, so that clocks do not overflow: an hour. */
#define COST_NS_MAX (3600 * SECOND_NS)

struct throttle_core {
	struct throttle *throttle;
	struct reactor *reactor;
	struct list_node waiting; /* struct throttle_wait, by start_ns */
	struct timer timer;	  /* runs while there are any */
	struct message message;	  /* from throttle_change */
} __attribute__((aligned(64)));

struct throttle {
	/* Atomic, relaxed: a turn that is given out while they change may be by the old or the new. */
	uint64_t requests_per_s;
	uint64_t bytes_per_s;
	uint64_t burst_ns;
	struct throttle_core *cores; /* [core_count] */
	unsigned core_count;
	/* Atomic: when all turns that were given out will have been used, at the limit's rate. */
	uint64_t requests_clock_ns __attribute__((aligned(64)));
	uint64_t bytes_clock_ns;
};

static void turns_due(struct timer *timer);
static void take_turns_again(struct message *message);

int
throttle_create(const struct throttle_limits *limits, struct cores *cores, struct throttle **result)
{
	struct throttle *throttle;
	void *memory, *per_core;

	CHECK(limits->burst_ms > 0);
	if (posix_memalign(&memory, _Alignof(struct throttle), sizeof(*throttle)) != 0)
		return -ENOMEM;
	if (posix_memalign(&per_core, _Alignof(struct throttle_core),
			   cores->count * sizeof(struct throttle_core)) != 0) {
		free(memory);
		return -ENOMEM;
	}
	throttle = memory;
	*throttle = (struct throttle){
		.core_count = cores->count,
		.requests_per_s = limits->requests_per_s,
		.bytes_per_s = limits->bytes_per_s,
		.burst_ns = limits->burst_ms * MS_NS,
		.cores = per_core,
	};
	for (unsigned i = 0; i < cores->count; i++) {
		struct throttle_core *home = &throttle->cores[i];

		*home = (struct throttle_core){ .throttle = throttle,
						.reactor = cores->cores[i].reactor,
						.message.deliver = take_turns_again };
		list_init(&home->waiting);
		timer_init(&home->timer, turns_due);
	}
	*result = throttle;
	return 0;
}

void
throttle_destroy(struct throttle *throttle)
{
	free(throttle->cores);
	free(throttle);
}

void
throttle_wait_init(struct throttle_wait *wait, void (*granted)(struct throttle_wait *wait))
{
	wait->granted = granted;
	list_init(&wait->node);
}

static uint64_t
get(const uint64_t *shared)
{
	return __atomic_load_n(shared, __ATOMIC_RELAXED);
}

static bool
is_unlimited(const struct throttle *throttle)
{
	return get(&throttle->requests_per_s) == 0 && get(&throttle->bytes_per_s) == 0;
}

/* What COUNT costs at PER_SECOND: something, unless one of them is 0. */
static uint64_t
cost_of(uint64_t count, uint64_t per_second)
{
	__uint128_t cost_ns;

	if (count == 0 || per_second == 0)
		return 0;
	cost_ns = (__uint128_t)count * SECOND_NS / per_second + 1;
	return cost_ns < COST_NS_MAX ? (uint64_t)cost_ns : COST_NS_MAX;
}

/* Move CLOCK on by COST_NS; 0: nothing.  Returns when the turn begins. */
static uint64_t
reserve(uint64_t *clock, uint64_t cost_ns, uint64_t burst_ns, uint64_t now_ns)
{
	uint64_t before = get(clock), base;

	if (cost_ns == 0)
		return now_ns;
	/* Relaxed: only the clock itself matters. */
	do
		base = before > now_ns ? before : now_ns;
	while (!__atomic_compare_exchange_n(clock, &before, base + cost_ns, true, __ATOMIC_RELAXED,
					    __ATOMIC_RELAXED));
	return base - burst_ns > now_ns && base > burst_ns ? base - burst_ns : now_ns;
}

/* Move CLOCK back by COST_NS; what is before now does not count. */
static void
give_back(uint64_t *clock, uint64_t cost_ns)
{
	uint64_t before = get(clock);

	/* Relaxed: as above. */
	while (!__atomic_compare_exchange_n(clock, &before, before > cost_ns ? before - cost_ns : 0,
					    true, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

/* The same by both clocks, for a request of BYTES. */
static uint64_t
reserve_turn(struct throttle *throttle, uint64_t bytes, uint64_t now_ns)
{
	uint64_t burst_ns = get(&throttle->burst_ns);
	uint64_t by_requests =
		reserve(&throttle->requests_clock_ns, cost_of(1, get(&throttle->requests_per_s)),
			burst_ns, now_ns);
	uint64_t by_bytes = reserve(&throttle->bytes_clock_ns,
				    cost_of(bytes, get(&throttle->bytes_per_s)), burst_ns, now_ns);

	return by_requests > by_bytes ? by_requests : by_bytes;
}

/* Start the timer for the first that waits, if there is one. */
static void
start_timer(struct throttle_core *home, uint64_t now_ns)
{
	const struct throttle_wait *first;

	if (list_empty(&home->waiting))
		return;
	first = container_of(home->waiting.next, struct throttle_wait, node);
	reactor_timer_start(home->reactor, &home->timer,
			    first->start_ns > now_ns ? first->start_ns - now_ns : 0);
}

bool
throttle_take(struct throttle *throttle, const struct core *core, struct throttle_wait *wait,
	      uint64_t bytes)
{
	struct throttle_core *home = &throttle->cores[core->index];
	bool first = list_empty(&home->waiting);
	uint64_t now_ns, start_ns;

	DCHECK(!throttle_waiting(wait));
	if (first && is_unlimited(throttle))
		return true;
	now_ns = kernel_clock_ns();
	start_ns = reserve_turn(throttle, bytes, now_ns);
	if (start_ns <= now_ns && first)
		return true;
	wait->core = home;
	wait->bytes = bytes;
	wait->start_ns = start_ns;
	list_append(&home->waiting, &wait->node);
	if (first)
		start_timer(home, now_ns);
	return false;
}

static void
turns_due(struct timer *timer)
{
	struct throttle_core *home = container_of(timer, struct throttle_core, timer);
	uint64_t now_ns = kernel_clock_ns();

	while (!list_empty(&home->waiting)) {
		struct throttle_wait *wait =
			container_of(home->waiting.next, struct throttle_wait, node);

		if (wait->start_ns > now_ns)
			break;
		list_remove(&wait->node);
		wait->granted(wait);
	}
	if (!timer_running(&home->timer))
		start_timer(home, now_ns);
}

/* The limits have changed: the turns of those who wait are given out once more, in their order. */
static void
take_turns_again(struct message *message)
{
	struct throttle_core *home = container_of(message, struct throttle_core, message);
	uint64_t now_ns = kernel_clock_ns();
	struct list_node *node;

	list_for_each(node, &home->waiting) {
		struct throttle_wait *wait = container_of(node, struct throttle_wait, node);

		wait->start_ns = reserve_turn(home->throttle, wait->bytes, now_ns);
	}
	start_timer(home, now_ns);
}

void
throttle_change(struct throttle *throttle, const struct throttle_limits *limits)
{
	uint64_t burst_ns = limits->burst_ms * MS_NS, now_ns = kernel_clock_ns();

	CHECK(limits->burst_ms > 0);
	if (throttle->requests_per_s == limits->requests_per_s &&
	    throttle->bytes_per_s == limits->bytes_per_s && throttle->burst_ns == burst_ns)
		return;
	__atomic_store_n(&throttle->requests_per_s, limits->requests_per_s, __ATOMIC_RELAXED);
	__atomic_store_n(&throttle->bytes_per_s, limits->bytes_per_s, __ATOMIC_RELAXED);
	__atomic_store_n(&throttle->burst_ns, burst_ns, __ATOMIC_RELAXED);
	__atomic_store_n(&throttle->requests_clock_ns, now_ns, __ATOMIC_RELAXED);
	__atomic_store_n(&throttle->bytes_clock_ns, now_ns, __ATOMIC_RELAXED);
	for (unsigned i = 0; i < throttle->core_count; i++)
		reactor_send(throttle->cores[i].reactor, &throttle->cores[i].message);
}

void
throttle_cancel(struct throttle_wait *wait)
{
	struct throttle *throttle;

	if (!throttle_waiting(wait))
		return;
	throttle = wait->core->throttle;
	list_remove(&wait->node);
	/* Else a client could move the clocks on as far as it likes, by asking for much and leaving, again and again.  Where the limits
	 * have changed since its turn was given out, or do now, that is a little more or less than it took: once. */
	give_back(&throttle->requests_clock_ns, cost_of(1, get(&throttle->requests_per_s)));
	give_back(&throttle->bytes_clock_ns, cost_of(wait->bytes, get(&throttle->bytes_per_s)));
	/* Nothing may be left of it when the last one who waited is gone: the throttle may be destroyed. */
	if (list_empty(&wait->core->waiting))
		reactor_timer_stop(wait->core->reactor, &wait->core->timer);
}

bool
throttle_waiting(const struct throttle_wait *wait)
{
	return !list_empty(&wait->node);
}
