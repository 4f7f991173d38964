/* The simulated kernel.
 *
 * Everything that will happen is an item in a heap, ordered by time and then by age.  A request holds its slot from
 * io_submit until its event is drained from the ring, as in the kernel; more than the slots that were asked for would
 * be the reactor's mistake, so it ends the run.  What the kernel finishes in a worker thread (syncs, durable writes,
 * cancels, some polls) waits until the core rests or yields, or for WORKER_PREEMPT_NS.
 * Source of the behaviour: Linux fs/aio.c. */
#include "tests/sim/kernel_sim.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "reactor/list.h"
#include "reactor/ring.h"

#define FD_BASE		  1000 /* no fd of this process, should one be taken for the other */
#define FDS_MAX		  64
#define WORKER_PREEMPT_NS 4000000 /* the scheduler takes the CPU from a core that never rests */
#define PREEMPTED_NS_MAX  50000
#define SPIN_NS_MAX	  25000 /* a spinning core lets workers run at least this often */
#define FRUITLESS_MAX	  24	/* sleeps in a row that end by their timeout, with nothing to do */
#define NO_SLOT_TRIES	  2	/* one call for disk operations, one for polls */
#define OLD_EVENTS	  64
#define PAGE_BYTES	  4096
#define START_NS	  ((uint64_t)1000000000)
#define RAW_WAKE_KEY	  0xc3 /* what a poll's result may look like */
#define POLL_ALWAYS	  (POLLERR | POLLHUP)
#define TRACE_PRIME	  ((uint64_t)0x100000001b3)

enum request_state {
	REQUEST_FREE,
	REQUEST_DISK,
	REQUEST_ARMED,	/* in the fd's list */
	REQUEST_WAKING, /* a poll that a worker looks at */
};

struct request {
	enum request_state state;
	enum kernel_sim_kind kind;
	struct iocb *user;   /* where the submitter has it */
	struct iocb iocb;    /* the kernel's copy */
	uint32_t generation; /* of the items that are about it */
	uint64_t cookie, age;
	bool worker; /* finished by a worker */
	bool cancelled, spurious;
	uint64_t waits_ns; /* for the CPU since */
	struct list_node node;
};

enum fd_type {
	FD_FREE,
	FD_FILE,
	FD_POLLABLE,
	FD_SOCKET,
	FD_WAKEUP,
};

/* One direction of a socket. */
struct stream {
	uint8_t *bytes; /* [room], a ring */
	size_t room, start, count;
};

struct sim_fd {
	enum fd_type type;
	uint8_t *contents;
	size_t bytes;
	bool alive, awakening; /* becomes ready by itself; the item for it is in the heap */
	unsigned ready;
	struct list_node armed;
	struct stream in, out; /* of a socket: to the core, and from it */
	bool ended, reset;
};

enum item_type {
	ITEM_REQUEST, /* it is done but for the worker */
	ITEM_PREEMPT, /* its worker gets the CPU at last */
	ITEM_READY,   /* an fd */
	ITEM_STEP,
};

struct item {
	uint64_t due_ns, age;
	enum item_type type;
	unsigned index;
	uint32_t generation;
	void (*step)(void *context);
	void *context;
};

static struct {
	struct kernel_sim_config config;
	const struct kernel_sim_observer *observer;
	struct kernel_sim_counters counters;
	uint64_t random;
	uint64_t now_ns, slept_ns, sleeping_since_ns, busy_ns;
	uint64_t steps, trace;
	bool stepping, resting, sleeping;
	unsigned fruitless;

	struct item *heap;
	size_t heap_count, heap_room;
	uint64_t item_age;

	struct sim_fd fds[FDS_MAX];
	struct list_node workers; /* requests that wait for the CPU */

	struct ring_header *ring;
	struct ring_header *visible; /* the reactor's view: the ring, or something it can't know */
	struct slot_use {
		enum kernel_sim_kind kind;
		unsigned class;
	} * ring_uses;			 /* of the events in the ring */
	unsigned head;			 /* drained up to here */
	struct io_event old[OLD_EVENTS]; /* of requests that are done */
	unsigned echoes;		 /* in the ring: they use no slot */
	unsigned slots, used[KERNEL_SIM_KINDS][KERNEL_SIM_CLASSES];
	struct request *requests; /* [slots] */

