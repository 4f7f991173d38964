/* The reactor on the simulated kernel: random operations of all kinds and priorities, cancelled and abandoned polls, timers,
 * tasks, messages and notices under random faults, and what must hold throughout.
 *
 *	sim-reactor [--seeds N] [--ops N] [--counts FILE]
 *	SEED=n sim-reactor [--ops N]          one seed, in this process, for a debugger
 *
 * A seed decides everything, the sizes of the reactor and how bad the kernel is included; OPS is part of what it
 * decides upon.  A run first takes turns one by one; waits as a loop of its own would, with reactor_wait; lets reactor_run
 * rest until it is stopped by its own core, by another thread, or when all is done; takes turns again until nothing is left;
 * and at last looks whether every slot is still there.  Each seed has a process of its own, so that the others go on when one fails. */
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "reactor/reactor.h"
#include "tests/sim/kernel_sim.h"

#define MS ((uint64_t)1000000)

#define OBJECTS_MAX  640 /* of disk operations, of polls, of receives and sends */
#define FILES	     4
#define FILE_BYTES   4096
#define IO_BYTES_MAX 64
#define LIVE_FDS     12 /* become ready now and then */
#define DEAD_FDS     4	/* never do: their polls end by cancel */
#define SOCKETS	     6
#define SOCKET_SLOTS 128 /* the reactor's own */
#define SOCKET_ROOM  200 /* bytes in each direction */
#define PARTS_MAX    4
#define NOTICES	     6
#define TIMERS	     48
#define TASKS	     24
#define MESSAGES     64
#define SLOTS_MAX    300
#define FIRST_FD     1000
#define REVIVE_NS_MAX \
	(2 * MS)	 /* until a dead fd is ready for once, when a poll of it was abandoned */
#define LOWER_PER_TURN 4 /* of lower classes go to the kernel while the latency class is in use */
#define CALLS_PER_TURN 512
#define FEW_OBJECTS    400	/* all of them can be ready in one turn */
#define CANCEL_AGE_NS  (3 * MS) /* a poll of a dead fd is cancelled at the next pump */
#define NO_SLOT_NS_MAX (KERNEL_SIM_NO_SLOT_NS + 200000)
#define STOP_NS_MAX    20000
#define SETTLE_NS      (8 * MS)
#define WATCH_NS       (5 * MS)
#define DRAIN_NS_MAX   (20000 * MS)
#define WAKE_NS_MAX    100000 /* from a signal until a sleeping core runs */
#define REAL_TIME_S    15     /* a seed that needs longer does not end */
#define SEEDS_DEFAULT  50
#define OPS_DEFAULT    20000
#define UNKNOWN_OPCODE 99

enum stage {
	STAGE_IDLE,
	STAGE_QUEUED, /* submitted, not yet with the kernel */
	STAGE_KERNEL,
	STAGE_EVENT,   /* its event is in the ring */
	STAGE_REFUSED, /* by io_submit; or it was a system call of its own */
	STAGE_LOCAL,   /* completed or cancelled without the kernel */
};

/* One kind's operations. */
struct objects {
	struct sim_op *ops;
	unsigned count;
	struct sim_op *idle[OBJECTS_MAX];
	unsigned idle_count;
	unsigned slots, background_slots, queued[PRIORITY_COUNT]; /* in STAGE_QUEUED */
	enum priority lowest; /* class that was given to the kernel in this turn */
	enum kernel_sim_kind kind;
	unsigned expected,
		seen; /* in this turn: at least so many, and so many, are given to the kernel */
	uint64_t order[PRIORITY_COUNT],
		order_taken
			[PRIORITY_COUNT]; /* of submission: the last one given, the last one the kernel saw */
	uint64_t age_ns_max;
};

struct sim_op {
	struct op op;
	struct objects *objects;
	enum stage stage;
	long expected;
	uint64_t order, submitted_ns;
	uint64_t cookie;	   /* what the kernel knows it by; 0: it does not */
	uint64_t event_order;	   /* of its event, within its class */
	struct sim_socket *socket; /* receives and sends */
	struct iovec parts[PARTS_MAX];
	unsigned part_count;
	bool send;
	uint64_t position;		     /* in the socket's stream, of the first byte */
	uint64_t stage_turn, stage_slept_ns; /* when it got to its stage */
	bool dead, cancelled;
	int fd;
	uint8_t buffer[IO_BYTES_MAX];
};

struct sim_timer {
	struct timer timer;
	bool running;
	uint64_t earliest_ns, latest_ns; /* the deadline lies between */
};

struct sim_task {
	struct task task;
	bool deferred;
	uint64_t turn; /* in which it must run */
};

/* A connection: bytes are what their place in its stream makes them. */
struct sim_socket {
	int fd;
	unsigned life;		 /* how many connections there were before */
	uint64_t received, sent; /* by the core */
	uint64_t peer_received, peer_sent;
	unsigned in_use; /* receives and sends */
	bool sending;	 /* a send is on its way */
	bool ended, reset;
};

struct sim_notice {
	struct notice notice;
	uint32_t pending; /* bits */
	uint64_t posted_turn, posted_slept_ns;
};

struct sim_message {
	struct message message;
	bool posted, pump;
	uint64_t order, posted_turn, posted_slept_ns;
};

enum place {
	PLACE_OUTSIDE,
	PLACE_CALLBACK,
	PLACE_TASK,
};

/* How the run is stopped. */
enum stopper {
	STOPPER_DRAINED,
	STOPPER_CALLBACK,
	STOPPER_THREAD,
};

static struct {
	struct kernel_sim_config config;
	struct reactor_config sizes;
	uint64_t ops_max; /* to start */
	uint64_t turns_until, waits_until,
		stop_from; /* operations done: then reactor_wait; reactor_run; then it may be stopped */
	unsigned weights[PRIORITY_COUNT]; /* how often an operation is of each class */
	bool mixed;			  /* not all are normal */
	enum stopper stopper;
	unsigned eagerness;
	uint64_t pump_ns; /* longest pause of the pump */
	bool spends;	  /* callbacks take their time */

	struct reactor *reactor;
	const struct reactor_counters *counters;
	enum place place;
	bool calling; /* within a call that may not call done */
	bool running; /* reactor_run is */
	bool waiting; /* reactor_wait may be */
	bool over;    /* nothing new is started */
	uint64_t started, done, sent, delivered, fired, ran;
	uint64_t abandoned; /* of those that are done */
	uint64_t direct;    /* receives and sends that were system calls of their own */
	uint64_t called[PRIORITY_COUNT];
	uint64_t notified, noticed;	      /* posts of notices */
	uint64_t cookies, stale;	      /* stale: events for what was abandoned */
	unsigned stale_to_come, stale_on[64]; /* [fd - FIRST_FD] */
	uint64_t waits, wakes;
	bool wake_sure,
		wake_maybe; /* reactor_wake was not followed by the end of a wait; perhaps */
	uint64_t wake_turn, wake_slept_ns;
	uint64_t loose_until_turn; /* before, reactor_wait may have left much undone */

	unsigned latency;		/* operations of the latency class that are not idle */
	bool latency_seen;		/* in this turn */
	unsigned ready[PRIORITY_COUNT]; /* waiting for done */
	unsigned ready_start[PRIORITY_COUNT]; /* of those, since this turn began */
	unsigned passed_over
		[PRIORITY_COUNT]; /* calls of others since the class had one and wanted more */
	uint64_t cleared;	  /* wake-ups before this turn: the reactor's own calls */
	uint64_t forgotten_turn;  /* the last one in which something that was ready was abandoned */
	unsigned due, calls;	  /* of done, in this turn: at least; so far */
	uint64_t event_order[PRIORITY_COUNT], event_done[PRIORITY_COUNT];
	uint64_t stop_turn, stop_slept_ns;
	bool stopped;

	unsigned local; /* operations in STAGE_LOCAL or STAGE_REFUSED */
	uint64_t no_slot,
		no_slot_until_ns; /* refusals before this turn; until when the reactor may wait */
	uint64_t turn, awake_ns, awake_before_ns; /* when this turn, and the one before it, began */

	struct objects disk, polls, sockets;
	struct sim_op disk_ops[OBJECTS_MAX], poll_ops[OBJECTS_MAX], socket_ops[OBJECTS_MAX];
	struct sim_socket connections[SOCKETS];
	struct sim_notice notices[NOTICES];
	struct sim_timer timers[TIMERS];
	struct sim_task tasks[TASKS];
	struct sim_message messages[MESSAGES];
	struct sim_message *idle_messages[MESSAGES];
	unsigned idle_message_count;
	uint8_t files[FILES][FILE_BYTES];
	int file_fds[FILES], live_fds[LIVE_FDS], dead_fds[DEAD_FDS];
} run;

