/* Volumes: what an export's bytes are kept in.  Peer kinds (file.c, memory.c, null.c, fault.c) stand behind one table of operations
 * (volume_kinds.h), each wrapped once here, which asserts what the kinds may rely on.
 *
 * A volume is opened before the cores run and used on all of them at once; a request lives on one core.  It may grow meanwhile
 * (volume_refresh), but it never shrinks. */
#ifndef DISK_VOLUME_H
#define DISK_VOLUME_H

#include "disk/failure_log.h"
#include "disk/range_lock.h"
#include "disk/volume_options.h"
#include "reactor/call.h"
#include "reactor/check.h"
#include "reactor/core.h"
#include "reactor/op.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct flush_group;
struct volume_ops;

struct volume {
	const struct volume_ops *ops;
	char *path; /* for messages */
	/* For messages that are no request's: set by who opened it; NULL: not said. */
	const char *export_name;
	/* Atomic, see volume_size; exact: need not be a multiple of block_bytes. */
	uint64_t size_bytes;
	/* Unit of direct I/O, a power of two; others are read-modify-write; 1: there is none. */
	uint32_t block_bytes;
	bool read_only;
	bool trims;	 /* TRIM gives room back */
	bool prefetches; /* CACHE makes later reads faster */
	bool splices; /* a READ's payload is best put into a pipe; atomic: it is not any more where that turns out to be no help */
	/* Private to volume.c. */
	bool sync_failed; /* atomic: set once by any core, never cleared */
	struct failure_log failures;
};

enum volume_command {
	VOLUME_COMMAND_READ,
	VOLUME_COMMAND_WRITE,
	VOLUME_COMMAND_FLUSH,
	VOLUME_COMMAND_TRIM,	     /* advice: what is not given back just stays */
	VOLUME_COMMAND_WRITE_ZEROES, /* reads back as zeros */
	VOLUME_COMMAND_CACHE,	     /* advice: will be read soon */
	VOLUME_COMMAND_EXTENTS,	     /* where the data is */
};

/* What a range is like; 0: data. */
#define VOLUME_EXTENT_HOLE 1u /* takes no room */
#define VOLUME_EXTENT_ZERO 2u /* reads as zeros */

struct volume_extent {
	uint64_t length; /* bytes, at least 1 */
	uint32_t flags;	 /* VOLUME_EXTENT_ */
};

#define VOLUME_MERGE_MAX 32 /* requests that go to the kernel as one */

/* One request; owned and embedded by its submitter, the volume's from volume_submit until done. */
struct volume_request {
	enum volume_command command;
	enum priority priority;
	/* For whom it is, in messages; outlives the request; NULL: not said. */
	const char *export_name;
	/* WRITE, TRIM, WRITE_ZEROES: done only after the result is on stable storage. */
	bool durable;
	bool no_hole;	/* WRITE_ZEROES: the range has its room afterwards */
	bool fast_only; /* WRITE_ZEROES: -EOPNOTSUPP, and nothing done, if writing were as fast */
	/* READ, WRITE: where the device would hold up the core while it works (zram does), a helper may do that instead. */
	bool shared;
	uint64_t offset;
	/* Bytes; at least 1, and within the volume; FLUSH: unused.  READ and WRITE: what the buffer holds; the others any
	 * length, served in slices so that it holds nobody else up. */
	uint64_t length;
	/* READ, WRITE: volume_buffer_bytes long, from the core's pool; the payload is at volume_payload. */
	void *buffer;
	/* READ, if the volume splices: an empty pipe from the core's pool that the range fits (pipe_fits), and that the payload goes to
	 * instead of the buffer; of a request that fails a part may be in it.  What is there can still change while others write to the
	 * range.  NULL: the buffer. */
	struct pipe *pipe;
	/* EXTENTS: room of the submitter's for extents_max, at least 1; in done, extent_count of them, at least 1, follow each other
	 * from offset on; no two neighbours have the same flags.  They end within the range, but need not reach its end. */
	struct volume_extent *extents;
	uint32_t extents_max, extent_count;
	/* EXTENTS: who asks goes on without an answer, so a failure is not logged; it is -EBUSY where the answer would have
	 * to wait for TRIMs, zeros or other questions. */
	bool answer_optional;
	/* NULL, or true, from some time on, when nobody wants the result any more: what is served in slices then ends early, with any
	 * result, and perhaps not done.  Belongs to CORE; outlives the request. */
	const bool *abandoned;
	struct core *core;
	/* Called once on CORE, never from within volume_submit.  error: 0, or a negative errno. */
	void (*done)(struct volume_request *request, int error);

