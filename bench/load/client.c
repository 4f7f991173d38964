/* Receiving: into one buffer, out of which headers and payloads are taken; a payload that nobody wants is counted and skipped. */
#include "bench/load/client.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "bench/load/wire.h"

#define INPUT_BYTES_MIN ((size_t)2 * WIRE_REPLY_HEAD_BYTES_MAX)
#define INPUT_BYTES_MAX ((size_t)256 << 10)

/* For what is half sent when the owner closes; a server that takes nothing must not keep it. */
#define FAREWELL_NS UINT64_C(1000000000)

static void flush(struct task *task);
static void farewell_is_over(struct timer *timer);
static void on_received(struct channel *channel, ssize_t result);
static void on_sent(struct channel *channel, ssize_t result);
static void on_channel_closed(struct channel *channel);

/* ---- beginning and end ---- */

/* Room for the replies of a few requests, or of all of them where they are short. */
static size_t
input_bytes_for(unsigned depth, uint32_t length)
{
	size_t bytes = depth * (sizeof(struct nbd_wire_extended_chunk) + length);

	if (bytes < INPUT_BYTES_MIN)
		return INPUT_BYTES_MIN;
	return bytes < INPUT_BYTES_MAX ? bytes : INPUT_BYTES_MAX;
}

int
client_init(struct client *client, struct reactor *reactor, struct stream_parking *parking,
	    const struct target_session *session, unsigned depth, uint32_t length)
{
	client->input_bytes = input_bytes_for(depth, length);
	client->input = malloc(client->input_bytes);
	client->slots = calloc(depth, sizeof(client->slots[0]));
	client->unused = calloc(depth, sizeof(client->unused[0]));
	if (client->input == NULL || client->slots == NULL || client->unused == NULL ||
	    fcntl(session->link.fd, F_SETFL, O_NONBLOCK) != 0) {
		client_fini(client);
		return -ENOMEM;
	}
	client->reactor = reactor;
	client->link = session->link;
	client->style = session->style;
	client->depth = depth;
	for (unsigned i = 0; i < depth; i++)
		client->unused[i] = depth - 1 - i;
	client->unused_count = depth;
	client->failed = false;
	client->leaving = false;
	timer_init(&client->farewell, farewell_is_over);
	task_init(&client->flush, flush);
	list_init(&client->unsent);
	client->part_count = 0;
	client->input_used = 0;
	client->reading = NULL;
	client->payload_left = 0;
	client->error_of = NULL;
	client->hole_bytes = 0;
	client->channel = (struct channel){ .on_received = on_received,
					    .on_sent = on_sent,
					    .on_closed = on_channel_closed };
	channel_init(&client->channel, reactor, parking, session->link.fd);
	if (session->link.tls != NULL)
		channel_adopt(&client->channel, session->link.tls);
	client->receive_part = (struct iovec){ client->input, client->input_bytes };
	channel_receive(&client->channel, &client->receive_part, 1);
	return 0;
}

void
client_fini(struct client *client)
{
	free(client->input);
	free(client->slots);
	free(client->unused);
}

/* Best effort: a server that is not told sees the end all the same. */
static void
say_goodbye(struct client *client)
{
	const struct nbd_header goodbye = { .command = NBD_CMD_DISC };
	uint8_t header[WIRE_REQUEST_BYTES_MAX];
	struct iovec part = { header, wire_put_request(header, client->style, &goodbye) };
	struct tls_session *tls = client->link.tls;
	ssize_t result;

	if (tls != NULL) {
		if (tls_session_write(tls, &part, 1) < 0)
			return;
		tls_session_end(tls);
		part = tls_session_output(tls);
	}
	result = kernel_sendmsg(client->link.fd, &part, 1);
	(void)result;
}

static void
leave(struct client *client)
{
	reactor_timer_stop(client->reactor, &client->farewell);
	client->failed = true;
	channel_close(&client->channel);
}

/* Nothing is half sent. */
static void
leave_in_order(struct client *client)
{
	say_goodbye(client);
	leave(client);
}

static void
farewell_is_over(struct timer *timer)
{
	leave(container_of(timer, struct client, farewell));
}

void
client_close(struct client *client)
{
	task_cancel(&client->flush);
	if (client->failed) {
		leave(client);
	} else if (!channel_sending(&client->channel) && client->part_count == 0) {
		leave_in_order(client);
	} else {
		/* The last answer may be here before the socket says that all of its request was sent. */
		client->leaving = true;
		reactor_timer_start(client->reactor, &client->farewell, FAREWELL_NS);
	}
}

