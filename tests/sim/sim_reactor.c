/* The reactor on the simulated kernel: random operations, polls, cancels, timers, tasks and messages under random
 * faults, and what must hold throughout.
 *
 *	sim-reactor [--seeds N] [--ops N] [--counts FILE]
 *	SEED=n sim-reactor [--ops N]          one seed, in this process, for a debugger
 *
 * A seed decides everything, the sizes of the reactor and how bad the kernel is included; OPS is part of what it
 * decides upon.  A run first takes turns one by one, then lets reactor_run rest until it is stopped by its own core, by
 * another thread, or when all is done; takes turns again until nothing is left; and at last looks whether every slot
 * is still there.  Each seed has a process of its own, so that the others go on when one fails. */
#include <errno.h>
#include <inttypes.h>
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

#define OBJECTS_MAX    640 /* of disk operations, of polls */
#define FILES	       4
#define FILE_BYTES     4096
#define IO_BYTES_MAX   64
#define LIVE_FDS       12 /* become ready now and then */
#define DEAD_FDS       4  /* never do: their polls end by cancel */
#define TIMERS	       48
#define TASKS	       24
#define MESSAGES       64
#define SLOTS_MAX      300
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
	STAGE_REFUSED, /* by io_submit */
	STAGE_LOCAL,   /* completed or cancelled without the kernel */
};

/* One kind's operations. */
struct objects {
	struct sim_op *ops;
	unsigned count;
	struct sim_op *idle[OBJECTS_MAX];
	unsigned idle_count;
	unsigned slots, queued; /* in STAGE_QUEUED */
	unsigned expected,
		seen; /* in this turn: at least so many, and so many, are given to the kernel */
	uint64_t order,
		order_taken; /* of submission: the last one given, the last one the kernel saw */
	uint64_t age_ns_max;
};

struct sim_op {
	struct op op;
	struct objects *objects;
	enum stage stage;
	long expected;
	uint64_t order, submitted_ns;
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
	uint64_t turns_until,
		stop_from; /* operations done: then reactor_run; then it may be stopped */
	enum stopper stopper;
	unsigned eagerness;
	uint64_t pump_ns; /* longest pause of the pump */
	bool spends;	  /* callbacks take their time */

	struct reactor *reactor;
	const struct reactor_counters *counters;
	enum place place;
	bool calling; /* within a call that may not call done */
	bool running; /* reactor_run is */
	bool over;    /* nothing new is started */
	uint64_t started, done, sent, delivered, fired, ran;
	uint64_t stop_turn, stop_slept_ns;
	bool stopped;

	unsigned local; /* operations in STAGE_LOCAL or STAGE_REFUSED */
	uint64_t no_slot,
		no_slot_until_ns; /* refusals before this turn; until when the reactor may wait */
	uint64_t turn, awake_ns, awake_before_ns; /* when this turn, and the one before it, began */

	struct objects disk, polls;
	struct sim_op disk_ops[OBJECTS_MAX], poll_ops[OBJECTS_MAX];
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

/* How many of what waits the kernel must be given now.  None after a refusal for want of slots. */
static unsigned
submittable(const struct objects *objects, enum kernel_sim_kind kind)
{
	unsigned room;

	if (kernel_sim_counters()->no_slot != run.no_slot ||
	    kernel_sim_now_ns() < run.no_slot_until_ns)
		return 0;
	room = objects->slots - kernel_sim_slots_used(kind);
	return objects->queued < room ? objects->queued : room;
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
	}
}

/* Notice the start of a turn; no time has passed in it yet, and the kernel has not looked at the ring. */
static void
on_time(void)
{
	if (run.counters == NULL || run.counters->turns == run.turn)
		return;
	turn_ended();
	run.disk.seen = run.polls.seen = 0;
	run.disk.expected = submittable(&run.disk, KERNEL_SIM_KIND_DISK);
	run.polls.expected = submittable(&run.polls, KERNEL_SIM_KIND_POLL);
	run.awake_before_ns = run.counters->turns == run.turn + 1 ? run.awake_ns : awake_now_ns();
	run.awake_ns = awake_now_ns();
	run.turn = run.counters->turns;
}