static void act(void);
static void stop(void *context);

/* ---- the clock of turns ---- */

static uint64_t
awake_now_ns(void)
{
	return kernel_sim_now_ns() - kernel_sim_slept_ns();
}

static unsigned
smaller(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

/* How many of what waits the kernel must be given now.  None after a refusal for want of slots. */
static unsigned
submittable(const struct objects *objects)
{
	const unsigned *queued = objects->queued;
	unsigned room, latency, lower, normal, background;

	if (kernel_sim_counters()->no_slot != run.no_slot ||
	    kernel_sim_now_ns() < run.no_slot_until_ns)
		return 0;
	room = objects->slots - kernel_sim_slots_used(objects->kind);
	latency = smaller(queued[PRIORITY_LATENCY], room);
	lower = smaller(room - latency, run.latency > 0 ? LOWER_PER_TURN : UINT_MAX);
	normal = smaller(queued[PRIORITY_NORMAL], lower);
	background = objects->background_slots -
		     kernel_sim_slots_used_by(objects->kind, PRIORITY_BACKGROUND);
	background = smaller(smaller(queued[PRIORITY_BACKGROUND], lower - normal), background);
	return latency + normal + background;
}

static void
turn_ended(void)
{
	if (kernel_sim_counters()->no_slot != run.no_slot) {
		run.no_slot = kernel_sim_counters()->no_slot;
		run.no_slot_until_ns = kernel_sim_now_ns() + NO_SLOT_NS_MAX;
	} else {
		SIM_CHECK(run.disk.seen >= run.disk.expected);
		SIM_CHECK(run.polls.seen >= run.polls.expected);
		SIM_CHECK(run.sockets.seen >= run.sockets.expected);
	}
	/* A turn that is cut calls something, too; and only the latency class cuts one. */
	run.calls += (unsigned)(kernel_sim_counters()->cleared - run.cleared);
	if (!run.waiting)
		SIM_CHECK(run.calls >= (run.latency_seen ? smaller(run.due, 1) : run.due));
}

static void
turn_began(struct objects *objects)
{
	objects->seen = 0;
	objects->lowest = PRIORITY_LATENCY;
	objects->expected = submittable(objects);
}

/* A wake makes the reactor take a turn; after the way from one CPU to the other. */
static void
check_wake(void)
{
	uint64_t slept_ns_max = WAKE_NS_MAX + (run.config.manner.no_slot == 0 ? 0 : 5 * MS);

	if (!run.wake_sure || run.counters->turns == run.wake_turn)
		return;
	SIM_CHECK(kernel_sim_slept_ns() - run.wake_slept_ns <= slept_ns_max);
	kernel_sim_busy();
	if (run.running)
		run.wake_sure = run.wake_maybe = false;
}

/* Notice the start of a turn; no time has passed in it yet, and the kernel has not looked at the ring. */
static void
on_time(void)
{
	if (run.counters == NULL || run.counters->turns == run.turn)
		return;
	turn_ended();
	check_wake();
	turn_began(&run.disk);
	turn_began(&run.polls);
	turn_began(&run.sockets);
	run.cleared = kernel_sim_counters()->cleared;
	run.latency_seen = run.latency > 0;
	run.due = run.calls = 0;
	for (unsigned i = 0; i < PRIORITY_COUNT; i++) {
		run.ready_start[i] = run.ready[i];
		run.due += run.ready[i];
		if (run.ready[i] == 0)
			run.passed_over[i] = 0;
	}
	run.due = smaller(run.due, CALLS_PER_TURN);
	run.awake_before_ns = run.counters->turns == run.turn + 1 ? run.awake_ns : awake_now_ns();
	run.awake_ns = awake_now_ns();
	run.turn = run.counters->turns;
}

/* The reactor's rest: nothing that it could do is left. */
static void
on_sleep(void)
{
	SIM_CHECK((run.running || run.waiting) && !run.stopped);
	on_time();
	SIM_CHECK(submittable(&run.disk) == 0);
	SIM_CHECK(submittable(&run.polls) == 0);
	SIM_CHECK(submittable(&run.sockets) == 0);
	SIM_CHECK(run.local == 0);
	for (unsigned i = 0; i < TASKS; i++)
		SIM_CHECK(!run.tasks[i].deferred);
	SIM_CHECK(run.idle_message_count == MESSAGES);
	for (unsigned i = 0; i < NOTICES; i++)
		SIM_CHECK(run.notices[i].pending == 0);
	SIM_CHECK(!run.wake_sure || (run.running && run.wake_turn < run.counters->turns));
}

static void
enter(enum place place)
{
	SIM_CHECK(!run.calling);
	SIM_CHECK(run.place == PLACE_OUTSIDE); /* callbacks don't nest */
	on_time();
	kernel_sim_busy();
	run.place = place;
}

/* A callback's own work: some time, some new things to do. */
static void
leave(void)
{
	unsigned count = (unsigned)kernel_sim_below(run.eagerness);

	if (run.stopper == STOPPER_CALLBACK && run.running && !run.stopped &&
	    run.done >= run.stop_from)
		stop(NULL);
	while (count-- > 0)
		act();
	if (run.spends)
		kernel_sim_spend(kernel_sim_below(kernel_sim_below(256) == 0 ? 200000 : 2000));
	run.place = PLACE_OUTSIDE;
}

/* ---- operations ---- */

static bool
stage_local(enum stage stage)
{
	return stage == STAGE_LOCAL || stage == STAGE_REFUSED;
}

static void
stage_set(struct sim_op *sim_op, enum stage stage)
{
	struct objects *objects = sim_op->objects;

	enum priority class = sim_op->op.priority;

	objects->queued[class] += (stage == STAGE_QUEUED);
	objects->queued[class] -= (sim_op->stage == STAGE_QUEUED);
	run.ready[class] += stage_local(stage) || stage == STAGE_EVENT;
	run.ready[class] -= stage_local(sim_op->stage) || sim_op->stage == STAGE_EVENT;
	if (class == PRIORITY_LATENCY) {
		run.latency += stage != STAGE_IDLE;
		run.latency -= sim_op->stage != STAGE_IDLE;
		run.latency_seen = true;
	}
	run.local += stage_local(stage);
	run.local -= stage_local(sim_op->stage);
	sim_op->stage = stage;
	sim_op->stage_turn = run.counters == NULL ? 0 : run.counters->turns;
	sim_op->stage_slept_ns = kernel_sim_slept_ns();
}

/* NULL: the reactor's own. */
static struct sim_op *
op_of(struct iocb *iocb)
{
	struct op *op = container_of(iocb, struct op, iocb);
	struct sim_op *sim_op = container_of(op, struct sim_op, op);
	uintptr_t address = (uintptr_t)sim_op, start = (uintptr_t)&run;

	return address >= start && address < start + sizeof(run) ? sim_op : NULL;
}

static void
leave_queue(struct sim_op *sim_op, enum stage stage)
{
	struct objects *objects = sim_op->objects;
	enum priority class = sim_op->op.priority;

	SIM_CHECK(sim_op->stage == STAGE_QUEUED);
	SIM_CHECK(sim_op->order > objects->order_taken[class]);
	/* A queued poll may have been cancelled; nothing else goes missing. */
	SIM_CHECK(objects == &run.polls || sim_op->order == objects->order_taken[class] + 1);
	objects->order_taken[class] = sim_op->order;
	/* Higher classes first, and all of them; the latency class's receives and sends also later in the turn. */
	SIM_CHECK(class >= objects->lowest ||
		  (class == PRIORITY_LATENCY && objects == &run.sockets));
	if (class > objects->lowest)
		objects->lowest = class;
	for (unsigned i = 0; i < class; i++)
		SIM_CHECK(objects->queued[i] == 0);
	objects->seen++;
	stage_set(sim_op, stage);
}

/* What the kernel calls it: which operation, which fd and class, and which of its submissions. */
static uint64_t
cookie_make(const struct sim_op *sim_op)
{
	unsigned kind = sim_op->objects->kind, index = (unsigned)(sim_op - sim_op->objects->ops);
	unsigned fd = (unsigned)(sim_op->fd - FIRST_FD);

	return ++run.cookies << 20 | (uint64_t)kind << 18 | (uint64_t)index << 8 |
	       (uint64_t)fd << 2 | sim_op->op.priority;
}

static struct sim_op *
cookie_op(uint64_t cookie)
{
	struct objects *kinds[] = {
		[KERNEL_SIM_KIND_DISK] = &run.disk,
		[KERNEL_SIM_KIND_POLL] = &run.polls,
		[KERNEL_SIM_KIND_SOCKET] = &run.sockets,
	};

	return &kinds[cookie >> 18 & 3]->ops[cookie >> 8 & 1023];
}

static uint64_t
on_taken(struct iocb *iocb)
{
	struct sim_op *sim_op = op_of(iocb);
	const struct objects *objects;

	if (sim_op == NULL) {
		SIM_CHECK(kernel_sim_slots_used(KERNEL_SIM_KIND_WAKEUP) == 0);
		return 0;
	}
	objects = sim_op->objects;
	SIM_CHECK(kernel_sim_slots_used(objects->kind) < objects->slots);
	SIM_CHECK(sim_op->op.priority != PRIORITY_BACKGROUND ||
		  kernel_sim_slots_used_by(objects->kind, PRIORITY_BACKGROUND) <
			  objects->background_slots);
	leave_queue(sim_op, STAGE_KERNEL);
	sim_op->cookie = cookie_make(sim_op);
	return sim_op->cookie;
}

static void
on_refused(struct iocb *iocb, int error)
{
	struct sim_op *sim_op = op_of(iocb);

	if (sim_op == NULL)
		return;
	leave_queue(sim_op, STAGE_REFUSED);
	/* The reactor's word for something that can't be polled. */
	sim_op->expected = sim_op->objects == &run.polls && error == -EINVAL ? -EOPNOTSUPP : error;
}

static void
on_completed(uint64_t cookie, long result)
{
	struct sim_op *sim_op = cookie_op(cookie);

	if (cookie == 0)
		return;
	if (sim_op->cookie != cookie) {
		SIM_CHECK(run.stale_to_come > 0);
		run.stale++;
		run.stale_to_come--;
		run.stale_on[cookie >> 2 & 63]--;
		return;
	}
	SIM_CHECK(sim_op->stage == STAGE_KERNEL);
	stage_set(sim_op, STAGE_EVENT);
	sim_op->expected = result;
	sim_op->event_order = ++run.event_order[sim_op->op.priority];
}

static uint8_t
content_at(int fd, uint64_t offset)
{
	return (uint8_t)((uint64_t)fd * 31 + offset * 7 + (offset >> 8));
}

/* Who has a share gets it: between two calls of a class that has more there are at most the others' of two rounds. */
static void check_shares(enum priority class)
{
	unsigned round = 2; /* the reactor's own poll */

	for (unsigned i = 0; i < PRIORITY_COUNT; i++)
		round += run.sizes.shares[i];
	run.passed_over[class] = 0;
	for (unsigned i = 0; i < PRIORITY_COUNT; i++) {
		if (i != class && run.ready_start[i] > 0)
			SIM_CHECK(++run.passed_over[i] <= 2 * round);
	}
	if (run.ready_start[class] > 0)
		run.ready_start[class]--;
	run.calls++;
	run.called[class]++;
}

/* How soon done must follow, where nothing goes first. */
static bool
prompt(const struct sim_op *sim_op)
{
	uint64_t turns = run.turn - sim_op->stage_turn;

	switch (sim_op->stage) {
	case STAGE_REFUSED:
		return turns == 0;
	case STAGE_LOCAL:
		/* A call that is not needed any more is another's. */
		return turns == 1 || (turns == 0 && run.forgotten_turn == run.turn);
	case STAGE_EVENT:
		return turns <= 1;
	default:
		kernel_sim_fail("done in stage %d: twice, or before its time", sim_op->stage);
	}
}

static void
check_prompt(const struct sim_op *sim_op)
{
	bool few = run.disk.count + run.polls.count + run.sockets.count <= FEW_OBJECTS;

	SIM_CHECK(prompt(sim_op) || run.mixed || !few || run.waiting ||
		  run.turn <= run.loose_until_turn);
	if (sim_op->stage == STAGE_EVENT) {
		uint64_t *last = &run.event_done[sim_op->op.priority];

		SIM_CHECK(sim_op->event_order > *last);
		*last = sim_op->event_order;
	}
	SIM_CHECK(kernel_sim_slept_ns() - sim_op->stage_slept_ns <= WAKE_NS_MAX);
}

/* A byte of a connection: of what the peer sends, or of what the core sends. */
static uint8_t
stream_byte(const struct sim_socket *socket, bool send, uint64_t position)
{
	return (uint8_t)(content_at(socket->fd, position) + socket->life * 13 + (send ? 101 : 0));
}

/* A receive or send has happened; it is the only one of that moment. */
static void
on_transfer(int fd, void *first_byte, bool send, long result)
{
	size_t offset = (size_t)((char *)first_byte - (char *)run.socket_ops);
	struct sim_op *sim_op = &run.socket_ops[offset / sizeof(run.socket_ops[0])];
	uint64_t *position;

	SIM_CHECK(offset < sizeof(run.socket_ops));
	SIM_CHECK(sim_op->send == send && (sim_op->fd == fd || fd == -1));
	if (sim_op->stage == STAGE_QUEUED) {
		leave_queue(sim_op, STAGE_REFUSED);
		sim_op->expected = result;
		run.direct++;
	}
	SIM_CHECK(sim_op->stage == STAGE_REFUSED || sim_op->stage == STAGE_KERNEL);
	if (result <= 0)
		return;
	position = send ? &sim_op->socket->sent : &sim_op->socket->received;
	SIM_CHECK(!send || sim_op->position == *position);
	sim_op->position = *position;
	*position += (uint64_t)result;
}

/* What was received is what the peer has sent there. */
static void
check_received(const struct sim_op *sim_op, long result)
{
	uint64_t position = sim_op->position, until = position + (uint64_t)result;

	for (unsigned i = 0; i < sim_op->part_count && position < until; i++) {
		const uint8_t *bytes = sim_op->parts[i].iov_base;

		for (size_t j = 0; j < sim_op->parts[i].iov_len && position < until; j++)
			SIM_CHECK(bytes[j] == stream_byte(sim_op->socket, false, position++));
	}
	SIM_CHECK(position == until);
}

static void
socket_done(struct sim_op *sim_op, long result)
{
	struct sim_socket *socket = sim_op->socket;

	if (sim_op->stage == STAGE_LOCAL)
		return;
	socket->in_use--;
	if (sim_op->send)
		socket->sending = false;
	if (result > 0 && !sim_op->send)
		check_received(sim_op, result);
	SIM_CHECK((result != -ECONNRESET && result != -EPIPE) || socket->reset);
	SIM_CHECK(result != 0 || (socket->ended && !sim_op->send));
}

static void
become_idle(struct sim_op *sim_op)
{
	struct objects *objects = sim_op->objects;

	run.done++;
	sim_op->cookie = 0;
	stage_set(sim_op, STAGE_IDLE);
	objects->idle[objects->idle_count++] = sim_op;
}

static void
on_done(struct op *op, long result)
{
	struct sim_op *sim_op = container_of(op, struct sim_op, op);
	struct objects *objects = sim_op->objects;

	enter(PLACE_CALLBACK);
	SIM_CHECK(op_idle(op));
	check_prompt(sim_op);
	check_shares(op->priority);
	SIM_CHECK(result == sim_op->expected);
	SIM_CHECK(kernel_sim_now_ns() - sim_op->submitted_ns <= objects->age_ns_max);
	if (objects == &run.disk && sim_op->stage == STAGE_EVENT &&
	    op->iocb.aio_lio_opcode == IO_CMD_PREAD) {
		for (long i = 0; i < result; i++)
			SIM_CHECK(sim_op->buffer[i] ==
				  content_at(sim_op->fd,
					     (uint64_t)op->iocb.u.c.offset + (uint64_t)i));
	}
	if (objects == &run.sockets)
		socket_done(sim_op, result);
	/* A dead fd comes alive only by a cancel that is too late. */
	if (objects == &run.polls && sim_op->stage == STAGE_EVENT && sim_op->socket == NULL &&
	    (sim_op->dead || kernel_sim_below(2) == 0))
		kernel_sim_set_ready(sim_op->fd, 0);
	become_idle(sim_op);
	leave();
}

static void
submit(struct sim_op *sim_op)
{
	const unsigned *queued = sim_op->objects->queued;
	enum priority class = sim_op->op.priority;

	if (run.sizes.waiting_max != 0 &&
	    queued[PRIORITY_LATENCY] + queued[PRIORITY_NORMAL] + queued[PRIORITY_BACKGROUND] >=
		    run.sizes.waiting_max) {
		sim_op->expected = -ENOBUFS;
		if (sim_op->objects == &run.sockets) {
			sim_op->socket->in_use--;
			sim_op->socket->sending &= !sim_op->send;
		}
		stage_set(sim_op, STAGE_LOCAL);
	} else {
		sim_op->order = ++sim_op->objects->order[class];
		stage_set(sim_op, STAGE_QUEUED);
	}
	run.calling = true;
	reactor_start(run.reactor, &sim_op->op);
	run.calling = false;
}

static void
prepare_disk(struct sim_op *sim_op)
{
	uint64_t offset = kernel_sim_below(FILE_BYTES);
	size_t bytes = 1 + kernel_sim_below(IO_BYTES_MAX);

	sim_op->fd = run.file_fds[kernel_sim_below(FILES)];
	switch (kernel_sim_below(8)) {
	case 0:
		op_fdatasync(&sim_op->op, sim_op->fd);
		break;
	case 1:
	case 2:
	case 3:
		for (size_t i = 0; i < bytes; i++)
			sim_op->buffer[i] = content_at(sim_op->fd, offset + i);
		op_write(&sim_op->op, sim_op->fd, sim_op->buffer, bytes, offset,
			 kernel_sim_below(2) == 0);
		break;
	default:
		memset(sim_op->buffer, 0, sizeof(sim_op->buffer));
		op_read(&sim_op->op, sim_op->fd, sim_op->buffer, bytes, offset);
	}
}

static void
prepare_poll(struct sim_op *sim_op)
{
	if (kernel_sim_below(4) == 0) {
		/* Its peer may be silent for ever, as a dead fd is. */
		sim_op->dead = true;
		sim_op->socket = &run.connections[kernel_sim_below(SOCKETS)];
		sim_op->fd = sim_op->socket->fd;
		op_poll(&sim_op->op, sim_op->fd, kernel_sim_below(2) == 0 ? POLLIN : POLLOUT);
		return;
	}
	sim_op->dead = kernel_sim_below(4) == 0;
	sim_op->fd = sim_op->dead ? run.dead_fds[kernel_sim_below(DEAD_FDS)]
				  : run.live_fds[kernel_sim_below(LIVE_FDS)];
	op_poll(&sim_op->op, sim_op->fd, kernel_sim_below(2) == 0 ? POLLIN : POLLOUT);
}

/* One to PARTS_MAX parts of the buffer, one behind the other. */
static void
prepare_parts(struct sim_op *sim_op)
{
	size_t bytes = 1 + kernel_sim_below(IO_BYTES_MAX), used = 0;

	sim_op->part_count = 0;
	while (used < bytes) {
		size_t part = 1 + kernel_sim_below(bytes - used);

		if (sim_op->part_count == PARTS_MAX - 1)
			part = bytes - used;
		sim_op->parts[sim_op->part_count++] = (struct iovec){ sim_op->buffer + used, part };
		used += part;
	}
}

static void
prepare_transfer(struct sim_op *sim_op)
{
	struct sim_socket *socket = &run.connections[kernel_sim_below(SOCKETS)];

	sim_op->socket = socket;
	sim_op->fd = socket->fd;
	sim_op->send = !socket->sending && kernel_sim_below(2) == 0;
	socket->in_use++;
	prepare_parts(sim_op);
	if (!sim_op->send) {
		memset(sim_op->buffer, 0, sizeof(sim_op->buffer));
		op_receive(&sim_op->op, sim_op->fd, sim_op->parts, sim_op->part_count);
		return;
	}
	socket->sending = true;
	sim_op->position = socket->sent;
	for (unsigned i = 0; i < IO_BYTES_MAX; i++)
		sim_op->buffer[i] = stream_byte(socket, true, socket->sent + i);
	op_send(&sim_op->op, sim_op->fd, sim_op->parts, sim_op->part_count);
}

static enum priority
random_priority(void)
{
	unsigned sum = 0, choice;

	for (unsigned i = 0; i < PRIORITY_COUNT; i++)
		sum += run.weights[i];
	choice = (unsigned)kernel_sim_below(sum);
	for (unsigned i = 0; i < PRIORITY_COUNT; i++) {
		if (choice < run.weights[i])
			return (enum priority)i;
		choice -= run.weights[i];
	}
	return PRIORITY_NORMAL;
}

/* Take an operation out of the idle ones; there is one. */
static struct sim_op *
take_idle(struct objects *objects)
{
	unsigned i = (unsigned)kernel_sim_below(objects->idle_count);
	struct sim_op *sim_op = objects->idle[i];

	objects->idle[i] = objects->idle[--objects->idle_count];
	SIM_CHECK(sim_op->stage == STAGE_IDLE);
	sim_op->submitted_ns = kernel_sim_now_ns();
	sim_op->cancelled = sim_op->dead = false;
	sim_op->socket = NULL;
	sim_op->op.priority = random_priority();
	run.started++;
	return sim_op;
}

static void
start_one(struct objects *objects)
{
	struct sim_op *sim_op = take_idle(objects);

	if (objects == &run.disk)
		prepare_disk(sim_op);
	else if (objects == &run.polls)
		prepare_poll(sim_op);
	else
		prepare_transfer(sim_op);
	if (run.config.manner.refused > 0 && kernel_sim_below(128) == 0)
		sim_op->op.iocb.aio_fildes = -1;
	else if (run.config.manner.refused > 0 && objects == &run.disk &&
		 kernel_sim_below(128) == 0)
		sim_op->op.iocb.aio_lio_opcode = UNKNOWN_OPCODE;
	submit(sim_op);
}

static void
start_some(struct objects *objects, unsigned count)
{
	while (count-- > 0 && !run.over && objects->idle_count > 0 && run.started < run.ops_max)
		start_one(objects);
}

static void
complete_one(struct objects *objects)
{
	struct sim_op *sim_op;

	if (run.over || objects->idle_count == 0)
		return;
	sim_op = take_idle(objects);
	sim_op->expected = (long)kernel_sim_below(1000) - 500;
	stage_set(sim_op, STAGE_LOCAL);
	run.calling = true;
	reactor_complete(run.reactor, &sim_op->op, sim_op->expected);
	run.calling = false;
}

static void
cancel(struct sim_op *sim_op)
{
	if (sim_op->stage == STAGE_QUEUED) {
		sim_op->expected = -ECANCELED;
		stage_set(sim_op, STAGE_LOCAL);
	}
	sim_op->cancelled = true;
	run.calling = true;
	reactor_cancel_poll(run.reactor, &sim_op->op);
	run.calling = false;
}

/* A dead fd is ready until nothing abandoned is armed on it. */
static void
revive(void *context)
{
	unsigned i = (unsigned)(uintptr_t)context;
	int fd = FIRST_FD + (int)i;

	if (run.reactor == NULL)
		return;
	kernel_sim_set_ready(fd, run.stale_on[i] > 0 ? POLLIN | POLLOUT : 0);
	if (run.stale_on[i] > 0)
		kernel_sim_at(KERNEL_SIM_WORKER_NS, revive, context);
}

static void
abandon(struct sim_op *sim_op)
{
	enum stage stage = sim_op->stage;
	unsigned fd = (unsigned)(sim_op->fd - FIRST_FD);

	if (stage == STAGE_KERNEL) {
		run.stale_to_come++;
		run.stale_on[fd]++;
		if (sim_op->dead && sim_op->socket == NULL)
			kernel_sim_at(kernel_sim_below(REVIVE_NS_MAX), revive,
				      (void *)(uintptr_t)fd);
	} else if (stage == STAGE_EVENT && sim_op->op.state == OP_STATE_SUBMITTED) {
		run.stale++; /* the event is in the ring, and the reactor has not looked */
	}
	if (sim_op->stage_turn < run.turn && (stage == STAGE_EVENT || stage_local(stage))) {
		run.ready_start[sim_op->op.priority] -= run.ready_start[sim_op->op.priority] > 0;
		run.due -= run.due > 0;
	}
	if (stage == STAGE_EVENT || stage_local(stage))
		run.forgotten_turn = run.counters->turns;
	run.calling = true;
	reactor_abandon(run.reactor, &sim_op->op);
	run.calling = false;
	SIM_CHECK(op_idle(&sim_op->op));
	if (stage == STAGE_IDLE)
		return;
	run.abandoned++;
	become_idle(sim_op);
}

static void
cancel_dead(void)
{
	for (unsigned i = 0; i < run.polls.count; i++) {
		struct sim_op *sim_op = &run.polls.ops[i];

		if (sim_op->stage != STAGE_IDLE && sim_op->dead && !sim_op->cancelled &&
		    (run.over || kernel_sim_now_ns() - sim_op->submitted_ns > CANCEL_AGE_NS))
			cancel(sim_op);
	}
}

/* ---- timers, tasks, messages ---- */

static void
on_expired(struct timer *timer)
{
	struct sim_timer *sim_timer = container_of(timer, struct sim_timer, timer);
	uint64_t now_ns = kernel_sim_now_ns(), late_ns;

	enter(PLACE_CALLBACK);
	SIM_CHECK(sim_timer->running && !timer_running(timer));
	SIM_CHECK(now_ns >= sim_timer->earliest_ns);
	/* It was due in the turn before this one at the earliest; beyond that time and the ticks' length only a
	 * sleep may have been late. */
	late_ns = now_ns > sim_timer->latest_ns ? now_ns - sim_timer->latest_ns : 0;
	if (late_ns > TIMER_TICK_NS + KERNEL_SIM_LATE_NS + awake_now_ns() - run.awake_before_ns)
		kernel_sim_fail("a timer is %" PRIu64 " ns late", late_ns);
	sim_timer->running = false;
	run.fired++;
	leave();
}

static uint64_t
random_delay_ns(void)
{
	switch (kernel_sim_below(8)) {
	case 0:
		return 0;
	case 1:
		return kernel_sim_below(TIMER_TICK_NS);
	case 2:
		return kernel_sim_below(10000 * MS);
	default:
		return kernel_sim_below(5 * MS);
	}
}

static void
start_timer(struct sim_timer *sim_timer)
{
	uint64_t delay_ns = random_delay_ns();

	sim_timer->earliest_ns = kernel_sim_now_ns() + delay_ns;
	sim_timer->latest_ns = UINT64_MAX; /* known when the call returns; others may look before */
	sim_timer->running = true;
	reactor_timer_start(run.reactor, &sim_timer->timer, delay_ns);
	sim_timer->latest_ns = kernel_sim_now_ns() + delay_ns;
}

static void
stop_timer(struct sim_timer *sim_timer)
{
	reactor_timer_stop(run.reactor, &sim_timer->timer);
	sim_timer->running = false;
}

static void
on_run(struct task *task)
{
	struct sim_task *sim_task = container_of(task, struct sim_task, task);

	enter(PLACE_TASK);
	SIM_CHECK(sim_task->deferred);
	SIM_CHECK(sim_task->turn == run.turn);
	sim_task->deferred = false;
	run.ran++;
	leave();
}

static void
defer(struct sim_task *sim_task)
{
	if (!sim_task->deferred) {
		sim_task->deferred = true;
		sim_task->turn = run.counters->turns + (run.place == PLACE_CALLBACK ? 0 : 1);
	}
	run.calling = true;
	reactor_defer(run.reactor, &sim_task->task);
	run.calling = false;
}

static void
on_deliver(struct message *message)
{
	struct sim_message *sim_message = container_of(message, struct sim_message, message);
	uint64_t slept_ns = kernel_sim_slept_ns() - sim_message->posted_slept_ns;
	uint64_t slept_ns_max = WAKE_NS_MAX;

	enter(PLACE_CALLBACK);
	SIM_CHECK(sim_message->posted);
	SIM_CHECK(sim_message->order == ++run.delivered); /* oldest first, whoever sent it */
	SIM_CHECK(run.turn - sim_message->posted_turn <= 1);
	if (run.config.manner.no_slot > 0) /* the wake-up may be one that found none */
		slept_ns_max +=
			(KERNEL_SIM_NO_SLOT_RUN + 1) * (KERNEL_SIM_NO_SLOT_NS + KERNEL_SIM_LATE_NS);
	if (slept_ns > slept_ns_max)
		kernel_sim_fail("a message waited %" PRIu64 " ns for a core that slept", slept_ns);
	sim_message->posted = false;
	run.idle_messages[run.idle_message_count++] = sim_message;
	if (sim_message->pump) {
		cancel_dead();
		start_some(&run.disk, (unsigned)kernel_sim_below(8));
		start_some(&run.polls, (unsigned)kernel_sim_below(4));
	}
	leave();
}

static void
on_notice(struct notice *notice, uint32_t bits)
{
	struct sim_notice *sim_notice = container_of(notice, struct sim_notice, notice);
	uint64_t slept_ns_max = WAKE_NS_MAX;

	enter(PLACE_CALLBACK);
	SIM_CHECK(bits != 0 && bits == sim_notice->pending);
	SIM_CHECK(run.turn - sim_notice->posted_turn <= 1);
	if (run.config.manner.no_slot > 0)
		slept_ns_max +=
			(KERNEL_SIM_NO_SLOT_RUN + 1) * (KERNEL_SIM_NO_SLOT_NS + KERNEL_SIM_LATE_NS);
	SIM_CHECK(kernel_sim_slept_ns() - sim_notice->posted_slept_ns <= slept_ns_max);
	sim_notice->pending = 0;
	run.noticed++;
	cancel_dead();
	start_some(&run.disk, (unsigned)kernel_sim_below(8));
	leave();
}

static void
notify_one(void)
{
	struct sim_notice *sim_notice = &run.notices[kernel_sim_below(NOTICES)];
	uint32_t bits = (uint32_t)1 << kernel_sim_below(32) | (uint32_t)1 << kernel_sim_below(32);

	if (sim_notice->pending == 0) {
		sim_notice->posted_turn = run.counters->turns;
		sim_notice->posted_slept_ns = kernel_sim_slept_ns();
		run.notified++;
	}
	sim_notice->pending |= bits;
	run.calling = true;
	reactor_notify(run.reactor, &sim_notice->notice, bits);
	run.calling = false;
}

static void
wake_one(void)
{
	run.wakes++;
	run.wake_sure = run.wake_maybe = true;
	run.wake_turn = run.counters->turns;
	run.wake_slept_ns = kernel_sim_slept_ns();
	run.calling = true;
	reactor_wake(run.reactor);
	run.calling = false;
}

static void
wake(void *context)
{
	(void)context;
	if (run.waiting)
		wake_one();
}

/* ---- the peers of the sockets ---- */

static void
peer_moves(struct sim_socket *socket)
{
	uint8_t bytes[SOCKET_ROOM];
	size_t count = kernel_sim_below(SOCKET_ROOM);

	for (size_t i = 0; i < count; i++)
		bytes[i] = stream_byte(socket, false, socket->peer_sent + i);
	socket->peer_sent += kernel_sim_peer_send(socket->fd, bytes, count);
	count = kernel_sim_peer_receive(socket->fd, bytes, kernel_sim_below(SOCKET_ROOM));
	for (size_t i = 0; i < count; i++)
		SIM_CHECK(bytes[i] == stream_byte(socket, true, socket->peer_received++));
}

static void
peer_ends(struct sim_socket *socket)
{
	switch (kernel_sim_below(256)) {
	case 0:
		socket->reset = true;
		kernel_sim_peer_reset(socket->fd);
		break;
	case 1:
		socket->ended = true;
		kernel_sim_peer_end(socket->fd);
		break;
	}
	if ((!socket->ended && !socket->reset) || socket->in_use > 0)
		return;
	*socket = (struct sim_socket){ .fd = socket->fd, .life = socket->life + 1 };
	kernel_sim_renew(socket->fd);
}

/* Another machine. */
static void
peer(void *context)
{
	struct sim_socket *socket = &run.connections[kernel_sim_below(SOCKETS)];

	if (run.over && !run.running)
		return;
	peer_moves(socket);
	peer_ends(socket);
	kernel_sim_at(kernel_sim_below(run.pump_ns / 8 + 1), peer, context);
}

static void
send_one(bool pump)
{
	struct sim_message *sim_message;

	if (run.idle_message_count == 0)
		return;
	sim_message = run.idle_messages[--run.idle_message_count];
	sim_message->pump = pump;
	sim_message->posted = true;
	sim_message->order = ++run.sent;
	sim_message->posted_turn = run.counters->turns;
	sim_message->posted_slept_ns = kernel_sim_slept_ns();
	run.calling = true;
	reactor_send(run.reactor, &sim_message->message);
	run.calling = false;
}

/* ---- what is done, and by whom ---- */

/* One random thing. */
static void
act(void)
{
	struct sim_timer *sim_timer = &run.timers[kernel_sim_below(TIMERS)];
	struct sim_task *sim_task = &run.tasks[kernel_sim_below(TASKS)];
	uint64_t choice = kernel_sim_below(86);

	if (run.over)
		return;
	if (choice < 26)
		start_some(&run.disk, 1);
	else if (choice < 38)
		start_some(&run.polls, 1);
	else if (choice == 38 && kernel_sim_below(16) == 0)
		start_some(&run.disk, OBJECTS_MAX);
	else if (choice == 39 && kernel_sim_below(16) == 0)
		start_some(&run.polls, OBJECTS_MAX);
	else if (choice < 44)
		cancel(&run.polls.ops[kernel_sim_below(run.polls.count)]);
	else if (choice < 49)
		defer(sim_task);
	else if (choice < 50)
		(task_cancel(&sim_task->task), sim_task->deferred = false);
	else if (choice < 55)
		start_timer(sim_timer);
	else if (choice < 57)
		stop_timer(sim_timer);
	else if (choice < 60)
		send_one(false);
	else if (choice < 64)
		complete_one(choice < 62 ? &run.disk : &run.polls);
	else if (choice < 78)
		start_some(&run.sockets, 1);
	else if (choice == 78 && kernel_sim_below(16) == 0)
		start_some(&run.sockets, OBJECTS_MAX);
	else if (choice < 83)
		abandon(&run.polls.ops[kernel_sim_below(run.polls.count)]);
	else if (choice < 85)
		notify_one();
	else if (kernel_sim_below(4) == 0)
		wake_one();
}

static void
stop(void *context)
{
	(void)context;
	if (run.stopped)
		return;
	run.stopped = true;
	run.stop_turn = run.counters->turns;
	run.stop_slept_ns = kernel_sim_slept_ns();
	reactor_stop(run.reactor);
}

/* Another thread: sends now and then, and may stop the reactor. */
static void
pump(void *context)
{
	unsigned count = 1 + (unsigned)kernel_sim_below(3);

	if (run.stopped && run.running)
		count = 0; /* nothing else may wake it */
	if (run.over && !run.running)
		return;
	/* Never two kinds at a time: each must wake the reactor by itself. */
	switch (count > 0 ? kernel_sim_below(4) : 3) {
	case 0:
		notify_one();
		break;
	case 1:
		wake_one();
		break;
	default:
		while (count-- > 0)
			send_one(true);
	}
	/* Soon: while the reactor is busy with the messages, or on its way to sleep. */
	if (run.stopper == STOPPER_THREAD && run.running && run.done >= run.stop_from)
		kernel_sim_at(kernel_sim_below(STOP_NS_MAX), stop, NULL);
	kernel_sim_at(kernel_sim_below(run.pump_ns), pump, context);
}

/* Timers apart, which may be long. */
static bool
drained(void)
{
	for (unsigned i = 0; i < TASKS; i++)
		if (run.tasks[i].deferred)
			return false;
	for (unsigned i = 0; i < NOTICES; i++)
		if (run.notices[i].pending != 0)
			return false;
	return run.disk.idle_count == run.disk.count && run.polls.idle_count == run.polls.count &&
	       run.sockets.idle_count == run.sockets.count && run.idle_message_count == MESSAGES &&
	       run.stale_to_come == 0;
}

static void
check_ages(const struct objects *objects)
{
	for (unsigned i = 0; i < objects->count; i++) {
		const struct sim_op *sim_op = &objects->ops[i];
		uint64_t age_ns = kernel_sim_now_ns() - sim_op->submitted_ns;

		if (sim_op->stage != STAGE_IDLE && age_ns > objects->age_ns_max)
			kernel_sim_fail("%s operation %u is in stage %d and %" PRIu64
					" ns old: lost or starved",
					objects == &run.disk	? "disk"
					: objects == &run.polls ? "poll"
								: "socket",
					i, sim_op->stage, age_ns);
	}
}

/* Looks after everything from outside, without ever waking the reactor but to end it. */
static void
watch(void *context)
{
	check_ages(&run.disk);
	check_ages(&run.polls);
	check_ages(&run.sockets);
	for (unsigned i = 0; i < TIMERS; i++) {
		const struct sim_timer *sim_timer = &run.timers[i];

		if (run.running && sim_timer->running &&
		    sim_timer->latest_ns < kernel_sim_now_ns() &&
		    kernel_sim_now_ns() - sim_timer->latest_ns > run.disk.age_ns_max)
			kernel_sim_fail("a timer never fires");
	}
	for (unsigned i = 0; i < MESSAGES; i++)
		SIM_CHECK(!run.running || !run.messages[i].posted ||
			  kernel_sim_slept_ns() - run.messages[i].posted_slept_ns < 20 * MS);
	if (run.stopper == STOPPER_DRAINED && run.started >= run.ops_max)
		run.over = true;
	if (run.over && run.running && drained()) {
		send_one(true);
		kernel_sim_at(kernel_sim_below(STOP_NS_MAX), stop, NULL);
	}
	kernel_sim_at(WATCH_NS, watch, context);
}

/* ---- the plan of a seed ---- */

static unsigned
rate(unsigned most)
{
	return kernel_sim_below(3) == 0 ? 0 : (unsigned)kernel_sim_below(most);
}

static unsigned
random_slots(void)
{
	static const unsigned sizes[] = { 1, 2, 3, 8, 33, 64, SLOTS_MAX };

	return 1 + (unsigned)kernel_sim_below(sizes[kernel_sim_below(ARRAY_COUNT(sizes))]);
}

static void
plan_manner(struct kernel_sim_manner *manner)
{
	*manner = (struct kernel_sim_manner){
		.short_submit = rate(20000),
		.no_slot = rate(10000),
		.refused = rate(2000),
		.interrupted = rate(10000),
		.spurious = rate(5000),
		.short_result = rate(10000),
		.error_result = rate(5000),
		.at_once = rate(20000),
		.preempted = rate(3000),
		.cancel_race = rate(30000),
		.echo = rate(1000),
		.disk_ns_max = (uint64_t)1 << (8 + kernel_sim_below(14)),
		.poll_ns_max = (uint64_t)1 << (8 + kernel_sim_below(14)),
	};
	manner->disk_ns_min = kernel_sim_below(manner->disk_ns_max);
}

/* One of four runs has nothing but normal operations, whose done is called at once. */
static void
plan_priorities(void)
{
	run.mixed = kernel_sim_below(4) != 0;
	run.weights[PRIORITY_NORMAL] = 1;
	for (unsigned i = 0; i < PRIORITY_COUNT; i++) {
		if (run.mixed)
			run.weights[i] = (unsigned)kernel_sim_below(8);
		run.sizes.shares[i] =
			1 + (unsigned)kernel_sim_below(kernel_sim_below(2) == 0 ? 4 : 64);
	}
	if (kernel_sim_below(8) == 0)
		run.sizes.waiting_max = 1 + (unsigned)kernel_sim_below(100);
}

static void
plan(uint64_t seed, uint64_t ops)
{
	static const unsigned spins_us[] = { 0, 0, 5, 20, 60 };

	run.config.seed = seed;
	run.config.ring_spare = (unsigned)kernel_sim_below(kernel_sim_below(2) == 0 ? 2 : 200);
	run.config.ring_unknown = kernel_sim_below(5) == 0;
	plan_manner(&run.config.manner);
	run.sizes.disk_slots = random_slots();
	run.sizes.poll_slots = random_slots();
	run.sizes.socket_batch_min =
		1 + (unsigned)kernel_sim_below(kernel_sim_below(2) == 0 ? 5 : 200);
	plan_priorities();
	run.sizes.poll_us = spins_us[kernel_sim_below(ARRAY_COUNT(spins_us))];
	run.ops_max = ops;
	run.turns_until = kernel_sim_below(ops / 2);
	run.waits_until = run.turns_until + kernel_sim_below((ops - run.turns_until) / 2);
	run.stop_from = run.waits_until + kernel_sim_below(ops - run.waits_until);
	run.stopper = (enum stopper)kernel_sim_below(STOPPER_THREAD + 1);
	run.eagerness = 2 + (unsigned)kernel_sim_below(3);
	run.pump_ns = (uint64_t)1 << (14 + kernel_sim_below(8));
	run.spends = kernel_sim_below(2) == 0;
}

static void
objects_init(struct objects *objects, struct sim_op *ops, enum kernel_sim_kind kind, unsigned slots,
	     unsigned count)
{
	uint64_t rounds;

	objects->ops = ops;
	objects->slots = slots;
	objects->kind = kind;
	objects->background_slots = (slots + 3) / 4;
	objects->count = 1 + (unsigned)kernel_sim_below(count);
	rounds = objects->count / slots + 1;
	/* Lower classes wait until higher ones leave them a slot. */
	if (run.mixed)
		rounds = objects->count / objects->background_slots * 8 + 8;
	/* A round of all slots takes the slowest operation, a kernel worker, a refusal for want of slots, and the
	 * callbacks of a turn or two. */
	objects->age_ns_max = 100 * MS + rounds * 35 * MS;
	for (unsigned i = 0; i < objects->count; i++) {
		ops[i].objects = objects;
		ops[i].fd = FIRST_FD;
		op_init(&ops[i].op, on_done);
		objects->idle[objects->idle_count++] = &ops[i];
	}
}

static void
world_init(void)
{
	for (unsigned i = 0; i < FILES; i++) {
		run.file_fds[i] = kernel_sim_file(run.files[i], FILE_BYTES);
		for (unsigned j = 0; j < FILE_BYTES; j++)
			run.files[i][j] = content_at(run.file_fds[i], j);
	}
	for (unsigned i = 0; i < LIVE_FDS; i++)
		run.live_fds[i] = kernel_sim_pollable(true);
	for (unsigned i = 0; i < DEAD_FDS; i++)
		run.dead_fds[i] = kernel_sim_pollable(false);
	for (unsigned i = 0; i < SOCKETS; i++)
		run.connections[i].fd = kernel_sim_socket(SOCKET_ROOM);
	objects_init(&run.disk, run.disk_ops, KERNEL_SIM_KIND_DISK, run.sizes.disk_slots,
		     2 * run.sizes.disk_slots + 8);
	objects_init(&run.polls, run.poll_ops, KERNEL_SIM_KIND_POLL, run.sizes.poll_slots,
		     2 * run.sizes.poll_slots + 8);
	objects_init(&run.sockets, run.socket_ops, KERNEL_SIM_KIND_SOCKET, SOCKET_SLOTS,
		     kernel_sim_below(4) == 0 ? 2 * SOCKET_SLOTS : 16);
	for (unsigned i = 0; i < NOTICES; i++)
		notice_init(&run.notices[i].notice, on_notice);
	for (unsigned i = 0; i < TIMERS; i++)
		timer_init(&run.timers[i].timer, on_expired);
	for (unsigned i = 0; i < TASKS; i++)
		task_init(&run.tasks[i].task, on_run);
	for (unsigned i = 0; i < MESSAGES; i++) {
		run.messages[i].message.deliver = on_deliver;
		run.idle_messages[run.idle_message_count++] = &run.messages[i];
	}
}

/* ---- the phases of a run ---- */

/* The first poll may be refused, which looks like a kernel without polls. */
static void
create(void)
{
	int error;

	while ((error = reactor_create(&run.sizes, &run.reactor)) != 0)
		SIM_CHECK(error == -EOPNOTSUPP);
	run.counters = reactor_counters(run.reactor);
	SIM_CHECK(reactor_slots(run.reactor, OP_KIND_SOCKET) == SOCKET_SLOTS);
	on_time();
}

static void
turn(void)
{
	uint64_t slept_ns = kernel_sim_slept_ns();
	bool busy;

	on_time();
	busy = reactor_turn(run.reactor);
	on_time();
	SIM_CHECK(kernel_sim_slept_ns() == slept_ns);
	if (!busy || kernel_sim_below(8) == 0)
		kernel_sim_idle(kernel_sim_below(200000));
}

static void
take_turns(void)
{
	while (run.done < run.turns_until) {
		if (kernel_sim_below(4) == 0)
			act();
		turn();
	}
}

/* A wait ends for what it says, and in time. */
static void
wait_once(void)
{
	unsigned min = (unsigned)kernel_sim_below(kernel_sim_below(2) == 0 ? 2 : 30);
	unsigned max = 1 + (unsigned)kernel_sim_below(kernel_sim_below(2) == 0 ? 4 : 60), count;
	uint64_t timeout_ns = kernel_sim_below(4) == 0 ? 0 : kernel_sim_below(3 * MS);
	uint64_t until_ns = kernel_sim_now_ns() + timeout_ns, awake_ns = awake_now_ns();
	uint64_t calls = run.called[0] + run.called[1] + run.called[2];

	/* At any moment of it: on its way to sleep, asleep, at its end. */
	if (kernel_sim_below(4) == 0)
		kernel_sim_at(kernel_sim_below(kernel_sim_below(2) == 0 ? 5000 : timeout_ns), wake,
			      NULL);
	run.waits++;
	count = reactor_wait(run.reactor, min, max, timeout_ns);
	SIM_CHECK(count <= max);
	SIM_CHECK(count == run.called[0] + run.called[1] + run.called[2] - calls);
	if (count >= smaller(min, max))
		return;
	if (kernel_sim_now_ns() < until_ns) {
		SIM_CHECK(run.wake_maybe);
		run.wake_maybe = false;
	} else {
		SIM_CHECK(kernel_sim_now_ns() - until_ns <=
			  WAKE_NS_MAX + awake_now_ns() - awake_ns);
	}
	run.wake_sure = false;
}

static void
take_waits(void)
{
	run.waiting = true;
	while (run.done < run.waits_until) {
		if (kernel_sim_below(4) == 0)
			act();
		wait_once();
		kernel_sim_busy();
		on_time();
	}
	run.waiting = false;
	run.loose_until_turn = run.counters->turns + 4;
	run.due = 0;
}

static void
run_until_stopped(void)
{
	run.running = true;
	reactor_run(run.reactor);
	run.running = false;
	SIM_CHECK(run.stopped);
	/* A turn that began just before the stop, and no sleep. */
	SIM_CHECK(run.counters->turns - run.stop_turn <= 1);
	SIM_CHECK(kernel_sim_slept_ns() - run.stop_slept_ns <=
		  WAKE_NS_MAX + (run.config.manner.no_slot == 0 ? 0 : 5 * MS));
}

static void
drain(void)
{
	uint64_t until_ns;

	while (run.started < run.ops_max) {
		if (kernel_sim_below(4) == 0)
			act();
		turn();
	}
	run.over = true;
	until_ns = kernel_sim_now_ns() + DRAIN_NS_MAX;
	for (unsigned i = 0; i < TIMERS; i++)
		stop_timer(&run.timers[i]);
	while (!drained()) {
		cancel_dead();
		for (unsigned i = 0; i < SOCKETS && run.stale_to_come > 0; i++) {
			run.connections[i].reset = true;
			kernel_sim_peer_reset(run.connections[i].fd);
		}
		turn();
		SIM_CHECK(kernel_sim_now_ns() < until_ns);
	}
}

static unsigned
submit_all(struct objects *objects, unsigned slots)
{
	unsigned count = objects->idle_count;

	while (objects->idle_count > 0) {
		struct sim_op *sim_op = take_idle(objects);

		sim_op->op.priority = PRIORITY_NORMAL;
		sim_op->dead = objects == &run.polls;
		sim_op->fd = sim_op->dead ? run.dead_fds[0] : run.file_fds[0];
		if (sim_op->dead)
			op_poll(&sim_op->op, sim_op->fd, POLLIN);
		else
			op_read(&sim_op->op, sim_op->fd, sim_op->buffer, 1, 0);
		submit(sim_op);
	}
	count = smaller(count, slots);
	return run.sizes.waiting_max == 0 ? count : smaller(count, run.sizes.waiting_max);
}

/* With a kernel that does what it should, every slot is used again. */
static void
check_slots(void)
{
	const struct kernel_sim_manner good = {
		.disk_ns_min = 2 * MS,
		.disk_ns_max = 3 * MS,
		.poll_ns_max = 3 * MS,
	};
	uint64_t until_ns = kernel_sim_now_ns() + SETTLE_NS;
	unsigned disk, polls;

	kernel_sim_set_manner(&good);
	/* Until a refusal is forgotten, and what it held back is with the kernel. */
	while (kernel_sim_now_ns() < until_ns)
		turn();
	kernel_sim_set_ready(run.dead_fds[0], 0);
	SIM_CHECK(kernel_sim_slots_used(KERNEL_SIM_KIND_DISK) == 0);
	SIM_CHECK(kernel_sim_slots_used(KERNEL_SIM_KIND_POLL) == 0);
	SIM_CHECK(kernel_sim_slots_used(KERNEL_SIM_KIND_SOCKET) == 0);
	SIM_CHECK(kernel_sim_slots_used(KERNEL_SIM_KIND_WAKEUP) == 1);
	SIM_CHECK(reactor_free_slots(run.reactor, OP_KIND_DISK) == run.disk.slots);
	SIM_CHECK(reactor_free_slots(run.reactor, OP_KIND_POLL) == run.polls.slots);
	SIM_CHECK(reactor_free_slots(run.reactor, OP_KIND_SOCKET) == run.sockets.slots);
	disk = submit_all(&run.disk, run.sizes.disk_slots);
	polls = submit_all(&run.polls, run.sizes.poll_slots);
	(void)reactor_turn(run.reactor);
	SIM_CHECK(kernel_sim_slots_used(KERNEL_SIM_KIND_DISK) == disk);
	SIM_CHECK(kernel_sim_slots_used(KERNEL_SIM_KIND_POLL) == polls);
	drain();
}

static void
check_counters(void)
{
	const struct kernel_sim_counters *kernel = kernel_sim_counters();

	kernel_sim_idle(1); /* the kernel looks at the ring once more */
	SIM_CHECK(run.started == run.done);
	SIM_CHECK(run.counters->events == kernel->drained);
	SIM_CHECK(run.counters->ops_submitted == kernel->taken);
	SIM_CHECK(run.sent == run.delivered && run.notified == run.noticed);
	SIM_CHECK(run.counters->messages == run.delivered + run.noticed);
	SIM_CHECK(run.counters->ops_abandoned == run.abandoned);
	SIM_CHECK(run.counters->events_stale == run.stale + kernel->echoes);
	SIM_CHECK(run.counters->ops_direct == run.direct);
	SIM_CHECK(run.counters->ops_done[PRIORITY_LATENCY] == run.called[PRIORITY_LATENCY]);
	SIM_CHECK(run.counters->ops_done[PRIORITY_BACKGROUND] == run.called[PRIORITY_BACKGROUND]);
	SIM_CHECK(kernel->submit_calls - kernel->no_slot <= kernel->taken + kernel->refused);
}

static void
report(double seconds)
{
	const struct kernel_sim_counters *kernel = kernel_sim_counters();

	printf("%u + %u slots for %u + %u + %u operations, classes %u:%u:%u, spin %u us, %s: "
	       "%" PRIu64 " done in %" PRIu64 " ms (%.2f s), %" PRIu64 " turns (%" PRIu64
	       " cut); %" PRIu64 " submits (%" PRIu64 " short, %" PRIu64 " without a slot, %" PRIu64
	       " refused), %" PRIu64 " sleeps, %" PRIu64 " wake-ups, %" PRIu64
	       " times round the ring, %" PRIu64 " cancels (%" PRIu64 " late), %" PRIu64
	       " yields; ",
	       run.sizes.disk_slots, run.sizes.poll_slots, run.disk.count, run.polls.count,
	       run.sockets.count, run.weights[PRIORITY_LATENCY], run.weights[PRIORITY_NORMAL],
	       run.weights[PRIORITY_BACKGROUND], run.sizes.poll_us,
	       run.config.ring_unknown ? "ring unknown" : "ring known", run.done,
	       kernel_sim_now_ns() / MS, seconds, run.counters->turns, run.counters->turns_cut,
	       kernel->submit_calls, kernel->short_submits, kernel->no_slot, kernel->refused,
	       kernel->sleeps, kernel->wakeups, kernel->wraps, kernel->cancels,
	       kernel->cancels_late, kernel->yields);
	printf("%" PRIu64 " bytes received, %" PRIu64 " sent, %" PRIu64
	       " transfers without io_submit; %" PRIu64 " abandoned, %" PRIu64
	       " stale events; %" PRIu64 " messages, %" PRIu64 " notices, %" PRIu64
	       " waits, %" PRIu64 " wakes, %" PRIu64 " timers, %" PRIu64 " tasks; trace %016" PRIx64
	       "\n",
	       kernel->received, kernel->sent, run.direct, run.abandoned, run.stale, run.delivered,
	       run.noticed, run.waits, run.wakes, run.fired, run.ran, kernel_sim_trace());
}

static double
seconds_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void
on_alarm(int signal_number)
{
	(void)signal_number;
	kernel_sim_fail("not done after %d s of real time", REAL_TIME_S);
}

static void
run_seed(uint64_t seed, uint64_t ops, bool tell)
{
	static const struct kernel_sim_observer observer = {
		.on_taken = on_taken,
		.on_refused = on_refused,
		.on_completed = on_completed,
		.on_transfer = on_transfer,
		.on_sleep = on_sleep,
		.on_time = on_time,
	};
	const struct kernel_sim_config chance_only = { .seed = seed };
	double started_s = seconds_now();

	signal(SIGALRM, on_alarm);
	alarm(REAL_TIME_S);
	/* The plan comes from the same source of chance, which needs a simulation. */
	kernel_sim_begin(&chance_only, &observer);
	plan(seed, ops);
	kernel_sim_end();
	kernel_sim_begin(&run.config, &observer);
	world_init();
	create();
	kernel_sim_at(0, pump, NULL);
	kernel_sim_at(0, peer, NULL);
	kernel_sim_at(WATCH_NS, watch, NULL);
	take_turns();
	take_waits();
	run_until_stopped();
	drain();
	check_slots();
	check_counters();
	if (tell)
		report(seconds_now() - started_s);
	reactor_destroy(run.reactor);
	kernel_sim_end();
	alarm(0);
}

/* ---- many seeds ---- */

/* In a process of its own.  Returns whether it passed. */
static bool
seed_passes(uint64_t seed, uint64_t ops)
{
	pid_t child;
	int status;

	fflush(NULL);
	child = fork();
	if (child == 0) {
		run_seed(seed, ops, false);
		exit(0);
	}
	if (child < 0 || waitpid(child, &status, 0) != child) {
		perror("sim-reactor");
		return false;
	}
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return true;
	printf("SEED=%" PRIu64 " failed, of %" PRIu64 " operations; again: SEED=%" PRIu64
	       " PROGRAM --ops %" PRIu64 "\n",
	       seed, ops, seed, ops);
	return false;
}

static uint64_t
seed_from_clock(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return ((uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / MS) % 1000000000000;
}

static bool
write_counts(const char *path, unsigned passed, unsigned failed)
{
	FILE *file = fopen(path, "w");
	bool good = file != NULL && fprintf(file, "%u passed, %u failed\n", passed, failed) > 0;

	if (file != NULL && fclose(file) != 0)
		good = false;
	if (!good)
		perror(path);
	return good;
}

static int
usage(void)
{
	fputs("usage: [SEED=n] sim-reactor [--seeds N] [--ops N] [--counts FILE]\n", stderr);
	return 2;
}

int
main(int argc, char **argv)
{
	unsigned seeds = SEEDS_DEFAULT, passed = 0, failed = 0;
	uint64_t ops = OPS_DEFAULT, base = seed_from_clock();
	const char *counts = NULL, *seed_text = getenv("SEED");
	double started_s = seconds_now();

	for (int i = 1; i < argc; i++) {
		if (i + 1 < argc && strcmp(argv[i], "--seeds") == 0)
			seeds = (unsigned)strtoul(argv[++i], NULL, 10);
		else if (i + 1 < argc && strcmp(argv[i], "--ops") == 0)
			ops = strtoull(argv[++i], NULL, 10);
		else if (i + 1 < argc && strcmp(argv[i], "--counts") == 0)
			counts = argv[++i];
		else
			return usage();
	}
	if (seed_text != NULL) {
		run_seed(strtoull(seed_text, NULL, 10), ops, true);
		return 0;
	}
	printf("sim-reactor: SEED=%" PRIu64 " to SEED=%" PRIu64 ", %" PRIu64 " operations each\n",
	       base, base + seeds - 1, ops);
	for (unsigned i = 0; i < seeds; i++) {
		if (seed_passes(base + i, ops))
			passed++;
		else
			failed++;
	}
	printf("%u passed, %u failed in %.1f s\n", passed, failed, seconds_now() - started_s);
	if (counts != NULL && !write_counts(counts, passed, failed))
		return 1;
	return failed == 0 && passed > 0 ? 0 : 1;
}