static void
on_channel_closed(struct channel *channel)
{
	struct client *client = container_of(channel, struct client, channel);

	client->on_closed(client);
}

static void
fail(struct client *client, const char *why)
{
	if (client->failed)
		return;
	if (client->leaving) {
		leave(client);
		return;
	}
	client->failed = true;
	channel_abandon(&client->channel);
	client->on_failed(client, why);
}

/* The connection has failed with RESULT, of a transfer. */
static void
fail_transfer(struct client *client, ssize_t result)
{
	if (result == 0)
		fail(client, "the server closed the connection");
	else if (result == -EPROTO && client->link.tls != NULL)
		fail(client, channel_why(&client->channel));
	else
		fail(client, strerror((int)-result));
}

/* ---- sending ---- */

static bool
carries_payload(const struct client_request *request)
{
	return request->command == NBD_CMD_WRITE;
}

static size_t
put_header(const struct client *client, const struct client_request *request, uint8_t *out)
{
	const struct nbd_header header = {
		.command = (uint16_t)request->command,
		.flags = request->flags,
		.cookie = request->slot,
		.offset = request->offset,
		.length = request->length,
	};

	return wire_put_request(out, client->style, &header);
}

/* Make the next batch of what waits; headers with no payload between them are one part. */
static void
gather(struct client *client)
{
	uint8_t *out = client->headers;
	struct iovec *part = client->parts, *end = part;

	for (unsigned i = 0; i < CLIENT_SEND_REQUESTS; i++) {
		struct list_node *node = list_take_first(&client->unsent);
		struct client_request *request;
		size_t bytes;

		if (node == NULL)
			break;
		request = container_of(node, struct client_request, node);
		bytes = put_header(client, request, out);
		if (end > part && (uint8_t *)end[-1].iov_base + end[-1].iov_len == out)
			end[-1].iov_len += bytes;
		else
			*end++ = (struct iovec){ out, bytes };
		out += bytes;
		if (carries_payload(request))
			*end++ = (struct iovec){ request->buffer, request->length };
	}
	client->part = part;
	client->part_count = (unsigned)(end - part);
}

static void
send_more(struct client *client)
{
	if (client->failed || channel_sending(&client->channel))
		return;
	if (client->part_count == 0 && !client->leaving)
		gather(client);
	if (client->part_count > 0)
		channel_send(&client->channel, client->part, client->part_count);
}

static void
flush(struct task *task)
{
	send_more(container_of(task, struct client, flush));
}

static void
on_sent(struct channel *channel, ssize_t result)
{
	struct client *client = container_of(channel, struct client, channel);
	size_t count = (size_t)result;

	if (result < 0) {
		fail_transfer(client, result);
		return;
	}
	while (client->part_count > 0 && count >= client->part->iov_len) {
		count -= client->part->iov_len;
		client->part++;
		client->part_count--;
	}
	if (client->part_count > 0) {
		client->part->iov_base = (uint8_t *)client->part->iov_base + count;
		client->part->iov_len -= count;
	}
	if (client->leaving && client->part_count == 0)
		leave_in_order(client);
	else
		send_more(client);
}

void
client_submit(struct client *client, struct client_request *request)
{
	CHECK(client->unused_count > 0);
	request->slot = client->unused[--client->unused_count];
	request->error = 0;
	request->answered_bytes = 0;
	client->slots[request->slot] = request;
	list_append(&client->unsent, &request->node);
	reactor_defer(client->reactor, &client->flush);
}

/* ---- receiving ---- */

/* The last of its reply is here. */
static void
request_done(struct client *client, struct client_request *request)
{
	const char *message = client->error_of == request ? client->message : "";

	client->slots[request->slot] = NULL;
	client->unused[client->unused_count++] = request->slot;
	if (request->error == 0 && request->command == NBD_CMD_READ &&
	    request->answered_bytes != request->length) {
		fail(client, "the server left out a part of what was to be read");
		return;
	}
	client->on_done(client, request, request->error, message);
}

/* Take COUNT bytes of the payload that comes. */
static void
take_payload(struct client *client, const uint8_t *bytes, uint32_t count)
{
	if (client->payload_to != NULL) {
		memcpy(client->payload_to, bytes, count);
		client->payload_to += count;
	}
	client->payload_left -= count;
	if (client->payload_left == 0 && client->payload_last)
		request_done(client, client->reading);
}