	/* Private to the volume's kind. */
	struct volume *volume;
	struct op op;
	union {
		struct range_write write;
		struct range_exclusive exclusive;
	} range;
	struct {
		struct volume_request *next, *last;
		void (*done)(struct op *op, long result);
		uint64_t bytes;
		unsigned count;
		struct iovec parts[VOLUME_MERGE_MAX]; /* of the leader only */
	} merge;
	struct call call;
	uint64_t progress_bytes;
	uint64_t tail_start;
	uint64_t slice_start, slice_end;
	unsigned step;
	struct volume_request *flush_next;
	struct flush_group *flush_group;
	struct core *flush_core;
	bool syncing; /* it waits for a sync of the whole volume, as a FLUSH does */
	int error;
};

/* A kind's operations, but for those of the same name below without what these check. */
struct volume_ops {
	const char *kind;
	int (*open)(const struct volume_options *options, struct volume **volume);
	int (*check)(const struct volume_options *options, uint64_t *size_bytes);
	/* Everything is opened: prepare for use on CORES.  0 or a negative errno.  NULL: nothing to do. */
	int (*start)(struct volume *volume, struct cores *cores, unsigned home_index,
		     struct call_pool *calls);
	/* Ends in volume_finish. */
	void (*submit)(struct volume *volume, struct volume_request *request);
	/* As volume_peek; NULL: nothing is remembered. */
	enum volume_peek (*peek)(const struct volume *volume, uint64_t offset, uint64_t length);
	/* As volume_refresh; NULL: it never grows. */
	int (*refresh)(struct volume *volume, uint64_t *found_bytes);
	/* As volume_lock; NULL: it locks nothing. */
	int (*lock)(struct volume *volume, bool locked);
	/* What a failure of REQUEST, a negative errno, really is.  NULL: what it says. */
	int (*translate)(const struct volume_request *request, int error);
	/* Make all that was written durable, and free.  0 or a negative errno; closed in any case. */
	int (*close)(struct volume *volume);
};

/* Open the volume that OPTIONS, which volume_options_mistake finds nothing wrong with, describe.  Blocks: not on a
 * core.
 * file: direct I/O on the regular file or block device at path, or as `cache` says; read_only: for reading only.  A writer locks it against all
 * others, a reader against writers.
 * memory, null: of size_bytes, empty.
 * fault: another volume, of the file at path, or of size_bytes in memory, that goes wrong as `fault` says.
 * On failure the reason is logged, with the path and what to do.
 * Returns 0, or a negative errno; then *volume is unchanged.
 * Errors: those of open(2); -EBUSY another process or export has it; -EISDIR; -EINVAL neither file nor
 * block device, or no direct I/O there, or empty; -ENOMEM. */
int volume_open(const struct volume_options *options, struct volume **volume) MUST_USE;

/* What volume_open would find, without holding or locking anything; *size_bytes is set on success. */
int volume_check(const struct volume_options *options, uint64_t *size_bytes) MUST_USE;

/* Prepare VOLUME for use on CORES, with cores[home_index] ordering its read-modify-writes, and CALLS for what can block.
 * All must outlive the volume.  Returns 0 or -ENOMEM. */
int volume_start(struct volume *volume, struct cores *cores, unsigned home_index,
		 struct call_pool *calls) MUST_USE;

