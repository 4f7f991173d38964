/* Requests in, replies out.
 *
 * A request longer than a piece is served piece by piece in one buffer.  A READ's pieces follow each other on the wire
 * behind one header, and the next one is read from disk when the last is sent; a WRITE's next piece is received
 * when the last is written.  Pieces end at multiples of the piece in the volume, so that only the first and the last can be
 * unaligned. */
#include "net/transmission.h"

#include <errno.h>
#include <string.h>

#include "reactor/log.h"

/* Replies in one sendmsg. */
#define REPLIES_PER_SEND 64

_Static_assert(2 * REPLIES_PER_SEND <= CONNECTION_SEND_PARTS, "each has a header and a payload");

/* Behind a payload that is not short, only this much input is received in the same call: it is mostly the next payload, which
 * would have to be copied.  Behind a short one all there is room for: copying is cheaper than a call for each. */
#define PAYLOAD_SHORT_BYTES	   16384u
#define INPUT_BESIDE_PAYLOAD_BYTES 4096u

/* ---- pieces and buffers ---- */

static uint32_t
piece_bytes(const struct nbd_request *request)
{
	uint64_t offset = request->header.offset + request->served_bytes;
	uint32_t to_boundary = SERVICE_PIECE_BYTES - (uint32_t)(offset % SERVICE_PIECE_BYTES);
	uint32_t left = request->header.length - request->served_bytes;

	return left < to_boundary ? left : to_boundary;
}

/* The buffer that holds any piece of REQUEST. */
static size_t
request_buffer_bytes(const struct nbd_request *request)
{
	const struct volume *volume = request->connection->session.export->volume;
	uint32_t first_bytes = piece_bytes(request);
	uint64_t ends = request->header.offset | request->header.length;

	if (first_bytes == request->header.length)
		return volume_buffer_bytes(volume, request->io.command, request->header.offset,
					   first_bytes);
	if (request->io.command == VOLUME_COMMAND_READ || (ends & (volume->block_bytes - 1)) == 0)
		return SERVICE_PIECE_BYTES;
	return SERVICE_PIECE_BYTES + 2 * (size_t)volume->block_bytes;
}

/* CONNECTION waits for the core to have something again. */
static void
starve(struct connection *connection)
{
	if (list_empty(&connection->starved_node))
		list_append(&connection->home->starved, &connection->starved_node);
	service_hungry(connection->home);
}

/* Get REQUEST's buffer.  Returns false if the core has none, or the connection has its share already: then it goes on
 * when something was given back. */
static bool
take_buffer(struct nbd_request *request)
{
	struct connection *connection = request->connection;
	size_t bytes = request_buffer_bytes(request);

	if (connection->buffer_bytes > 0 &&
	    connection->buffer_bytes + bytes > connection->home->bytes_per_connection_max) {
		connection->throttled = true;
		return false;
	}
	request->io.buffer = buffer_pool_get(connection->home->core->buffers, bytes);
	if (request->io.buffer == NULL) {
		starve(connection);
		return false;
	}
	request->buffer_bytes = bytes;
	connection->buffer_bytes += bytes;
	return true;
}

/* ---- requests ---- */

static void io_done(struct volume_request *io, int error);

/* A request from the pool; or NULL: then the connection goes on when something was given back. */
static struct nbd_request *
request_get(struct connection *connection)
{
	struct service_core *home = connection->home;
	struct nbd_request *request;
	struct list_node *node;

	if (connection->request_count >= home->service->limits.requests_per_connection) {
		connection->throttled = true;
		return NULL;
	}
	node = list_take_first(&home->unused_requests);
	if (node == NULL) {
		starve(connection);
		return NULL;
	}
	request = container_of(node, struct nbd_request, node);
	request->connection = connection;
	request->served_bytes = 0;
	request->error = NBD_SUCCESS;
	request->header_sent = false;
	request->buffer_bytes = 0;
	request->io.core = home->core;
	request->io.priority = connection->session.export->priority;
	request->io.done = io_done;
	connection->request_count++;
	return request;
}

