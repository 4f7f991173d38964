/* Writes through the page cache, for cache = host: by helper threads, since they can wait for memory, the journal, or a page that has to
 * be read first.  RWF_NOWAIT is no help: ext4 and block devices refuse it, XFS and btrfs too, because of the time stamp.
 *
 * A helper's wake-up costs more than a small write.  So what a core has at the end of a turn goes to a helper in one batch, and what
 * comes meanwhile waits for the next; and if that is little, to a helper on the core's own CPU.  Of large writes the next batch stands behind the one that is written, so that the helper need
 * not wait for the core.  A file's lock lets in one writer, and others spin: so it has one helper at a time, of all cores.  A device
 * has no such lock, and as many as there are cores.
 *
 * A durable write is a write and then a sync of the whole file with all that wait for one, as a flush (flush_group.h): where syncs do
 * not overlap, the report of a loss can't go to the wrong one. */
#include <errno.h>
#include <sys/uio.h>

#include "disk/file_volume.h"

/* Of a batch: more would be long without an answer. */
#define BATCH_REQUESTS_MAX 32u
#define BATCH_BYTES_MAX	   ((uint64_t)512 << 10)

/* A second batch stands behind the first if it begins with so large a write: then the helper goes on at once.  Of small ones more
 * gather while one is written, which costs less. */
#define BEHIND_BYTES_MIN ((uint64_t)64 << 10)

/* What the core's own CPU is quick enough for, and how many batches in a row have to be such. */
#define NEAR_REQUESTS_MAX 12u
#define NEAR_BYTES_MAX	  ((uint64_t)64 << 10)
#define NEAR_BATCHES_MIN  64u

static struct volume_request *
request_of(struct list_node *node)
{
	return container_of(node, struct volume_request, op.node);
}

/* ---- on a helper thread ---- */

static int
write_all(const struct volume_request *request)
{
	int fd = file_of(request->volume)->fd;
	uint64_t done_bytes = 0;

	while (done_bytes < request->length) {
		ssize_t result =
			pwrite(fd, (const uint8_t *)request->buffer + done_bytes,
			       request->length - done_bytes, (off_t)(request->offset + done_bytes));

		if (result < 0 && errno == EINTR)
			continue;
		if (result <= 0)
			return result < 0 ? -errno : -EIO;
		done_bytes += (uint64_t)result;
	}
	return 0;
}

static void
batch_run(struct call *call)
{
	struct file_batch *batch = container_of(call, struct file_batch, call);
	struct list_node *node;

	list_for_each(node, &batch->requests) {
		struct volume_request *request = request_of(node);

		request->error = write_all(request);
	}
}

/* ---- on the core ---- */

static void
finish(struct file_volume *file, struct volume_request *request)
{
	extent_map_wrote(&file->map, request->offset, request->offset + request->length);
	range_write_end(file->lock, request->core, &request->range.write);
	if (request->error < 0 || !request->durable)
		volume_finish(request, request->error);
	else
		flush_group_submit(&file->flushes, file->fd, request);
}

static void start_batches(struct file_core *home);

static void
batch_done(struct call *call)
{
	struct file_batch *batch = container_of(call, struct file_batch, call);
	struct file_core *home = batch->home;
	struct list_node done, *node;

	list_init(&done);
	list_move_all(&done, &batch->requests);
	start_batches(home);
	while ((node = list_take_first(&done)) != NULL)
		finish(home->file, request_of(node));
}

/* Of calls with the same key one runs at a time. */
static uintptr_t
key_of(const struct file_core *home)
{
	return home->file->is_device ? (uintptr_t)home
				     : file_key(&home->file->volume, FILE_KEY_WRITES);
}

/* Whether HOME is the one that wrote to its file last, too.  A core that waits for another's batch would have to be woken there. */
static bool
writes_alone(struct file_core *home)
{
	struct file_volume *file = home->file;
	/* Relaxed: it is only about which CPU is best. */
	bool alone = __atomic_load_n(&file->writer, __ATOMIC_RELAXED) == home;

	if (!alone)
		__atomic_store_n(&file->writer, home, __ATOMIC_RELAXED);
	return alone || file->is_device;
}

/* Whether a batch of COUNT requests, BYTES in all, is best written on the core's own CPU: what its clients ask for at a time is little, and was
 * lately, so that the core has nothing else to do meanwhile. */
static bool
belongs_here(struct file_core *home, unsigned count, uint64_t bytes)
{
	bool alone = writes_alone(home);

	if (!alone || !list_empty(&home->waiting) || count > NEAR_REQUESTS_MAX ||
	    bytes > NEAR_BYTES_MAX)
		home->little_batches = 0;
	else if (home->little_batches < NEAR_BATCHES_MIN)
		home->little_batches++;
	return home->little_batches == NEAR_BATCHES_MIN;
}

/* Have a helper write what waits longest, as BATCH, behind those of this core that it has already. */
static void
start_batch(struct file_core *home, struct file_batch *batch)
{
	struct volume_request *request = NULL;
	struct reactor *reactor;
	uint64_t bytes = 0;
	unsigned count;

	for (count = 0; count < BATCH_REQUESTS_MAX && bytes < BATCH_BYTES_MAX; count++) {
		struct list_node *node = list_take_first(&home->waiting);

		if (node == NULL)
			break;
		list_append(&batch->requests, node);
		request = request_of(node);
		bytes += request->length;
	}
	batch->call.run = batch_run;
	batch->call.done = batch_done;
	reactor = request->core->reactor;
	if (belongs_here(home, count, bytes))
		call_submit_near(home->file->calls, reactor, &batch->call, key_of(home),
				 &home->file->call_share);
	else
		call_submit_keyed(home->file->calls, reactor, &batch->call, key_of(home),
				  &home->file->call_share);
}

/* Begin what may begin of what waits. */
static void
start_batches(struct file_core *home)
{
	unsigned busy = 0;

	for (unsigned i = 0; i < FILE_BATCHES; i++)
		busy += !list_empty(&home->batches[i].requests);
	for (unsigned i = 0; i < FILE_BATCHES; i++) {
		struct file_batch *batch = &home->batches[i];

		if (!list_empty(&batch->requests) || list_empty(&home->waiting))
			continue;
		if (busy > 0 && request_of(home->waiting.next)->length < BEHIND_BYTES_MIN)
			return;
		start_batch(home, batch);
		busy++;
	}
}

static void
on_end_of_turn(struct task *task)
{
	start_batches(container_of(task, struct file_core, batch_task));
}

static void
write_granted(struct range_write *write)
{
	struct volume_request *request = container_of(write, struct volume_request, range.write);
	struct file_core *home = file_core_of(request);

	list_init(&request->op.node);
	list_append(&home->waiting, &request->op.node);
	reactor_defer(request->core->reactor, &home->batch_task);
}

void
file_submit_cached_write(struct volume_request *request)
{
	struct range_write *write = &request->range.write;

	write->start = request->offset;
	write->end = request->offset + request->length;
	write->granted = write_granted;
	if (range_write_begin(file_of(request->volume)->lock, request->core, write))
		write_granted(write);
}

void
file_cached_write_init(struct file_volume *file, struct file_core *home)
{
	home->file = file;
	home->little_batches = 0;
	list_init(&home->waiting);
	for (unsigned i = 0; i < FILE_BATCHES; i++) {
		home->batches[i].home = home;
		list_init(&home->batches[i].requests);
	}
	task_init(&home->batch_task, on_end_of_turn);
}
