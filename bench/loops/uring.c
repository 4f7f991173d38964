/* io_uring: multishot receives into provided buffers, everything submitted in batches, registered files. */
#include "bench/loops/server.h"

#include <errno.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>

#define ENTRIES	     4096
#define BUFFER_COUNT 1024 /* more than connections are active: they are given back at once */
#define BUFFER_GROUP 0

/* What a completion is about: in the upper half of user_data; a number in the lower. */
enum kind {
	KIND_ACCEPT,
	KIND_RECEIVE,
	KIND_SEND,
	KIND_READ,
};

struct loop {
	struct io_uring ring;
	struct server *server;
	unsigned connection_count;
	unsigned
		disk_file; /* the disk's place among the registered files, behind the connections */
	struct io_uring_buf_ring *buffers;
	uint8_t *buffer_memory;
};

static struct io_uring_sqe *
take_sqe(struct loop *loop)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&loop->ring);

	if (sqe == NULL) {
		server_check("io_uring_submit", io_uring_submit(&loop->ring));
		sqe = io_uring_get_sqe(&loop->ring);
	}
	if (sqe == NULL)
		server_fail("no entry in the submission queue");
	return sqe;
}

static void
tag(struct io_uring_sqe *sqe, enum kind kind, unsigned number)
{
	io_uring_sqe_set_data64(sqe, (uint64_t)kind << 32 | number);
}

static void
queue_accept(struct loop *loop)
{
	struct io_uring_sqe *sqe = take_sqe(loop);

	/* It waits only: server_accept does what all the servers do. */
	io_uring_prep_poll_add(sqe, loop->server->listen_fd, POLLIN);
	tag(sqe, KIND_ACCEPT, 0);
}

static void
queue_receive(struct loop *loop, unsigned connection)
{
	struct io_uring_sqe *sqe = take_sqe(loop);

	io_uring_prep_recv_multishot(sqe, (int)connection, NULL, 0, 0);
	sqe->flags |= IOSQE_FIXED_FILE | IOSQE_BUFFER_SELECT;
	sqe->buf_group = BUFFER_GROUP;
	tag(sqe, KIND_RECEIVE, connection);
}

/* Only a failure is told. */
static void
queue_send(struct loop *loop, const struct reply *reply)
{
	struct io_uring_sqe *sqe = take_sqe(loop);

	io_uring_prep_send(sqe, (int)reply->connection, reply->data, reply->bytes,
			   MSG_NOSIGNAL | MSG_WAITALL);
	sqe->flags |= IOSQE_FIXED_FILE | IOSQE_CQE_SKIP_SUCCESS;
	tag(sqe, KIND_SEND, reply->bytes);
}

static void
queue_read(struct loop *loop, unsigned slot)
{
	struct io_uring_sqe *sqe = take_sqe(loop);

	io_uring_prep_read_fixed(sqe, (int)loop->disk_file, server_block(loop->server, slot),
				 BLOCK_BYTES, server_next_offset(loop->server), 0);
	sqe->flags |= IOSQE_FIXED_FILE;
	tag(sqe, KIND_READ, slot);
}

static void
add_connection(struct loop *loop, int fd)
{
	unsigned connection = loop->connection_count++;

	server_check("io_uring_register_files_update",
		     io_uring_register_files_update(&loop->ring, connection, &fd, 1));
	queue_receive(loop, connection);
}

static void
on_clients(struct loop *loop)
{
	int fd;

	while ((fd = server_accept(loop->server)) >= 0)
		add_connection(loop, fd);
	queue_accept(loop);
}

static void
give_buffer(struct loop *loop, unsigned buffer)
{
	unsigned bytes = loop->server->receive_bytes;

	io_uring_buf_ring_add(loop->buffers, loop->buffer_memory + (size_t)buffer * bytes, bytes,
			      (uint16_t)buffer, io_uring_buf_ring_mask(BUFFER_COUNT), 0);
	io_uring_buf_ring_advance(loop->buffers, 1);
}

