/* The watchdog: one thread outside the cores that looks whether each of them still takes turns.
 * A core that has not ended its turn for longer than allowed is logged with what it is doing, at most
 * WATCHDOG_LOGS_PER_MINUTE times a minute for all cores, and counted.  It is left running: a stall is a slow disk or a mistake,
 * and neither gets better by stopping. */
#ifndef REACTOR_WATCHDOG_H
#define REACTOR_WATCHDOG_H

#include "reactor/check.h"
#include "reactor/core.h"
#include <stdint.h>

#define WATCHDOG_LOGS_PER_MINUTE 5

struct watchdog;

/* Watch CORES, which run and must outlive the watchdog.  stall_ms: 10 to 3,600,000; a stall is noticed after between one and
 * one and a half times as long.  Uses the signal SIGURG, which must not be blocked on the cores, to ask a stalled
 * core where it is.
 * Returns 0, -EINVAL (bounds, an argument is NULL), -ENOMEM or the error of pthread_create(3); then *watchdog is unchanged. */
int watchdog_start(struct cores *cores, unsigned stall_ms, struct watchdog **watchdog) MUST_USE;

/* End the thread and free all.  The cores must still run: one that was asked where it is and has not answered is waited for. */
void watchdog_stop(struct watchdog *watchdog);

/* Stalls seen since the start, on all cores.  Any thread. */
uint64_t watchdog_stall_count(const struct watchdog *watchdog);

#endif
