/* Ctrl-C and SIGTERM: the first one ends what runs, which then shows what there is so far; the second one ends the program. */
#ifndef BENCH_LOAD_INTERRUPT_H
#define BENCH_LOAD_INTERRUPT_H

#include <stdbool.h>

/* Catch them from now on. */
void interrupt_watch(void);

/* Whether one has come.  To be asked about once a second by whoever waits. */
bool interrupt_asked(void);

#endif
