/* The simulated kernel's context: the ring of events, and the slots.  A request holds its slot from io_submit until its event is
 * drained from the ring, as in the kernel.
 * Source of the behaviour: Linux fs/aio.c. */
#include "tests/sim/kernel_sim_state.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "reactor/ring.h"

#define FRUITLESS_MAX 24 /* sleeps in a row that end by their timeout, with nothing to do */
#define PAGE_BYTES    4096

/* ---- the ring and its slots ---- */

void
slots_settle(void)
{
	if (sim.ring == NULL)
		return;
	SIM_CHECK(sim.ring->head < sim.ring->nr);
	while (sim.head != sim.ring->head) {
		SIM_CHECK(sim.head != sim.ring->tail); /* more was taken than there was */
		if (sim.ring_uses[sim.head].kind == KERNEL_SIM_KINDS)
			sim.echoes--;
		else
			sim.used[sim.ring_uses[sim.head].kind][sim.ring_uses[sim.head].class]--;
		sim.counters.drained++;
		kernel_sim_busy();
		if (++sim.head == sim.ring->nr) {
			sim.head = 0;
			sim.counters.wraps++;
		}
	}
}

unsigned
slots_used_total(void)
{
	unsigned total = 0;

	for (unsigned i = 0; i < KERNEL_SIM_KINDS; i++)
		total += kernel_sim_slots_used((enum kernel_sim_kind)i);
	return total;
}

static void
ring_put(const struct io_event *event, struct slot_use use)
{
	struct ring_header *ring = sim.ring;
	unsigned tail = ring->tail, next = tail + 1 == ring->nr ? 0 : tail + 1;

	SIM_CHECK(next != ring->head);
	ring->events[tail] = *event;
	sim.ring_uses[tail] = use;
	__atomic_store_n(&ring->tail, next, __ATOMIC_RELEASE);
}

/* An event of long ago: whoever matches events must not take it for one of today. */
static void
echo(void)
{
	const struct io_event *old = &sim.old[kernel_sim_below(OLD_EVENTS)];

	if (old->obj == NULL || sim.echoes >= sim.config.ring_spare)
		return;
	ring_put(old, (struct slot_use){ .kind = KERNEL_SIM_KINDS });
	sim.echoes++;
	sim.counters.echoes++;
}

void
request_complete(struct request *request, long result)
{
	const struct io_event event = {
		.data = request->iocb.data,
		.obj = request->user,
		.res = (unsigned long)result,
	};
	const struct slot_use use = {
		.kind = request->kind,
		.class = (unsigned)(request->cookie % KERNEL_SIM_CLASSES),
	};

	slots_settle();
	if (kernel_sim_chance(sim.config.manner.echo))
		echo();
	ring_put(&event, use);
	sim.old[sim.counters.completed++ % OLD_EVENTS] = event;
	request->state = REQUEST_FREE;
	fd_unpin(request);
	request->generation++;
	list_remove(&request->node);
	sim.observer->on_completed(request->cookie, result);
}

unsigned
kernel_sim_slots_used(enum kernel_sim_kind kind)
{
	unsigned used = 0;

	for (unsigned i = 0; i < KERNEL_SIM_CLASSES; i++)
		used += sim.used[kind][i];
	return used;
}

unsigned
kernel_sim_slots_used_by(enum kernel_sim_kind kind, unsigned class)
{
	return sim.used[kind][class];
}

/* ---- kernel.h: the context ---- */

