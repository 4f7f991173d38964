/* libuv: its streams, with uv_try_write, and its thread pool for the disk. */
#include "bench/loops/server.h"

#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

struct connection {
	uv_tcp_t handle;
	struct loop *loop;
	unsigned number;
};

struct disk_read {
	uv_fs_t request;
	struct loop *loop;
	unsigned slot;
};

struct loop {
	uv_loop_t uv;
	uv_poll_t listener;
	struct server *server;
	struct connection *connections; /* [connection_count] */
	unsigned connection_count;
	struct disk_read *reads; /* [read_slots] */
	char data[RECEIVE_BYTES_MAX];
};

static void on_read(uv_fs_t *request);

static void
send_reply(struct loop *loop, const struct reply *reply)
{
	uv_buf_t buffer = uv_buf_init((char *)(uintptr_t)reply->data, reply->bytes);
	uv_stream_t *stream = (uv_stream_t *)&loop->connections[reply->connection].handle;

	server_sent(reply, uv_try_write(stream, &buffer, 1));
}

static void
start_read(struct disk_read *read)
{
	struct server *server = read->loop->server;
	uv_buf_t buffer = uv_buf_init(server_block(server, read->slot), BLOCK_BYTES);

	server_check("uv_fs_read",
		     uv_fs_read(&read->loop->uv, &read->request, server->disk_fd, &buffer, 1,
				(int64_t)server_next_offset(server), on_read));
}

static void
on_read(uv_fs_t *request)
{
	struct disk_read *read = container_of(request, struct disk_read, request);
	const struct reply *reply =
		server_read_done(read->loop->server, read->slot, (long)request->result);

	uv_fs_req_cleanup(request);
	if (reply == NULL)
		start_read(read);
	else
		send_reply(read->loop, reply);
}

/* What is received is used up before anything else is: one buffer does for all. */
static void
on_buffer_wanted(uv_handle_t *handle, size_t suggested_bytes, uv_buf_t *buffer)
{
	struct connection *connection = container_of(handle, struct connection, handle);

	(void)suggested_bytes;
	*buffer = uv_buf_init(connection->loop->data, connection->loop->server->receive_bytes);
}

static void
on_received(uv_stream_t *stream, ssize_t received, const uv_buf_t *buffer)
{
	struct connection *connection = container_of(stream, struct connection, handle);
	struct loop *loop = connection->loop;
	struct reply replies[REPLIES_MAX];
	unsigned count;

	if (received == 0)
		return; /* EAGAIN */
	if (received < 0) {
		(void)uv_read_stop(stream);
		return;
	}
	count = server_receive(loop->server, connection->number, (const uint8_t *)buffer->base,
			       (size_t)received, replies);
	for (unsigned i = 0; i < count; i++) {
		if (loop->server->fetch)
			start_read(&loop->reads[connection->number]);
		else
			send_reply(loop, &replies[i]);
	}
}

static void
add_connection(struct loop *loop, int fd)
{
	struct connection *connection = &loop->connections[loop->connection_count];

	connection->loop = loop;
	connection->number = loop->connection_count++;
	server_check("uv_tcp_init", uv_tcp_init(&loop->uv, &connection->handle));
	server_check("uv_tcp_open", uv_tcp_open(&connection->handle, fd));
	server_check("uv_read_start", uv_read_start((uv_stream_t *)&connection->handle,
						    on_buffer_wanted, on_received));
}

static void
on_client(uv_poll_t *listener, int status, int events)
{
	struct loop *loop = container_of(listener, struct loop, listener);
	int fd;

	(void)events;
	server_check("listener", status);
	while ((fd = server_accept(loop->server)) >= 0)
		add_connection(loop, fd);
}

static void
start_disk(struct loop *loop)
{
	struct server *server = loop->server;

	char threads[16];

	/* As many at a time as with the others; the default of 4 gives three fifths of that rate on a disk, and on zram
	 * a tenth less CPU.  The environment's own setting stays. */
	(void)snprintf(threads, sizeof(threads), "%u", server->read_slots);
	(void)setenv("UV_THREADPOOL_SIZE", threads, 0);
	loop->reads = server_allocate(server->read_slots, sizeof(loop->reads[0]));
	for (unsigned i = 0; i < server->read_slots; i++) {
		loop->reads[i].loop = loop;
		loop->reads[i].slot = i;
		if (!server->fetch)
			start_read(&loop->reads[i]);
	}
}

void
server_run(struct server *server)
{
	struct loop *loop = server_allocate(1, sizeof(*loop));

	loop->server = server;
	loop->connections = server_allocate(server->connection_count, sizeof(loop->connections[0]));
	server_check("uv_loop_init", uv_loop_init(&loop->uv));
	if (server->listen_fd >= 0) {
		server_check("uv_poll_init",
			     uv_poll_init(&loop->uv, &loop->listener, server->listen_fd));
		server_check("uv_poll_start",
			     uv_poll_start(&loop->listener, UV_READABLE, on_client));
	}
	for (unsigned i = 0; server->open_fds != NULL && i < server->connection_count; i++)
		add_connection(loop, server->open_fds[i]);
	if (server->read_slots > 0)
		start_disk(loop);
	(void)uv_run(&loop->uv, UV_RUN_DEFAULT);
	server_fail("libuv: nothing left to wait for");
}
