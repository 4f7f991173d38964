/* Receiving: into one buffer, out of which headers and payloads are taken; a payload that nobody wants is counted and skipped. */
#include "bench/load/client.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define INPUT_BYTES_MIN ((size_t)4096)
#define INPUT_BYTES_MAX ((size_t)256 << 10)

static void flush(struct task *task);
static void on_received(struct channel *channel, ssize_t result);
static void on_sent(struct channel *channel, ssize_t result);
static void on_channel_closed(struct channel *channel);

/* ---- beginning and end ---- */

/* Room for the replies of a few requests, or of all of them where they are short. */
static size_t
input_bytes_for(unsigned depth, uint32_t length)
{
	size_t bytes = depth * (sizeof(struct nbd_wire_simple_reply) + length);

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
	client->depth = depth;
	for (unsigned i = 0; i < depth; i++)
		client->unused[i] = depth - 1 - i;
	client->unused_count = depth;
	client->failed = false;
	task_init(&client->flush, flush);
	list_init(&client->unsent);
	client->part_count = 0;
	client->input_used = 0;
	client->reading = NULL;
	client->payload_left = 0;
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
	struct nbd_wire_request goodbye = { .magic = htobe32(NBD_REQUEST_MAGIC),
					    .command = htobe16(NBD_CMD_DISC) };
	struct iovec part = { &goodbye, sizeof(goodbye) };
	struct tls_session *tls = client->link.tls;

	if (client->failed || channel_sending(&client->channel) || client->part_count > 0)
		return;
	if (tls != NULL) {
		if (tls_session_write(tls, &part, 1) < 0)
			return;
		tls_session_end(tls);
		part = tls_session_output(tls);
	}
	if (kernel_sendmsg(client->link.fd, &part, 1) < 0)
		client->failed = true;
}

void
client_close(struct client *client)
{
	say_goodbye(client);
	client->failed = true;
	task_cancel(&client->flush);
	channel_close(&client->channel);
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

/* Make the next batch of what waits.  The headers are copied: a reply may be here before the send is seen to be over, and with it the
 * request is its owner's again. */
static void
gather(struct client *client)
{
	struct list_node *node;

	client->part = client->parts;
	client->part_count = 0;
	for (unsigned i = 0; i < CLIENT_SEND_REQUESTS; i++) {
		struct client_request *request;

		node = list_take_first(&client->unsent);
		if (node == NULL)
			return;
		request = container_of(node, struct client_request, node);
		client->headers[i] = request->header;
		client->parts[client->part_count++] =
			(struct iovec){ &client->headers[i], sizeof(client->headers[i]) };
		if (carries_payload(request))
			client->parts[client->part_count++] =
				(struct iovec){ request->buffer, request->length };
	}
}

static void
send_more(struct client *client)
{
	if (client->failed || channel_sending(&client->channel))
		return;
	if (client->part_count == 0)
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
	send_more(client);
}

void
client_submit(struct client *client, struct client_request *request)
{
	unsigned slot;

	CHECK(client->unused_count > 0);
	slot = client->unused[--client->unused_count];
	client->slots[slot] = request;
	request->header = (struct nbd_wire_request){
		.magic = htobe32(NBD_REQUEST_MAGIC),
		.flags = htobe16(request->flags),
		.command = htobe16((uint16_t)request->command),
		.cookie = htobe64(slot),
		.offset = htobe64(request->offset),
		.length = htobe32(request->length),
	};
	list_append(&client->unsent, &request->node);
	reactor_defer(client->reactor, &client->flush);
}

/* ---- receiving ---- */

static void
request_done(struct client *client, struct client_request *request, uint32_t error)
{
	unsigned slot = (unsigned)be64toh(request->header.cookie);

	client->slots[slot] = NULL;
	client->unused[client->unused_count++] = slot;
	client->on_done(client, request, error);
}

/* Take COUNT bytes of the payload that comes. */
static void
take_payload(struct client *client, const uint8_t *bytes, uint32_t count)
{
	struct client_request *request = client->reading;

	if (request->buffer != NULL)
		memcpy(request->buffer + (request->length - client->payload_left), bytes, count);
	client->payload_left -= count;
	if (client->payload_left > 0)
		return;
	client->reading = NULL;
	request_done(client, request, 0);
}

static void
take_header(struct client *client, const uint8_t *bytes)
{
	struct nbd_wire_simple_reply reply;
	struct client_request *request;
	uint64_t slot;

	memcpy(&reply, bytes, sizeof(reply));
	slot = be64toh(reply.cookie);
	if (be32toh(reply.magic) != NBD_SIMPLE_REPLY_MAGIC) {
		fail(client, "the server sent something that is no simple reply");
		return;
	}
	request = slot < client->depth ? client->slots[slot] : NULL;
	if (request == NULL || !list_empty(&request->node)) {
		fail(client, "the server answered a request that was not made");
		return;
	}
	if (request->command != NBD_CMD_READ || reply.error != 0) {
		request_done(client, request, be32toh(reply.error));
		return;
	}
	client->reading = request;
	client->payload_left = request->length;
}

static void
take_input(struct client *client)
{
	const uint8_t *next = client->input, *end = client->input + client->input_used;

	while (!client->failed) {
		size_t count = (size_t)(end - next);

		if (client->reading != NULL && count > 0) {
			if (count > client->payload_left)
				count = client->payload_left;
			take_payload(client, next, (uint32_t)count);
		} else if (count >= sizeof(struct nbd_wire_simple_reply)) {
			count = sizeof(struct nbd_wire_simple_reply);
			take_header(client, next);
		} else {
			break;
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
	client->input_used += (size_t)result;
	take_input(client);
	if (client->failed)
		return;
	client->receive_part = (struct iovec){ client->input + client->input_used,
					       client->input_bytes - client->input_used };
	channel_receive(channel, &client->receive_part, 1);
}
