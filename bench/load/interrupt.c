/* A handler that remembers, once. */
#include "bench/load/interrupt.h"

#include <signal.h>
#include <stddef.h>

static volatile sig_atomic_t asked;

static void
remember(int number)
{
	(void)number;
	asked = 1;
}

void
interrupt_watch(void)
{
	struct sigaction action = { .sa_handler = remember, .sa_flags = (int)SA_RESETHAND };

	sigemptyset(&action.sa_mask);
	(void)sigaction(SIGINT, &action, NULL);
	(void)sigaction(SIGTERM, &action, NULL);
}

bool
interrupt_asked(void)
{
	return asked != 0;
}
