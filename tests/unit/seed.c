/* The seed of a random test; it is described in the header. */
#include "tests/unit/seed.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

/* To stderr, which is not buffered: a test that crashes has said its seed, too. */
uint64_t
test_seed(void)
{
	const char *text = getenv("SEED");
	uint64_t seed = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);

	(void)fprintf(stderr, "SEED=%llu\n", (unsigned long long)seed);
	return seed;
}
