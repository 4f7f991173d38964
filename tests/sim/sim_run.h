/* A run of the simulation of the reactor: its sizes, its state and what its parts want of each
 * other.  sim_reactor.c begins it, sim_plan.c decides what it is to be and sim_phases.c goes
 * through it; sim_turns.c is the model of what the reactor must do; sim_ops.c has the operations,
 * of which sim_disk.c, sim_polls.c and sim_sockets.c are kinds; sim_streams.c and sim_parked.c have
 * streams and what is parked, of whose operations the model knows nothing; sim_timers.c,
 * sim_messages.c and sim_acts.c what else happens.  Only these include this. */
#ifndef TESTS_SIM_SIM_RUN_H
#define TESTS_SIM_SIM_RUN_H

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
#define WATCH_NS     (5 * MS)
#define WAKE_NS_MAX  100000 /* from a signal until a sleeping core runs */

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
	unsigned
		passed; /* normal ones that left the queue since one of the background left or began to wait */
	enum kernel_sim_kind kind;
	/* In this turn: at least so many, and so many, are given to the kernel. */
	unsigned expected, seen;
	unsigned urgent; /* of those expected, of the latency class */
	bool may_hold;	 /* the others, in this turn */
	unsigned held;	 /* turns in a row that did */
	uint64_t batch;	 /* the number of the last io_submit that had some */
	unsigned batch_lower;
	/* Of submission: the last one given, the last one the kernel saw. */
	uint64_t order[PRIORITY_COUNT], order_taken[PRIORITY_COUNT];
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
	uint64_t turn, turn_last; /* between which it must run */
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
	PLACE_STREAM, /* a callback, or a task */
};

/* How the run is stopped. */
enum stopper {
	STOPPER_DRAINED,
	STOPPER_CALLBACK,
	STOPPER_THREAD,
};

struct sim_run {
	struct kernel_sim_config config;
	struct reactor_config sizes;
	uint64_t ops_max; /* to start */
	/* Operations done: then reactor_wait; reactor_run; then it may be stopped. */
	uint64_t turns_until, waits_until, stop_from;
	unsigned weights[PRIORITY_COUNT]; /* how often an operation is of each class */
	bool mixed;			  /* not all are normal */
	enum stopper stopper;
	unsigned eagerness;
	uint64_t pump_ns; /* longest pause of the pump */
	bool spends;	  /* callbacks take their time */
	unsigned stream_count;

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
	/* reactor_wake was not followed by the end of a wait; perhaps. */
	bool wake_sure, wake_maybe;
	uint64_t wake_turn, wake_slept_ns;
	uint64_t loose_until_turn; /* before, reactor_wait may have left much undone */

	unsigned latency;		/* operations of the latency class that are not idle */
	bool latency_seen;		/* in this turn */
	uint64_t latency_done_ns;	/* the last call of one; 0: none */
	unsigned ready[PRIORITY_COUNT]; /* waiting for done */
	unsigned ready_start[PRIORITY_COUNT]; /* of those, since this turn began */
	/* Calls of others since the class had one and wanted more. */
	unsigned passed_over[PRIORITY_COUNT];
	uint64_t cleared;	 /* wake-ups before this turn: the reactor's own calls */
	uint64_t forgotten_turn; /* the last one in which something that was ready was abandoned */
	unsigned due, calls;	 /* of done, in this turn: at least; so far */
	uint64_t event_order[PRIORITY_COUNT], event_done[PRIORITY_COUNT];
	uint64_t stop_turn, stop_slept_ns;
	bool stopped;

	unsigned local; /* operations in STAGE_LOCAL or STAGE_REFUSED */
	/* Refusals before this turn; until when the reactor may wait. */
	uint64_t no_slot, no_slot_until_ns;
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
};

/* The one run. */
extern struct sim_run run;

