/* The pool, and shares of it.
 * A connection that holds something may hold no more than is left for all others: so n connections that take what they can have the
 * same share each, an (n + 1)th of the core's, and as much stays free for one that needs little, or has just come.
 * The same holds for the buffers of an export's connections together, while those of another are at work on the core: a disk that hangs
 * gives nothing back, whoever asks it.  One that is alone may have all.
 * What was taken before is not taken back, but the last part of the buffers, and of the requests, is for those who have none.
 * Source: the dynamic thresholds of A. Choudhury and E. Hahne, "Dynamic queue length thresholds for shared-memory packet switches",
 * 1998. */
#include "net/request.h"

#include <stdlib.h>

#include "net/export_share.h"

struct request_block *
request_block_create(unsigned count)
{
	struct request_block *block =
		calloc(1, sizeof(*block) + count * sizeof(block->requests[0]));

	if (block == NULL)
		return NULL;
	block->count = count;
	return block;
}

void
request_block_destroy(struct request_block *block)
{
	free(block);
}

void
request_pool_add(struct service_core *home, struct request_block *block)
{
	block->next = home->request_blocks;
	home->request_blocks = block;
	for (unsigned i = 0; i < block->count; i++) {
		list_init(&block->requests[i].node);
		list_append(&home->unused_requests, &block->requests[i].node);
	}
	home->unused_request_count += block->count;
}

void
request_pool_free(struct service_core *home)
{
	struct request_block *block;

	while ((block = home->request_blocks) != NULL) {
		home->request_blocks = block->next;
		request_block_destroy(block);
	}
}

/* CONNECTION waits for the core to have something again; MUCH: a buffer of which the last part is kept from it. */
static void
starve(struct connection *connection, bool much)
{
	struct service_core *home = connection->home;
	struct export_share *share = connection->share;

	if (list_empty(&connection->starved_node)) {
		list_append(much ? &share->starved_for_much : &share->starved,
			    &connection->starved_node);
		connection->starves_for_much = much;
	}
	if (list_empty(&share->hungry))
		list_append(&home->hungry, &share->hungry);
	service_hungry(home);
}

static bool
has_its_requests(const struct connection *connection)
{
	const struct service_core *home = connection->home;
	unsigned count = connection->request_count;

	return count >= connection->request_max ||
	       (count > 0 && count + home->kept_request_count >= home->unused_request_count);
}

struct nbd_request *
request_get(struct connection *connection)
{
	struct service_core *home = connection->home;
	struct nbd_request *request;
	struct list_node *node;

	if (has_its_requests(connection)) {
		connection->throttled = true;
		return NULL;
	}
	node = list_take_first(&home->unused_requests);
	if (node == NULL) {
		starve(connection, false);
		return NULL;
	}
	CHECK(home->unused_request_count > 0);
	home->unused_request_count--;
	tls_line_count_request(&home->tls_line);
	request = container_of(node, struct nbd_request, node);
	request->connection = connection;
	request->served_bytes = 0;
	request->buffer_bytes = 0;
	request->io.pipe = NULL;
	request->io.core = home->core;
	request->io.abandoned = &connection->dropped;
	request->io.durable = false;
	request->io.export_name = connection->session.export->name;
	request->io.priority = connection->session.export->priority;
	connection->request_count++;
	return request;
}

void
request_put(struct nbd_request *request)
{
	struct connection *connection = request->connection;
	struct service_core *home = connection->home;

	if (request->buffer_bytes > 0) {
		buffer_pool_put(home->core->buffers, request->buffer, request->buffer_bytes);
		connection->buffer_bytes -= request->buffer_bytes;
		connection->share->buffer_bytes -= request->buffer_bytes;
	} else if (request->io.pipe != NULL) {
		pipe_pool_put(&home->core->pipes, request->io.pipe);
		connection->pipe_count--;
	}
	/* In front: what was used last is in the cache. */
	list_remove(&request->node);
	list_prepend(&home->unused_requests, &request->node);
	home->unused_request_count++;
	connection->request_count--;
	if (connection->throttled) {
		connection->throttled = false;
		connection_resume(connection);
	}
	service_feed(home);
}

uint32_t
request_piece_bytes(const struct nbd_request *request)
{
	uint64_t offset = request->header.offset + request->served_bytes;
	uint32_t to_boundary = SERVICE_PIECE_BYTES - (uint32_t)(offset % SERVICE_PIECE_BYTES);
	uint64_t left = request->header.length - request->served_bytes;

	return left < to_boundary ? (uint32_t)left : to_boundary;
}