/* The reactor's rest: nothing that it could do is left. */
static void
on_sleep(void)
{
	SIM_CHECK(run.running && !run.stopped);
	on_time();
	SIM_CHECK(submittable(&run.disk, KERNEL_SIM_KIND_DISK) == 0);
	SIM_CHECK(submittable(&run.polls, KERNEL_SIM_KIND_POLL) == 0);
	SIM_CHECK(run.local == 0);
	for (unsigned i = 0; i < TASKS; i++)
		SIM_CHECK(!run.tasks[i].deferred);
	SIM_CHECK(run.idle_message_count == MESSAGES);
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

	objects->queued += (stage == STAGE_QUEUED);
	objects->queued -= (sim_op->stage == STAGE_QUEUED);
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
	SIM_CHECK(sim_op->stage == STAGE_QUEUED);
	SIM_CHECK(sim_op->order > sim_op->objects->order_taken);
	/* A queued poll may have been cancelled; nothing else goes missing. */
	SIM_CHECK(sim_op->objects == &run.polls ||
		  sim_op->order == sim_op->objects->order_taken + 1);
	sim_op->objects->order_taken = sim_op->order;
	sim_op->objects->seen++;
	stage_set(sim_op, stage);
}

static void
on_taken(struct iocb *iocb)
{
	struct sim_op *sim_op = op_of(iocb);

	SIM_CHECK(kernel_sim_slots_used(KERNEL_SIM_KIND_DISK) <= run.sizes.disk_slots);
	SIM_CHECK(kernel_sim_slots_used(KERNEL_SIM_KIND_POLL) <= run.sizes.poll_slots);
	SIM_CHECK(kernel_sim_slots_used(KERNEL_SIM_KIND_WAKEUP) <= 1);
	if (sim_op != NULL)
		leave_queue(sim_op, STAGE_KERNEL);
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
on_completed(struct iocb *iocb, long result)
{
	struct sim_op *sim_op = op_of(iocb);

	if (sim_op == NULL)
		return;
	SIM_CHECK(sim_op->stage == STAGE_KERNEL);
	stage_set(sim_op, STAGE_EVENT);
	sim_op->expected = result;
}

static uint8_t
content_at(int fd, uint64_t offset)
{
	return (uint8_t)((uint64_t)fd * 31 + offset * 7 + (offset >> 8));
}

/* How soon done must follow. */
static void
check_prompt(const struct sim_op *sim_op)
{
	uint64_t turns = run.turn - sim_op->stage_turn;

	switch (sim_op->stage) {
	case STAGE_REFUSED:
		SIM_CHECK(turns == 0);
		break;
	case STAGE_LOCAL:
		SIM_CHECK(turns == 1);
		break;
	case STAGE_EVENT:
		SIM_CHECK(turns <= 1);
		break;
	default:
		kernel_sim_fail("done in stage %d: twice, or before its time", sim_op->stage);
	}
	SIM_CHECK(kernel_sim_slept_ns() - sim_op->stage_slept_ns <= WAKE_NS_MAX);
}

static void
on_done(struct op *op, long result)
{
	struct sim_op *sim_op = container_of(op, struct sim_op, op);
	struct objects *objects = sim_op->objects;

	enter(PLACE_CALLBACK);
	SIM_CHECK(op_idle(op));
	check_prompt(sim_op);
	SIM_CHECK(result == sim_op->expected);
	SIM_CHECK(kernel_sim_now_ns() - sim_op->submitted_ns <= objects->age_ns_max);
	if (sim_op->stage == STAGE_EVENT && op->iocb.aio_lio_opcode == IO_CMD_PREAD) {
		for (long i = 0; i < result; i++)
			SIM_CHECK(sim_op->buffer[i] ==
				  content_at(sim_op->fd,
					     (uint64_t)op->iocb.u.c.offset + (uint64_t)i));
	}
	/* A dead fd comes alive only by a cancel that is too late. */
	if (objects == &run.polls && sim_op->stage == STAGE_EVENT &&
	    (sim_op->dead || kernel_sim_below(2) == 0))
		kernel_sim_set_ready(sim_op->fd, 0);
	run.done++;
	stage_set(sim_op, STAGE_IDLE);
	objects->idle[objects->idle_count++] = sim_op;
	leave();
}

static void
submit(struct sim_op *sim_op)
{
	sim_op->order = ++sim_op->objects->order;
	stage_set(sim_op, STAGE_QUEUED);
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
	sim_op->dead = kernel_sim_below(4) == 0;
	sim_op->fd = sim_op->dead ? run.dead_fds[kernel_sim_below(DEAD_FDS)]
				  : run.live_fds[kernel_sim_below(LIVE_FDS)];
	op_poll(&sim_op->op, sim_op->fd, kernel_sim_below(2) == 0 ? POLLIN : POLLOUT);
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
	run.started++;
	return sim_op;
}

static void
start_one(struct objects *objects)
{
	struct sim_op *sim_op = take_idle(objects);

	if (objects == &run.disk)
		prepare_disk(sim_op);
	else
		prepare_poll(sim_op);
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
	uint64_t choice = kernel_sim_below(64);

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
	else
		complete_one(choice < 62 ? &run.disk : &run.polls);
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
	while (count-- > 0)
		send_one(true);
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
	return run.disk.idle_count == run.disk.count && run.polls.idle_count == run.polls.count &&
	       run.idle_message_count == MESSAGES;
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
					objects == &run.disk ? "disk" : "poll", i, sim_op->stage,
					age_ns);
	}
}

