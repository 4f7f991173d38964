/* disk/slice_pace.h: how long slices become, when they pause, and whom their thread interrupts. */
#include "disk/slice_pace.h"

#include <criterion/criterion.h>
#include <sched.h>
#include <time.h>

#include "reactor/kernel.h"

#define KIB	  ((uint64_t)1 << 10)
#define MIB	  ((uint64_t)1 << 20)
#define LONG_NS	  3000000u /* more than a slice may take */
#define PAUSE_NS  200000u  /* the least that there is */
#define SLICE_MAX 40

static void
spend_ns(uint64_t ns)
{
	uint64_t end_ns = kernel_clock_ns() + ns;

	while (kernel_clock_ns() < end_ns)
		;
}

/* A slice as long as PACE wants it that takes NS of the CPU.  Returns how long it was since the end of the one before: the pause, and
 * what others did to us. */
static uint64_t
run_slice(struct slice_pace *pace, uint64_t ns)
{
	static uint64_t ended_ns;
	uint64_t pause_ns;
	struct slice slice;

	slice_wait(pace, &slice);
	pause_ns = kernel_clock_ns() - ended_ns;
	slice_begin(&slice);
	spend_ns(ns);
	ended_ns = kernel_clock_ns();
	slice_end(pace, &slice, slice_pace_bytes(pace));
	return pause_ns;
}

/* How long slices are that take long, whatever their length. */
static uint64_t
shortest_bytes(bool is_device, uint64_t bytes_min)
{
	struct slice_pace pace;

	slice_pace_init(&pace, is_device, bytes_min);
	for (int i = 0; i < SLICE_MAX; i++)
		(void)run_slice(&pace, LONG_NS);
	return slice_pace_bytes(&pace);
}

Test(slice_pace, slices_that_take_long_become_short_but_not_too_short)
{
	cr_assert_eq(shortest_bytes(false, 0), MIB);
	cr_assert_eq(shortest_bytes(true, 0), 128 * KIB);
}

Test(slice_pace, no_slice_is_less_than_the_device_can_discard)
{
	cr_assert_eq(shortest_bytes(true, 2 * MIB), 2 * MIB);
	cr_assert_eq(shortest_bytes(true, 64 * MIB), 64 * MIB);
}

Test(slice_pace, slices_that_take_nothing_become_long)
{
	struct slice_pace pace;

	slice_pace_init(&pace, true, 0);
	for (int i = 0; i < SLICE_MAX; i++)
		(void)run_slice(&pace, 0);
	cr_assert_geq(slice_pace_bytes(&pace),
		      512 * MIB); /* one of them may have been interrupted */
}

Test(slice_pace, time_that_is_not_the_cpus_makes_no_slice_of_a_device_short)
{
	struct timespec wait = { .tv_nsec = 400000 };
	struct slice_pace pace;
	struct slice slice;

	slice_pace_init(&pace, true, 0);
	for (int i = 0; i < SLICE_MAX; i++) {
		slice_wait(&pace, &slice);
		slice_begin(&slice);
		(void)nanosleep(&wait, NULL);
		slice_end(&pace, &slice, slice_pace_bytes(&pace));
	}
	/* Were it the thread's, 128 KiB: an interrupt may count as that once or twice. */
	cr_assert_geq(slice_pace_bytes(&pace), MIB / 4);
}

Test(slice_pace, a_slice_beside_others_is_followed_by_a_pause)
{
	struct slice_pace pace;

	slice_pace_init(&pace, true, 0);
	slice_pace_note_use(&pace);
	(void)run_slice(&pace, 20000);
	slice_pace_note_use(&pace);
	cr_assert_geq(run_slice(&pace, 2 * PAUSE_NS), PAUSE_NS);
	cr_assert_geq(run_slice(&pace, 0), 6 * PAUSE_NS, "three times what the last took");
}

Test(slice_pace, a_pause_between_slices_of_a_file_is_in_proportion_alone)
{
	struct slice_pace pace;
	uint64_t least_ns = UINT64_MAX;

	slice_pace_init(&pace, false, 0);
	for (int i = 0; i < SLICE_MAX; i++) {
		uint64_t this_ns;

		slice_pace_note_use(&pace);
		this_ns = run_slice(&pace, 20000);
		if (i > 0)
			least_ns = this_ns < least_ns ? this_ns : least_ns;
	}
	cr_assert(least_ns >= 3 * 20000 && least_ns < PAUSE_NS, "%llu ns",
		  (unsigned long long)least_ns);
}

Test(slice_pace, there_is_no_pause_where_nobody_else_is)
{
	struct slice_pace pace;
	uint64_t least_ns = UINT64_MAX;

	slice_pace_init(&pace, true, 0);
	for (int i = 0; i < SLICE_MAX; i++) {
		uint64_t this_ns = run_slice(&pace, PAUSE_NS);

		if (i > 0) /* the least: not what others did to us */
			least_ns = this_ns < least_ns ? this_ns : least_ns;
	}
	cr_assert_lt(least_ns, PAUSE_NS);
}

Test(slice_pace, there_is_no_pause_behind_a_slice_that_took_nothing)
{
	struct slice_pace pace;
	uint64_t least_ns = UINT64_MAX;

	slice_pace_init(&pace, true, 0);
	for (int i = 0; i < SLICE_MAX; i++) {
		uint64_t this_ns;

		slice_pace_note_use(&pace);
		this_ns = run_slice(&pace, 0);
		if (i > 0)
			least_ns = this_ns < least_ns ? this_ns : least_ns;
	}
	cr_assert_lt(least_ns, PAUSE_NS);
}

/* Which policy a thread has in slices that begin with BEFORE; it has that again behind each. */
static int
policy_within(bool is_device, int before)
{
	struct sched_param none = { 0 };
	struct slice_pace pace;
	struct slice slice;
	int within;

	cr_assert_eq(sched_setscheduler(0, before, &none), 0);
	slice_pace_init(&pace, is_device, 0);
	slice_wait(&pace, &slice);
	slice_begin(&slice);
	within = sched_getscheduler(0);
	slice_end(&pace, &slice, MIB);
	cr_assert_eq(sched_getscheduler(0), before);
	return within;
}

Test(slice_pace, the_thread_of_a_devices_slice_interrupts_nobody)
{
	cr_assert_eq(policy_within(true, SCHED_OTHER), SCHED_BATCH);
	cr_assert_eq(policy_within(true, SCHED_BATCH), SCHED_BATCH);
}

Test(slice_pace, the_thread_of_a_files_slice_goes_on_with_its_lock)
{
	cr_assert_eq(policy_within(false, SCHED_OTHER), SCHED_OTHER);
}

Test(slice_pace, a_policy_that_somebody_chose_stays)
{
	cr_assert_eq(policy_within(true, SCHED_IDLE), SCHED_IDLE);
}
