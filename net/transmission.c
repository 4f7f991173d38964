/* Requests in, replies out: headers and payloads are told apart here, and what is done for them is serve.c's. */
#include "net/transmission.h"

#include <string.h>

#include "net/nbd.h"
#include "net/serve.h"

/* Replies in one sendmsg. */
#define REPLIES_PER_SEND 64

_Static_assert(2 * REPLIES_PER_SEND <= CONNECTION_SEND_PARTS, "each has a header and a payload");

/* Behind a payload that is not short, only this much input is received in the same call: it is mostly the next payload, which
 * would have to be copied.  Behind a short one all there is room for: copying is cheaper than a call for each. */
#define PAYLOAD_SHORT_BYTES	   16384u
#define INPUT_BESIDE_PAYLOAD_BYTES 4096u

/* ---- receiving ---- */

static size_t
input_bytes(const struct connection *connection)
{
	return connection->input_end - connection->input_start;
}

static uint64_t
moved_bytes(const struct nbd_request *request)
{
	bool moves =
		request->header.command == NBD_CMD_READ || request->header.command == NBD_CMD_WRITE;

	return moves ? request->header.length : 0;
}

/* REQUEST, which is valid, begins.  Returns false if it starves, or its turn has not come. */
static bool
begin_request(struct nbd_request *request)
{
	struct connection *connection = request->connection;
	bool begun = limit_take(connection, moved_bytes(request)) && serve_begin(request);

	connection->starved = begun ? NULL : request;
	if (begun)
		limit_used(connection);
	return begun;
}

/* The piece's payload is complete. */
static void
payload_complete(struct connection *connection)
{
	struct nbd_request *request = connection->receiving;

	if (request->served_bytes + request_piece_bytes(request) == request->header.length)
		connection->receiving = NULL;
	serve_payload_piece(request);
}

/* Where the next byte of the piece's payload goes. */
static uint8_t *
payload_target(const struct connection *connection)
{
	const struct nbd_request *request = connection->receiving;
	uint64_t offset = request->header.offset + request->served_bytes;
	uint32_t received = request_piece_bytes(request) - connection->payload_left;

	return volume_payload(connection->session.export->volume, request->buffer, offset) +
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
	if (connection->skip_bytes == 0) {
		serve_send(connection->refused);
		connection->refused = NULL;
	}
}

/* The payload of REQUEST, a BLOCK_STATUS, is in the input as well: take it. */
static enum nbd_error
take_status_payload(struct nbd_request *request, const char **why)
{
	struct connection *connection = request->connection;
	const uint8_t *payload = connection->room->input + connection->input_start;

	connection->input_start += sizeof(struct nbd_wire_status_payload);
	return nbd_status_payload_parse(payload, &request->header, why);
}

/* Refuse REQUEST, of which PAYLOAD_BYTES are still to come: the connection is shutting down. */
static void
refuse_shutting_down(struct nbd_request *request, uint64_t payload_bytes)
{
	struct connection *connection = request->connection;

	connection->skip_bytes = payload_bytes;
	connection->refused = payload_bytes > 0 ? request : NULL;
	serve_shut_down(request);
}

/* Act on the header in REQUEST.  Returns false if nothing behind it may be taken now. */
static bool
dispatch(struct nbd_request *request)
{
	struct connection *connection = request->connection;
	const struct nbd_session *session = &connection->session;
	uint64_t payload_bytes = nbd_header_payload_bytes(&request->header, session->style);
	enum nbd_error error = NBD_SUCCESS;
	const char *why;

	if (request->header.command == NBD_CMD_DISC) {
		/* It has no answer, whatever is wrong with it. */
		request_put(request);
		connection_finish(connection);
		return false;
	}
	if (nbd_header_has_status_payload(&request->header, session->style)) {
		error = take_status_payload(request, &why);
		payload_bytes = 0;
	}
	if (error == NBD_SUCCESS)
		error = nbd_header_validate(&request->header, session, &why);
	if (error != NBD_SUCCESS) {
		connection->skip_bytes = payload_bytes;
		connection->refused = payload_bytes > 0 ? request : NULL;
		serve_refuse(request, error, why);
		return true;
	}
	if (connection->shutting_down) {
		refuse_shutting_down(request, payload_bytes);
		return true;
	}
	traffic_count(&connection->traffic, &request->header);
	return begin_request(request);
}

/* Read the header in the input into *header, without taking it.  Returns false if it is not all there, or is not one. */
static bool
peek_header(struct connection *connection, struct nbd_header *header)
{
	enum nbd_style style = connection->session.style;
	size_t header_bytes = nbd_header_bytes(style);

	if (input_bytes(connection) < header_bytes)
		return false;
	if (nbd_header_parse(connection->room->input + connection->input_start, style, header) <
	    0) {
		connection_drop(connection, "sent something that is no NBD request");
		return false;
	}
	if (style == NBD_STYLE_EXTENDED &&
	    nbd_header_payload_bytes(header, style) > EXPORT_PAYLOAD_BYTES_MAX) {
		connection_drop(connection, "announced a payload of more than 64 MiB");
		return false;
	}
	/* So short a payload is waited for, and then taken like a part of the header. */
	if (nbd_header_has_status_payload(header, style))
		header_bytes += sizeof(struct nbd_wire_status_payload);
	return input_bytes(connection) >= header_bytes;
}

static bool
take_header(struct connection *connection)
{
	struct nbd_request *request;
	struct nbd_header header;

	if (!peek_header(connection, &header))
		return false;
	request = request_get(connection);
	if (request == NULL)
		return false;
	request->header = header;
	slow_log_begin(request);
	connection->input_start += nbd_header_bytes(connection->session.style);
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
		return connection->move.target == NULL && take_header(connection);
	if (input_bytes(connection) == 0)
		return false;
	if (connection->skip_bytes > 0)
		take_skipped(connection);
	else
		take_payload(connection);
	return true;
}