/* LENGTH bytes of REQUEST are answered, those from OFFSET on.  Returns where they belong, in *to, or false if they do not. */
static bool
answer_part(struct client *client, struct client_request *request, uint64_t offset, uint32_t length,
	    uint8_t **to)
{
	uint64_t skipped = offset - request->offset;

	if (request->command != NBD_CMD_READ || offset < request->offset ||
	    skipped > request->length || length > request->length - skipped) {
		fail(client, "the server sent data that was not asked for");
		return false;
	}
	if (length > request->length - request->answered_bytes) {
		fail(client, "the server sent data twice");
		return false;
	}
	request->answered_bytes += length;
	*to = request->buffer == NULL ? NULL : request->buffer + skipped;
	return true;
}

static void
expect_payload(struct client *client, struct client_request *request,
	       const struct wire_reply *reply)
{
	if (!answer_part(client, request, reply->offset, reply->length, &client->payload_to))
		return;
	client->reading = request;
	client->payload_left = reply->length;
	client->payload_last = reply->last;
}

static void
take_hole(struct client *client, struct client_request *request, const struct wire_reply *reply)
{
	uint8_t *to;

	if (!answer_part(client, request, reply->offset, reply->length, &to))
		return;
	if (to != NULL)
		memset(to, 0, reply->length);
	client->hole_bytes += reply->length;
}

static void
take_error(struct client *client, struct client_request *request, const struct wire_reply *reply)
{
	unsigned bytes = reply->message_bytes;

	if (request->error != 0)
		return;
	request->error = reply->error;
	client->error_of = request;
	if (bytes >= sizeof(client->message))
		bytes = sizeof(client->message) - 1;
	/* It may be shown on a terminal. */
	for (unsigned i = 0; i < bytes; i++)
		client->message[i] = isprint((uint8_t)reply->message[i]) ? reply->message[i] : '?';
	client->message[bytes] = '\0';
}

/* The request that REPLY answers; NULL if there is none: then the client has failed. */
static struct client_request *
request_of(struct client *client, const struct wire_reply *reply)
{
	struct client_request *request =
		reply->cookie < client->depth ? client->slots[reply->cookie] : NULL;

	if (request == NULL || !list_empty(&request->node)) {
		fail(client, "the server answered a request that was not made");
		return NULL;
	}
	return request;
}

static void
take_reply(struct client *client, struct wire_reply *reply)
{
	struct client_request *request = request_of(client, reply);

	if (request == NULL)
		return;
	switch (reply->kind) {
	case WIRE_KIND_SIMPLE:
		if (request->command == NBD_CMD_READ && client->style != NBD_STYLE_SIMPLE) {
			fail(client, "the server answered a read with a simple reply");
			return;
		}
		request->error = reply->error;
		if (request->command != NBD_CMD_READ || reply->error != 0)
			break;
		reply->offset = request->offset;
		reply->length = request->length;
		expect_payload(client, request, reply);
		return;
	case WIRE_KIND_DATA:
		expect_payload(client, request, reply);
		return;
	case WIRE_KIND_HOLE:
		take_hole(client, request, reply);
		break;
	case WIRE_KIND_ERROR:
		take_error(client, request, reply);
		break;
	case WIRE_KIND_END:
		break;
	}
	if (reply->last && !client->failed)
		request_done(client, request);
}

static void
take_input(struct client *client)
{
	const uint8_t *next = client->input, *end = client->input + client->input_used;

	while (!client->failed && !client->leaving && next < end) {
		size_t count = (size_t)(end - next);

		if (client->payload_left > 0) {
			if (count > client->payload_left)
				count = client->payload_left;
			take_payload(client, next, (uint32_t)count);
		} else {
			struct wire_reply reply;
			const char *why;
			int bytes = wire_parse_reply(client->style, next, count, &reply, &why);

			if (bytes < 0)
				fail(client, why);
			if (bytes <= 0)
				break;
			take_reply(client, &reply);
			count = (size_t)bytes;
		}
		next += count;
	}
	client->input_used = (size_t)(end - next);
	memmove(client->input, next, client->input_used);
}

static void
on_received(struct channel *channel, ssize_t result)
{
	struct client *client = container_of(channel, struct client, channel);

	if (result <= 0) {
		fail_transfer(client, result);
		return;
	}
	client->received_ns = kernel_clock_ns();
	client->input_used += (size_t)result;
	take_input(client);
	if (client->failed)
		return;
	if (client->leaving)
		client->input_used =
			0; /* for nobody; but a server may want to be rid of it before it takes more */
	client->receive_part = (struct iovec){ client->input + client->input_used,
					       client->input_bytes - client->input_used };
	channel_receive(channel, &client->receive_part, 1);
}
