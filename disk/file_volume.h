/* What the files of volumes in files and block devices share: file_open.c opens and closes,
 * file_io.c reads and writes whole blocks, file_merge.c several as one, file_rmw.c other writes,
 * file_cached.c reads through the page cache, file_cached_write.c writes there, file_prefetch.c
 * reads ahead, file_share.c leaves slots for other volumes, file_zeroes.c trims and zeros, at the
 * pace of slice_pace.c, file_extents.c tells where the data is, file_grow.c notices that it has
 * become larger, file.c says which. */
#ifndef DISK_FILE_VOLUME_H
#define DISK_FILE_VOLUME_H

#include "disk/extent_map.h"
#include "disk/flush_group.h"
#include "disk/page_view.h"
#include "disk/slice_pace.h"
#include "disk/volume.h"

#define FILE_GRAIN_BYTES_MAX 65536u

#define FILE_BATCHES 2u

/* Writes through the page cache that a helper has, or is to have behind another batch. */
struct file_batch {
	struct file_core *home;
	struct list_node requests; /* struct volume_request, by op.node; empty: it is free */
	struct call call;
};

/* What one core knows of a volume's file. */
struct file_core {
	/* file_merge.c's: the last read, and write, that others may join. */
	struct volume_request *leaders[2];
	struct nowait reads, writes; /* direct ones: see reactor/nowait.h */
	/* file_share.c's, of direct reads and writes: those that have begun, and struct volume_request, by op.node, that have not. */
	unsigned under_way[PRIORITY_COUNT];
	struct list_node held[PRIORITY_COUNT];
	/* file_cached.c's. */
	bool never_nowait; /* reads can't be asked not to wait */
	unsigned read_lane;
	/* file_cached_write.c's. */
	struct file_volume *file;
	unsigned little_batches; /* so many, the last ones, were what this core's CPU writes best */
	struct list_node waiting; /* struct volume_request, by op.node */
	struct task batch_task;
	struct file_batch batches[FILE_BATCHES];
} __attribute__((aligned(64)));

struct file_volume {
	struct volume volume;
	int fd;	     /* O_DIRECT, unless cached */
	int tail_fd; /* page cache; -1 where there was no tail yet, or it is not written */
	/* See file_rmw.c.  Atomic: it changes when the file grows, so each request keeps what it found in its own.  Acquire: who sees it
	 * sees tail_fd. */
	uint64_t tail_start;
	/* Exclusive ranges are multiples of it: blocks of the file system, or pages; at most
	 * FILE_GRAIN_BYTES_MAX. */
	uint64_t grain_bytes;
	bool is_device;
	bool cached;	       /* through the page cache; the volume's block is a byte then */
	struct page_view view; /* file_cached.c's */
	bool zeroes_fast;      /* ZERO_RANGE does not write, if there is one */
	struct call_pool *calls;
	struct call_share call_share; /* what all calls of this file count against */
	struct range_lock *lock;
	struct flush_group flushes;
	struct file_core *writer; /* of the last cached write; atomic, and only compared */
	struct file_core *cores;  /* [core_count] */
	unsigned core_count;
	/* Its examiners are calls of FILE_KEY_EXTENTS and FILE_KEY_SLICES, so at most one waits for the other. */
	struct extent_map map;
	unsigned scans; /* atomic: that file_extents.c has under way for BLOCK_STATUS */
	/* file_zeroes.c's. */
	void *zeros;
	struct slice_pace pace;
	unsigned slices; /* atomic: that have begun, or stand behind those, each with its pause */
};

static inline struct file_volume *
file_of(struct volume *volume)
{
	return container_of(volume, struct file_volume, volume);
}

/* What REQUEST's core knows of its file. */
static inline struct file_core *
file_core_of(const struct volume_request *request)
{
	return &file_of(request->volume)->cores[request->core->index];
}

static inline uint64_t
file_block_floor(const struct volume_request *request, uint64_t offset)
{
	return offset & ~(uint64_t)(request->volume->block_bytes - 1);
}

static inline uint64_t
file_block_ceil(const struct volume_request *request, uint64_t offset)
{
	return file_block_floor(request, offset + request->volume->block_bytes - 1);
}

static inline uint64_t
file_grain_floor(const struct file_volume *file, uint64_t offset)
{
	return offset / file->grain_bytes * file->grain_bytes;
}

static inline uint64_t
file_grain_ceil(const struct file_volume *file, uint64_t offset)
{
	return file_grain_floor(file, offset + file->grain_bytes - 1);
}

#define FILE_READ_LANES 12
#define FILE_PART_LANES 4

/* Keys of calls (reactor/call.h): each is an address within VOLUME, so that it is no other volume's. */
enum file_key {
	FILE_KEY_EXTENTS, /* who asks the file system */
	FILE_KEY_SLICES,  /* TRIM and WRITE_ZEROES, with the pauses between them */
	FILE_KEY_PREFETCH,
	FILE_KEY_WRITES, /* through the page cache, of a regular file: of a device each core has its own */
	FILE_KEY_READS, /* the first of FILE_READ_LANES: cached reads of what is not in the cache */
	FILE_KEY_PARTS =
		FILE_KEY_READS +
		FILE_READ_LANES, /* the first of FILE_PART_LANES: parts of blocks that are zeroed */
};