/* How large VOLUME is, in bytes; more later, perhaps, but never less.  Any thread.
 * Acquire: the caller sees all that volume_refresh did before it let the volume have this size. */
static inline uint64_t
volume_size(const struct volume *volume)
{
	return __atomic_load_n(&volume->size_bytes, __ATOMIC_ACQUIRE);
}

/* Look how large what VOLUME is kept in has become, *found_bytes; if that is more than its size, it is its size from now on, while
 * requests go on.  If it is less the size stays: who was told of it cannot be told that it is gone.  Where its path is not its any
 * more, a warning says so.
 * The volume is started.  Blocks: not on a core; one thread at a time.
 * Returns 0, or a negative errno, logged with the path and what to do: then the size stays. */
int volume_refresh(struct volume *volume, uint64_t *found_bytes) MUST_USE;

/* Give up the lock that keeps writers from what VOLUME, which is read-only, serves, so that it can be opened for writing beside it; or
 * take it again.  Returns 0, or -EBUSY (logged) if somebody else has locked it meanwhile. */
int volume_lock(struct volume *volume, bool locked) MUST_USE;

#define VOLUME_CLOSE_ROUNDS RANGE_LOCK_ROUNDS

/* Write all to stable storage and free VOLUME.  Blocks: not on a core.  No request may be in flight,
 * nor a message of a core about one: no core runs, or each has delivered all that had been sent to it, VOLUME_CLOSE_ROUNDS times
 * since the last request ended.
 * Returns 0, or the negative errno of the last flush (logged): then data may be lost. */
int volume_close(struct volume *volume);

/* How large a buffer a READ or WRITE of LENGTH bytes at OFFSET needs. */
size_t volume_buffer_bytes(const struct volume *volume, enum volume_command command,
			   uint64_t offset, uint32_t length);

/* Where in BUFFER the LENGTH bytes at OFFSET are, or go. */
static inline uint8_t *
volume_payload(const struct volume *volume, void *buffer, uint64_t offset)
{
	return (uint8_t *)buffer + (offset & (volume->block_bytes - 1));
}

enum volume_peek {
	VOLUME_PEEK_UNKNOWN, /* EXTENTS tells */
	VOLUME_PEEK_DATA,
	VOLUME_PEEK_ZERO,  /* all of it reads as zeros */
	VOLUME_PEEK_MIXED, /* EXTENTS tells, soon */
};

/* What is remembered of LENGTH bytes at OFFSET, within the volume, without asking the device.  Any core. */
enum volume_peek volume_peek(const struct volume *volume, uint64_t offset, uint64_t length);

/* Submit REQUEST.  Does not block.  It ends in done, with
 * -EOPNOTSUPP fast_only, and it would not be fast;
 * -EIO what the device said, or the file is shorter than it was; -ENOSPC, -EDQUOT no room; or, for a FLUSH, -EIO for
 * ever after one flush has failed: what it should have written may be lost. */
void volume_submit(struct volume *volume, struct volume_request *request);

/* For the kinds, between slices, on the request's core: whether REQUEST may end here. */
static inline bool
volume_abandoned(const struct volume_request *request)
{
	return request->abandoned != NULL && *request->abandoned;
}

/* For the kinds: REQUEST, submitted, is over, with ERROR, 0 or a negative errno.  Logs a failure, remembers one of a sync, and calls
 * done.  On the request's core, never from within submit. */
void volume_finish(struct volume_request *request, int error);

/* For the kinds: a sync for REQUEST, submitted, has failed, and the kernel has forgotten why: from now on every request of the volume that
 * needs one fails.  To be called before another sync can begin, which might succeed.  Any thread. */
void volume_sync_failed(const struct volume_request *request);

/* The same of a write that is a sync, too (RWF_DSYNC), and has failed with ERROR, a negative errno, if that may have been its sync. */
void volume_synced_write_failed(const struct volume_request *request, int error);

#endif
