/* Rest between turns: spin, sleep, wake up; and the loops that take turns and rest. */
#include "reactor/reactor_state.h"

#define SLEEP_NS_MAX  ((uint64_t)3600 * 1000000000)
#define SPIN_YIELD_NS 20000 /* let others run on this CPU at least this often */
#define SPIN_CHECKS   16    /* looks at the ring between two looks at the clock */

/* Who waits for one of so many disk operations loses little by a wake-up, and spinning would take the CPU all the time: the kernel's
 * own threads may want it to finish them. */
#define SPIN_DISK_OPS_MAX 8

/* Whether another thread wants a turn.  Sequentially consistent: see sleep_until. */
static bool
asked_to_wake(const struct reactor *reactor)
{
	return !inbox_empty(&reactor->inbox) ||
	       __atomic_load_n(&reactor->stopping, __ATOMIC_SEQ_CST) ||
	       __atomic_load_n(&reactor->woken, __ATOMIC_SEQ_CST);
}

static bool
something_came(const struct reactor *reactor)
{
	return ring_has_events(reactor) || asked_to_wake(reactor);
}

static void
cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* Look at the ring and at what other threads ask for until UNTIL_NS.  Returns the time when it stopped. */
static uint64_t
spin_until(struct reactor *reactor, uint64_t now_ns, uint64_t until_ns)
{
	uint64_t yield_ns = now_ns; /* at once: who was woken last may want this CPU */

	COUNT(reactor, spins, 1);
	while (now_ns < until_ns) {
		for (unsigned i = 0; i < SPIN_CHECKS; i++) {
			if (something_came(reactor))
				return now_ns;
			cpu_relax();
		}
		now_ns = kernel_clock_ns();
		if (now_ns >= yield_ns) {
			kernel_yield();
			COUNT(reactor, yields, 1);
			yield_ns = now_ns + SPIN_YIELD_NS;
		}
	}
	return now_ns;
}

/* Sleep in the kernel until an event, a message or DEADLINE_NS. */
static void
sleep_until(struct reactor *reactor, uint64_t now_ns, uint64_t deadline_ns)
{
	struct io_event events[EVENTS_PER_TAKE];
	uint64_t timeout_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;
	long count = 0;

	if (timeout_ns > SLEEP_NS_MAX)
		timeout_ns = SLEEP_NS_MAX;
	/* Partner: reactor_send posts, then looks at `sleeping`; this sets `sleeping`, then looks at the inbox.
	 * Both sequentially consistent: one of the two sees the other. */
	__atomic_store_n(&reactor->sleeping, true, __ATOMIC_SEQ_CST);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!asked_to_wake(reactor)) {
		COUNT(reactor, sleeps, 1);
		count = kernel_sleep(reactor->context, events, EVENTS_PER_TAKE,
				     (int64_t)timeout_ns);
	}
	__atomic_store_n(&reactor->sleeping, false, __ATOMIC_RELAXED);
	turn_take_events(reactor, events, count);
}

static uint64_t
earlier(uint64_t a_ns, uint64_t b_ns)
{
	return a_ns < b_ns ? a_ns : b_ns;
}

static bool
may_spin(const struct reactor *reactor)
{
	/* Without a ring there is nothing to be seen. */
	return reactor->ring != NULL && reactor->spin.ns > 0 && reactor->worker_ops == 0 &&
	       op_queue_in_flight(&reactor->queues[OP_KIND_DISK]) < SPIN_DISK_OPS_MAX;
}

/* There is nothing to do before UNTIL_NS, as far as is known. */
static void
rest(struct reactor *reactor, uint64_t until_ns)
{
	uint64_t started_ns, now_ns, deadline_ns = earlier(reactor->timers_next_ns, until_ns);

	if (something_came(reactor) || run_queue_count(&reactor->ready) > 0)
		return;
	started_ns = now_ns = kernel_clock_ns();
	/* What found no slot may have been cancelled or abandoned since. */
	if (reactor->retry_ns > 0 && submit_anything_waits(reactor))
		deadline_ns = earlier(deadline_ns, reactor->retry_ns);
	if (may_spin(reactor)) {
		now_ns = spin_until(reactor, now_ns,
				    earlier(now_ns + reactor->spin.ns, deadline_ns));
		if (something_came(reactor)) {
			COUNT(reactor, rest_ns, now_ns - started_ns);
			return;
		}
	}
	sleep_until(reactor, now_ns, deadline_ns);
	now_ns = kernel_clock_ns();
	COUNT(reactor, rest_ns, now_ns - started_ns);
	if (reactor->config.poll_us > 0)
		spin_adapt(&reactor->spin, now_ns - started_ns);
}

static bool
is_stopping(const struct reactor *reactor)
{
	/* Acquire: who is behind the loop sees what was done before reactor_stop. */
	return __atomic_load_n(&reactor->stopping, __ATOMIC_ACQUIRE);
}

/* Whether reactor_wake was called since the last look. */
static bool
take_wake(struct reactor *reactor)
{
	/* The load alone is what nearly every turn pays. */
	return __atomic_load_n(&reactor->woken, __ATOMIC_RELAXED) &&
	       __atomic_exchange_n(&reactor->woken, false, __ATOMIC_ACQUIRE);
}

void
reactor_run(struct reactor *reactor)
{
	while (!is_stopping(reactor)) {
		(void)take_wake(reactor);
		if (!reactor_turn(reactor))
			rest(reactor, TIMER_NO_DEADLINE);
	}
}

unsigned
reactor_wait(struct reactor *reactor, unsigned min, unsigned max, uint64_t timeout_ns)
{
	uint64_t now_ns = kernel_clock_ns(), deadline_ns;

	CHECK(max > 0);
	deadline_ns =
		timeout_ns < TIMER_NO_DEADLINE - now_ns ? now_ns + timeout_ns : TIMER_NO_DEADLINE;
	if (min > max)
		min = max;
	reactor->calls_left = max;
	for (;;) {
		bool busy = turn_take(reactor);

		if (max - reactor->calls_left >= min || is_stopping(reactor) ||
		    take_wake(reactor) || kernel_clock_ns() >= deadline_ns)
			return max - reactor->calls_left;
		if (!busy)
			rest(reactor, deadline_ns);
	}
}