/* The rest of a request, and nothing of the next. */
static unsigned
rest_parts(struct connection *connection, struct iovec *parts)
{
	size_t room = CONNECTION_INPUT_BYTES - connection->input_end;

	if (connection->receiving != NULL)
		parts[0] = (struct iovec){ payload_target(connection), connection->payload_left };
	else
		parts[0] = (struct iovec){ connection->room->input + connection->input_end,
					   connection->skip_bytes < room ? connection->skip_bytes
									 : room };
	return parts[0].iov_len > 0 ? 1 : 0;
}

unsigned
transmission_receive_parts(struct connection *connection, struct iovec *parts)
{
	unsigned count = 0;
	size_t room;

	if (awaits_piece(connection) || connection->throttled ||
	    !list_empty(&connection->starved_node))
		return 0;
	if (connection->move.target != NULL && connection->receiving == NULL &&
	    connection->skip_bytes == 0)
		return 0;
	if (connection->shutting_down)
		return rest_parts(connection, parts);
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

bool
transmission_has_goodbye(const struct connection *connection)
{
	enum nbd_style style = connection->session.style;
	size_t header_bytes = nbd_header_bytes(style);
	struct nbd_header header;

	return connection->input_end >= header_bytes &&
	       nbd_header_parse(connection->room->input + connection->input_end - header_bytes,
				style, &header) == 0 &&
	       header.command == NBD_CMD_DISC;
}

static void
take_all(struct connection *connection)
{
	while (take_next(connection))
		;
	/* What is left is less than a header, or waits: make room behind it. */
	memmove(connection->room->input, connection->room->input + connection->input_start,
		input_bytes(connection));
	connection->input_end = input_bytes(connection);
	connection->input_start = 0;
}

/* CONNECTION is shutting down: finish, unless there is more to take, or to come. */
static void
maybe_finish(struct connection *connection)
{
	if (connection->receiving == NULL && connection->skip_bytes == 0 &&
	    !connection->throttled && list_empty(&connection->starved_node))
		connection_finish(connection);
}

void
transmission_received(struct connection *connection, size_t count)
{
	size_t payload = 0;

	if (connection->receiving != NULL)
		payload = count < connection->payload_left ? count : connection->payload_left;
	connection->payload_left -= (uint32_t)payload;
	connection->input_end += count - payload;
	if (payload > 0 && connection->payload_left == 0)
		payload_complete(connection);
	take_all(connection);
	connection->deep |= connection->request_count >= SERVICE_DEEP_MIN;
	service_trial_look(connection);
	service_balance_look(connection->home);
	if (connection->shutting_down)
		maybe_finish(connection);
}

/* ---- sending ---- */

/* Add REQUEST's part to PARTS.  Returns how many parts. */
static unsigned
gather_one(struct nbd_request *request, struct iovec *parts)
{
	unsigned count = 0;

	if (request->reply_bytes > 0)
		parts[count++] = (struct iovec){ request->reply, request->reply_bytes };
	if (request->payload_bytes > 0)
		parts[count++] = (struct iovec){ (void *)(uintptr_t)request->payload,
						 request->payload_bytes };
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

bool
transmission_awaits_piece(const struct connection *connection)
{
	return connection->in_pieces != NULL && list_empty(&connection->in_pieces->node);
}

static unsigned
gather(struct connection *connection, struct iovec *parts, const struct pipe **pipe)
{
	const struct nbd_request *owner = connection->in_pieces;
	struct list_node *node;
	unsigned count = 0, requests = 0;

	list_for_each(node, &connection->replies) {
		struct nbd_request *request = container_of(node, struct nbd_request, node);

		if (requests++ == REPLIES_PER_SEND || (owner != NULL && owner != request))
			break;
		count += gather_one(request, parts + count);
		if (request->ends_send) {
			if (request->payload_bytes > 0)
				*pipe = request->io.pipe;
			break;
		}
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
	connection->in_pieces = request->ends_send && !request->last ? request : NULL;
	serve_part_sent(request);
}

static size_t
front_bytes(const struct connection *connection)
{
	const struct nbd_request *request =
		container_of(connection->replies.next, struct nbd_request, node);

	return request->reply_bytes + request->payload_bytes;
}

unsigned
transmission_send_parts(struct connection *connection, struct iovec **parts,
			const struct pipe **pipe)
{
	unsigned count = gather(connection, *parts, pipe);

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
transmission_shut_down(struct connection *connection)
{
	struct nbd_request *starved = connection->starved;

	limit_cancel(connection);
	list_remove(&connection->starved_node);
	connection->throttled = false;
	connection->starved = NULL;
	if (starved != NULL)
		/* The payload of a BLOCK_STATUS was taken with its header, which has not the flag for it any more. */
		refuse_shutting_down(starved, nbd_header_payload_bytes(&starved->header,
								       connection->session.style));
	/* A receive that is under way shows that all was taken which can be. */
	if (connection->input_end > 0 && !channel_receiving(&connection->channel))
		take_all(connection);
	maybe_finish(connection);
	connection_resume(connection);
}

void
transmission_discard(struct connection *connection)
{
	struct list_node *node;

	while ((node = list_take_first(&connection->replies)) != NULL)
		request_put(container_of(node, struct nbd_request, node));
	connection->in_pieces = NULL;
	limit_cancel(connection);
	if (connection->starved != NULL)
		request_put(connection->starved);
	connection->starved = NULL;
	if (connection->refused != NULL)
		request_put(connection->refused);
	connection->refused = NULL;
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