/* REQUEST is over: give all back, and let those who wait go on. */
static void
request_put(struct nbd_request *request)
{
	struct connection *connection = request->connection;
	struct service_core *home = connection->home;

	if (request->buffer_bytes > 0) {
		buffer_pool_put(home->core->buffers, request->io.buffer, request->buffer_bytes);
		connection->buffer_bytes -= request->buffer_bytes;
	}
	/* In front: what was used last is in the cache. */
	list_remove(&request->node);
	list_prepend(&home->unused_requests, &request->node);
	connection->request_count--;
	if (connection->throttled) {
		connection->throttled = false;
		connection_resume(connection);
	}
	service_feed(home);
}

/* Queue REQUEST's reply, or the next part of it. */
static void
answer(struct nbd_request *request)
{
	struct connection *connection = request->connection;

	if (request->header_sent)
		list_prepend(&connection->replies, &request->node);
	else
		list_append(&connection->replies, &request->node);
	reactor_defer(connection->home->core->reactor, &connection->flush);
}

static void
answer_error(struct nbd_request *request, enum nbd_error error)
{
	request->error = error;
	answer(request);
}

static void
submit_piece(struct nbd_request *request)
{
	struct connection *connection = request->connection;
	struct volume_request *io = &request->io;

	if (io->command != VOLUME_COMMAND_FLUSH) {
		io->offset = request->header.offset + request->served_bytes;
		io->length = piece_bytes(request);
	}
	connection->io_count++;
	volume_submit(connection->session.export->volume, io);
}

/* ---- the volume is done with a piece ---- */

static void
read_piece_done(struct nbd_request *request, int error)
{
	if (error < 0 && request->header_sent) {
		/* A simple reply can't take back the success that its header announced. */
		connection_drop(request->connection, "a read failed after its reply had begun");
		request_put(request);
		return;
	}
	request->error = nbd_error_from_errno(error);
	answer(request);
}

static void
write_piece_done(struct nbd_request *request, int error)
{
	struct connection *connection = request->connection;

	request->served_bytes += (uint32_t)request->io.length;
	if (connection->receiving == request) {
		/* More of its payload is to come. */
		if (error == 0) {
			connection->payload_left = piece_bytes(request);
			connection_resume(connection);
			return;
		}
		connection->receiving = NULL;
		connection->skip_bytes = request->header.length - request->served_bytes;
		connection_resume(connection);
	}
	answer_error(request, nbd_error_from_errno(error));
}

static void
io_done(struct volume_request *io, int error)
{
	struct nbd_request *request = container_of(io, struct nbd_request, io);
	struct connection *connection = request->connection;

	connection->io_count--;
	if (connection->state == CONNECTION_STATE_DROPPED) {
		request_put(request);
		connection_maybe_close(connection);
		return;
	}
	switch (io->command) {
	case VOLUME_COMMAND_READ:
		read_piece_done(request, error);
		break;
	case VOLUME_COMMAND_WRITE:
		write_piece_done(request, error);
		break;
	case VOLUME_COMMAND_FLUSH:
	case VOLUME_COMMAND_TRIM:
	case VOLUME_COMMAND_WRITE_ZEROES:
	case VOLUME_COMMAND_CACHE:
	case VOLUME_COMMAND_EXTENTS:
		answer_error(request, nbd_error_from_errno(error));
		break;
	}
	connection_maybe_close(connection);
}

/* ---- receiving ---- */

static size_t
input_bytes(const struct connection *connection)
{
	return connection->input_end - connection->input_start;
}

/* REQUEST, a READ or WRITE, begins.  Returns false if it starves. */
static bool
begin_request(struct nbd_request *request)
{
	struct connection *connection = request->connection;

	if (!take_buffer(request)) {
		connection->starved = request;
		return false;
	}
	connection->starved = NULL;
	if (request->io.command == VOLUME_COMMAND_READ) {
		submit_piece(request);
	} else {
		connection->receiving = request;
		connection->payload_left = piece_bytes(request);
	}
	return true;
}

/* The piece's payload is complete. */
static void
payload_complete(struct connection *connection)
{
	struct nbd_request *request = connection->receiving;

	if (request->served_bytes + piece_bytes(request) == request->header.length)
		connection->receiving = NULL;
	submit_piece(request);
}

/* Where the next byte of the piece's payload goes. */
static uint8_t *
payload_target(const struct connection *connection)
{
	const struct nbd_request *request = connection->receiving;
	uint64_t offset = request->header.offset + request->served_bytes;
	uint32_t received = piece_bytes(request) - connection->payload_left;

	return volume_payload(connection->session.export->volume, request->io.buffer, offset) +
	       received;
}

