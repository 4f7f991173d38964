/* Receives and sends as operations of their own, and the sockets' peers: bytes arrive in order, and as they were sent. */
#include "tests/sim/sim_run.h"

#include <errno.h>
#include <string.h>

/* A byte of a connection: of what the peer sends, or of what the core sends. */
static uint8_t
stream_byte(const struct sim_socket *socket, bool send, uint64_t position)
{
	return (uint8_t)(disk_content(socket->fd, position) + socket->life * 13 + (send ? 101 : 0));
}

void
sockets_on_transfer(int fd, void *first_byte, bool send, long result)
{
	size_t offset = (size_t)((char *)first_byte - (char *)run.socket_ops);
	struct sim_op *sim_op;
	uint64_t *position;

	if (streams_on_transfer(first_byte, send, result))
		return;
	SIM_CHECK(offset < sizeof(run.socket_ops));
	sim_op = &run.socket_ops[offset / sizeof(run.socket_ops[0])];
	SIM_CHECK(sim_op->send == send && (sim_op->fd == fd || fd == -1));
	if (sim_op->stage == STAGE_QUEUED) {
		ops_leave_queue(sim_op, STAGE_REFUSED);
		sim_op->expected = result;
		run.direct++;
	}
	SIM_CHECK(sim_op->stage == STAGE_REFUSED || sim_op->stage == STAGE_KERNEL);
	if (result <= 0)
		return;
	position = send ? &sim_op->socket->sent : &sim_op->socket->received;
	SIM_CHECK(!send || sim_op->position == *position);
	sim_op->position = *position;
	*position += (uint64_t)result;
}

/* What was received is what the peer has sent there. */
static void
check_received(const struct sim_op *sim_op, long result)
{
	uint64_t position = sim_op->position, until = position + (uint64_t)result;

	for (unsigned i = 0; i < sim_op->part_count && position < until; i++) {
		const uint8_t *bytes = sim_op->parts[i].iov_base;

		for (size_t j = 0; j < sim_op->parts[i].iov_len && position < until; j++)
			SIM_CHECK(bytes[j] == stream_byte(sim_op->socket, false, position++));
	}
	SIM_CHECK(position == until);
}

void
sockets_done(struct sim_op *sim_op, long result)
{
	struct sim_socket *socket = sim_op->socket;

	if (sim_op->stage == STAGE_LOCAL)
		return;
	socket->in_use--;
	if (sim_op->send)
		socket->sending = false;
	if (result > 0 && !sim_op->send)
		check_received(sim_op, result);
	SIM_CHECK((result != -ECONNRESET && result != -EPIPE) || socket->reset);
	SIM_CHECK(result != 0 || (socket->ended && !sim_op->send));
}

/* One to PARTS_MAX parts of the buffer, one behind the other. */
static void
prepare_parts(struct sim_op *sim_op)
{
	size_t bytes = 1 + kernel_sim_below(IO_BYTES_MAX), used = 0;

	sim_op->part_count = 0;
	while (used < bytes) {
		size_t part = 1 + kernel_sim_below(bytes - used);

		if (sim_op->part_count == PARTS_MAX - 1)
			part = bytes - used;
		sim_op->parts[sim_op->part_count++] = (struct iovec){ sim_op->buffer + used, part };
		used += part;
	}
}

void
sockets_prepare(struct sim_op *sim_op)
{
	struct sim_socket *socket = &run.connections[kernel_sim_below(SOCKETS)];

	sim_op->socket = socket;
	sim_op->fd = socket->fd;
	sim_op->send = !socket->sending && kernel_sim_below(2) == 0;
	socket->in_use++;
	prepare_parts(sim_op);
	if (!sim_op->send) {
		memset(sim_op->buffer, 0, sizeof(sim_op->buffer));
		op_receive(&sim_op->op, sim_op->fd, sim_op->parts, sim_op->part_count);
		return;
	}
	socket->sending = true;
	sim_op->position = socket->sent;
	for (unsigned i = 0; i < IO_BYTES_MAX; i++)
		sim_op->buffer[i] = stream_byte(socket, true, socket->sent + i);
	op_send(&sim_op->op, sim_op->fd, sim_op->parts, sim_op->part_count);
}

/* ---- the peers ---- */

static void
peer_moves(struct sim_socket *socket)
{
	uint8_t bytes[SOCKET_ROOM];
	size_t count = kernel_sim_below(SOCKET_ROOM);

	for (size_t i = 0; i < count; i++)
		bytes[i] = stream_byte(socket, false, socket->peer_sent + i);
	socket->peer_sent += kernel_sim_peer_send(socket->fd, bytes, count);
	count = kernel_sim_peer_receive(socket->fd, bytes, kernel_sim_below(SOCKET_ROOM));
	for (size_t i = 0; i < count; i++)
		SIM_CHECK(bytes[i] == stream_byte(socket, true, socket->peer_received++));
}

static void
peer_ends(struct sim_socket *socket)
{
	switch (kernel_sim_below(256)) {
	case 0:
		socket->reset = true;
		kernel_sim_peer_reset(socket->fd);
		break;
	case 1:
		socket->ended = true;
		kernel_sim_peer_end(socket->fd);
		break;
	}
	if ((!socket->ended && !socket->reset) || socket->in_use > 0)
		return;
	*socket = (struct sim_socket){ .fd = socket->fd, .life = socket->life + 1 };
	kernel_sim_renew(socket->fd);
}

void
sockets_peer(void *context)
{
	struct sim_socket *socket = &run.connections[kernel_sim_below(SOCKETS)];

	if (run.over && !run.running)
		return;
	peer_moves(socket);
	peer_ends(socket);
	kernel_sim_at(kernel_sim_below(run.pump_ns / 8 + 1), sockets_peer, context);
}
