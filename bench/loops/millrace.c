/* The reactor: polls armed in batches, sockets read and written directly. */
#include "bench/loops/server.h"

#include <errno.h>
#include <poll.h>

#include "reactor/reactor.h"

struct connection {
	struct op poll;
	struct loop *loop;
	unsigned number;
	int fd;
};

struct disk_read {
	struct op op;
	struct loop *loop;
	unsigned slot;
};

struct loop {
	struct server *server;
	struct reactor *reactor;
	struct op listener_poll;
	struct connection *connections; /* [connection_count] */
	unsigned connection_count;
	struct disk_read *reads; /* [read_slots] */
};

static void
send_reply(struct loop *loop, const struct reply *reply)
{
	struct iovec part = { (void *)(uintptr_t)reply->data, reply->bytes };

	server_sent(reply, kernel_sendmsg(loop->connections[reply->connection].fd, &part, 1));
}

static void
start_read(struct disk_read *read)
{
	struct server *server = read->loop->server;

	op_read(&read->op, server->disk_fd, server_block(server, read->slot), BLOCK_BYTES,
		server_next_offset(server));
	reactor_submit(read->loop->reactor, &read->op);
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
arm(struct connection *connection)
{
	op_poll(&connection->poll, connection->fd, POLLIN);
	reactor_submit(connection->loop->reactor, &connection->poll);
}

static void
poll_done(struct op *op, long events)
{
	struct connection *connection = container_of(op, struct connection, poll);
	struct loop *loop = connection->loop;
	struct server *server = loop->server;
	struct reply replies[REPLIES_MAX];
	uint8_t data[RECEIVE_BYTES_MAX];
	struct iovec part = { data, server->receive_bytes };
	ssize_t received = kernel_recvmsg(connection->fd, &part, 1);
	unsigned count;

	(void)events;
	if (server_client_gone(received))
		return;
	if (received < 0 && received != -EAGAIN)
		server_check("recv", received);
	if (received > 0) {
		count = server_receive(server, connection->number, data, (size_t)received, replies);
		for (unsigned i = 0; i < count; i++) {
			if (server->fetch)
				start_read(&loop->reads[connection->number]);
			else
				send_reply(loop, &replies[i]);
		}
	}
	arm(connection);
}

static void
add_connection(struct loop *loop, int fd)
{
	struct connection *connection = &loop->connections[loop->connection_count];

	connection->loop = loop;
	connection->number = loop->connection_count++;
	connection->fd = fd;
	op_init(&connection->poll, poll_done);
	arm(connection);
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
	reactor_submit(loop->reactor, op);
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
	};
	struct loop loop = { .server = server };

	server_check("reactor_create", reactor_create(&config, &loop.reactor));
	loop.connections = server_allocate(server->connection_count, sizeof(loop.connections[0]));
	op_init(&loop.listener_poll, listener_poll_done);
	if (server->listen_fd >= 0) {
		op_poll(&loop.listener_poll, server->listen_fd, POLLIN);
		reactor_submit(loop.reactor, &loop.listener_poll);
	}
	for (unsigned i = 0; server->open_fds != NULL && i < server->connection_count; i++)
		add_connection(&loop, server->open_fds[i]);
	if (server->read_slots > 0)
		start_disk(&loop);
	reactor_run(loop.reactor);
	server_fail("millrace: stopped");
}
