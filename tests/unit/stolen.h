/* What the host of a virtual machine takes from its CPUs: what a test measures meanwhile says little. */
#ifndef TESTS_UNIT_STOLEN_H
#define TESTS_UNIT_STOLEN_H

#include <stdbool.h>
#include <stdio.h>

/* In ticks, of all CPUs, since it booted.  Source: proc_stat(5). */
static inline unsigned long long
stolen_ticks(void)
{
	FILE *file = fopen("/proc/stat", "re");
	unsigned long long ticks = 0;

	if (file != NULL) {
		(void)fscanf(file, "cpu %*u %*u %*u %*u %*u %*u %*u %llu", &ticks);
		(void)fclose(file);
	}
	return ticks;
}

/* Whether so much was taken since it was BEFORE that it may be why a test of some seconds has failed. */
static inline bool
was_disturbed(unsigned long long before)
{
	return stolen_ticks() - before > 5;
}

#endif