static inline uintptr_t
file_key(const struct volume *volume, unsigned key)
{
	return (uintptr_t)volume + key;
}

/* The operations of volume_ops. */
int file_open(const struct volume_options *options, struct volume **result) MUST_USE;
int file_check(const struct volume_options *options, uint64_t *size_bytes) MUST_USE;
int file_start(struct volume *volume, struct cores *cores, unsigned home_index,
	       struct call_pool *calls) MUST_USE;
int file_refresh(struct volume *volume, uint64_t *found_bytes) MUST_USE;
int file_lock(struct volume *volume, bool locked) MUST_USE;
int file_close(struct volume *volume);

/* Find how large what is open at FD now is; of a device, whole blocks.  Returns 0 or a negative errno. */
int file_find_size(int fd, uint64_t *size_bytes) MUST_USE;

/* Prepare FILE, whose grain is known, for being of SIZE_BYTES: its tail's descriptor if it needs one and has none.  Then *tail_start is to
 * be its own.  Returns 0 or a negative errno. */
int file_open_tail(struct file_volume *file, uint64_t size_bytes, uint64_t *tail_start) MUST_USE;

/* REQUEST, a direct read, or a write whose range is locked, is to begin: file_begin is called for it, now or later. */
void file_share_enter(struct volume_request *request);

/* REQUEST, which may begin, does: in one of those that follow. */
void file_begin(struct volume_request *request);
void file_begin_read(struct volume_request *request);
void file_begin_plain_write(struct volume_request *request);
void file_begin_rmw(struct volume_request *request);

/* REQUEST, which has begun, is over: another may begin.  Then it ends in volume_finish with ERROR. */
void file_finish(struct volume_request *request, int error);

/* Write BYTES to the tail, from OFFSET to END, and to stable storage; see the top of file_rmw.c.  Blocks: not on a core.  Returns 0 or a
 * negative errno; the volume knows then what that means for its flushes. */
int file_write_tail(const struct volume_request *request, const uint8_t *bytes, uint64_t offset,
		    uint64_t end) MUST_USE;

void file_share_init(struct file_core *home);

/* The ways of a request; each ends in volume_finish, never from within these.
 * file_submit_plain_write: whole blocks in front of tail_start; file_submit_rmw: any other write; file_submit_cached_: if it is cached. */
void file_submit_plain_write(struct volume_request *request);
void file_submit_rmw(struct volume_request *request);
void file_submit_cached_read(struct volume_request *request);
void file_submit_cached_write(struct volume_request *request);

/* CACHE of a cached volume. */
void file_submit_prefetch(struct volume_request *request);

/* Prepare HOME, a core's part of FILE, for cached reads, and for cached writes. */
void file_cached_init(struct file_core *home);
void file_cached_write_init(struct file_volume *file, struct file_core *home);

/* REQUEST, a read or write of whole blocks, is prepared for its operation's done, and neither started nor in another's: let it go to the
 * kernel with the one before it.  Returns false if there is none that it can join. */
bool file_merge_join(struct volume_request *request) MUST_USE;

/* REQUEST, as above, is started next, by file_submit_rest: others may join it until the kernel has it. */
void file_merge_lead(struct volume_request *request);

/* TRIM and WRITE_ZEROES; prepare for them, after opening, and give that back. */
void file_submit_zeroes(struct volume_request *request);
int file_zeroes_start(struct file_volume *file) MUST_USE;
void file_zeroes_stop(struct file_volume *file);

void file_submit_extents(struct volume_request *request);
enum volume_peek file_peek(const struct volume *volume, uint64_t offset, uint64_t length);

/* REQUEST is over with ERROR: say so in the next turn. */
void file_complete(struct volume_request *request, int error);

/* Prepare REQUEST's operation for DONE. */
void file_prepare_op(struct volume_request *request, void (*done)(struct op *op, long result));

/* Read or write the rest of the blocks from START to END, which are at BUFFER: what is behind request->progress_bytes. */
void file_submit_rest(struct volume_request *request, bool write, uint8_t *buffer, uint64_t start,
		      uint64_t end);

/* FILE ends before where it ended when it was opened, or grew: what is remembered of where its holes are counts no more, so that whoever
 * asks for what is gone is told so.  Any thread.  Returns -EIO. */
int file_found_short(struct file_volume *file) MUST_USE;

/* Account for a RESULT of the blocks from START on, of which everything up to NEEDED_END matters.
 * Returns 1 if that is all there, 0 if the rest must be submitted, or a negative errno. */
int file_progress(struct volume_request *request, long result, uint64_t start,
		  uint64_t needed_end) MUST_USE;

#endif