/* The buffer that holds any piece of REQUEST. */
static size_t
needed_bytes(const struct nbd_request *request)
{
	const struct volume *volume = request->connection->session.export->volume;
	bool reads = request->header.command == NBD_CMD_READ;
	uint64_t ends = request->header.offset | request->header.length;
	uint32_t first_bytes;

	if (request->header.command == NBD_CMD_BLOCK_STATUS)
		return REQUEST_STATUS_BYTES;
	first_bytes = request_piece_bytes(request);
	if (first_bytes == request->header.length)
		return volume_buffer_bytes(volume,
					   reads ? VOLUME_COMMAND_READ : VOLUME_COMMAND_WRITE,
					   request->header.offset, first_bytes);
	if (reads || (ends & (volume->block_bytes - 1)) == 0)
		return SERVICE_PIECE_BYTES;
	return SERVICE_PIECE_BYTES + 2 * (size_t)volume->block_bytes;
}

/* See service_core.bytes_reserved. */
#define LITTLE_BYTES 65536u

/* Whether CONNECTION, which needs BYTES, holds none and needs little. */
static bool
needs_little(const struct connection *connection, size_t bytes)
{
	return connection->buffer_bytes == 0 && bytes <= LITTLE_BYTES;
}

/* What CONNECTION may have of what is left for it, when it needs BYTES.  The first buffer of an export may be of what is kept for others:
 * or who comes behind a disk that hangs would wait for it. */
static size_t
left_bytes(const struct connection *connection, size_t bytes)
{
	const struct service_core *home = connection->home;
	size_t free_bytes = buffer_pool_free_bytes(home->core->buffers);
	size_t reserve_bytes = home->bytes_reserved;

	if (needs_little(connection, bytes))
		return free_bytes;
	if (connection->share->buffer_bytes == 0)
		reserve_bytes /= 2;
	return free_bytes > reserve_bytes ? free_bytes - reserve_bytes : 0;
}

/* Would BYTES more be more than CONNECTION, which holds some already, may have, LEFT_BYTES being left? */
static bool
has_its_bytes(const struct connection *connection, size_t bytes, size_t left)
{
	size_t held_bytes = connection->buffer_bytes + bytes;

	return connection->buffer_bytes > 0 &&
	       (held_bytes > connection->home->bytes_per_connection_max || held_bytes > left);
}

/* The same for all connections of its export. */
static bool
export_has_its_bytes(const struct connection *connection, size_t bytes, size_t left)
{
	const struct export_share *share = connection->share;

	return connection->home->share_count > 1 && share->buffer_bytes > 0 &&
	       share->buffer_bytes + bytes > left;
}

bool
request_take_buffer(struct nbd_request *request)
{
	struct connection *connection = request->connection;
	size_t bytes = needed_bytes(request);
	size_t left = left_bytes(connection, bytes);

	if (has_its_bytes(connection, bytes, left)) {
		connection->throttled = true;
		return false;
	}
	request->buffer = NULL;
	if (bytes <= left && !export_has_its_bytes(connection, bytes, left))
		request->buffer = buffer_pool_get(connection->home->core->buffers, bytes);
	if (request->buffer == NULL) {
		starve(connection, !needs_little(connection, bytes));
		return false;
	}
	request->buffer_bytes = bytes;
	connection->buffer_bytes += bytes;
	connection->share->buffer_bytes += bytes;
	return true;
}

/* To look whether the pages are there, and to send header and payload by a call each, takes longer than to copy less, where the client
 * copies at once what is still in this CPU's cache. */
#define PIPED_BYTES_MIN 131072u

bool
request_take_pipe(struct nbd_request *request)
{
	struct connection *connection = request->connection;
	struct pipe_pool *pool = &connection->home->core->pipes;
	const struct nbd_header *header = &request->header;

	if (channel_tls(&connection->channel) != NULL || header->length < PIPED_BYTES_MIN ||
	    !pipe_fits(header->offset, header->length) ||
	    request_piece_bytes(request) != header->length)
		return false;
	/* As of the buffers: no more than are left for others. */
	if (connection->pipe_count >= pipe_pool_free_count(pool))
		return false;
	request->io.pipe = pipe_pool_get(pool);
	if (request->io.pipe == NULL)
		return false;
	connection->pipe_count++;
	return true;
}