int
kernel_context_create(unsigned slots, io_context_t *context)
{
	unsigned nr = slots + 1 + sim.config.ring_spare;
	size_t bytes = sizeof(*sim.ring) + nr * sizeof(sim.ring->events[0]);

	SIM_CHECK(sim.ring == NULL);
	bytes = (bytes + PAGE_BYTES - 1) / PAGE_BYTES * PAGE_BYTES;
	sim.ring = aligned_alloc(PAGE_BYTES, bytes);
	sim.ring_uses = calloc(nr, sizeof(sim.ring_uses[0]));
	sim.requests = calloc(slots, sizeof(sim.requests[0]));
	CHECK(sim.ring != NULL && sim.ring_uses != NULL && sim.requests != NULL);
	memset(sim.ring, 0, bytes);
	sim.ring->nr = nr;
	sim.ring->magic = RING_MAGIC;
	sim.ring->header_length = sizeof(*sim.ring);
	sim.visible = sim.ring;
	if (sim.config.ring_unknown) {
		sim.visible = aligned_alloc(PAGE_BYTES, bytes);
		CHECK(sim.visible != NULL);
		memcpy(sim.visible, sim.ring, bytes);
		sim.visible->magic = ~RING_MAGIC;
	}
	sim.head = 0;
	sim.echoes = 0;
	memset(sim.old, 0, sizeof(sim.old)); /* another context's, with tags that are used again */
	sim.slots = slots;
	memset(sim.used, 0, sizeof(sim.used));
	sim.no_slot_run = sim.no_slot_tries = 0; /* nobody knows yet of an earlier refusal */
	for (unsigned i = 0; i < slots; i++) {
		sim.requests[i].generation =
			(uint32_t)sim.item_age; /* beyond an earlier context's */
		list_init(&sim.requests[i].node);
	}
	*context = (io_context_t)(void *)sim.visible;
	return 0;
}

void
kernel_context_destroy(io_context_t context)
{
	SIM_CHECK((void *)context == sim.visible);
	for (unsigned i = 0; i < sim.slots; i++) {
		list_remove(&sim.requests[i].node);
		fd_unpin(&sim.requests[i]);
	}
	if (sim.visible != sim.ring)
		free(sim.visible);
	free(sim.ring);
	free(sim.ring_uses);
	free(sim.requests);
	sim.ring = NULL;
	sim.ring_uses = NULL;
	sim.requests = NULL;
	sim.slots = 0;
}

/* ---- kernel.h: io_pgetevents ---- */

/* Let time pass until there is an event, or UNTIL_NS. */
static void
sleep_for_event(uint64_t until_ns)
{
	sim.sleeping_since_ns = sim.now_ns;
	sim.sleeping = sim.resting = true;
	time_run_workers();
	while (ring_empty(sim.ring) && sim.now_ns < until_ns) {
		uint64_t next_ns = sim.heap_count > 0 ? sim.heap[0].due_ns : UINT64_MAX;

		if (next_ns == UINT64_MAX && until_ns == UINT64_MAX)
			kernel_sim_fail("sleeps for ever, and nothing will happen");
		time_advance(next_ns < until_ns ? next_ns : until_ns);
	}
	sim.slept_ns += sim.now_ns - sim.sleeping_since_ns;
	sim.sleeping = sim.resting = false;
}

/* Nothing came. */
static long
sleep_fruitless(bool early)
{
	if (early) {
		kernel_sim_busy();
		return kernel_sim_chance(KERNEL_SIM_ALWAYS / 2) ? 0 : -EINTR;
	}
	if (++sim.fruitless > FRUITLESS_MAX)
		kernel_sim_fail("%u sleeps in a row for nothing", sim.fruitless);
	return 0;
}

long
kernel_sleep(io_context_t context, struct io_event *events, long count_max, int64_t timeout_ns)
{
	const struct kernel_sim_manner *manner = &sim.config.manner;
	uint64_t until_ns = UINT64_MAX;
	bool early;

	SIM_CHECK((void *)context == sim.visible && count_max > 0 && !sim.stepping);
	if (timeout_ns != 0)
		sim.observer->on_sleep();
	time_cost(150);
	sim.counters.sleeps++;
	if (timeout_ns == 0)
		until_ns = sim.now_ns;
	else if (timeout_ns > 0)
		until_ns = sim.now_ns + (uint64_t)timeout_ns + kernel_sim_below(KERNEL_SIM_LATE_NS);
	early = kernel_sim_chance(manner->interrupted + manner->spurious);
	if (early && timeout_ns != 0) {
		uint64_t early_ns = sim.now_ns + kernel_sim_below(200000);

		early = early_ns < until_ns;
		until_ns = early ? early_ns : until_ns;
	}
	sleep_for_event(until_ns);
	if (ring_empty(sim.ring))
		return sleep_fruitless(early);
	count_max = (long)ring_take(sim.ring, events, (unsigned)count_max);
	slots_settle();
	return count_max;
}