static inline unsigned
smaller(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

/* ---- sim_turns.c ---- */

/* Whether the latency class is in use and was called in the last NS. */
bool turns_latency_busy(uint64_t ns);

/* One of CLASS is taken out of OBJECTS' queue by io_submit. */
void turns_check_batch(struct objects *objects, enum priority class);

/* The time that the core has not slept. */
uint64_t turns_awake_ns(void);

/* Notice the start of a turn; no time has passed in it yet, and the kernel has not looked at the ring. */
void turns_on_time(void);

/* The reactor's rest: nothing that it could do is left. */
void turns_on_sleep(void);

/* A callback begins, and ends with its own work: some time, some new things to do. */
void turns_enter(enum place place);
void turns_leave(void);

/* SIM_OP's done is called: is it its turn, of its class and of itself? */
void turns_check_shares(enum priority class);
void turns_check_prompt(const struct sim_op *sim_op);

/* ---- sim_ops.c ---- */

static inline bool
stage_local(enum stage stage)
{
	return stage == STAGE_LOCAL || stage == STAGE_REFUSED;
}

void ops_set_stage(struct sim_op *sim_op, enum stage stage);

/* SIM_OP is given to the kernel, or not: it is the next of its class. */
void ops_leave_queue(struct sim_op *sim_op, enum stage stage);

/* Of the observer. */
uint64_t ops_on_taken(struct iocb *iocb);
void ops_on_refused(struct iocb *iocb, int error);
void ops_on_completed(uint64_t cookie, long result);

enum priority ops_random_priority(void);
void ops_on_done(struct op *op, long result);
void ops_become_idle(struct sim_op *sim_op);

/* Take an operation out of the idle ones; there is one. */
struct sim_op *ops_take_idle(struct objects *objects);
void ops_submit(struct sim_op *sim_op);

/* Start up to COUNT, if the run is not over. */
void ops_start_some(struct objects *objects, unsigned count);

/* One that does not need the kernel. */
void ops_complete_one(struct objects *objects);

/* ---- kinds ---- */

uint8_t disk_content(int fd, uint64_t offset);
void disk_prepare(struct sim_op *sim_op);
void disk_check_read(const struct sim_op *sim_op, long result);

void polls_prepare(struct sim_op *sim_op);
void polls_cancel(struct sim_op *sim_op);
void polls_abandon(struct sim_op *sim_op);

/* Those that would never end by themselves, when they are old. */
void polls_cancel_dead(void);

void sockets_prepare(struct sim_op *sim_op);
void sockets_done(struct sim_op *sim_op, long result);

/* Of the observer: a receive or send has happened; it is the only one of that moment. */
void sockets_on_transfer(int fd, void *first_byte, bool send, long result);

/* A step: another machine. */
void sockets_peer(void *context);

/* ---- sim_streams.c ---- */

/* COUNT streams, at least 1, may be open at a time, on the reactor. */
void streams_start(unsigned count);

/* One random thing with a stream. */
void streams_act(void);

/* Of the observer.  Returns false if it was no stream's. */
bool streams_on_transfer(void *first_byte, bool send, long result);

/* Whether none waits for what is there. */
void streams_check(void);

/* A step towards the end of all streams, behind all that was sent.  Returns true when it is reached. */
bool streams_finish(void);
void streams_report(void);

/* ---- sim_parked.c: only where there are streams ---- */

void parked_start(void);

/* One random thing with something parked. */
void parked_act(void);

/* Whether all were told what they are to know. */
void parked_check(void);

/* As streams_finish. */
bool parked_finish(void);
uint64_t parked_told(void);

/* ---- sim_timers.c, sim_messages.c ---- */

void timers_start(struct sim_timer *sim_timer);
void timers_stop(struct sim_timer *sim_timer);
void timers_on_expired(struct timer *timer);
void tasks_defer(struct sim_task *sim_task);
void tasks_on_run(struct task *task);

void messages_on_deliver(struct message *message);
void messages_on_notice(struct notice *notice, uint32_t bits);
void messages_send(bool pump);
void messages_notify(void);
void messages_wake(void);

/* ---- sim_acts.c ---- */

/* One random thing. */
void acts_one(void);

/* Steps: stop the reactor; another thread, which sends now and then, and may stop it; and one that looks after everything from outside,
 * without ever waking the reactor but to end it. */
void acts_stop(void *context);
void acts_pump(void *context);
void acts_watch(void *context);

/* Whether nothing is under way; timers apart, which may be long. */
bool acts_drained(void);

/* ---- sim_plan.c, sim_phases.c ---- */

void plan_run(uint64_t seed, uint64_t ops);
void plan_world(void);

void phases_create(void);
void phases_take_turns(void);
void phases_take_waits(void);
void phases_run_until_stopped(void);
void phases_drain(void);
void phases_check_slots(void);
void phases_check_counters(void);
void phases_report(double seconds);

#endif
