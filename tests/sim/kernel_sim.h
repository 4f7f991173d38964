/* A simulated kernel behind reactor/kernel.h: one thread, virtual time, one seeded source of chance for everything, and
 * faults on demand.  A seed repeats a run to the last step.
 *
 * Time stands still but in calls of kernel.h and of this header.  Whatever else the world does is a step: it runs when
 * its time has come, inside whatever call moves the clock, just as another thread would run between two instructions.
 * Steps do not nest.  One simulation, with one AIO context, at a time; all state is the simulation's own, in static
 * memory, as kernel.h hands nothing through. */
#ifndef TESTS_SIM_KERNEL_SIM_H
#define TESTS_SIM_KERNEL_SIM_H

#include "reactor/check.h"
#include "reactor/kernel.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A chance is so many of 65536. */
#define KERNEL_SIM_ALWAYS 65536
/* A sleep ends at most this much after its timeout. */
#define KERNEL_SIM_LATE_NS 60000
/* A kernel worker that has the CPU needs at most this long. */
#define KERNEL_SIM_WORKER_NS 30000
/* After -EAGAIN only an event allows another try before this; at most so many are injected in a row. */
#define KERNEL_SIM_NO_SLOT_NS  1000000
#define KERNEL_SIM_NO_SLOT_RUN 3

enum kernel_sim_kind {
	KERNEL_SIM_KIND_DISK,
	KERNEL_SIM_KIND_POLL,
	KERNEL_SIM_KIND_SOCKET, /* a receive or send by io_submit */
	KERNEL_SIM_KIND_OWN, /* a poll of an eventfd of kernel_wakeup_create, or of an epoll set */
	KERNEL_SIM_KINDS,
};

/* A cookie names one submission, from the submitter to its event, whatever becomes of the iocb meanwhile.  The lowest bits
 * are a class by which slots are counted. */
#define KERNEL_SIM_CLASSES 4

/* How the kernel behaves; may change during a run. */
struct kernel_sim_manner {
	/* Chances. */
	unsigned short_submit; /* io_submit takes fewer than it is given */
	unsigned no_slot;      /* -EAGAIN though slots are free */
	unsigned refused;      /* an iocb gets -EINVAL or -EBADF */
	unsigned interrupted;  /* a sleep ends with -EINTR */
	/* A sleep or a poll ends for nothing, a socket that is ready says -EAGAIN. */
	unsigned spurious;
	unsigned short_result; /* fewer bytes than asked for */
	unsigned error_result;
	unsigned at_once;     /* the event is in the ring before io_submit returns */
	unsigned preempted;   /* another thread has the CPU for a while */
	unsigned echo;	      /* an event comes that was there before; needs ring_spare */
	unsigned cancel_race; /* the fd becomes ready just before io_cancel looks */
	/* Times: a disk operation takes between the two, one of 64 ten times as long; an fd with a poll becomes ready
	 * within the third. */
	uint64_t disk_ns_min, disk_ns_max, poll_ns_max;
};

struct kernel_sim_config {
	uint64_t seed;
	/* Entries beyond what the slots need: few wrap the ring around often. */
	unsigned ring_spare;
	bool ring_unknown; /* a layout that ring_map does not know */
	struct kernel_sim_manner manner;
};

/* What the simulation tells.  IOCB: the submitter's own, as it was given to io_submit. */
struct kernel_sim_observer {
	uint64_t (*on_taken)(struct iocb *iocb); /* returns a cookie; 0 need not be unique */
	void (*on_refused)(struct iocb *iocb, int error);
	void (*on_completed)(uint64_t cookie, long result); /* the event is in the ring */
	/* A receive or send, by io_submit or by itself, has moved RESULT bytes, or not.  first_byte: of its first part. */
	void (*on_transfer)(int fd, void *first_byte, bool send, long result);
	/* The core is about to sleep; no time has passed since it decided to. */
	void (*on_sleep)(void);
	void (*on_time)(void); /* the clock is about to move */
};