	struct iocb *doomed; /* will be refused when it is the first */
	unsigned no_slot_run, no_slot_tries;
	uint64_t no_slot_ns, no_slot_drained;
} sim;

/* ---- failing and chance ---- */

void
kernel_sim_fail(const char *format, ...)
{
	va_list arguments;

	fprintf(stderr,
		"SEED=%llu failed at step %llu, %llu ns: ", (unsigned long long)sim.config.seed,
		(unsigned long long)sim.steps, (unsigned long long)(sim.now_ns - START_NS));
	va_start(arguments, format);
	vfprintf(stderr, format, arguments);
	va_end(arguments);
	fputc('\n', stderr);
	abort();
}

/* splitmix64. */
uint64_t
kernel_sim_random(void)
{
	uint64_t z = sim.random += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	return z ^ z >> 31;
}

uint64_t
kernel_sim_below(uint64_t bound)
{
	return bound == 0 ? 0 : (kernel_sim_random() >> 8) % bound;
}

bool
kernel_sim_chance(unsigned of_65536)
{
	return of_65536 > 0 && kernel_sim_below(KERNEL_SIM_ALWAYS) < of_65536;
}

/* ---- what will happen ---- */

static bool
item_before(const struct item *a, const struct item *b)
{
	return a->due_ns != b->due_ns ? a->due_ns < b->due_ns : a->age < b->age;
}

static void
item_push(struct item item)
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

static void
request_later(const struct request *request, enum item_type type, uint64_t delay_ns)
{
	item_push((struct item){
		.due_ns = sim.now_ns + delay_ns,
		.type = type,
		.index = (unsigned)(request - sim.requests),
		.generation = request->generation,
	});
}

/* ---- the ring and its slots ---- */

/* Give back the slots of the events that were drained since the last look. */
static void
settle(void)
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

static unsigned
used_total(void)
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

static void
complete(struct request *request, long result)
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

	settle();
	if (kernel_sim_chance(sim.config.manner.echo))
		echo();
	ring_put(&event, use);
	sim.old[sim.counters.completed++ % OLD_EVENTS] = event;
	request->state = REQUEST_FREE;
	request->generation++;
	list_remove(&request->node);
	sim.observer->on_completed(request->cookie, result);
}

/* ---- polls ---- */

static struct sim_fd *
fd_find(int fd)
{
	if (fd < FD_BASE || fd >= FD_BASE + FDS_MAX || sim.fds[fd - FD_BASE].type == FD_FREE)
		return NULL;
	return &sim.fds[fd - FD_BASE];
}

static unsigned
poll_mask(const struct sim_fd *fd, const struct request *request)
{
	return fd->ready & ((unsigned)request->iocb.u.poll.events | POLL_ALWAYS);
}

static void
poll_to_worker(struct request *request)
{
	list_remove(&request->node);
	request->state = REQUEST_WAKING;
	request->worker = true;
	request_later(request, ITEM_REQUEST, kernel_sim_below(KERNEL_SIM_WORKER_NS));
}

static void
poll_arm(struct sim_fd *fd, struct request *request)
{
	request->state = REQUEST_ARMED;
	request->generation++;
	list_append(&fd->armed, &request->node);
	if (fd->alive && !fd->awakening) {
		fd->awakening = true;
		item_push((struct item){
			.due_ns = sim.now_ns + kernel_sim_below(sim.config.manner.poll_ns_max),
			.type = ITEM_READY,
			.index = (unsigned)(fd - sim.fds),
		});
	}
}

/* Complete what is armed on FD and wants what it is ready for. */
static void
fd_wake(struct sim_fd *fd)
{
	struct list_node *node, *after;

	list_for_each_safe(node, after, &fd->armed) {
		struct request *request = container_of(node, struct request, node);
		unsigned mask = poll_mask(fd, request);

		if (mask == 0)
			continue;
		if (kernel_sim_below(4) == 0)
			poll_to_worker(request);
		else
			complete(request, kernel_sim_below(4) == 0 ? RAW_WAKE_KEY : (long)mask);
	}
}

