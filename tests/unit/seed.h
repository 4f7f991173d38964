/* What a random test starts from: one number repeats what it does. */
#ifndef TESTS_UNIT_SEED_H
#define TESTS_UNIT_SEED_H

#include <stdint.h>

/* SEED of the environment, or a new one; printed as SEED=n, which in the environment repeats the test.  A test that can use only some
 * bits of it takes the low ones, so that what was printed is always enough.  On any thread. */
uint64_t test_seed(void);

#endif
