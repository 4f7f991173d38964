/* The simulated kernel's sockets: bytes in two directions, each with little room, and a peer that is whoever calls it. */
#include "tests/sim/kernel_sim_state.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#define BEHIND_NS_MAX 50000

/* ---- bytes ---- */

static size_t
stream_move(struct stream *stream, uint8_t *bytes, size_t count, bool put)
{
	size_t most = put ? stream->room - stream->count : stream->count;

	if (count > most)
		count = most;
	for (size_t i = 0; i < count; i++) {
		if (put) {
			stream->bytes[(stream->start + stream->count++) % stream->room] = bytes[i];
		} else {
			bytes[i] = stream->bytes[stream->start];
			stream->start = (stream->start + 1) % stream->room;
			stream->count--;
		}
	}
	return count;
}

static void
socket_look(struct sim_fd *fd)
{
	bool over = fd->reset || fd->shut;

	fd->ready = (fd->in.count > 0 || fd->ended || over ? POLLIN : 0u) |
		    (fd->out.count < fd->out.room || over ? POLLOUT : 0u) |
		    (fd->ended || over ? POLLRDHUP : 0u) | (over ? POLLHUP : 0u) |
		    (fd->reset ? POLLERR : 0u);
}

/* Up to COUNT bytes go from or to PARTS. */
static void
socket_move(struct stream *stream, struct iovec *parts, size_t count, bool send)
{
	for (; count > 0; parts++) {
		size_t bytes = parts->iov_len < count ? parts->iov_len : count;

		SIM_CHECK(stream_move(stream, parts->iov_base, bytes, send) == bytes);
		count -= bytes;
	}
}

/* Less was moved than there was, as if the rest came only behind it: so it does. */
static void
socket_behind(const struct sim_fd *fd, unsigned key)
{
	time_push((struct item){
		.due_ns = sim.now_ns + kernel_sim_below(BEHIND_NS_MAX),
		.type = ITEM_BEHIND,
		.index = (unsigned)(fd - sim.fds),
		.generation = fd->generation,
		.key = key,
	});
}

static long
socket_transfer(int number, struct iovec *parts, unsigned part_count, bool send)
{
	struct sim_fd *fd = fd_find(number);
	struct stream *stream = send ? &fd->out : &fd->in;
	size_t count = send ? stream->room - stream->count : stream->count, asked = 0;
	bool shortened = false, spurious = false;
	long result;

	for (unsigned i = 0; i < part_count; i++)
		asked += parts[i].iov_len;
	if (count > asked)
		count = asked;
	if (count > 1 && kernel_sim_chance(sim.config.manner.short_result)) {
		count = 1 + kernel_sim_below(count);
		shortened = true;
	}
	result = (long)count;
	if (fd->reset || (send && fd->shut))
		result = send ? -EPIPE : -ECONNRESET;
	else if ((spurious = kernel_sim_chance(sim.config.manner.spurious)))
		result = -EAGAIN;
	else if (count == 0)
		result = !send && (fd->ended || fd->shut) ? 0 : -EAGAIN;
	if (shortened || spurious)
		socket_behind(fd, send ? POLLOUT : POLLIN);
	if (result > 0)
		socket_move(stream, parts, count, send);
	sim.counters.received += send || result < 0 ? 0 : (uint64_t)result;
	sim.counters.sent += !send || result < 0 ? 0 : (uint64_t)result;
	socket_look(fd);
	sim.observer->on_transfer(number, parts[0].iov_base, send, result);
	return result;
}

long
socket_request(const struct iocb *iocb)
{
	short opcode = iocb->aio_lio_opcode;
	bool send = opcode == IO_CMD_PWRITE || opcode == IO_CMD_PWRITEV;
	struct iovec part = { iocb->u.c.buf, iocb->u.c.nbytes };

	if (opcode == IO_CMD_PREAD || opcode == IO_CMD_PWRITE)
		return socket_transfer(iocb->aio_fildes, &part, 1, send);
	return socket_transfer(iocb->aio_fildes, iocb->u.c.buf, (unsigned)iocb->u.c.nbytes, send);
}

/* ---- the peer ---- */

int
kernel_sim_socket(size_t room)
{
	int number = fd_create(FD_SOCKET);
	struct sim_fd *fd = fd_find(number);

	if (number < 0)
		return number;
	fd->in = (struct stream){ .bytes = malloc(room), .room = room };
	fd->out = (struct stream){ .bytes = malloc(room), .room = room };
	CHECK(fd->in.bytes != NULL && fd->out.bytes != NULL);
	socket_look(fd);
	return number;
}

static void
socket_changed(struct sim_fd *fd, unsigned key)
{
	socket_look(fd);
	fd_wake(fd, key);
}

size_t
kernel_sim_peer_send(int number, const void *bytes, size_t count)
{
	struct sim_fd *fd = fd_find(number);

	if (fd->ended || fd->reset || fd->shut)
		return 0;
	count = stream_move(&fd->in, (uint8_t *)(uintptr_t)bytes, count, true);
	socket_changed(fd, POLLIN);
	return count;
}

size_t
kernel_sim_peer_receive(int number, void *bytes, size_t count)
{
	struct sim_fd *fd = fd_find(number);

	if (fd->reset)
		return 0;
	count = stream_move(&fd->out, bytes, count, false);
	socket_changed(fd, POLLOUT);
	return count;
}

void
kernel_sim_peer_end(int number)
{
	fd_find(number)->ended = true;
	socket_changed(fd_find(number), 0);
}

void
kernel_sim_peer_reset(int number)
{
	fd_find(number)->reset = true;
	socket_changed(fd_find(number), 0);
}

void
kernel_sim_renew(int number)
{
	struct sim_fd *fd = fd_find(number);

	fd->ended = fd->reset = false;
	fd->in.start = fd->in.count = fd->out.start = fd->out.count = 0;
	socket_changed(fd, 0);
}

/* ---- kernel.h ---- */

static ssize_t
transfer_directly(int fd, struct iovec *parts, unsigned part_count, bool send)
{
	time_cost(300);
	kernel_sim_busy();
	sim.counters.direct++;
	if (fd_find(fd) == NULL) {
		sim.observer->on_transfer(fd, parts[0].iov_base, send, -EBADF);
		return -EBADF;
	}
	SIM_CHECK(fd_find(fd)->type == FD_SOCKET);
	return socket_transfer(fd, parts, part_count, send);
}

ssize_t
kernel_recvmsg(int fd, struct iovec *parts, unsigned part_count)
{
	return transfer_directly(fd, parts, part_count, false);
}

ssize_t
kernel_sendmsg(int fd, struct iovec *parts, unsigned part_count)
{
	return transfer_directly(fd, parts, part_count, true);
}

/* UNTESTED: the reactor itself calls none of these. */
ssize_t
kernel_send_piped(int fd, struct iovec *parts, unsigned part_count, int pipe_fd, size_t bytes)
{
	(void)fd, (void)parts, (void)part_count, (void)pipe_fd, (void)bytes;
	return -EINVAL;
}

int
kernel_accept(int fd, struct sockaddr_storage *peer, socklen_t *peer_bytes)
{
	(void)fd, (void)peer, (void)peer_bytes;
	return -ENOTSOCK;
}

void
kernel_shutdown_send(int fd)
{
	(void)fd;
}

int
kernel_unsent_bytes(int fd)
{
	(void)fd;
	return 0;
}

bool
kernel_receives_all(int fd)
{
	(void)fd;
	return true;
}

void
kernel_shutdown(int fd)
{
	fd_find(fd)->shut = true;
	socket_changed(fd_find(fd), 0);
}
