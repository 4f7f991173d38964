/* Slices that take long are halved, those that take less than half of it doubled. */
#include "disk/slice_pace.h"

#include <sched.h>
#include <time.h>

#include "reactor/kernel.h"

#define SLICE_BYTES_MAX	  ((uint64_t)1 << 30)
#define SLICE_BYTES_MIN	  ((uint64_t)1 << 20)
#define SLICE_BYTES_FIRST ((uint64_t)4 << 20)

/* A call to a file system takes some 100 us however short it is, and slices must be large beside that; a device may take its time as long
 * as it is not the CPU's. */
#define SLICE_LONG_NS	    500000u
#define SLICE_LONG_CPU_NS   30000u /* of a device; its slices may be smaller by that */
#define SLICE_BYTES_CPU_MIN ((uint64_t)128 << 10)

/* A slice that took less is followed at once; others by a pause in proportion and within these, if the volume was read or written so
 * lately. */
#define PAUSED_NS_MIN  10000u
#define PAUSE_FACTOR   3
#define PAUSE_NS_MIN   200000u /* of a device, where slices are shorter */
#define PAUSE_NS_MAX   20000000u
#define USED_LATELY_NS 100000000u

void
slice_pace_init(struct slice_pace *pace, bool is_device, uint64_t bytes_min)
{
	*pace = (struct slice_pace){
		.bytes = bytes_min > SLICE_BYTES_FIRST ? bytes_min : SLICE_BYTES_FIRST,
		.bytes_min = bytes_min,
		.is_device = is_device,
	};
}

uint64_t
slice_pace_bytes(const struct slice_pace *pace)
{
	/* Relaxed: a number that is only a hint. */
	return __atomic_load_n(&pace->bytes, __ATOMIC_RELAXED);
}

static uint64_t
thread_cpu_ns(void)
{
	struct timespec cpu = { 0 };

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &cpu);
	return (uint64_t)cpu.tv_sec * 1000000000u + (uint64_t)cpu.tv_nsec;
}

/* Have this thread, when it wakes up, wait until who runs on its CPU sleeps or has had his time: else that would be the core, whose reads
 * then wait for the slice.  Its share of the CPU stays what it is, so it is never starved.  Not where somebody chose another policy for the
 * daemon.  Returns whether it is so now.  Source: sched(7), SCHED_BATCH */
static bool
become_batch(void)
{
	struct sched_param none = { 0 };

	return sched_getscheduler(0) == SCHED_OTHER &&
	       sched_setscheduler(0, SCHED_BATCH, &none) == 0;
}

void
slice_wait(struct slice_pace *pace, struct slice *slice)
{
	uint64_t now_ns = kernel_clock_ns();

	/* With a file system's lock in its hands it must not wait for a CPU. */
	slice->batch = pace->is_device && become_batch();
	if (now_ns < pace->free_ns) {
		struct timespec pause = { .tv_nsec = (long)(pace->free_ns - now_ns) };

		(void)nanosleep(&pause, NULL); /* PAUSE_NS_MAX at most */
	}
}

void
slice_begin(struct slice *slice)
{
	slice->begin_ns = kernel_clock_ns();
	slice->begin_cpu_ns = thread_cpu_ns();
}

/* A slice of BYTES took NS, and of the thread's own CPU time CPU_NS.  That matters where it is most of it, as zram's: what it takes to ask a
 * disk and to sleep until that is done is no less for less. */
static void
learn(struct slice_pace *pace, uint64_t bytes, uint64_t ns, uint64_t cpu_ns)
{
	uint64_t limit = slice_pace_bytes(pace), bytes_min = UINT64_MAX;

	if (!pace->is_device || cpu_ns < ns / 2)
		cpu_ns = 0;
	if (cpu_ns > SLICE_LONG_CPU_NS)
		bytes_min = SLICE_BYTES_CPU_MIN;
	else if (ns > SLICE_LONG_NS)
		bytes_min = SLICE_BYTES_MIN;
	if (limit / 2 >= bytes_min && limit / 2 >= pace->bytes_min)
		limit /= 2;
	else if (ns < SLICE_LONG_NS / 2 && cpu_ns < SLICE_LONG_CPU_NS / 2 && bytes == limit &&
		 limit < SLICE_BYTES_MAX)
		limit *= 2;
	__atomic_store_n(&pace->bytes, limit, __ATOMIC_RELAXED);
}

/* A slice is over that took NS. */
static void
plan_pause(struct slice_pace *pace, uint64_t ns)
{
	uint64_t now_ns = kernel_clock_ns(), pause_ns = 0;

	/* Relaxed: nothing else is read by it. */
	if (__atomic_exchange_n(&pace->used, false, __ATOMIC_RELAXED))
		pace->shared_ns = now_ns + USED_LATELY_NS;
	if (ns >= PAUSED_NS_MIN && now_ns < pace->shared_ns) {
		pause_ns = ns * PAUSE_FACTOR;
		if (pace->is_device && pause_ns < PAUSE_NS_MIN)
			pause_ns = PAUSE_NS_MIN;
		if (pause_ns > PAUSE_NS_MAX)
			pause_ns = PAUSE_NS_MAX;
	}
	pace->free_ns = now_ns + pause_ns;
}

void
slice_end(struct slice_pace *pace, const struct slice *slice, uint64_t bytes)
{
	struct sched_param none = { 0 };
	uint64_t ns = kernel_clock_ns() - slice->begin_ns;

	learn(pace, bytes, ns, thread_cpu_ns() - slice->begin_cpu_ns);
	plan_pause(pace, ns);
	if (slice->batch)
		(void)sched_setscheduler(0, SCHED_OTHER, &none);
}
