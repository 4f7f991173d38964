/* The simulated kernel's time: everything that will happen is an item in a heap, ordered by time and then by age.  What the kernel
 * finishes in a worker thread (syncs, durable writes, cancels, some polls) waits until the core rests or yields, or for
 * WORKER_PREEMPT_NS. */
#include "tests/sim/kernel_sim_state.h"

#include <poll.h>
#include <stdlib.h>

#define WORKER_PREEMPT_NS 4000000 /* the scheduler takes the CPU from a core that never rests */
#define PREEMPTED_NS_MAX  50000
#define SPIN_NS_MAX	  25000 /* a spinning core lets workers run at least this often */
#define TRACE_PRIME	  ((uint64_t)0x100000001b3)

/* ---- what will happen ---- */

static bool
item_before(const struct item *a, const struct item *b)
{
	return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->age < b->age;
}

void
time_push(struct item item)
{
	size_t i = sim.heap_count++;

	if (i == sim.heap_room) {
		sim.heap_room = sim.heap_room * 2 + 64;
		sim.heap = realloc(sim.heap, sim.heap_room * sizeof(sim.heap[0]));
		CHECK(sim.heap != NULL);
	}
	item.age = sim.item_age++;
	for (; i > 0 && item_before(&item, &sim.heap[(i - 1) / 2]); i = (i - 1) / 2)
		sim.heap[i] = sim.heap[(i - 1) / 2];
	sim.heap[i] = item;
}

static struct item
item_pop(void)
{
	struct item first = sim.heap[0], last = sim.heap[--sim.heap_count];
	size_t i = 0, child;

	while ((child = 2 * i + 1) < sim.heap_count) {
		if (child + 1 < sim.heap_count &&
		    item_before(&sim.heap[child + 1], &sim.heap[child]))
			child++;
		if (!item_before(&sim.heap[child], &last))
			break;
		sim.heap[i] = sim.heap[child];
		i = child;
	}
	sim.heap[i] = last;
	return first;
}

void
time_request_later(const struct request *request, enum item_type type, uint64_t delay_ns)
{
	time_push((struct item){
		.due_ns = sim.now_ns + delay_ns,
		.type = type,
		.index = (unsigned)(request - sim.requests),
		.generation = request->generation,
	});
}

/* ---- who finishes a request ---- */

static void
request_finish(struct request *request)
{
	list_remove(&request->node);
	if (request->state == REQUEST_DISK)
		disk_finish(request);
	else
		poll_finish(request);
}

static void
request_due(struct request *request)
{
	if (!request->worker || sim.resting) {
		request_finish(request);
		return;
	}
	request->waits_ns = sim.now_ns;
	list_append(&sim.workers, &request->node);
	time_request_later(request, ITEM_PREEMPT, WORKER_PREEMPT_NS);
}

void
time_run_workers(void)
{
	struct list_node *node;

	while ((node = list_take_first(&sim.workers)) != NULL) {
		struct request *request = container_of(node, struct request, node);
		uint64_t since_ns =
			request->waits_ns > sim.busy_ns ? request->waits_ns : sim.busy_ns;

		if (sim.now_ns > since_ns + SPIN_NS_MAX)
			kernel_sim_fail("a worker waited %llu ns for a core that spins",
					(unsigned long long)(sim.now_ns - since_ns));
		request_finish(request);
	}
}

/* ---- the clock ---- */

static void
fd_item(const struct item *item, struct sim_fd *fd)
{
	if (fd->generation != item->generation)
		return;
	if (item->type == ITEM_READY) {
		fd->awakening = false;
		fd->ready = POLLIN | POLLOUT;
	}
	fd_wake(fd, item->key);
}

static void
item_run(const struct item *item)
{
	switch (item->type) {
	case ITEM_REQUEST:
	case ITEM_PREEMPT:
		if (sim.requests == NULL ||
		    sim.requests[item->index].generation != item->generation)
			return;
		if (item->type == ITEM_REQUEST)
			request_due(&sim.requests[item->index]);
		else
			request_finish(&sim.requests[item->index]);
		return;
	case ITEM_READY:
	case ITEM_BEHIND:
		fd_item(item, &sim.fds[item->index]);
		return;
	case ITEM_STEP:
		item->step(item->context);
		return;
	}
}

static void
clock_set(uint64_t ns)
{
	if (ns <= sim.now_ns)
		return;
	sim.observer->on_time();
	sim.now_ns = ns;
	sim.steps++;
	sim.trace = (sim.trace ^ ns ^ sim.random) * TRACE_PRIME;
}

void
time_advance(uint64_t ns)
{
	if (!sim.stepping) {
		sim.stepping = true;
		while (sim.heap_count > 0 && sim.heap[0].due_ns <= ns) {
			struct item item = item_pop();

			clock_set(item.due_ns);
			item_run(&item);
		}
		sim.stepping = false;
	}
	clock_set(ns);
}

void
time_cost(uint64_t ns)
{
	sim.observer->on_time(); /* before a drain in this turn is noticed */
	slots_settle();
	time_advance(sim.now_ns + ns + kernel_sim_below(ns));
}

uint64_t
kernel_sim_now_ns(void)
{
	return sim.now_ns;
}

uint64_t
kernel_sim_slept_ns(void)
{
	return sim.slept_ns + (sim.sleeping ? sim.now_ns - sim.sleeping_since_ns : 0);
}

void
kernel_sim_spend(uint64_t ns)
{
	slots_settle();
	time_advance(sim.now_ns + ns);
	kernel_sim_busy();
}

void
kernel_sim_busy(void)
{
	sim.busy_ns = sim.now_ns;
	sim.fruitless = 0;
}

void
kernel_sim_idle(uint64_t ns)
{
	uint64_t until_ns = sim.now_ns + ns;

	slots_settle();
	kernel_sim_busy();
	sim.resting = true;
	time_run_workers();
	if (sim.heap_count > 0 && sim.heap[0].due_ns < until_ns)
		until_ns = sim.heap[0].due_ns;
	time_advance(until_ns);
	sim.resting = false;
	kernel_sim_busy();
}

void
kernel_sim_at(uint64_t delay_ns, void (*step)(void *context), void *context)
{
	time_push((struct item){
		.due_ns = sim.now_ns + delay_ns,
		.type = ITEM_STEP,
		.step = step,
		.context = context,
	});
}

/* ---- kernel.h ---- */

void
kernel_yield(void)
{
	time_cost(300);
	sim.counters.yields++;
	sim.resting = true;
	time_run_workers();
	sim.resting = false;
}

uint64_t
kernel_clock_ns(void)
{
	time_cost(40 + kernel_sim_below(400));
	if (!sim.stepping && kernel_sim_chance(sim.config.manner.preempted))
		kernel_sim_spend(kernel_sim_below(PREEMPTED_NS_MAX));
	return sim.now_ns;
}
