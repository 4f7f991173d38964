/* Preloaded before the malloc of a program (LD_PRELOAD): counts its calls, and passes them on.
 * The counts are in the file that the environment's COUNT_MALLOC names, in the layout below: its maker, who has to give
 * it COUNTS_BYTES of zeros, maps it too and reads them while the program runs.  All threads count, in no order.
 * tests/e2e/test_memory.py is the maker. */
#include <dlfcn.h>
#include <execinfo.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define COUNTS_BYTES 4096
#define FRAMES_MAX   32

enum call {
	CALL_MALLOC,
	CALL_CALLOC,
	CALL_REALLOC,
	CALL_POSIX_MEMALIGN,
	CALL_ALIGNED_ALLOC,
	CALL_MEMALIGN,
	CALL_FREE,
	CALL_COUNT,
};

/* The file.  Atomic and relaxed, each for itself: who reads them does so while the program has nothing to do. */
struct counts {
	uint64_t calls[CALL_COUNT]; /* by enum call */
	/* Set by the reader to have the next call print its backtrace to standard error; cleared by that call. */
	uint64_t armed;
};

_Static_assert(sizeof(struct counts) <= COUNTS_BYTES, "the file is one page");

/* These are what a program sees, so they are declared here as malloc(3) and its like have them. */
void *memalign(size_t alignment, size_t bytes);

/* Calls that come before map_counts are counted here, and not shown to anybody. */
static struct counts early_counts;
static struct counts *counts = &early_counts;

static void count(enum call call);
static void print_backtrace(void);
static void *next(enum call call);
static _Noreturn void give_up(const char *what);

/* Before main, and so before there are threads. */
__attribute__((constructor)) static void
map_counts(void)
{
	const char *path = getenv("COUNT_MALLOC");
	void *frame;
	int fd;

	/* The first call loads a library, which allocates. */
	(void)backtrace(&frame, 1);
	if (path == NULL)
		give_up("COUNT_MALLOC names no file");
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		give_up("cannot open the file that COUNT_MALLOC names");
	counts = mmap(NULL, COUNTS_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (counts == MAP_FAILED)
		give_up("cannot map the file that COUNT_MALLOC names");
	close(fd);
}

void *
malloc(size_t bytes)
{
	void *(*forward)(size_t) = next(CALL_MALLOC);

	count(CALL_MALLOC);
	return forward(bytes);
}

void *
calloc(size_t members, size_t bytes)
{
	void *(*forward)(size_t, size_t) = next(CALL_CALLOC);

	count(CALL_CALLOC);
	return forward(members, bytes);
}

void *
realloc(void *memory, size_t bytes)
{
	void *(*forward)(void *, size_t) = next(CALL_REALLOC);

	count(CALL_REALLOC);
	return forward(memory, bytes);
}

int
posix_memalign(void **memory, size_t alignment, size_t bytes)
{
	int (*forward)(void **, size_t, size_t) = next(CALL_POSIX_MEMALIGN);

	count(CALL_POSIX_MEMALIGN);
	return forward(memory, alignment, bytes);
}

void *
aligned_alloc(size_t alignment, size_t bytes)
{
	void *(*forward)(size_t, size_t) = next(CALL_ALIGNED_ALLOC);

	count(CALL_ALIGNED_ALLOC);
	return forward(alignment, bytes);
}

void *
memalign(size_t alignment, size_t bytes)
{
	void *(*forward)(size_t, size_t) = next(CALL_MEMALIGN);

	count(CALL_MEMALIGN);
	return forward(alignment, bytes);
}

void
free(void *memory)
{
	void (*forward)(void *) = next(CALL_FREE);

	count(CALL_FREE);
	forward(memory);
}

static void
count(enum call call)
{
	__atomic_fetch_add(&counts->calls[call], 1, __ATOMIC_RELAXED);
	if (__atomic_load_n(&counts->armed, __ATOMIC_RELAXED) != 0 &&
	    __atomic_exchange_n(&counts->armed, 0, __ATOMIC_RELAXED) != 0)
		print_backtrace();
}

static void
print_backtrace(void)
{
	void *frames[FRAMES_MAX];
	int frame_count = backtrace(frames, FRAMES_MAX);

	(void)dprintf(STDERR_FILENO, "count_malloc: called here:\n");
	/* The first two are print_backtrace and count. */
	if (frame_count > 2)
		backtrace_symbols_fd(frames + 2, frame_count - 2, STDERR_FILENO);
}

/* The function of CALL that the program would have without us.  dlsym(3) does not allocate where it finds the name. */
static void *
next(enum call call)
{
	static const char *const names[CALL_COUNT] = {
		[CALL_MALLOC] = "malloc",
		[CALL_CALLOC] = "calloc",
		[CALL_REALLOC] = "realloc",
		[CALL_POSIX_MEMALIGN] = "posix_memalign",
		[CALL_ALIGNED_ALLOC] = "aligned_alloc",
		[CALL_MEMALIGN] = "memalign",
		[CALL_FREE] = "free",
	};
	static void *found[CALL_COUNT]; /* atomic, relaxed: every thread finds the same */
	void *function = __atomic_load_n(&found[call], __ATOMIC_RELAXED);

	if (function != NULL)
		return function;
	function = dlsym(RTLD_NEXT, names[call]);
	if (function == NULL)
		give_up(names[call]);
	__atomic_store_n(&found[call], function, __ATOMIC_RELAXED);
	return function;
}

static _Noreturn void
give_up(const char *what)
{
	(void)dprintf(STDERR_FILENO, "count_malloc: %s\n", what);
	_exit(127);
}