/* Looks after everything from outside, without ever waking the reactor but to end it. */
static void
watch(void *context)
{
	check_ages(&run.disk);
	check_ages(&run.polls);
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
		.disk_ns_max = (uint64_t)1 << (8 + kernel_sim_below(14)),
		.poll_ns_max = (uint64_t)1 << (8 + kernel_sim_below(14)),
	};
	manner->disk_ns_min = kernel_sim_below(manner->disk_ns_max);
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
	run.sizes.poll_us = spins_us[kernel_sim_below(ARRAY_COUNT(spins_us))];
	run.ops_max = ops;
	run.turns_until = kernel_sim_below(ops / 2);
	run.stop_from = run.turns_until + kernel_sim_below(ops - run.turns_until);
	run.stopper = (enum stopper)kernel_sim_below(STOPPER_THREAD + 1);
	run.eagerness = 2 + (unsigned)kernel_sim_below(3);
	run.pump_ns = (uint64_t)1 << (14 + kernel_sim_below(8));
	run.spends = kernel_sim_below(2) == 0;
}

static void
objects_init(struct objects *objects, struct sim_op *ops, unsigned slots)
{
	uint64_t rounds;

	objects->ops = ops;
	objects->slots = slots;
	objects->count = 1 + (unsigned)kernel_sim_below(2 * slots + 8);
	rounds = objects->count / slots + 1;
	/* A round of all slots takes the slowest operation, a kernel worker, a refusal for want of slots, and the
	 * callbacks of a turn or two. */
	objects->age_ns_max = 100 * MS + rounds * 35 * MS;
	for (unsigned i = 0; i < objects->count; i++) {
		ops[i].objects = objects;
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
	objects_init(&run.disk, run.disk_ops, run.sizes.disk_slots);
	objects_init(&run.polls, run.poll_ops, run.sizes.poll_slots);
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

		sim_op->dead = objects == &run.polls;
		sim_op->fd = sim_op->dead ? run.dead_fds[0] : run.file_fds[0];
		if (sim_op->dead)
			op_poll(&sim_op->op, sim_op->fd, POLLIN);
		else
			op_read(&sim_op->op, sim_op->fd, sim_op->buffer, 1, 0);
		submit(sim_op);
	}
	return count < slots ? count : slots;
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
	SIM_CHECK(kernel_sim_slots_used(KERNEL_SIM_KIND_WAKEUP) == 1);
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
	SIM_CHECK(run.counters->messages == run.delivered && run.sent == run.delivered);
	SIM_CHECK(kernel->submit_calls - kernel->no_slot <= kernel->taken + kernel->refused);
}

static void
report(double seconds)
{
	const struct kernel_sim_counters *kernel = kernel_sim_counters();

	printf("%u + %u slots for %u + %u operations, spin %u us, %s: %" PRIu64 " done in %" PRIu64
	       " ms (%.2f s), %" PRIu64 " turns; %" PRIu64 " submits (%" PRIu64 " short, %" PRIu64
	       " without a slot, %" PRIu64 " refused), %" PRIu64 " sleeps, %" PRIu64
	       " wake-ups, %" PRIu64 " times round the ring, %" PRIu64 " cancels (%" PRIu64
	       " late), %" PRIu64 " yields; %" PRIu64 " messages, %" PRIu64 " timers, %" PRIu64
	       " tasks\n",
	       run.sizes.disk_slots, run.sizes.poll_slots, run.disk.count, run.polls.count,
	       run.sizes.poll_us, run.config.ring_unknown ? "ring unknown" : "ring known", run.done,
	       kernel_sim_now_ns() / MS, seconds, run.counters->turns, kernel->submit_calls,
	       kernel->short_submits, kernel->no_slot, kernel->refused, kernel->sleeps,
	       kernel->wakeups, kernel->wraps, kernel->cancels, kernel->cancels_late,
	       kernel->yields, run.delivered, run.fired, run.ran);
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
	kernel_sim_at(WATCH_NS, watch, NULL);
	take_turns();
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