static void
poll_finish(struct request *request)
{
	struct sim_fd *fd = fd_find(request->iocb.aio_fildes);
	unsigned mask = fd == NULL ? POLLHUP : poll_mask(fd, request);

	if (request->cancelled)
		complete(request, 0);
	else if (request->spurious)
		complete(request, RAW_WAKE_KEY);
	else if (mask != 0)
		complete(request, (long)mask);
	else
		poll_arm(fd, request); /* it was drained before the worker looked */
}

/* ---- sockets ---- */

static size_t
stream_move(struct stream *stream, uint8_t *bytes, size_t count, bool put)
{
	size_t most = put ? stream->room - stream->count : stream->count;

	if (count > most)
		count = most;
	for (size_t i = 0; i < count; i++) {
		if (put) {
			stream->bytes[(stream->start + stream->count++) % stream->room] = bytes[i];
		} else {
			bytes[i] = stream->bytes[stream->start];
			stream->start = (stream->start + 1) % stream->room;
			stream->count--;
		}
	}
	return count;
}

static void
socket_look(struct sim_fd *fd)
{
	fd->ready = (fd->in.count > 0 || fd->ended || fd->reset ? POLLIN : 0u) |
		    (fd->out.count < fd->out.room || fd->reset ? POLLOUT : 0u) |
		    (fd->reset ? POLLHUP | POLLERR : 0u);
}

/* Up to COUNT bytes go from or to PARTS. */
static void
socket_move(struct stream *stream, struct iovec *parts, size_t count, bool send)
{
	for (; count > 0; parts++) {
		size_t bytes = parts->iov_len < count ? parts->iov_len : count;

		SIM_CHECK(stream_move(stream, parts->iov_base, bytes, send) == bytes);
		count -= bytes;
	}
}

static long
socket_transfer(int number, struct iovec *parts, unsigned part_count, bool send)
{
	struct sim_fd *fd = fd_find(number);
	struct stream *stream = send ? &fd->out : &fd->in;
	size_t count = send ? stream->room - stream->count : stream->count, asked = 0;
	long result;

	for (unsigned i = 0; i < part_count; i++)
		asked += parts[i].iov_len;
	if (count > asked)
		count = asked;
	if (count > 1 && kernel_sim_chance(sim.config.manner.short_result))
		count = 1 + kernel_sim_below(count);
	result = (long)count;
	if (fd->reset)
		result = send ? -EPIPE : -ECONNRESET;
	else if (kernel_sim_chance(sim.config.manner.spurious))
		result = -EAGAIN;
	else if (count == 0)
		result = !send && fd->ended ? 0 : -EAGAIN;
	if (result > 0)
		socket_move(stream, parts, count, send);
	sim.counters.received += send || result < 0 ? 0 : (uint64_t)result;
	sim.counters.sent += !send || result < 0 ? 0 : (uint64_t)result;
	socket_look(fd);
	sim.observer->on_transfer(number, parts[0].iov_base, send, result);
	return result;
}

static long
socket_request(const struct iocb *iocb)
{
	short opcode = iocb->aio_lio_opcode;
	bool send = opcode == IO_CMD_PWRITE || opcode == IO_CMD_PWRITEV;
	struct iovec part = { iocb->u.c.buf, iocb->u.c.nbytes };

	if (opcode == IO_CMD_PREAD || opcode == IO_CMD_PWRITE)
		return socket_transfer(iocb->aio_fildes, &part, 1, send);
	return socket_transfer(iocb->aio_fildes, iocb->u.c.buf, (unsigned)iocb->u.c.nbytes, send);
}

/* ---- disk operations ---- */

static long
disk_result(const struct sim_fd *fd, const struct iocb *iocb)
{
	static const int errors[] = { -EIO, -ENOSPC, -EAGAIN };
	uint64_t offset = (uint64_t)iocb->u.c.offset, bytes = iocb->u.c.nbytes;

	if (kernel_sim_chance(sim.config.manner.error_result))
		return errors[kernel_sim_below(ARRAY_COUNT(errors))];
	if (iocb->aio_lio_opcode == IO_CMD_FDSYNC || offset >= fd->bytes)
		return 0;
	if (bytes > fd->bytes - offset)
		bytes = fd->bytes - offset;
	if (kernel_sim_chance(sim.config.manner.short_result))
		bytes = kernel_sim_below(bytes);
	return (long)bytes;
}

