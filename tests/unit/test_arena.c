/* reactor/arena.h: what a thread allocates lands in its own arena, and arenas that were left are used again. */
#include "reactor/arena.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <jemalloc/jemalloc.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>

#include "reactor/core.h"

/* As in reactor/arena.c: these tests are also linked without jemalloc. */
#pragma weak mallctl

#define MIB	 ((size_t)1 << 20)
#define CYCLES	 200
#define ANYWHERE (-1)

/* Small ones that are cached by threads, and large ones that are not. */
static const size_t sizes[] = { 1, 32, 1024, 4096, 16384, 100000, MIB };

TestSuite(arena, .timeout = 60);

static bool
malloc_is_jemalloc(void)
{
	return mallctl != NULL;
}

/* In the sanitize variant.  That there is none is tested there by its own test. */
static void
need_jemalloc(void)
{
	if (!malloc_is_jemalloc())
		cr_skip_test("malloc is not jemalloc's: there are no arenas");
}

/* The index of the arena that MEMORY came from. */
static unsigned
arena_of(void *memory)
{
	unsigned index;
	size_t index_bytes = sizeof(index);

	cr_assert_eq(mallctl("arenas.lookup", &index, &index_bytes, &memory, sizeof(memory)), 0);
	return index;
}

static unsigned
arena_count(void)
{
	unsigned count;
	size_t count_bytes = sizeof(count);

	cr_assert_eq(mallctl("arenas.narenas", &count, &count_bytes, NULL, 0), 0);
	return count;
}

/* The arenas with an index below this are those that jemalloc shares among the threads that ask for none. */
static unsigned
shared_count(void)
{
	unsigned count;
	size_t count_bytes = sizeof(count);

	cr_assert_eq(mallctl("opt.narenas", &count, &count_bytes, NULL, 0), 0);
	return count;
}

/* The index of the arena that the calling thread's memory of each size comes from: the same for all. */
static unsigned
arena_now(void)
{
	unsigned first = 0;

	for (unsigned i = 0; i < ARRAY_COUNT(sizes); i++) {
		void *memory = malloc(sizes[i]);
		unsigned index;

		cr_assert_not_null(memory);
		index = arena_of(memory);
		free(memory);
		if (i == 0)
			first = index;
		cr_assert_eq(index, first, "%zu bytes: arena %u, not %u", sizes[i], index, first);
	}
	return first;
}

static unsigned
enter(struct arena *arena, int numa_node)
{
	cr_assert_eq(arena_enter(arena, numa_node), 0);
	return arena_now();
}

Test(arena, there_is_none_without_jemalloc)
{
	struct arena arena;
	void *memory;

	if (malloc_is_jemalloc())
		cr_skip_test("malloc is jemalloc's");
	cr_assert_eq(arena_enter(&arena, ANYWHERE), -ENOTSUP);
	memory = malloc(MIB);
	cr_assert_not_null(memory);
	memset(memory, 1, MIB);
	arena_leave(&arena);
	free(memory);
}

/* The thread's cache is full of memory of the arena before. */
Test(arena, memory_of_all_sizes_comes_from_it)
{
	struct arena arena;

	need_jemalloc();
	cr_assert_lt(arena_now(), shared_count());
	cr_assert_geq(enter(&arena, ANYWHERE), shared_count());
	arena_leave(&arena);
}

Test(arena, after_leaving_it_memory_comes_from_where_it_came_before)
{
	struct arena arena;
	unsigned before;

	need_jemalloc();
	before = arena_now();
	(void)enter(&arena, ANYWHERE);
	arena_leave(&arena);
	cr_assert_eq(arena_now(), before);
}

Test(arena, leaving_twice_leaves_once)
{
	struct arena first, second;
	unsigned index;

	need_jemalloc();
	index = enter(&first, ANYWHERE);
	arena_leave(&first);
	arena_leave(&first);
	cr_assert_eq(enter(&first, ANYWHERE), index);
	cr_assert_neq(enter(&second, ANYWHERE), index);
	arena_leave(&second);
	arena_leave(&first);
}

/* ---- threads ---- */

/* A thread that enters an arena and stays there until it is told to go. */
struct visitor {
	pthread_t thread;
	sem_t entered, go;
	unsigned index;
	char *memory; /* the visitor's, then the test's */
};

static void *
visit(void *argument)
{
	struct visitor *visitor = argument;
	struct arena arena;

	visitor->index = enter(&arena, ANYWHERE);
	visitor->memory = malloc(MIB);
	cr_assert_not_null(visitor->memory);
	memset(visitor->memory, 7, MIB);
	sem_post(&visitor->entered);
	while (sem_wait(&visitor->go) != 0)
		;
	arena_leave(&arena);
	return NULL;
}

static void
visitor_start(struct visitor *visitor)
{
	sem_init(&visitor->entered, 0, 0);
	sem_init(&visitor->go, 0, 0);
	cr_assert_eq(pthread_create(&visitor->thread, NULL, visit, visitor), 0);
	while (sem_wait(&visitor->entered) != 0)
		;
}

