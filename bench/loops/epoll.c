/* epoll, level-triggered or edge-triggered. */
#include "bench/loops/disk_aio.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/socket.h>

/* What an event is about: a connection's number, or one of these. */
#define TAG_LISTENER UINT32_MAX
#define TAG_DISK     (UINT32_MAX - 1)

struct loop {
	struct server *server;
	int epoll_fd;
	int *fds; /* [connection_count] */
	unsigned fd_count;
	struct disk_aio disk;
};

static void
watch(struct loop *loop, int fd, uint32_t tag, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.u32 = tag };

	server_check("epoll_ctl", epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &event));
}

static void
add_connection(struct loop *loop, int fd)
{
	/* With EPOLLRDHUP, one that ends right behind its last request is told even where a short receive is taken for
	 * the last one (epoll(7)). */
	watch(loop, fd, loop->fd_count,
	      EPOLLIN | EPOLLRDHUP | (loop->server->edge_triggered ? EPOLLET : 0u));
	loop->fds[loop->fd_count++] = fd;
}

static void
send_reply(void *context, const struct reply *reply)
{
	struct loop *loop = context;
	ssize_t sent = send(loop->fds[reply->connection], reply->data, reply->bytes, MSG_NOSIGNAL);

	server_sent(reply, sent < 0 ? -errno : sent);
}

/* Receive from CONNECTION what there is; level-triggered what there is room for, since the rest is told again. */
static void
receive(struct loop *loop, unsigned connection)
{
	struct server *server = loop->server;
	struct reply replies[REPLIES_MAX];
	uint8_t data[RECEIVE_BYTES_MAX];
	ssize_t received;

	do {
		unsigned count;

		received = recv(loop->fds[connection], data, server->receive_bytes, 0);
		if (received <= 0) {
			if (server_client_gone(received < 0 ? -errno : 0))
				(void)epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL,
						loop->fds[connection], NULL);
			return;
		}
		count = server_receive(server, connection, data, (size_t)received, replies);
		for (unsigned i = 0; i < count; i++) {
			if (server->fetch)
				disk_aio_read(&loop->disk, connection);
			else
				send_reply(loop, &replies[i]);
		}
	} while (server->edge_triggered && received == server->receive_bytes);
}

static void
accept_all(struct loop *loop)
{
	int fd;

	while ((fd = server_accept(loop->server)) >= 0)
		add_connection(loop, fd);
}

static void
on_event(struct loop *loop, uint32_t tag)
{
	switch (tag) {
	case TAG_LISTENER:
		accept_all(loop);
		break;
	case TAG_DISK:
		disk_aio_reap(&loop->disk, send_reply, loop);
		break;
	default:
		receive(loop, tag);
	}
}

static void
start(struct loop *loop, struct server *server)
{
	*loop = (struct loop){ .server = server, .epoll_fd = epoll_create1(EPOLL_CLOEXEC) };
	server_check("epoll_create1", loop->epoll_fd);
	loop->fds = server_allocate(server->connection_count, sizeof(loop->fds[0]));
	if (server->listen_fd >= 0)
		watch(loop, server->listen_fd, TAG_LISTENER, EPOLLIN);
	for (unsigned i = 0; server->open_fds != NULL && i < server->connection_count; i++)
		add_connection(loop, server->open_fds[i]);
	disk_aio_open(&loop->disk, server);
	if (loop->disk.event_fd >= 0)
		watch(loop, loop->disk.event_fd, TAG_DISK,
		      EPOLLIN | (server->edge_triggered ? EPOLLET : 0u));
}

void
server_run(struct server *server)
{
	struct epoll_event events[EVENTS_MAX];
	struct loop loop;

	start(&loop, server);
	for (;;) {
		int count;

		disk_aio_submit(&loop.disk);
		count = epoll_wait(loop.epoll_fd, events, EVENTS_MAX, -1);
		if (count < 0 && errno != EINTR)
			server_check("epoll_wait", count);
		for (int i = 0; i < count; i++)
			on_event(&loop, events[i].data.u32);
	}
}
