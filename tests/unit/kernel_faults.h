/* Faults of the kernel, injected into the unit tests.
 * The program is linked with --wrap for the calls that are named here, of reactor/kernel.h and of
 * the C library: every call, in any test, comes through kernel_faults.c and goes on to the kernel
 * unless a test has asked for a fault, in the process of its own that Criterion gives it. */
#ifndef TESTS_UNIT_KERNEL_FAULTS_H
#define TESTS_UNIT_KERNEL_FAULTS_H

#include "reactor/kernel.h"
#include <sched.h>

/* Called instead of kernel_submit if not NULL.  Atomic: a test sets it and takes it back while its cores run. */
extern long (*_Atomic submit_fault)(io_context_t context, long count, struct iocb **iocbs);

/* The real one, for a submit_fault to call. */
long kernel_submit_unchanged(io_context_t context, long count, struct iocb **iocbs);

/* kernel_context_create has no more slots than this: -EAGAIN. */
extern unsigned context_slots_max;

/* sched_getaffinity allows all CPUs below this number; 0: those that there are. */
extern unsigned cpus_claimed;

/* It allows one CPU only, which does not exist. */
extern bool cpus_gone;

/* A pwritev2 that is a sync, too (RWF_DSYNC), writes and then fails with this errno; 0: it does not.  Atomic, as submit_fault. */
extern int _Atomic sync_write_fault;

/* kernel_clock_ns is ahead by so much.  Atomic, as submit_fault. */
extern _Atomic uint64_t clock_ahead_ns;

#endif