/* Copy what is in the input of the piece's payload. */
static void
take_payload(struct connection *connection)
{
	size_t count = input_bytes(connection);

	if (count > connection->payload_left)
		count = connection->payload_left;
	memcpy(payload_target(connection), connection->room->input + connection->input_start,
	       count);
	connection->input_start += count;
	connection->payload_left -= (uint32_t)count;
	if (connection->payload_left == 0)
		payload_complete(connection);
}

static void
take_skipped(struct connection *connection)
{
	size_t count = input_bytes(connection);

	if (count > connection->skip_bytes)
		count = (size_t)connection->skip_bytes;
	connection->input_start += count;
	connection->skip_bytes -= count;
}

/* Act on the header in REQUEST.  Returns false if nothing behind it may be taken now. */
static bool
dispatch(struct nbd_request *request)
{
	struct connection *connection = request->connection;
	const struct nbd_header *header = &request->header;
	enum nbd_error error = nbd_header_validate(header, connection->session.export);

	if (error != NBD_SUCCESS) {
		if (header->command == NBD_CMD_WRITE)
			connection->skip_bytes = header->length;
		answer_error(request, error);
		return true;
	}
	switch (header->command) {
	case NBD_CMD_READ:
		request->io.command = VOLUME_COMMAND_READ;
		request->io.durable = false;
		return begin_request(request);
	case NBD_CMD_WRITE:
		request->io.command = VOLUME_COMMAND_WRITE;
		request->io.durable = (header->flags & NBD_CMD_FLAG_FUA) != 0;
		return begin_request(request);
	case NBD_CMD_FLUSH:
		request->io.command = VOLUME_COMMAND_FLUSH;
		request->io.durable = false;
		request->io.offset = 0;
		request->io.length = 0;
		submit_piece(request);
		return true;
	default: /* DISC */
		request_put(request);
		connection_finish(connection);
		return false;
	}
}

static bool
take_header(struct connection *connection)
{
	struct nbd_request *request;

	if (input_bytes(connection) < sizeof(struct nbd_wire_request))
		return false;
	request = request_get(connection);
	if (request == NULL)
		return false;
	if (nbd_header_parse(connection->room->input + connection->input_start, &request->header) <
	    0) {
		request_put(request);
		connection_drop(connection, "sent something that is no NBD request");
		return false;
	}
	connection->input_start += sizeof(struct nbd_wire_request);
	return dispatch(request);
}

/* True while the payload's next piece can't be received: the last one is being written. */
static bool
awaits_piece(const struct connection *connection)
{
	return connection->receiving != NULL && connection->payload_left == 0;
}

/* Take one thing from the input.  Returns false if there is nothing that can be taken now. */
static bool
take_next(struct connection *connection)
{
	if (connection->state != CONNECTION_STATE_TRANSMISSION || awaits_piece(connection))
		return false;
	if (connection->starved != NULL)
		return begin_request(connection->starved);
	if (connection->receiving == NULL && connection->skip_bytes == 0)
		return take_header(connection);
	if (input_bytes(connection) == 0)
		return false;
	if (connection->skip_bytes > 0)
		take_skipped(connection);
	else
		take_payload(connection);
	return true;
}

unsigned
transmission_receive_parts(struct connection *connection, struct iovec *parts)
{
	unsigned count = 0;
	size_t room;

	if (awaits_piece(connection) || connection->throttled ||
	    !list_empty(&connection->starved_node))
		return 0;
	room = CONNECTION_INPUT_BYTES - connection->input_end;
	if (connection->receiving != NULL) {
		/* The input is empty: take_payload has seen to that. */
		parts[count++] =
			(struct iovec){ payload_target(connection), connection->payload_left };
		if (connection->payload_left > PAYLOAD_SHORT_BYTES)
			room = INPUT_BESIDE_PAYLOAD_BYTES;
	}
	parts[count++] = (struct iovec){ connection->room->input + connection->input_end, room };
	return count;
}

void
transmission_received(struct connection *connection, size_t count)
{
	if (connection->receiving != NULL && connection->payload_left > 0) {
		size_t payload =
			count < connection->payload_left ? count : connection->payload_left;

		connection->payload_left -= (uint32_t)payload;
		count -= payload;
		if (connection->payload_left == 0)
			payload_complete(connection);
	}
	connection->input_end += count;
	while (take_next(connection))
		;
	/* What is left is less than a header, or waits: make room behind it. */
	memmove(connection->room->input, connection->room->input + connection->input_start,
		input_bytes(connection));
	connection->input_end = input_bytes(connection);
	connection->input_start = 0;
}

