#define _GNU_SOURCE
/* An echo server on the reactor that also appends what it echoes to a file:  echo PORT FILE */
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>

#include "reactor/stream.h"

struct client {
	struct stream stream;
	struct op append;
	struct iovec in, out;
	char buffer[4096];
};

static struct reactor *reactor;
static int listen_fd, file_fd;

static void
on_received(struct stream *stream, ssize_t result)
{
	struct client *client = container_of(stream, struct client, stream);

	if (result <= 0) {
		stream_close(stream);
		return;
	}
	client->out = (struct iovec){ client->buffer, (size_t)result };
	op_write(&client->append, file_fd, client->buffer, (size_t)result, 0, false);
	reactor_start(reactor, &client->append);
}

static void
append_done(struct op *op, long result)
{
	struct client *client = container_of(op, struct client, append);

	if (result < 0)
		stream_close(&client->stream);
	else
		stream_send(&client->stream, &client->out, 1);
}

static void
on_sent(struct stream *stream, ssize_t result)
{
	if (result > 0)
		stream_receive(stream, &container_of(stream, struct client, stream)->in, 1);
	else
		stream_close(stream);
}

static void
on_closed(struct stream *stream)
{
	free(container_of(stream, struct client, stream));
}

static void
on_connection(struct op *poll, long result)
{
	int fd = result < 0 ? -1 : accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK);
	struct client *client = fd < 0 ? NULL : calloc(1, sizeof(*client));

	if (client != NULL) {
		client->stream.on_received = on_received;
		client->stream.on_sent = on_sent;
		client->stream.on_closed = on_closed;
		client->in = (struct iovec){ client->buffer, sizeof(client->buffer) };
		op_init(&client->append, append_done);
		stream_init(&client->stream, reactor, NULL, fd);
		stream_receive(&client->stream, &client->in, 1);
	}
	op_poll(poll, listen_fd, POLLIN);
	reactor_start(reactor, poll);
}

int
main(int argc, char **argv)
{
	const struct reactor_config config = { .disk_slots = 64, .poll_slots = 1024 };
	struct sockaddr_in address = { AF_INET, 0, { htonl(INADDR_LOOPBACK) }, { 0 } };
	struct op poll;

	if (argc != 3 || reactor_create(&config, &reactor) < 0)
		return EXIT_FAILURE;
	signal(SIGPIPE, SIG_IGN);
	address.sin_port = htons((uint16_t)atoi(argv[1]));
	file_fd = open(argv[2], O_WRONLY | O_APPEND | O_CREAT, 0644);
	listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (file_fd < 0 || bind(listen_fd, (void *)&address, sizeof(address)) < 0 ||
	    listen(listen_fd, 128) < 0)
		return EXIT_FAILURE;
	op_init(&poll, on_connection);
	reactor_complete(reactor, &poll, 0);
	reactor_run(reactor);
}
