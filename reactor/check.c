/* The end of the process after a failed CHECK: one line on standard error, then a core dump.
 * Nothing is allocated and no lock is taken, since the failure may be in the middle of either. */
#include "reactor/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define LINE_BYTES_MAX 512

_Noreturn void
check_failed(const char *file, int line, const char *expression)
{
	char text[LINE_BYTES_MAX];
	int length =
		snprintf(text, sizeof(text), "%s:%d: check failed: %s", file, line, expression);
	size_t bytes = length < 0 ? 0 : (size_t)length;
	ssize_t written;

	if (bytes > sizeof(text) - 1)
		bytes = sizeof(text) - 1;
	text[bytes++] = '\n';
	/* Nobody is left to be told that the line could not be written. */
	written = write(STDERR_FILENO, text, bytes);
	(void)written;
	abort();
}