static void
visitor_end(struct visitor *visitor)
{
	sem_post(&visitor->go);
	cr_assert_eq(pthread_join(visitor->thread, NULL), 0);
	sem_destroy(&visitor->entered);
	sem_destroy(&visitor->go);
}

Test(arena, threads_have_different_ones)
{
	struct visitor visitors[8];

	need_jemalloc();
	for (unsigned i = 0; i < ARRAY_COUNT(visitors); i++) {
		visitor_start(&visitors[i]);
		cr_assert_neq(visitors[i].index, arena_now());
		for (unsigned j = 0; j < i; j++)
			cr_assert_neq(visitors[i].index, visitors[j].index);
	}
	for (unsigned i = 0; i < ARRAY_COUNT(visitors); i++) {
		visitor_end(&visitors[i]);
		free(visitors[i].memory);
	}
}

/* As with a core's reactor, which is freed by who stopped the core; the next core is in the arena by then. */
Test(arena, memory_outlives_the_thread_and_can_be_freed_by_another)
{
	struct visitor first, second;

	need_jemalloc();
	visitor_start(&first);
	visitor_end(&first);
	visitor_start(&second);
	cr_assert_eq(second.index, first.index);
	cr_assert_eq(arena_of(first.memory), first.index);
	for (size_t i = 0; i < MIB; i++)
		cr_assert_eq(first.memory[i], 7);
	free(first.memory);
	visitor_end(&second);
	free(second.memory);
}

Test(arena, those_left_are_used_again)
{
	unsigned count;

	need_jemalloc();
	count = arena_count();
	for (unsigned i = 0; i < CYCLES; i++) {
		struct visitor visitors[2];

		visitor_start(&visitors[0]);
		visitor_start(&visitors[1]);
		visitor_end(&visitors[0]);
		visitor_end(&visitors[1]);
		free(visitors[0].memory);
		free(visitors[1].memory);
	}
	/* A thread that only runs for a moment may get one of jemalloc's automatic ones made. */
	cr_assert_leq(arena_count(), count + 2 + 8, "%u arenas, %u before", arena_count(), count);
}

/* The pages of one that was left are on the node of the thread that touched them first. */
Test(arena, one_left_on_another_node_is_not_used)
{
	struct arena arena;
	unsigned near, far;

	need_jemalloc();
	near = enter(&arena, 0);
	arena_leave(&arena);
	far = enter(&arena, 1);
	arena_leave(&arena);
	cr_assert_neq(near, far);
	cr_assert_eq(enter(&arena, 0), near);
	arena_leave(&arena);
	cr_assert_eq(enter(&arena, 1), far);
	arena_leave(&arena);
}

Test(arena, there_are_only_so_many)
{
	static struct arena entered[ARENAS_MAX];
	struct arena extra;
	unsigned last = 0;

	need_jemalloc();
	for (unsigned i = 0; i < ARENAS_MAX; i++) {
		unsigned index = enter(&entered[i], ANYWHERE);

		cr_assert_gt(index, last);
		last = index;
	}
	cr_assert_eq(arena_enter(&extra, ANYWHERE), -EAGAIN);
	cr_assert_eq(arena_now(), last);
	arena_leave(&extra);
	cr_assert_eq(arena_now(), last);
	arena_leave(&entered[ARENAS_MAX - 1]);
	cr_assert_eq(enter(&extra, ANYWHERE), last);
	arena_leave(&extra);
}

/* ---- cores ---- */

/* Asks a core where its memory comes from.  Written on the core's thread, read after sem_wait. */
struct question {
	struct message message;
	sem_t answered;
	unsigned index;
};

static void
answer(struct message *message)
{
	struct question *question = container_of(message, struct question, message);

	question->index = arena_now();
	sem_post(&question->answered);
}

static unsigned
ask(struct core *core)
{
	struct question question = { .message.deliver = answer };

	sem_init(&question.answered, 0, 0);
	reactor_send(core->reactor, &question.message);
	while (sem_wait(&question.answered) != 0)
		;
	sem_destroy(&question.answered);
	return question.index;
}

/* Each has one, and those who start after them have the same: a process that restarts its cores does not grow. */
Test(arena, each_core_has_one_of_its_own)
{
	static const struct reactor_config config = { .disk_slots = 8, .poll_slots = 8 };
	struct cpu_list list;
	struct cores cores;
	bool seen[8192] = { false };

	need_jemalloc();
	cr_assert_eq(cpu_list_auto(&list), 0);
	for (unsigned cycle = 0; cycle < 5; cycle++) {
		cr_assert_eq(cores_start(&cores, &list, &config, 4 * MIB, MIB), 0);
		for (unsigned i = 0; i < cores.count; i++) {
			unsigned index = ask(&cores.cores[i]);

			cr_assert_geq(index, shared_count());
			cr_assert_lt(index, ARRAY_COUNT(seen));
			/* Of the reactor's memory too: it was made on the core. */
			cr_assert_eq(arena_of(cores.cores[i].reactor), index);
			if (cycle == 0)
				cr_assert_not(seen[index]);
			if (cycle > 0)
				cr_assert(seen[index]);
			seen[index] = true;
		}
		cores_stop(&cores);
	}
}
