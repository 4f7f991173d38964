/* Requests: one of a client's, from its header to the last byte of its reply; and what it may hold meanwhile.
 * They come from the core's pool, and their buffers from the core's budget.  If there is none, or the connection has its share, the
 * connection waits: nothing behind is read. */
#ifndef NET_REQUEST_H
#define NET_REQUEST_H

#include "disk/volume.h"
#include "net/connection.h"
#include "net/nbd_reply.h"
#include "net/nbd_wire.h"
#include "net/slow_log.h"

/* Runs of a sparse READ, of data and of holes, that are known ahead. */
#define REQUEST_RUNS 8u

struct request_run {
	uint32_t length; /* bytes, at least 1 */
	bool is_hole;
};

/* For the extents of a BLOCK_STATUS, and so its longest answer: 1,024. */
#define REQUEST_STATUS_BYTES ((size_t)16384)

struct nbd_request {
	struct volume_request io; /* the current piece */
	struct connection *connection;
	struct list_node node; /* in the pool, or in connection->replies */
	struct nbd_header header;
	size_t buffer_bytes; /* of the buffer; 0: none */
	void *buffer;

	/* The part of the reply that waits, or is being sent: `reply`, then `payload`.  One of them may be empty. */
	unsigned reply_bytes;
	uint32_t payload_bytes;
	/* In the buffer; if there is a pipe (io.pipe) it is in that, and this is any address. */
	const uint8_t *payload;
	bool last; /* nothing comes behind it */
	/* Nothing behind it goes with it in one send: it is in a pipe; or, not the last, in a chunk that goes on in the next, and no other
	 * may come between. */
	bool ends_send;
	uint32_t part_bytes; /* of the volume that it answers for */

	/* READ and WRITE. */
	uint64_t served_bytes; /* in earlier parts */
	bool in_one_chunk;     /* READ */
	bool sparse;	       /* READ: look for holes */
	enum nbd_error error; /* READ in one chunk that has failed in the middle, at error_offset */
	uint64_t error_offset;
	unsigned run_index, run_count; /* sparse READ */
	unsigned extent_count;	       /* BLOCK_STATUS: in the buffer */
	unsigned rounds;	       /* BLOCK_STATUS: queries so far */

	struct slow_watch slow;

	uint8_t reply[NBD_REPLY_BYTES_MAX];
	struct request_run runs[REQUEST_RUNS];
};

/* Requests for a pool. */
struct request_block {
	struct request_block *next; /* of the same pool */
	unsigned count;
	struct nbd_request requests[];
};

/* COUNT requests; or NULL: there is no memory.  Any thread. */
struct request_block *request_block_create(unsigned count);

/* BLOCK, or NULL, which is part of no pool. */
void request_block_destroy(struct request_block *block);

/* BLOCK, which is HOME's from now on, becomes part of its pool.  On its core, or before that runs. */
void request_pool_add(struct service_core *home, struct request_block *block);

/* The end of HOME's pool.  After its core. */
void request_pool_free(struct service_core *home);

/* A request from the pool; or NULL: then the connection goes on when something was given back. */
struct nbd_request *request_get(struct connection *connection);

/* Get REQUEST's buffer, which holds any piece of it.  Returns false if the core has none, or the connection has its share already: then the
 * connection goes on when something was given back. */
bool request_take_buffer(struct nbd_request *request) MUST_USE;

/* Get REQUEST, a READ of a volume that splices, a pipe for its payload.  Returns false if it can't have one: a buffer does as well. */
bool request_take_pipe(struct nbd_request *request) MUST_USE;

/* REQUEST is over: give all back, and let those who wait go on. */
void request_put(struct nbd_request *request);

/* READ and WRITE: how many bytes the next piece has.  Pieces end at multiples of the largest in the volume, so that only the first and
 * the last can be unaligned. */
uint32_t request_piece_bytes(const struct nbd_request *request);

#endif
