/* Timers of one core: a hierarchical timer wheel.
 * A timer is owned and embedded by its user; starting and stopping are O(1), nothing is allocated.
 * Resolution: TIMER_TICK_NS; a timer never fires early.  Not thread-safe: one wheel per core. */
#ifndef REACTOR_TIMER_H
#define REACTOR_TIMER_H

#include "reactor/list.h"
#include <stdbool.h>
#include <stdint.h>

#define TIMER_TICK_NS	  ((uint64_t)1 << 17) /* 131 us */
#define TIMER_LEVELS	  7
#define TIMER_SLOTS	  64 /* a level; one bit each in a word */
#define TIMER_NO_DEADLINE UINT64_MAX

struct timer {
	/* Called once when due, on the wheel's core; the timer is stopped then and may be started again
	 * or freed by it. */
	void (*expired)(struct timer *timer);
	/* Private. */
	struct list_node node;
	uint64_t deadline_ns;
	uint8_t level, slot;
};

struct timer_wheel {
	/* Private. */
	uint64_t now_tick;
	uint64_t occupied[TIMER_LEVELS]; /* bit s: slots[level][s] is not empty */
	struct list_node slots[TIMER_LEVELS][TIMER_SLOTS];
	uint64_t count;
};

void timer_wheel_init(struct timer_wheel *wheel, uint64_t now_ns);

/* Prepare TIMER, stopped. */
void timer_init(struct timer *timer, void (*expired)(struct timer *timer));

/* Start TIMER, or move it if it runs.  deadline_ns: on the clock that timer_wheel_advance is given; one in
 * the past is due at the next advance; one beyond the wheel's range (18 years) is held at its end. */
void timer_start(struct timer_wheel *wheel, struct timer *timer, uint64_t deadline_ns);

/* Stop TIMER: `expired` will not be called.  Harmless if it does not run. */
void timer_stop(struct timer_wheel *wheel, struct timer *timer);

bool timer_running(const struct timer *timer);

/* Call `expired` of every timer due at NOW_NS, in order of their ticks.  Timers that callbacks start for
 * NOW_NS or earlier wait for the next call, so this ends.  Returns how many were called. */
unsigned timer_wheel_advance(struct timer_wheel *wheel, uint64_t now_ns);

/* When timer_wheel_advance should be called next: never later than the nearest deadline rounded up to a
 * tick; may be earlier (a cascade).  TIMER_NO_DEADLINE if no timer runs. */
uint64_t timer_wheel_next_ns(const struct timer_wheel *wheel);

#endif