static void
disk_finish(struct request *request)
{
	const struct iocb *iocb = &request->iocb;
	const struct sim_fd *fd = fd_find(iocb->aio_fildes);
	long result;

	SIM_CHECK(fd != NULL); /* closed under an operation */
	result = disk_result(fd, iocb);
	if (result > 0 && iocb->aio_lio_opcode == IO_CMD_PREAD)
		memcpy(iocb->u.c.buf, fd->contents + iocb->u.c.offset, (size_t)result);
	else if (result > 0)
		memcpy(fd->contents + iocb->u.c.offset, iocb->u.c.buf, (size_t)result);
	complete(request, result);
}

static void
disk_start(struct request *request)
{
	const struct kernel_sim_manner *manner = &sim.config.manner;
	uint64_t delay_ns = manner->disk_ns_min +
			    kernel_sim_below(manner->disk_ns_max - manner->disk_ns_min + 1);

	request->state = REQUEST_DISK;
	request->worker =
		request->iocb.aio_lio_opcode == IO_CMD_FDSYNC || request->iocb.aio_rw_flags != 0;
	if (!request->worker && kernel_sim_chance(manner->at_once)) {
		disk_finish(request);
		return;
	}
	if (kernel_sim_below(64) == 0)
		delay_ns *= 10;
	request_later(request, ITEM_REQUEST, delay_ns);
}

/* ---- time ---- */

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
	request_later(request, ITEM_PREEMPT, WORKER_PREEMPT_NS);
}

/* The CPU is free: what waited for it is finished. */
static void
workers_run(void)
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
		sim.fds[item->index].awakening = false;
		sim.fds[item->index].ready = POLLIN | POLLOUT;
		fd_wake(&sim.fds[item->index]);
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

/* Move the clock to NS, and do what is due by then.  From within a step only the clock moves. */
static void
advance_to(uint64_t ns)
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

/* A call costs between NS and twice that. */
static void
cost(uint64_t ns)
{
	sim.observer->on_time(); /* before a drain in this turn is noticed */
	settle();
	advance_to(sim.now_ns + ns + kernel_sim_below(ns));
}

/* ---- the simulation's own interface ---- */

void
kernel_sim_begin(const struct kernel_sim_config *config, const struct kernel_sim_observer *observer)
{
	memset(&sim, 0, sizeof(sim));
	sim.config = *config;
	sim.observer = observer;
	sim.random = config->seed;
	sim.now_ns = START_NS;
	list_init(&sim.workers);
}

void
kernel_sim_end(void)
{
	SIM_CHECK(sim.ring == NULL);
	for (unsigned i = 0; i < FDS_MAX; i++) {
		SIM_CHECK(sim.fds[i].type != FD_WAKEUP);
		free(sim.fds[i].in.bytes);
		free(sim.fds[i].out.bytes);
	}
	free(sim.heap);
	sim.heap = NULL;
	sim.heap_count = sim.heap_room = 0;
}

void
kernel_sim_set_manner(const struct kernel_sim_manner *manner)
{
	sim.config.manner = *manner;
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
	settle();
	advance_to(sim.now_ns + ns);
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

	settle();
	kernel_sim_busy();
	sim.resting = true;
	workers_run();
	if (sim.heap_count > 0 && sim.heap[0].due_ns < until_ns)
		until_ns = sim.heap[0].due_ns;
	advance_to(until_ns);
	sim.resting = false;
	kernel_sim_busy();
}

void
kernel_sim_at(uint64_t delay_ns, void (*step)(void *context), void *context)
{
	item_push((struct item){
		.due_ns = sim.now_ns + delay_ns,
		.type = ITEM_STEP,
		.step = step,
		.context = context,
	});
}

static int
fd_create(enum fd_type type)
{
	for (int i = 0; i < FDS_MAX; i++) {
		if (sim.fds[i].type != FD_FREE)
			continue;
		sim.fds[i] = (struct sim_fd){ .type = type };
		list_init(&sim.fds[i].armed);
		return FD_BASE + i;
	}
	return -EMFILE;
}

int
kernel_sim_file(void *contents, size_t bytes)
{
	int fd = fd_create(FD_FILE);

	if (fd >= 0) {
		fd_find(fd)->contents = contents;
		fd_find(fd)->bytes = bytes;
	}
	return fd;
}

