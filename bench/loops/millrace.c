/* The reactor and its streams. */
#include "bench/loops/server.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>

#include "reactor/stream.h"

struct connection {
	struct stream stream;
	struct loop *loop;
	unsigned number;
	/* What is being sent, and what waits until that is done. */
	unsigned out_bytes, waiting_count;
	struct iovec in, out[REPLIES_MAX], waiting[REPLIES_MAX];
	uint8_t data[RECEIVE_BYTES_MAX];
};

struct disk_read {
	struct op op;
	struct loop *loop;
	unsigned slot;
};

struct loop {
	struct server *server;
	struct reactor *reactor;
	struct stream_parking parking;
	struct op listener_poll;
	struct connection *connections; /* [connection_count] */
	unsigned connection_count;
	struct disk_read *reads; /* [read_slots] */
};

static void
send_waiting(struct connection *connection)
{
	unsigned count = connection->waiting_count;

	connection->out_bytes = 0;
	for (unsigned i = 0; i < count; i++) {
		connection->out[i] = connection->waiting[i];
		connection->out_bytes += (unsigned)connection->out[i].iov_len;
	}
	connection->waiting_count = 0;
	stream_send(&connection->stream, connection->out, count);
}

static void
on_sent(struct stream *stream, ssize_t result)
{
	struct connection *connection = container_of(stream, struct connection, stream);

	if (server_client_gone(result))
		return;
	if (result != (ssize_t)connection->out_bytes)
		server_fail("millrace: a short send");
	if (connection->waiting_count > 0)
		send_waiting(connection);
}

static void
send_reply(struct loop *loop, const struct reply *reply)
{
	struct connection *connection = &loop->connections[reply->connection];
	struct iovec part = { (void *)(uintptr_t)reply->data, reply->bytes };

	if (!stream_sending(&connection->stream)) {
		connection->out[0] = part;
		connection->out_bytes = reply->bytes;
		stream_send(&connection->stream, connection->out, 1);
		return;
	}
	if (connection->waiting_count == REPLIES_MAX)
		server_fail("millrace: too many replies at once");
	connection->waiting[connection->waiting_count++] = part;
}

static void
start_read(struct disk_read *read)
{
	struct server *server = read->loop->server;

	op_read(&read->op, server->disk_fd, server_block(server, read->slot), BLOCK_BYTES,
		server_next_offset(server));
	reactor_start(read->loop->reactor, &read->op);
}

static void
read_done(struct op *op, long result)
{
	struct disk_read *read = container_of(op, struct disk_read, op);
	const struct reply *reply = server_read_done(read->loop->server, read->slot, result);

	if (reply == NULL)
		start_read(read);
	else
		send_reply(read->loop, reply);
}

static void
receive(struct connection *connection)
{
	connection->in =
		(struct iovec){ connection->data, connection->loop->server->receive_bytes };
	stream_receive(&connection->stream, &connection->in, 1);
}

static void
on_received(struct stream *stream, ssize_t received)
{
	struct connection *connection = container_of(stream, struct connection, stream);
	struct loop *loop = connection->loop;
	struct server *server = loop->server;
	struct reply replies[REPLIES_MAX];
	unsigned count;

	if (server_client_gone(received))
		return;
	server_check("receive", received);
	count = server_receive(server, connection->number, connection->data, (size_t)received,
			       replies);
	for (unsigned i = 0; i < count; i++) {
		if (server->fetch)
			start_read(&loop->reads[connection->number]);
		else
			send_reply(loop, &replies[i]);
	}
	receive(connection);
}

static void
add_connection(struct loop *loop, int fd)
{
	struct connection *connection = &loop->connections[loop->connection_count];

	connection->loop = loop;
	connection->number = loop->connection_count++;
	connection->stream.on_received = on_received;
	connection->stream.on_sent = on_sent;
	stream_init(&connection->stream, loop->reactor, &loop->parking, fd);
	receive(connection);
}

static void
listener_poll_done(struct op *op, long events)
{
	struct loop *loop = container_of(op, struct loop, listener_poll);
	int fd;

	(void)events;
	while ((fd = server_accept(loop->server)) >= 0)
		add_connection(loop, fd);
	op_poll(op, loop->server->listen_fd, POLLIN);
	reactor_start(loop->reactor, op);
}

static void
start_disk(struct loop *loop)
{
	struct server *server = loop->server;

	loop->reads = server_allocate(server->read_slots, sizeof(loop->reads[0]));
	for (unsigned i = 0; i < server->read_slots; i++) {
		struct disk_read *read = &loop->reads[i];

		read->loop = loop;
		read->slot = i;
		op_init(&read->op, read_done);
		if (!server->fetch)
			start_read(read);
	}
}

void
server_run(struct server *server)
{
	struct reactor_config config = {
		.disk_slots = server->read_slots > 0 ? server->read_slots : 1,
		.poll_slots = server->connection_count + 1,
		.poll_us = server->spin_us,
		.socket_batch_min = server->socket_batch_min,
	};
	struct loop loop = { .server = server };

	signal(SIGPIPE, SIG_IGN);
	server_check("reactor_create", reactor_create(&config, &loop.reactor));
	server_check("stream_parking_start", stream_parking_start(&loop.parking, loop.reactor));
	loop.connections = server_allocate(server->connection_count, sizeof(loop.connections[0]));
	op_init(&loop.listener_poll, listener_poll_done);
	if (server->listen_fd >= 0) {
		op_poll(&loop.listener_poll, server->listen_fd, POLLIN);
		reactor_start(loop.reactor, &loop.listener_poll);
	}
	for (unsigned i = 0; server->open_fds != NULL && i < server->connection_count; i++)
		add_connection(&loop, server->open_fds[i]);
	if (server->read_slots > 0)
		start_disk(&loop);
	reactor_run(loop.reactor);
	server_fail("millrace: stopped");
}