struct kernel_sim_counters {
	uint64_t submit_calls, no_slot, taken, refused, short_submits;
	uint64_t received, sent; /* bytes, by the core */
	uint64_t direct;	 /* receives and sends without io_submit */
	uint64_t epoll_waits, epoll_reports;
	/* Events put into the ring, again, and taken from it. */
	uint64_t completed, echoes, drained;
	uint64_t sleeps, interrupted, yields, wakeups, cleared, wraps, cancels, cancels_late;
};

/* Begin a simulation; CONFIG and OBSERVER are the caller's, OBSERVER until the end. */
void kernel_sim_begin(const struct kernel_sim_config *config,
		      const struct kernel_sim_observer *observer);

/* End it and free everything.  The AIO context and the wake-ups must be gone. */
void kernel_sim_end(void);

/* From now on behave like this. */
void kernel_sim_set_manner(const struct kernel_sim_manner *manner);

/* Print the seed, the step, the time and the message to standard error, and abort. */
_Noreturn void kernel_sim_fail(const char *format, ...) PRINTF_LIKE(1, 2);

/* Fail with EXPRESSION unless it is true. */
#define SIM_CHECK(x)                \
	(__builtin_expect(!!(x), 1) \
		 ? (void)0          \
		 : kernel_sim_fail("%s:%d: check failed: %s", __FILE__, __LINE__, #x))

/* Chance: any number; one of 0 to BOUND - 1 (0 if BOUND is 0); true so many of 65536 times. */
uint64_t kernel_sim_random(void);
uint64_t kernel_sim_below(uint64_t bound);
bool kernel_sim_chance(unsigned of_65536);

/* The virtual time, without spending any; how much of it passed in sleeps that could block. */
uint64_t kernel_sim_now_ns(void);
uint64_t kernel_sim_slept_ns(void);

/* The core works for NS. */
void kernel_sim_spend(uint64_t ns);

/* The core does something: it neither spins nor sleeps for nothing. */
void kernel_sim_busy(void);

/* Outside of the reactor: nothing happens for NS or until the next step.  Counts as awake. */
void kernel_sim_idle(uint64_t ns);

/* Run STEP, as another thread, DELAY_NS from now.  It may call what any thread may call. */
void kernel_sim_at(uint64_t delay_ns, void (*step)(void *context), void *context);

/* A file with BYTES of CONTENTS, which are the caller's. */
int kernel_sim_file(void *contents, size_t bytes) MUST_USE;

/* The next sync that ends, of any file, fails with -EIO: what was written behind its back is lost. */
void kernel_sim_fail_sync(void);

/* An fd that can be polled.  alive: it becomes ready some time after a poll is armed; else only when told. */
int kernel_sim_pollable(bool alive) MUST_USE;

/* Now FD is ready for EVENTS and nothing else; 0: for none. */
void kernel_sim_set_ready(int fd, unsigned events);

/* What FD is ready for. */
unsigned kernel_sim_ready(int fd);

/* A socket; ROOM bytes fit in each direction.  Its peer is whoever calls what follows: any step. */
int kernel_sim_socket(size_t room) MUST_USE;

/* The peer sends and receives up to COUNT bytes.  Returns how many; 0 also when there was a reset. */
size_t kernel_sim_peer_send(int fd, const void *bytes, size_t count);
size_t kernel_sim_peer_receive(int fd, void *bytes, size_t count);

/* The peer sends no more; the peer is gone, and what was on its way is lost. */
void kernel_sim_peer_end(int fd);
void kernel_sim_peer_reset(int fd);

/* Another connection with the number FD, which no operation uses. */
void kernel_sim_renew(int fd);

/* Slots in use by KIND when the kernel last looked: with the kernel, or with their event in the ring. */
unsigned kernel_sim_slots_used(enum kernel_sim_kind kind);

/* The same, of one class. */
unsigned kernel_sim_slots_used_by(enum kernel_sim_kind kind, unsigned class);

const struct kernel_sim_counters *kernel_sim_counters(void);

/* A hash of all steps so far, of their times and of the chances before them: two runs that did the same have the same. */
uint64_t kernel_sim_trace(void);

#endif
