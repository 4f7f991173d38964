/* Volumes in RAM, for tests and for measuring: what is written takes memory page by page, and TRIM and zeros give it back.
 *
 * One mapping, which all cores use at once.  Requests that overlap and run on different cores may mix within their overlap, as NBD
 * allows; page_map.h says how a page is dropped beside writers of it.  Nothing is ever read or written in blocks: any offset
 * and length costs the same.
 *
 * A request runs when its class has its turn on its core, in slices, so that a long one holds nobody up.  Before that, a large write
 * to pages that there are not yet has a helper thread get them: the kernel clears them, and a machine that is virtual may have to
 * wait for its host, while the core receives what is next.  TRIM and zeros, which may
 * be of the whole volume, run when a core has nothing else to do, but soon in any case; of all of a core one does a slice at a time. */
#include <assert.h>
#include <errno.h>
#include <numa.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "disk/page_map.h"
#include "disk/volume.h"
#include "disk/volume_kinds.h"
#include "reactor/log.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24 /* an older C library */
#endif

#define PAGE_BYTES \
	4096u /* of the map; the system's may be larger: then pages are given back more rarely */

/* What one slice may copy. */
#define COPY_BYTES_MAX ((uint64_t)256 << 10)

/* A slice of TRIMs and zeros is as many pieces as begin within its time: of what is filled with zeros, or given back by a
 * system call, and of what is found to have nothing.  Any of them takes some microseconds. */
#define CLEAR_NS	     10000u
#define CLEAR_BYTES_MAX	     ((uint64_t)64 << 10)
#define CLEAR_LOOK_BYTES_MAX ((uint64_t)512 << 20)

/* Of a shorter write its pages come sooner than a helper would. */
#define FETCH_BYTES_MIN ((uint64_t)64 << 10)
#define FETCH_LANES	8u /* keys of calls: a volume has so many at one time */

/* What one core has to do of TRIMs and zeros. */
struct memory_core {
	struct memory_volume *memory;
	struct reactor *reactor;
	struct list_node waiting; /* struct volume_request, by op.node */
	struct task task;
	unsigned fetch_lane; /* of the next */
} __attribute__((aligned(64)));

struct memory_volume {
	struct volume volume;
	uint8_t *bytes; /* mapped */
	size_t mapped_bytes;
	struct page_map *map;
	struct memory_core *cores; /* NULL before it is started */
	struct call_pool *calls;
};
static_assert(sizeof(struct memory_volume) >= FETCH_LANES, "a lane's key is an address in it");

static struct memory_volume *
memory_of(const struct volume *volume)
{
	return container_of(volume, struct memory_volume, volume);
}

/* ---- opening ---- */

static int
memory_check(const struct volume_options *options, uint64_t *size_bytes)
{
	uint64_t ram_bytes = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);

	if (options->size_bytes > ram_bytes)
		log_warning("a memory volume of %llu bytes is larger than this machine's memory, "
			    "%llu: clients that fill it get the daemon killed",
			    (unsigned long long)options->size_bytes, (unsigned long long)ram_bytes);
	*size_bytes = options->size_bytes;
	return 0;
}

/* On a machine with several nodes each gives its share: no core is nearer to the volume than others. */
static void
interleave(const struct memory_volume *memory)
{
	if (numa_available() >= 0 && numa_max_node() > 0)
		numa_interleave_memory(memory->bytes, memory->mapped_bytes, numa_all_nodes_ptr);
}