int
kernel_sim_pollable(bool alive)
{
	int fd = fd_create(FD_POLLABLE);

	if (fd >= 0)
		fd_find(fd)->alive = alive;
	return fd;
}

void
kernel_sim_set_ready(int fd, unsigned events)
{
	struct sim_fd *found = fd_find(fd);

	SIM_CHECK(found != NULL && found->type != FD_FILE && found->type != FD_SOCKET);
	found->ready = events;
	fd_wake(found);
}

int
kernel_sim_socket(size_t room)
{
	int number = fd_create(FD_SOCKET);
	struct sim_fd *fd = fd_find(number);

	if (number < 0)
		return number;
	fd->in = (struct stream){ .bytes = malloc(room), .room = room };
	fd->out = (struct stream){ .bytes = malloc(room), .room = room };
	CHECK(fd->in.bytes != NULL && fd->out.bytes != NULL);
	socket_look(fd);
	return number;
}

static void
socket_changed(struct sim_fd *fd)
{
	socket_look(fd);
	fd_wake(fd);
}

size_t
kernel_sim_peer_send(int number, const void *bytes, size_t count)
{
	struct sim_fd *fd = fd_find(number);

	if (fd->ended || fd->reset)
		return 0;
	count = stream_move(&fd->in, (uint8_t *)(uintptr_t)bytes, count, true);
	socket_changed(fd);
	return count;
}

size_t
kernel_sim_peer_receive(int number, void *bytes, size_t count)
{
	struct sim_fd *fd = fd_find(number);

	if (fd->reset)
		return 0;
	count = stream_move(&fd->out, bytes, count, false);
	socket_changed(fd);
	return count;
}

void
kernel_sim_peer_end(int number)
{
	fd_find(number)->ended = true;
	socket_changed(fd_find(number));
}

void
kernel_sim_peer_reset(int number)
{
	fd_find(number)->reset = true;
	socket_changed(fd_find(number));
}

