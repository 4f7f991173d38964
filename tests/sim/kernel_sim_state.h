/* What the parts of the simulated kernel share: kernel_sim.c begins and ends it, kernel_sim_time.c has the clock and what will happen,
 * kernel_sim_ring.c the context's ring and slots, kernel_sim_submit.c io_submit and io_cancel, kernel_sim_poll.c descriptors and polls,
 * kernel_sim_epoll.c sets of them, kernel_sim_socket.c sockets, kernel_sim_disk.c files.  Only these include this. */
#ifndef TESTS_SIM_KERNEL_SIM_STATE_H
#define TESTS_SIM_KERNEL_SIM_STATE_H

#include "reactor/list.h"
#include "tests/sim/kernel_sim.h"

#define FD_BASE	    1000 /* no fd of this process, should one be taken for the other */
#define FDS_MAX	    64
#define WATCHES_MAX 64 /* in all epoll sets */
#define OLD_EVENTS  64
#define START_NS    ((uint64_t)1000000000)

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
	struct sim_fd *fd;   /* of a poll, which pins it */
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
	FD_EPOLL,
	FD_CLOSED, /* but for the polls that pin it */
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
	uint32_t generation; /* of the items that are about it */
	unsigned pins;
	struct list_node armed;
	struct list_node listed; /* of a set: watches to be looked at */
	struct stream in, out;	 /* of a socket: to the core, and from it */
	bool ended, reset, shut;
};

/* A descriptor in an epoll set. */
struct sim_watch {
	struct sim_fd *set, *fd; /* NULL: free */
	unsigned events;
	void *user;
	struct list_node listed;
};

enum item_type {
	ITEM_REQUEST, /* it is done but for the worker */
	ITEM_PREEMPT, /* its worker gets the CPU at last */
	ITEM_READY,   /* an fd */
	ITEM_BEHIND,  /* what an fd had for longer than was told comes */
	ITEM_STEP,
};

struct item {
	uint64_t due_ns, age;
	enum item_type type;
	unsigned index;
	uint32_t generation;
	unsigned key; /* of ITEM_BEHIND */
	void (*step)(void *context);
	void *context;
};

struct kernel_sim_state {
	struct kernel_sim_config config;
	const struct kernel_sim_observer *observer;
	struct kernel_sim_counters counters;
	uint64_t random;
	uint64_t now_ns, slept_ns, sleeping_since_ns, busy_ns;
	uint64_t steps, trace;
	bool stepping, resting, sleeping;
	bool sync_fails; /* the next one */
	unsigned fruitless;

	struct item *heap;
	size_t heap_count, heap_room;
	uint64_t item_age;
	uint32_t fd_generation;

	struct sim_fd fds[FDS_MAX];
	struct sim_watch watches[WATCHES_MAX];
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
};

/* The one simulation: kernel.h hands nothing through. */
extern struct kernel_sim_state sim;

/* ---- kernel_sim_time.c ---- */

/* ITEM will happen; its age is set here. */
void time_push(struct item item);

/* ITEM_REQUEST or ITEM_PREEMPT of REQUEST, as it is now, DELAY_NS from now. */
void time_request_later(const struct request *request, enum item_type type, uint64_t delay_ns);

/* The CPU is free: what waited for it is finished. */
void time_run_workers(void);

/* Move the clock to NS, and do what is due by then.  From within a step only the clock moves. */
void time_advance(uint64_t ns);

/* A call costs between NS and twice that. */
void time_cost(uint64_t ns);

/* ---- kernel_sim_ring.c ---- */

/* Give back the slots of the events that were drained since the last look. */
void slots_settle(void);
unsigned slots_used_total(void);

/* REQUEST is done: its event is put into the ring. */
void request_complete(struct request *request, long result);

/* ---- kernel_sim_poll.c ---- */

/* The lowest free number, or -EMFILE. */
int fd_create(enum fd_type type);

/* NULL if FD is not open. */
struct sim_fd *fd_find(int fd);

/* What its descriptor is ready for and REQUEST, a poll, wants. */
unsigned poll_mask(const struct request *request);
void poll_arm(struct request *request);

/* FD will be ready soon, if it is alive. */
void poll_enliven(struct sim_fd *fd);

/* A worker completes REQUEST, or finds that it is not ready. */
void poll_to_worker(struct request *request);
void poll_finish(struct request *request);

/* REQUEST pins the file of its descriptor; and does so no more. */
void fd_pin(struct request *request);
void fd_unpin(struct request *request);

/* KEY has come to FD (0: anything): complete what is armed on it and wants what it is ready for, and tell the sets it is in. */
void fd_wake(struct sim_fd *fd, unsigned key);

/* ---- kernel_sim_epoll.c ---- */

/* KEY has come to FD (0: anything). */
void epoll_notice(struct sim_fd *fd, unsigned key);

/* What SET is ready for. */
unsigned epoll_ready(const struct sim_fd *set);

/* FD, a set or not, is closed. */
void epoll_forget(const struct sim_fd *fd);

/* ---- kernel_sim_socket.c ---- */

/* The receive or send of IOCB, which ends within io_submit.  Returns its result. */
long socket_request(const struct iocb *iocb);

/* ---- kernel_sim_disk.c ---- */

void disk_start(struct request *request);
void disk_finish(struct request *request);

#endif