static void
on_received(struct loop *loop, unsigned connection, const struct io_uring_cqe *cqe)
{
	struct server *server = loop->server;
	struct reply replies[REPLIES_MAX];
	unsigned buffer = cqe->flags >> IORING_CQE_BUFFER_SHIFT, count;

	if (cqe->res > 0) {
		count = server_receive(server, connection,
				       loop->buffer_memory + (size_t)buffer * server->receive_bytes,
				       (size_t)cqe->res, replies);
		give_buffer(loop, buffer);
		for (unsigned i = 0; i < count; i++) {
			if (server->fetch)
				queue_read(loop, connection);
			else
				queue_send(loop, &replies[i]);
		}
	} else if (server_client_gone(cqe->res)) {
		return;
	} else if (cqe->res != -ENOBUFS) {
		server_check("recv", cqe->res);
	}
	if (!(cqe->flags & IORING_CQE_F_MORE))
		queue_receive(loop, connection);
}

static void
on_completion(struct loop *loop, const struct io_uring_cqe *cqe)
{
	unsigned number = (uint32_t)cqe->user_data;
	const struct reply *reply;

	switch ((enum kind)(cqe->user_data >> 32)) {
	case KIND_ACCEPT:
		on_clients(loop);
		break;
	case KIND_RECEIVE:
		on_received(loop, number, cqe);
		break;
	case KIND_SEND:
		server_sent(&(struct reply){ .bytes = number }, cqe->res);
		break;
	case KIND_READ:
		reply = server_read_done(loop->server, number, cqe->res);
		if (reply == NULL)
			queue_read(loop, number);
		else
			queue_send(loop, reply);
		break;
	}
}

static void
provide_buffers(struct loop *loop)
{
	struct io_uring_buf_reg registration = { .ring_entries = BUFFER_COUNT,
						 .bgid = BUFFER_GROUP };
	void *memory;

	if (posix_memalign(&memory, 4096, BUFFER_COUNT * sizeof(struct io_uring_buf)) != 0)
		server_fail("no memory");
	loop->buffers = memory;
	registration.ring_addr = (uintptr_t)memory;
	server_check("io_uring_register_buf_ring",
		     io_uring_register_buf_ring(&loop->ring, &registration, 0));
	io_uring_buf_ring_init(loop->buffers);
	loop->buffer_memory = server_allocate(BUFFER_COUNT, loop->server->receive_bytes);
	for (unsigned i = 0; i < BUFFER_COUNT; i++)
		give_buffer(loop, i);
}

static void
start_disk(struct loop *loop)
{
	struct server *server = loop->server;
	struct iovec blocks = { server_block(server, 0), (size_t)server->read_slots * BLOCK_BYTES };

	server_check(
		"io_uring_register_files_update",
		io_uring_register_files_update(&loop->ring, loop->disk_file, &server->disk_fd, 1));
	server_check("io_uring_register_buffers",
		     io_uring_register_buffers(&loop->ring, &blocks, 1));
	for (unsigned i = 0; i < server->read_slots && !server->fetch; i++)
		queue_read(loop, i);
}

static void
start(struct loop *loop, struct server *server)
{
	struct io_uring_params params = { .flags = IORING_SETUP_SINGLE_ISSUER |
						   IORING_SETUP_DEFER_TASKRUN };

	*loop = (struct loop){ .server = server, .disk_file = server->connection_count };
	server_check("io_uring_queue_init",
		     io_uring_queue_init_params(ENTRIES, &loop->ring, &params));
	server_check("io_uring_register_ring_fd", io_uring_register_ring_fd(&loop->ring));
	server_check("io_uring_register_files_sparse",
		     io_uring_register_files_sparse(&loop->ring, server->connection_count + 1));
	provide_buffers(loop);
	if (server->listen_fd >= 0)
		queue_accept(loop);
	for (unsigned i = 0; server->open_fds != NULL && i < server->connection_count; i++)
		add_connection(loop, server->open_fds[i]);
	if (server->read_slots > 0)
		start_disk(loop);
}

void
server_run(struct server *server)
{
	struct loop loop;

	start(&loop, server);
	for (;;) {
		struct io_uring_cqe *cqe;
		unsigned head, count = 0;
		int result = io_uring_submit_and_wait(&loop.ring, 1);

		if (result != -EINTR)
			server_check("io_uring_submit_and_wait", result);
		io_uring_for_each_cqe(&loop.ring, head, cqe)
		{
			on_completion(&loop, cqe);
			count++;
		}
		io_uring_cq_advance(&loop.ring, count);
	}
}