void
kernel_sim_renew(int number)
{
	struct sim_fd *fd = fd_find(number);

	fd->ended = fd->reset = false;
	fd->in.start = fd->in.count = fd->out.start = fd->out.count = 0;
	socket_changed(fd);
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

uint64_t
kernel_sim_trace(void)
{
	return sim.trace;
}

const struct kernel_sim_counters *
kernel_sim_counters(void)
{
	return &sim.counters;
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
	for (unsigned i = 0; i < sim.slots; i++)
		list_remove(&sim.requests[i].node);
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

/* ---- kernel.h: io_submit ---- */

static int
iocb_error(const struct iocb *iocb)
{
	const struct sim_fd *fd = fd_find(iocb->aio_fildes);

	if (fd == NULL)
		return -EBADF;
	switch (iocb->aio_lio_opcode) {
	case IO_CMD_POLL:
		/* Other fields than the events must be 0; there is no poll of a file here. */
		if (iocb->aio_rw_flags != 0 || iocb->u.c.nbytes != 0 || iocb->u.c.offset != 0)
			return -EINVAL;
		return fd->type == FD_FILE ? -EINVAL : 0;
	case IO_CMD_PREADV:
	case IO_CMD_PWRITEV:
		return fd->type != FD_SOCKET || iocb->u.c.offset != 0 ? -EINVAL : 0;
	case IO_CMD_PREAD:
	case IO_CMD_PWRITE:
		if (fd->type == FD_SOCKET)
			return iocb->u.c.offset != 0 ? -ESPIPE : 0;
		return fd->type != FD_FILE || iocb->u.c.offset < 0 ? -EINVAL : 0;
	case IO_CMD_FDSYNC:
		return fd->type != FD_FILE || iocb->aio_rw_flags != 0 ? -EINVAL : 0;
	default:
		return -EINVAL;
	}
}

/* 0, or why IOCB is refused.  An injected refusal lasts until the one in question comes first. */
static int
refusal(struct iocb *iocb)
{
	int error = iocb_error(iocb);

	if (error == 0 && sim.doomed != iocb && kernel_sim_chance(sim.config.manner.refused))
		sim.doomed = iocb;
	if (error == 0 && sim.doomed == iocb)
		error = iocb->aio_fildes % 2 == 0 ? -EINVAL : -EBADF;
	return error;
}

static enum kernel_sim_kind
iocb_kind(const struct iocb *iocb)
{
	if (iocb->aio_lio_opcode != IO_CMD_POLL)
		return fd_find(iocb->aio_fildes)->type == FD_SOCKET ? KERNEL_SIM_KIND_SOCKET
								    : KERNEL_SIM_KIND_DISK;
	return fd_find(iocb->aio_fildes)->type == FD_WAKEUP ? KERNEL_SIM_KIND_WAKEUP
							    : KERNEL_SIM_KIND_POLL;
}

static struct request *
request_create(struct iocb *iocb)
{
	struct request *request = sim.requests;

	if (used_total() == sim.slots)
		kernel_sim_fail("more operations than the %u slots that were asked for", sim.slots);
	while (request->state != REQUEST_FREE)
		request++;
	request->kind = iocb_kind(iocb);
	request->user = iocb;
	request->iocb = *iocb;
	request->worker = request->cancelled = request->spurious = false;
	request->age = sim.counters.taken++;
	request->cookie = sim.observer->on_taken(iocb);
	sim.used[request->kind][request->cookie % KERNEL_SIM_CLASSES]++;
	return request;
}

static void
request_start(struct iocb *iocb)
{
	struct request *request = request_create(iocb);
	struct sim_fd *fd = fd_find(iocb->aio_fildes);

	if (request->kind == KERNEL_SIM_KIND_DISK) {
		disk_start(request);
		return;
	}
	if (request->kind == KERNEL_SIM_KIND_SOCKET) { /* ends within io_submit */
		complete(request, socket_request(iocb));
		return;
	}
	poll_arm(fd, request);
	if (poll_mask(fd, request) != 0) {
		complete(request, (long)poll_mask(fd, request));
	} else if (kernel_sim_chance(sim.config.manner.spurious)) {
		request->spurious = true;
		poll_to_worker(request);
	}
}

/* -EAGAIN, which only time or an event may answer. */
static long
no_slot(void)
{
	sim.counters.no_slot++;
	sim.no_slot_run++;
	if (sim.no_slot_tries == 0 || sim.no_slot_drained != sim.counters.drained ||
	    sim.now_ns >= sim.no_slot_ns + KERNEL_SIM_NO_SLOT_NS) {
		sim.no_slot_tries = 0;
		sim.no_slot_ns = sim.now_ns;
		sim.no_slot_drained = sim.counters.drained;
	}
	if (++sim.no_slot_tries > NO_SLOT_TRIES)
		kernel_sim_fail("io_submit again %llu ns after -EAGAIN, without an event",
				(unsigned long long)(sim.now_ns - sim.no_slot_ns));
	return -EAGAIN;
}

long
kernel_submit(io_context_t context, long count, struct iocb **iocbs)
{
	long taken, limit = count;

	SIM_CHECK((void *)context == sim.visible && count > 0);
	cost(200 + 50 * (uint64_t)count);
	kernel_sim_busy();
	sim.counters.submit_calls++;
	if (sim.no_slot_run < KERNEL_SIM_NO_SLOT_RUN &&
	    kernel_sim_chance(sim.config.manner.no_slot))
		return no_slot();
	sim.no_slot_run = 0;
	if (count > 1 && kernel_sim_chance(sim.config.manner.short_submit)) {
		limit = 1 + (long)kernel_sim_below((uint64_t)count - 1);
		sim.counters.short_submits++;
	}
	for (taken = 0; taken < limit; taken++) {
		int error = refusal(iocbs[taken]);

		if (error != 0 && taken > 0)
			break;
		if (error != 0) {
			sim.doomed = NULL;
			sim.counters.refused++;
			sim.observer->on_refused(iocbs[0], error);
			return error;
		}
		request_start(iocbs[taken]);
	}
	return taken;
}

/* ---- kernel.h: io_cancel ---- */

/* The oldest with this address that was not cancelled before; NULL if there is none. */
static struct request *
request_find(const struct iocb *iocb)
{
	struct request *found = NULL;

	for (unsigned i = 0; i < sim.slots; i++) {
		struct request *request = &sim.requests[i];

		if (request->state != REQUEST_FREE && request->user == iocb &&
		    !request->cancelled && (found == NULL || request->age < found->age))
			found = request;
	}
	return found;
}

int
kernel_cancel(io_context_t context, struct iocb *iocb)
{
	const struct sim_fd *fd = fd_find(iocb->aio_fildes);
	struct request *found;

	SIM_CHECK((void *)context == sim.visible);
	cost(500);
	kernel_sim_busy();
	sim.counters.cancels++;
	if (kernel_sim_chance(sim.config.manner.cancel_race) && fd != NULL && fd->type != FD_SOCKET)
		kernel_sim_set_ready(iocb->aio_fildes, POLLIN | POLLOUT);
	found = request_find(iocb);
	if (found == NULL) {
		sim.counters.cancels_late++;
		return -EINVAL;
	}
	SIM_CHECK(found->kind != KERNEL_SIM_KIND_DISK);
	found->cancelled = true;
	if (found->state == REQUEST_ARMED)
		poll_to_worker(found);
	return -EINPROGRESS;
}

/* ---- kernel.h: io_pgetevents ---- */

/* Let time pass until there is an event, or UNTIL_NS. */
static void
sleep_for_event(uint64_t until_ns)
{
	sim.sleeping_since_ns = sim.now_ns;
	sim.sleeping = sim.resting = true;
	workers_run();
	while (ring_empty(sim.ring) && sim.now_ns < until_ns) {
		uint64_t next_ns = sim.heap_count > 0 ? sim.heap[0].due_ns : UINT64_MAX;

		if (next_ns == UINT64_MAX && until_ns == UINT64_MAX)
			kernel_sim_fail("sleeps for ever, and nothing will happen");
		advance_to(next_ns < until_ns ? next_ns : until_ns);
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
	cost(150);
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
	settle();
	return count_max;
}

/* ---- kernel.h: the rest ---- */

static ssize_t
transfer_directly(int fd, struct iovec *parts, unsigned part_count, bool send)
{
	cost(300);
	kernel_sim_busy();
	if (fd_find(fd) == NULL) {
		sim.observer->on_transfer(fd, parts[0].iov_base, send, -EBADF);
		return -EBADF;
	}
	SIM_CHECK(fd_find(fd)->type == FD_SOCKET);
	return socket_transfer(fd, parts, part_count, send);
}

ssize_t
kernel_recvmsg(int fd, struct iovec *parts, unsigned part_count)
{
	return transfer_directly(fd, parts, part_count, false);
}

ssize_t
kernel_sendmsg(int fd, struct iovec *parts, unsigned part_count)
{
	return transfer_directly(fd, parts, part_count, true);
}

/* UNTESTED: the reactor itself calls none of these. */
int
kernel_accept(int fd, struct sockaddr_storage *peer, socklen_t *peer_bytes)
{
	(void)fd, (void)peer, (void)peer_bytes;
	return -ENOTSOCK;
}

void
kernel_shutdown_send(int fd)
{
	(void)fd;
}

int
kernel_unsent_bytes(int fd)
{
	(void)fd;
	return 0;
}

void
kernel_shutdown(int fd)
{
	kernel_sim_set_ready(fd, POLLIN | POLLHUP);
}

void
kernel_close(int fd)
{
	struct sim_fd *found = fd_find(fd);

	SIM_CHECK(found != NULL && list_empty(&found->armed));
	found->type = FD_FREE;
}

int
kernel_wakeup_create(void)
{
	return fd_create(FD_WAKEUP);
}

void
kernel_wakeup_signal(int fd)
{
	cost(300);
	sim.counters.wakeups++;
	kernel_sim_set_ready(fd, POLLIN);
}

void
kernel_wakeup_clear(int fd)
{
	cost(100);
	kernel_sim_busy();
	sim.counters.cleared++;
	kernel_sim_set_ready(fd, 0);
}

void
kernel_yield(void)
{
	cost(300);
	sim.counters.yields++;
	sim.resting = true;
	workers_run();
	sim.resting = false;
}

uint64_t
kernel_clock_ns(void)
{
	cost(40 + kernel_sim_below(400));
	if (!sim.stepping && kernel_sim_chance(sim.config.manner.preempted))
		kernel_sim_spend(kernel_sim_below(PREEMPTED_NS_MAX));
	return sim.now_ns;
}
