/* libevent: its events, with the socket calls made directly. */
#include "bench/loops/disk_aio.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <sys/socket.h>

struct connection {
	struct event event;
	struct loop *loop;
	unsigned number;
	int fd;
};

struct loop {
	struct server *server;
	struct event_base *base;
	struct connection *connections; /* [connection_count] */
	unsigned connection_count;
	struct event listener, disk_event;
	struct disk_aio disk;
};

static void
send_reply(void *context, const struct reply *reply)
{
	struct loop *loop = context;
	ssize_t sent = send(loop->connections[reply->connection].fd, reply->data, reply->bytes,
			    MSG_NOSIGNAL);

	server_sent(reply, sent < 0 ? -errno : sent);
}

static void
on_readable(evutil_socket_t fd, short what, void *argument)
{
	struct connection *connection = argument;
	struct loop *loop = connection->loop;
	struct server *server = loop->server;
	struct reply replies[REPLIES_MAX];
	uint8_t data[RECEIVE_BYTES_MAX];
	ssize_t received;

	(void)what;
	do {
		unsigned count;

		received = recv(fd, data, server->receive_bytes, 0);
		if (received <= 0) {
			if (server_client_gone(received < 0 ? -errno : 0))
				(void)event_del(&connection->event);
			return;
		}
		count = server_receive(server, connection->number, data, (size_t)received, replies);
		for (unsigned i = 0; i < count; i++) {
			if (server->fetch)
				disk_aio_read(&loop->disk, connection->number);
			else
				send_reply(loop, &replies[i]);
		}
	} while (server->edge_triggered && received == server->receive_bytes);
}

static void
watch(struct loop *loop, struct event *event, int fd, short extra, event_callback_fn callback,
      void *argument)
{
	server_check("event_assign",
		     event_assign(event, loop->base, fd, (short)(EV_READ | EV_PERSIST | extra),
				  callback, argument));
	server_check("event_add", event_add(event, NULL));
}

static void
add_connection(struct loop *loop, int fd)
{
	struct connection *connection = &loop->connections[loop->connection_count];

	connection->loop = loop;
	connection->number = loop->connection_count++;
	connection->fd = fd;
	watch(loop, &connection->event, fd, loop->server->edge_triggered ? EV_ET : 0, on_readable,
	      connection);
}

static void
on_client(evutil_socket_t listen_fd, short what, void *argument)
{
	struct loop *loop = argument;
	int fd;

	(void)listen_fd;
	(void)what;
	while ((fd = server_accept(loop->server)) >= 0)
		add_connection(loop, fd);
}

static void
on_disk(evutil_socket_t fd, short what, void *argument)
{
	struct loop *loop = argument;

	(void)fd;
	(void)what;
	disk_aio_reap(&loop->disk, send_reply, loop);
}

static void
start(struct loop *loop, struct server *server)
{
	struct event_config *config = event_config_new();

	/* One thread: no locks.  Nothing has a timeout: no time to keep. */
	if (config == NULL ||
	    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_IGNORE_ENV) != 0)
		server_fail("event_config_new");
	*loop = (struct loop){ .server = server, .base = event_base_new_with_config(config) };
	if (loop->base == NULL)
		server_fail("event_base_new");
	event_config_free(config);
	loop->connections = server_allocate(server->connection_count, sizeof(loop->connections[0]));
	if (server->listen_fd >= 0)
		watch(loop, &loop->listener, server->listen_fd, 0, on_client, loop);
	for (unsigned i = 0; server->open_fds != NULL && i < server->connection_count; i++)
		add_connection(loop, server->open_fds[i]);
	disk_aio_open(&loop->disk, server);
	if (loop->disk.event_fd >= 0)
		watch(loop, &loop->disk_event, loop->disk.event_fd,
		      server->edge_triggered ? EV_ET : 0, on_disk, loop);
}

void
server_run(struct server *server)
{
	struct loop loop;

	start(&loop, server);
	/* A turn at a time only where there is something to do in between. */
	for (;;) {
		disk_aio_submit(&loop.disk);
		server_check("event_base_loop",
			     event_base_loop(loop.base, server->read_slots > 0 ? EVLOOP_ONCE : 0));
	}
}
