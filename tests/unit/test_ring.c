/* reactor/ring.h: a ring made by hand in memory, so that head and tail stand where they hurt, and the kernel's own. */
#include "reactor/ring.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "reactor/kernel.h"

#define ENTRIES 7 /* not a power of two, as the kernel's */

static struct ring_header *ring;
static struct io_event taken[2 * ENTRIES];

static void
setup(void)
{
	ring = calloc(1, sizeof(*ring) + ENTRIES * sizeof(ring->events[0]));
	cr_assert_not_null(ring);
	*ring = (struct ring_header){
		.nr = ENTRIES,
		.magic = RING_MAGIC,
		.header_length = sizeof(*ring),
	};
}

static void
teardown(void)
{
	free(ring);
}

TestSuite(ring, .init = setup, .fini = teardown);

/* Put COUNT events at the tail, as the kernel does; they are numbered from FIRST in `res`. */
static void
put(unsigned count, unsigned first)
{
	for (unsigned i = 0; i < count; i++) {
		ring->events[ring->tail].res = first + i;
		ring->tail = (ring->tail + 1) % ring->nr;
	}
}

static void
assert_taken(unsigned count, unsigned first)
{
	for (unsigned i = 0; i < count; i++)
		cr_assert_eq(taken[i].res, first + i);
}

Test(ring, nothing_is_taken_from_an_empty_one)
{
	for (unsigned at = 0; at < ENTRIES; at++) {
		ring->head = ring->tail = at;
		cr_assert(ring_empty(ring));
		cr_assert_eq(ring_take(ring, taken, ARRAY_COUNT(taken)), 0);
		cr_assert_eq(ring->head, at);
	}
}

Test(ring, is_not_empty_with_an_event)
{
	put(1, 0);
	cr_assert_not(ring_empty(ring));
	cr_assert_eq(ring_take(ring, taken, 1), 1);
	cr_assert(ring_empty(ring));
}

Test(ring, takes_in_order_across_the_end)
{
	ring->head = ring->tail = ENTRIES - 2;
	put(5, 100);
	cr_assert_eq(ring->tail, 3);
	cr_assert_eq(ring_take(ring, taken, ARRAY_COUNT(taken)), 5);
	assert_taken(5, 100);
	cr_assert_eq(ring->head, 3);
}

Test(ring, head_at_the_end_becomes_0)
{
	ring->head = ring->tail = ENTRIES - 2;
	put(2, 100);
	cr_assert_eq(ring->tail, 0);
	cr_assert_eq(ring_take(ring, taken, ARRAY_COUNT(taken)), 2);
	assert_taken(2, 100);
	cr_assert_eq(ring->head, 0);
	cr_assert(ring_empty(ring));
}

Test(ring, count_max_leaves_the_rest)
{
	put(5, 100);
	cr_assert_eq(ring_take(ring, taken, 2), 2);
	assert_taken(2, 100);
	cr_assert_eq(ring_take(ring, taken, 2), 2);
	assert_taken(2, 102);
	cr_assert_eq(ring_take(ring, taken, 2), 1);
	assert_taken(1, 104);
}

Test(ring, count_max_of_0_takes_nothing)
{
	put(1, 100);
	cr_assert_eq(ring_take(ring, taken, 0), 0);
	cr_assert_eq(ring->head, 0);
}

Test(ring, takes_all_for_every_head_length_and_count_max)
{
	for (unsigned head = 0; head < ENTRIES; head++) {
		for (unsigned length = 0; length < ENTRIES; length++) {
			for (unsigned count_max = 1; count_max <= ENTRIES; count_max++) {
				unsigned count, sum = 0;

				ring->head = ring->tail = head;
				put(length, 100);
				while ((count = ring_take(ring, taken, count_max)) > 0) {
					cr_assert_leq(count, count_max);
					assert_taken(count, 100 + sum);
					sum += count;
				}
				cr_assert_eq(sum, length);
				cr_assert_eq(ring->head, ring->tail);
			}
		}
	}
}

Test(ring, take_does_not_write_behind_what_it_took)
{
	ring->head = ring->tail = ENTRIES - 1;
	put(4, 100);
	memset(taken, 0xee, sizeof(taken));
	cr_assert_eq(ring_take(ring, taken, 3), 3);
	cr_assert_eq(taken[3].res, 0xeeeeeeeeeeeeeeee);
}

/* What ring_map makes of a context whose ring is the one made by hand. */
static struct ring_header *
map_by_hand(void)
{
	return ring_map((io_context_t)(void *)ring);
}

Test(ring, unknown_layouts_are_refused)
{
	ring->magic++;
	cr_assert_null(map_by_hand());
	ring->magic--;
	ring->incompat_features = 1;
	cr_assert_null(map_by_hand());
	ring->incompat_features = 0;
	ring->header_length += 8;
	cr_assert_null(map_by_hand());
}

Test(ring, unknown_compatible_features_are_accepted)
{
	ring->compat_features = 0xffffffff;
	cr_assert_eq(map_by_hand(), ring);
}

Test(ring, maps_the_kernels)
{
	io_context_t context;
	struct ring_header *mapped;

	cr_assert_eq(kernel_context_create(8, &context), 0);
	mapped = ring_map(context);
	cr_assert_not_null(mapped);
	cr_assert_geq(mapped->nr, 8);
	cr_assert(ring_empty(mapped));
	kernel_context_destroy(context);
}

/* msync(2): ENOMEM where nothing is mapped. */
Test(ring, is_not_in_a_child)
{
	io_context_t context;
	struct ring_header *mapped;
	int status;
	pid_t child;

	cr_assert_eq(kernel_context_create(8, &context), 0);
	mapped = ring_map(context);
	cr_assert_not_null(mapped);
	cr_assert_eq(msync(mapped, 1, MS_ASYNC), 0);
	child = fork();
	if (child == 0)
		_exit(msync(mapped, 1, MS_ASYNC) == -1 && errno == ENOMEM ? 0 : 1);
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert(WIFEXITED(status));
	cr_assert_eq(WEXITSTATUS(status), 0);
	kernel_context_destroy(context);
}