static int
map_bytes(struct memory_volume *memory)
{
	size_t system_page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	uint64_t pages = (memory->volume.size_bytes + PAGE_BYTES - 1) / PAGE_BYTES;
	void *bytes;
	int error;

	memory->mapped_bytes =
		(memory->volume.size_bytes + system_page_bytes - 1) & ~(system_page_bytes - 1);
	bytes = mmap(NULL, memory->mapped_bytes, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (bytes == MAP_FAILED)
		return -errno;
	error = page_map_create(pages, &memory->map);
	if (error < 0) {
		(void)munmap(bytes, memory->mapped_bytes);
		return error;
	}
	memory->bytes = bytes;
	/* A huge page would be taken for a few bytes, and given back only as a whole. */
	(void)madvise(bytes, memory->mapped_bytes, MADV_NOHUGEPAGE);
	interleave(memory);
	return 0;
}

static int
memory_open(const struct volume_options *options, struct volume **result)
{
	struct memory_volume *memory = calloc(1, sizeof(*memory));
	struct volume *volume;
	int error = -ENOMEM;

	if (memory == NULL)
		return error;
	volume = &memory->volume;
	volume->ops = &memory_volume_ops;
	volume->block_bytes = 1;
	volume->read_only = options->read_only;
	volume->trims = true;
	volume->path = strdup("memory");
	if (volume->path == NULL)
		goto err_after_memory;
	error = memory_check(options, &volume->size_bytes);
	if (error == 0)
		error = map_bytes(memory);
	if (error < 0) {
		log_error("a memory volume of %llu bytes cannot be had: %s; make it smaller, or "
			  "set the sysctl vm.overcommit_memory to 0 or 1",
			  (unsigned long long)options->size_bytes, strerror(-error));
		goto err_after_path;
	}
	*result = volume;
	return 0;

err_after_path:
	free(volume->path);
err_after_memory:
	free(memory);
	return error;
}

static void clear_next(struct task *task);

static int
memory_start(struct volume *volume, struct cores *cores, unsigned home_index,
	     struct call_pool *calls)
{
	struct memory_volume *memory = memory_of(volume);
	void *result;

	(void)home_index;
	if (posix_memalign(&result, _Alignof(struct memory_core),
			   cores->count * sizeof(struct memory_core)) != 0)
		return -ENOMEM;
	memory->cores = result;
	memory->calls = calls;
	for (unsigned i = 0; i < cores->count; i++) {
		memory->cores[i].memory = memory;
		memory->cores[i].reactor = cores->cores[i].reactor;
		memory->cores[i].fetch_lane = 0;
		list_init(&memory->cores[i].waiting);
		task_init(&memory->cores[i].task, clear_next);
	}
	return 0;
}

static int
memory_close(struct volume *volume)
{
	struct memory_volume *memory = memory_of(volume);

	(void)munmap(memory->bytes, memory->mapped_bytes);
	page_map_destroy(memory->map);
	free(memory->cores);
	free(volume->path);
	free(memory);
	return 0;
}

/* ---- parts: each does a part of a request from `offset` on, and returns how many bytes that was ---- */

/* From OFFSET on, up to END, the bytes whose pages are all touched, or all not. */
static uint64_t
run_bytes(const struct memory_volume *memory, uint64_t offset, uint64_t end, bool *touched)
{
	uint64_t page = offset / PAGE_BYTES;
	uint64_t pages =
		page_map_run(memory->map, page, (end + PAGE_BYTES - 1) / PAGE_BYTES, touched);
	uint64_t run_end = (page + pages) * PAGE_BYTES;

	return (run_end < end ? run_end : end) - offset;
}

static uint64_t
min_bytes(uint64_t bytes, uint64_t max)
{
	return bytes < max ? bytes : max;
}

static void
touch(struct memory_volume *memory, uint64_t offset, uint64_t bytes)
{
	page_map_set(memory->map, offset / PAGE_BYTES,
		     (offset + bytes + PAGE_BYTES - 1) / PAGE_BYTES);
}

static uint64_t
read_part(struct memory_volume *memory, const struct volume_request *request, uint64_t offset)
{
	uint8_t *to = (uint8_t *)request->buffer + (offset - request->offset);
	uint64_t end = request->offset + request->length;
	bool touched;
	uint64_t bytes = min_bytes(run_bytes(memory, offset, end, &touched), COPY_BYTES_MAX);

	if (touched)
		memcpy(to, memory->bytes + offset, bytes);
	else
		memset(to, 0, bytes);
	return bytes;
}

static uint64_t
write_part(struct memory_volume *memory, const struct volume_request *request, uint64_t offset)
{
	const uint8_t *from = (const uint8_t *)request->buffer + (offset - request->offset);
	uint64_t bytes = min_bytes(request->offset + request->length - offset, COPY_BYTES_MAX);

	memcpy(memory->bytes + offset, from, bytes);
	touch(memory, offset, bytes);
	return bytes;
}

/* Zeros that keep their room, or take it. */
static uint64_t
fill_part(struct memory_volume *memory, uint64_t offset, uint64_t end)
{
	uint64_t bytes = min_bytes(end - offset, CLEAR_BYTES_MAX);

	memset(memory->bytes + offset, 0, bytes);
	touch(memory, offset, bytes);
	return bytes;
}

/* Give BYTES at START back, whole pages of the system's: they are zeros then, whether the kernel takes them or not.  Of what is locked
 * (lock-memory) it takes none unless it is told so, which it understands since Linux 5.18. */
static void
give_back(uint8_t *start, uint64_t bytes)
{
	if (madvise(start, bytes, MADV_DONTNEED) != 0 &&
	    madvise(start, bytes, MADV_DONTNEED_LOCKED) != 0)
		memset(start, 0, bytes); /* UNTESTED: an older kernel */
}

/* Give back what is touched; what is not whole pages of the system's becomes zeros where it is. */
static uint64_t
drop_part(struct memory_volume *memory, uint64_t offset, uint64_t end)
{
	uint64_t mask = (uint64_t)sysconf(_SC_PAGESIZE) - 1;
	uint64_t whole_start = (offset + mask) & ~mask, whole_end = end & ~mask, bytes;
	bool touched;

	/* The last page may be a part of one: what is behind the volume's end is nobody's. */
	if (end == memory->volume.size_bytes)
		whole_end = memory->mapped_bytes;
	bytes = run_bytes(memory, offset, offset + min_bytes(end - offset, CLEAR_LOOK_BYTES_MAX),
			  &touched);
	if (!touched)
		return bytes;
	if (whole_start >= whole_end)
		return fill_part(memory, offset, end);
	if (offset < whole_start)
		return fill_part(memory, offset, whole_start);
	if (offset >= whole_end)
		return fill_part(memory, offset, end);
	if (end > whole_end)
		end = whole_end;
	bytes = min_bytes(min_bytes(bytes, end - offset), CLEAR_BYTES_MAX);
	page_map_clear(memory->map, offset / PAGE_BYTES,
		       (offset + bytes + PAGE_BYTES - 1) / PAGE_BYTES);
	give_back(memory->bytes + offset, bytes);
	return bytes;
}

static uint64_t
clear_part(struct memory_volume *memory, const struct volume_request *request, uint64_t offset)
{
	uint64_t end = request->offset + request->length;

	if (request->command == VOLUME_COMMAND_WRITE_ZEROES && request->no_hole)
		return fill_part(memory, offset, end);
	return drop_part(memory, offset, end);
}

/* ---- where the data is ---- */

static void
find_extents(const struct memory_volume *memory, struct volume_request *request)
{
	uint64_t offset = request->offset, end = offset + request->length;
	uint64_t look_end = offset + min_bytes(request->length, PAGE_MAP_LOOK_MAX * PAGE_BYTES);
	struct volume_extent *last = NULL;

	request->extent_count = 0;
	while (offset < look_end) {
		bool touched;
		uint64_t bytes = run_bytes(memory, offset, end, &touched);
		uint32_t flags = touched ? 0 : VOLUME_EXTENT_HOLE | VOLUME_EXTENT_ZERO;

		if (last != NULL && last->flags == flags) {
			last->length += bytes;
		} else {
			if (request->extent_count == request->extents_max)
				return;
			last = &request->extents[request->extent_count++];
			*last = (struct volume_extent){ .length = bytes, .flags = flags };
		}
		offset += bytes;
	}
}

static enum volume_peek
memory_peek(const struct volume *volume, uint64_t offset, uint64_t length)
{
	bool touched;
	uint64_t bytes = run_bytes(memory_of(volume), offset, offset + length, &touched);

	if (bytes < length)
		return VOLUME_PEEK_MIXED;
	return touched ? VOLUME_PEEK_DATA : VOLUME_PEEK_ZERO;
}

/* ---- requests ---- */

static bool
is_over(const struct volume_request *request)
{
	return request->progress_bytes == request->length;
}

/* REQUEST has its turn. */
static void
memory_run(struct op *op, long result)
{
	struct volume_request *request = container_of(op, struct volume_request, op);
	struct memory_volume *memory = memory_of(request->volume);
	uint64_t offset = request->offset + request->progress_bytes;

	(void)result;
	switch (request->command) {
	case VOLUME_COMMAND_READ:
		request->progress_bytes += read_part(memory, request, offset);
		break;
	case VOLUME_COMMAND_WRITE:
		request->progress_bytes += write_part(memory, request, offset);
		break;
	case VOLUME_COMMAND_EXTENTS:
		find_extents(memory, request);
		/* fall through */
	case VOLUME_COMMAND_FLUSH:
	case VOLUME_COMMAND_CACHE:
		request->progress_bytes = request->length;
		break;
	case VOLUME_COMMAND_TRIM:
	case VOLUME_COMMAND_WRITE_ZEROES:
		CHECK(false); /* they are clear_next's */
	}
	if (is_over(request))
		volume_finish(request, 0);
	else
		reactor_complete(request->core->reactor, op, 0);
}

/* On a helper thread: take the memory that REQUEST, a write, is about to take.  What is there stays as it is, and a page that is dropped
 * meanwhile comes back when it is written. */
static void
fetch_run(struct call *call)
{
	const struct volume_request *request = container_of(call, struct volume_request, call);
	const struct memory_volume *memory = memory_of(request->volume);
	uint64_t mask = (uint64_t)sysconf(_SC_PAGESIZE) - 1;
	uint64_t start = request->offset & ~mask;
	uint64_t end = (request->offset + request->length + mask) & ~mask;

	/* A kernel before 5.14 does not know it: then they come as they are written. */
	(void)madvise(memory->bytes + start, end - start, MADV_POPULATE_WRITE);
}

static void
fetch_done(struct call *call)
{
	struct volume_request *request = container_of(call, struct volume_request, call);

	reactor_complete(request->core->reactor, &request->op, 0);
}

/* Whether REQUEST is a write that should have its pages from a helper. */
static bool
wants_fetch(const struct memory_volume *memory, const struct volume_request *request)
{
	uint64_t end = request->offset + request->length;
	bool touched;

	if (request->command != VOLUME_COMMAND_WRITE || request->length < FETCH_BYTES_MIN)
		return false;
	return run_bytes(memory, request->offset, end, &touched) < request->length || !touched;
}

static void
fetch(struct memory_volume *memory, struct memory_core *home, struct volume_request *request)
{
	unsigned lane = home->fetch_lane++ % FETCH_LANES;

	request->call.run = fetch_run;
	request->call.done = fetch_done;
	call_submit_keyed(memory->calls, request->core->reactor, &request->call,
			  (uintptr_t)memory + lane, NULL);
}

/* Work for a slice's time on the TRIMs and zeros that have waited longest; one that needs more goes behind the others. */
static void
clear_next(struct task *task)
{
	struct memory_core *home = container_of(task, struct memory_core, task);
	uint64_t end_ns = kernel_clock_ns() + CLEAR_NS;
	struct list_node over, *node;

	list_init(&over);
	do {
		struct volume_request *request;

		node = list_take_first(&home->waiting);
		request = container_of(node, struct volume_request, op.node);
		do {
			request->progress_bytes += clear_part(
				home->memory, request, request->offset + request->progress_bytes);
		} while (!is_over(request) && kernel_clock_ns() < end_ns);
		if (volume_abandoned(request))
			request->progress_bytes = request->length;
		list_append(is_over(request) ? &over : &home->waiting, node);
	} while (!list_empty(&home->waiting) && kernel_clock_ns() < end_ns);
	if (!list_empty(&home->waiting))
		reactor_defer_idle(home->reactor, task);
	/* Last: with its last request the volume may be gone. */
	while ((node = list_take_first(&over)) != NULL)
		volume_finish(container_of(node, struct volume_request, op.node), 0);
}

static void
memory_submit(struct volume *volume, struct volume_request *request)
{
	struct memory_volume *memory = memory_of(volume);
	struct memory_core *home = &memory->cores[request->core->index];

	request->progress_bytes = 0;
	op_init(&request->op, memory_run);
	request->op.priority = request->priority;
	if (request->command == VOLUME_COMMAND_TRIM ||
	    request->command == VOLUME_COMMAND_WRITE_ZEROES) {
		list_append(&home->waiting, &request->op.node);
		reactor_defer_idle(home->reactor, &home->task);
	} else if (wants_fetch(memory, request)) {
		fetch(memory, home, request);
	} else {
		reactor_complete(request->core->reactor, &request->op, 0);
	}
}

const struct volume_ops memory_volume_ops = {
	.kind = "memory",
	.open = memory_open,
	.check = memory_check,
	.start = memory_start,
	.submit = memory_submit,
	.peek = memory_peek,
	.close = memory_close,
};