/* ---- sending ---- */

static bool
sends_payload(const struct nbd_request *request)
{
	return request->header.command == NBD_CMD_READ && request->error == NBD_SUCCESS;
}

static bool
is_last_piece(const struct nbd_request *request)
{
	return request->served_bytes + request->io.length == request->header.length;
}

/* Add the header and payload of REQUEST's part to PARTS.  Returns how many parts. */
static unsigned
gather_one(struct nbd_request *request, struct iovec *parts)
{
	unsigned count = 0;

	if (!request->header_sent) {
		nbd_simple_reply_format(&request->reply, request->header.cookie, request->error);
		parts[count++] = (struct iovec){ &request->reply, sizeof(request->reply) };
	}
	if (sends_payload(request)) {
		uint8_t *payload = volume_payload(request->connection->session.export->volume,
						  request->io.buffer, request->io.offset);

		parts[count++] = (struct iovec){ payload, request->io.length };
	}
	return count;
}

/* Skip COUNT bytes of PARTS.  Returns how many parts are left, from *parts on. */
static unsigned
skip_parts(struct iovec **parts, unsigned part_count, size_t count)
{
	while (part_count > 0 && count >= (*parts)->iov_len) {
		count -= (*parts)->iov_len;
		(*parts)++;
		part_count--;
	}
	if (part_count > 0) {
		(*parts)->iov_base = (uint8_t *)(*parts)->iov_base + count;
		(*parts)->iov_len -= count;
	}
	return part_count;
}

static unsigned
gather(struct connection *connection, struct iovec *parts)
{
	const struct nbd_request *owner = connection->in_pieces;
	struct list_node *node;
	unsigned count = 0, requests = 0;

	list_for_each(node, &connection->replies) {
		struct nbd_request *request = container_of(node, struct nbd_request, node);

		if (requests++ == REPLIES_PER_SEND || (owner != NULL && owner != request))
			break;
		count += gather_one(request, parts + count);
		if (sends_payload(request) && !is_last_piece(request))
			break;
	}
	return count;
}

/* The first reply's part is sent. */
static void
front_sent(struct connection *connection)
{
	struct nbd_request *request =
		container_of(connection->replies.next, struct nbd_request, node);

	list_remove(&request->node);
	request->header_sent = true;
	if (!sends_payload(request) || is_last_piece(request)) {
		connection->in_pieces = NULL;
		request_put(request);
		return;
	}
	connection->in_pieces = request;
	request->served_bytes += (uint32_t)request->io.length;
	submit_piece(request);
}

static size_t
front_bytes(const struct connection *connection)
{
	const struct nbd_request *request =
		container_of(connection->replies.next, struct nbd_request, node);

	return (request->header_sent ? 0 : sizeof(request->reply)) +
	       (sends_payload(request) ? request->io.length : 0);
}

unsigned
transmission_send_parts(struct connection *connection, struct iovec **parts)
{
	unsigned count = gather(connection, *parts);

	return skip_parts(parts, count, connection->front_sent_bytes);
}

void
transmission_sent(struct connection *connection, size_t count)
{
	connection->front_sent_bytes += count;
	while (!list_empty(&connection->replies) && connection->front_sent_bytes > 0 &&
	       connection->front_sent_bytes >= front_bytes(connection)) {
		connection->front_sent_bytes -= front_bytes(connection);
		front_sent(connection);
	}
}

/* ---- ending ---- */

void
transmission_discard(struct connection *connection)
{
	struct list_node *node;

	while ((node = list_take_first(&connection->replies)) != NULL)
		request_put(container_of(node, struct nbd_request, node));
	connection->in_pieces = NULL;
	if (connection->starved != NULL)
		request_put(connection->starved);
	connection->starved = NULL;
	/* A piece that is with the volume comes back through io_done. */
	if (connection->receiving != NULL && connection->payload_left > 0)
		request_put(connection->receiving);
	connection->receiving = NULL;
	list_remove(&connection->starved_node);
}

bool
transmission_idle(const struct connection *connection)
{
	return connection->io_count == 0 && list_empty(&connection->replies);
}
