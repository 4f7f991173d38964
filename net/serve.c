/* From requests to the volume, and from its results to replies. */
#include "net/serve.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* A hole that is shorter is read like data: a chunk of its own, and a read more, would cost more than they spare. */
#define HOLE_BYTES_MIN 32768u

/* Zeros that are sent as data, where a hole can't be told. */
#define ZEROS_BYTES_MAX 16384u

/* For the extents that a sparse READ asks for at one time: 1,024. */
#define READ_EXTENTS_BYTES_MAX ((size_t)16384)

/* To compress so much (zram does, in submission) takes longer than to wake a helper for it. */
#define SHARED_BYTES_MIN 131072u

/* How often a volume is asked for one BLOCK_STATUS if its answers are short. */
#define STATUS_ROUNDS_MAX 8u

static void io_done(struct volume_request *io, int error);

static enum nbd_style
style_of(const struct nbd_request *request)
{
	return request->connection->session.style;
}

static uint64_t
offset_now(const struct nbd_request *request)
{
	return request->header.offset + request->served_bytes;
}

static uint64_t
left_bytes(const struct nbd_request *request)
{
	return request->header.length - request->served_bytes;
}

/* ---- parts of the reply ---- */

void
serve_send(struct nbd_request *request)
{
	struct connection *connection = request->connection;

	if (connection->in_pieces == request)
		list_prepend(&connection->replies, &request->node);
	else
		list_append(&connection->replies, &request->node);
	reactor_defer(connection->home->core->reactor, &connection->flush);
}

/* Queue REQUEST's part, which covers PART_BYTES of the volume.  Nothing is sent while its payload is still to come: a client may not
 * look for the answer to what it has not sent, as libnbd does not. */
static void
queue_part(struct nbd_request *request, uint32_t part_bytes, bool last)
{
	slow_log_enter(request, SLOW_STAGE_SOCKET);
	request->part_bytes = part_bytes;
	request->last = last;
	if (request->connection->refused != request)
		serve_send(request);
}

/* The same for one that is a header alone, of REPLY_BYTES. */
static void
queue_header(struct nbd_request *request, unsigned reply_bytes, uint32_t part_bytes, bool last)
{
	request->reply_bytes = reply_bytes;
	request->payload_bytes = 0;
	request->ends_send = false;
	queue_part(request, part_bytes, last);
}

static void
answer_done(struct nbd_request *request)
{
	queue_header(request, nbd_reply_done(request->reply, style_of(request), &request->header),
		     0, true);
}

static void
answer_error(struct nbd_request *request, enum nbd_error error, const char *message)
{
	queue_header(request,
		     nbd_reply_error(request->reply, style_of(request), &request->header, error,
				     message),
		     0, true);
}

/* What is before OFFSET is as it should be. */
static void
answer_error_at(struct nbd_request *request, enum nbd_error error, uint64_t offset,
		const char *message)
{
	queue_header(request,
		     nbd_reply_error_at(request->reply, style_of(request), &request->header, error,
					offset, message),
		     0, true);
}

/* The volume's ERROR as NBD's, and in words. */
static enum nbd_error
explain(const struct nbd_request *request, int error, char *message, size_t message_bytes)
{
	(void)snprintf(message, message_bytes, "%s of %llu bytes at offset %llu: %s",
		       nbd_command_name(request->header.command),
		       (unsigned long long)request->header.length,
		       (unsigned long long)request->header.offset, strerror(-error));
	if (error == -EOPNOTSUPP && (request->header.flags & NBD_CMD_FLAG_FAST_ZERO) != 0)
		return NBD_ENOTSUP;
	return nbd_error_from_errno(error);
}

static void
answer_failure(struct nbd_request *request, int error)
{
	char message[NBD_REPLY_MESSAGE_BYTES_MAX];
	enum nbd_error told = explain(request, error, message, sizeof(message));

	answer_error(request, told, message);
}

/* The piece that begins at OFFSET has failed. */
static void
answer_failure_at(struct nbd_request *request, int error, uint64_t offset)
{
	char message[NBD_REPLY_MESSAGE_BYTES_MAX];
	enum nbd_error told = explain(request, error, message, sizeof(message));

	answer_error_at(request, told, offset, message);
}

void
serve_refuse(struct nbd_request *request, enum nbd_error error, const char *why)
{
	struct connection *connection = request->connection;
	const struct nbd_header *header = &request->header;
	struct log_fields fields = connection_log_fields(connection);

	/* One line per connection, and not too many of all: clients must not fill the log, nor spend the core's time on it. */
	if (!connection->refusal_logged)
		service_log(connection->home, &fields, why,
			    "client %s: %s: %s of %llu bytes at offset %llu, flags 0x%x, refused: "
			    "%s; more of its requests may be, without a word",
			    connection->peer, connection->session.export->name,
			    nbd_command_name(header->command), (unsigned long long)header->length,
			    (unsigned long long)header->offset, header->flags, why);
	connection->refusal_logged = true;
	answer_error(request, error, why);
}

void
serve_shut_down(struct nbd_request *request)
{
	answer_error(request, NBD_ESHUTDOWN, "the server is shutting down");
}

/* ---- to the volume ---- */

static void
submit(struct nbd_request *request, enum volume_command command, uint64_t offset, uint64_t length)
{
	struct connection *connection = request->connection;
	struct volume_request *io = &request->io;

	io->command = command;
	io->offset = offset;
	io->length = length;
	io->done = io_done;
	connection->io_count++;
	slow_log_enter(request, SLOW_STAGE_DISK);
	volume_submit(connection->session.export->volume, io);
}

/* Whether a helper may serve LENGTH bytes of REQUEST. */
static bool
may_share(const struct nbd_request *request, uint32_t length)
{
	return length >= SHARED_BYTES_MIN && service_wants_help(request->connection);
}

/* ---- READ ---- */

static void
submit_read(struct nbd_request *request, uint32_t length)
{
	request->io.buffer = request->buffer;
	request->io.shared = may_share(request, length);
	submit(request, VOLUME_COMMAND_READ, offset_now(request), length);
}

/* The piece is in the buffer. */
static void
queue_data(struct nbd_request *request)
{
	struct volume *volume = request->connection->session.export->volume;
	uint32_t length = (uint32_t)request->io.length;
	bool all_read = length == left_bytes(request);
	bool has_header = request->served_bytes == 0 || !request->in_one_chunk;
	/* The error, if there is one, has a chunk of its own; and what was not read yet can still fail. */
	bool last = all_read && (!request->in_one_chunk || request->served_bytes == 0 ||
				 style_of(request) == NBD_STYLE_SIMPLE);

	request->reply_bytes = 0;
	if (has_header)
		request->reply_bytes = nbd_reply_data(
			request->reply, style_of(request), &request->header, request->io.offset,
			request->in_one_chunk ? (uint32_t)request->header.length : length, last);
	request->payload = volume_payload(volume, request->buffer, request->io.offset);
	request->payload_bytes = length;
	request->ends_send = request->in_one_chunk && !all_read;
	queue_part(request, length, last);
}

/* All that was asked for is in the pipe. */
static void
queue_piped(struct nbd_request *request)
{
	uint32_t length = (uint32_t)request->header.length;

	request->reply_bytes = nbd_reply_data(request->reply, style_of(request), &request->header,
					      request->header.offset, length, true);
	request->payload = request->reply; /* only its length is of interest */
	request->payload_bytes = length;
	request->ends_send = true;
	queue_part(request, length, true);
}

/* In one chunk, whose header is sent: what can't be read is sent as zeros. */
static void
queue_padding(struct nbd_request *request)
{
	request->io.offset = offset_now(request);
	request->io.length = request_piece_bytes(request);
	memset(volume_payload(request->connection->session.export->volume, request->buffer,
			      request->io.offset),
	       0, request->io.length);
	queue_data(request);
}

static void
queue_hole(struct nbd_request *request, uint32_t length)
{
	bool last = length == left_bytes(request);

	queue_header(request,
		     nbd_reply_hole(request->reply, style_of(request), &request->header,
				    offset_now(request), length, last),
		     length, last);
}

/* One more part of an answer that is not sparse. */
static void
read_piece(struct nbd_request *request)
{
	if (request->error != NBD_SUCCESS)
		queue_padding(request);
	else
		submit_read(request, request_piece_bytes(request));
}

static bool
is_hole(const struct nbd_request *request, const struct volume_extent *extent)
{
	return (extent->flags & VOLUME_EXTENT_ZERO) != 0 &&
	       (extent->length >= HOLE_BYTES_MIN || extent->length == request->header.length);
}

/* Ask for the next extents.  They are put where data comes later: there is room for more of them than make a run. */
static void
ask_extents(struct nbd_request *request)
{
	size_t room =
		request->buffer_bytes < BUFFER_BYTES_MIN ? BUFFER_BYTES_MIN : request->buffer_bytes;

	if (room > READ_EXTENTS_BYTES_MAX)
		room = READ_EXTENTS_BYTES_MAX;
	request->io.extents = request->buffer;
	request->io.extents_max = (uint32_t)(room / sizeof(struct volume_extent));
	request->io.answer_optional = true;
	submit(request, VOLUME_COMMAND_EXTENTS, offset_now(request), left_bytes(request));
}

/* Join the extents that came to runs, as many as there is room for. */
static void
make_runs(struct nbd_request *request)
{
	unsigned count = 0;

	for (unsigned i = 0; i < request->io.extent_count; i++) {
		const struct volume_extent *extent = &request->io.extents[i];
		bool hole = is_hole(request, extent);

		if (count == 0 || request->runs[count - 1].is_hole != hole) {
			if (count == REQUEST_RUNS)
				break;
			request->runs[count++] = (struct request_run){ .is_hole = hole };
		}
		request->runs[count - 1].length += (uint32_t)extent->length;
	}
	request->run_index = 0;
	request->run_count = count;
}

static void
read_sparse(struct nbd_request *request)
{
	struct request_run *run = &request->runs[request->run_index];
	uint32_t length;

	if (request->run_index == request->run_count) {
		ask_extents(request);
		return;
	}
	length = run->length;
	if (!run->is_hole && length > request_piece_bytes(request))
		length = request_piece_bytes(request);
	run->length -= length;
	if (run->length == 0)
		request->run_index++;
	if (run->is_hole)
		queue_hole(request, length);
	else
		submit_read(request, length);
}

static void
read_next(struct nbd_request *request)
{
	if (request->sparse)
		read_sparse(request);
	else
		read_piece(request);
}

static void
read_extents_done(struct nbd_request *request, int error)
{
	/* Only a shortcut: without it there is reading. */
	request->sparse = error == 0;
	if (request->sparse)
		make_runs(request);
	read_next(request);
}

static void
read_piece_done(struct nbd_request *request, int error)
{
	if (error == 0 && request->io.pipe != NULL) {
		queue_piped(request);
	} else if (error == 0) {
		queue_data(request);
	} else if (!request->in_one_chunk || request->served_bytes == 0) {
		answer_failure_at(request, error, request->io.offset);
	} else if (style_of(request) == NBD_STYLE_SIMPLE) {
		/* It can't take back the success that its header announced. */
		connection_drop(request->connection, "a read failed after its reply had begun");
		request_put(request);
	} else {
		request->error = nbd_error_from_errno(error);
		request->error_offset = request->io.offset;
		queue_padding(request);
	}
}

/* What to expect in REQUEST's range: DATA, if holes are of no use, or not worth asking. */
static enum volume_peek
look_ahead(const struct nbd_request *request)
{
	const struct nbd_header *header = &request->header;
	enum volume_peek peek;

	if (request->in_one_chunk && header->length > ZEROS_BYTES_MAX)
		return VOLUME_PEEK_DATA;
	peek = volume_peek(request->connection->session.export->volume, header->offset,
			   header->length);
	/* The answer may have to come from the device: no sooner than so little data. */
	if (peek == VOLUME_PEEK_UNKNOWN && header->length < HOLE_BYTES_MIN)
		return VOLUME_PEEK_DATA;
	/* In one chunk either all is zeros, or all is read. */
	return request->in_one_chunk && peek != VOLUME_PEEK_ZERO ? VOLUME_PEEK_DATA : peek;
}

/* What is known to be zeros is sent without reading it. */
static void
queue_zeros(struct nbd_request *request)
{
	static const uint8_t zeros[ZEROS_BYTES_MAX];
	const struct nbd_header *header = &request->header;
	uint32_t length = (uint32_t)header->length;

	if (!request->in_one_chunk) {
		queue_hole(request, length);
		return;
	}
	request->reply_bytes = nbd_reply_data(request->reply, style_of(request), header,
					      header->offset, length, true);
	request->payload = zeros;
	request->payload_bytes = length;
	request->ends_send = false;
	queue_part(request, length, true);
}

/* Whether REQUEST has got a pipe.  What looks for holes needs a buffer, for extents. */
static bool
took_pipe(struct nbd_request *request)
{
	const struct volume *volume = request->connection->session.export->volume;

	return __atomic_load_n(&volume->splices, __ATOMIC_RELAXED) && !request->sparse &&
	       request_take_pipe(request);
}

static bool
begin_read(struct nbd_request *request)
{
	const struct nbd_header *header = &request->header;
	enum volume_peek peek;

	request->error = NBD_SUCCESS;
	request->in_one_chunk =
		style_of(request) == NBD_STYLE_SIMPLE || (header->flags & NBD_CMD_FLAG_DF) != 0;
	peek = look_ahead(request);
	if (peek == VOLUME_PEEK_ZERO) {
		queue_zeros(request);
		return true;
	}
	request->sparse = peek != VOLUME_PEEK_DATA;
	if (!took_pipe(request) && !request_take_buffer(request))
		return false;
	request->run_index = 0;
	request->run_count = 0;
	read_next(request);
	return true;
}

/* ---- WRITE ---- */

static bool
begin_write(struct nbd_request *request)
{
	struct connection *connection = request->connection;

	if (!request_take_buffer(request))
		return false;
	request->io.buffer = request->buffer;
	request->io.durable = (request->header.flags & NBD_CMD_FLAG_FUA) != 0;
	slow_log_enter(request, SLOW_STAGE_SOCKET);
	connection->receiving = request;
	connection->payload_left = request_piece_bytes(request);
	return true;
}

void
serve_payload_piece(struct nbd_request *request)
{
	uint32_t length = request_piece_bytes(request);

	request->io.shared = may_share(request, length);
	submit(request, VOLUME_COMMAND_WRITE, offset_now(request), length);
}

static void
write_piece_done(struct nbd_request *request, int error)
{
	struct connection *connection = request->connection;

	request->served_bytes += request->io.length;
	if (connection->receiving == request) {
		/* More of its payload is to come. */
		if (error == 0) {
			connection->payload_left = request_piece_bytes(request);
			connection_resume(connection);
			return;
		}
		connection->receiving = NULL;
		connection->refused = request;
		connection->skip_bytes = left_bytes(request);
		connection_resume(connection);
	}
	if (error == 0)
		answer_done(request);
	else
		answer_failure_at(request, error, request->io.offset);
}

/* ---- BLOCK_STATUS ---- */

static void
ask_status(struct nbd_request *request)
{
	struct volume_extent *extents = request->buffer;
	unsigned room = REQUEST_STATUS_BYTES / sizeof(extents[0]);

	if ((request->header.flags & NBD_CMD_FLAG_REQ_ONE) != 0)
		room = 1;
	request->rounds++;
	request->io.extents = extents + request->extent_count;
	request->io.extents_max = room - request->extent_count;
	request->io.answer_optional = false;
	submit(request, VOLUME_COMMAND_EXTENTS, offset_now(request), left_bytes(request));
}

static bool
begin_status(struct nbd_request *request)
{
	if (!request_take_buffer(request))
		return false;
	request->extent_count = 0;
	request->rounds = 0;
	ask_status(request);
	return true;
}

/* The volume has added extents: count them, and join the first to the one before if they are alike. */
static void
add_extents(struct nbd_request *request)
{
	struct volume_extent *added = request->io.extents;
	unsigned count = request->io.extent_count;

	for (unsigned i = 0; i < count; i++)
		request->served_bytes += added[i].length;
	if (request->extent_count > 0 && added[-1].flags == added[0].flags) {
		added[-1].length += added[0].length;
		count--;
		memmove(added, added + 1, count * sizeof(added[0]));
	}
	request->extent_count += count;
}

static void
status_done(struct nbd_request *request, int error)
{
	if (error < 0 && request->extent_count == 0) {
		answer_failure(request, error);
		return;
	}
	if (error == 0)
		add_extents(request);
	if (error == 0 && left_bytes(request) > 0 && request->rounds < STATUS_ROUNDS_MAX &&
	    request->io.extents_max > request->io.extent_count) {
		ask_status(request);
		return;
	}
	request->reply_bytes = nbd_reply_status(request->reply, style_of(request), &request->header,
						request->extent_count);
	request->payload = request->buffer;
	request->payload_bytes = (uint32_t)nbd_reply_descriptors(
		request->buffer, request->extent_count, style_of(request));
	request->ends_send = false;
	queue_part(request, 0, true);
}

/* ---- all commands ---- */

static void
begin_effect(struct nbd_request *request, enum volume_command command)
{
	const struct nbd_header *header = &request->header;

	request->io.durable = (header->flags & NBD_CMD_FLAG_FUA) != 0;
	request->io.no_hole = (header->flags & NBD_CMD_FLAG_NO_HOLE) != 0;
	request->io.fast_only = (header->flags & NBD_CMD_FLAG_FAST_ZERO) != 0;
	submit(request, command, header->offset, header->length);
}

bool
serve_begin(struct nbd_request *request)
{
	switch (request->header.command) {
	case NBD_CMD_READ:
		return begin_read(request);
	case NBD_CMD_WRITE:
		return begin_write(request);
	case NBD_CMD_BLOCK_STATUS:
		return begin_status(request);
	case NBD_CMD_TRIM:
		begin_effect(request, VOLUME_COMMAND_TRIM);
		break;
	case NBD_CMD_CACHE:
		begin_effect(request, VOLUME_COMMAND_CACHE);
		break;
	case NBD_CMD_WRITE_ZEROES:
		begin_effect(request, VOLUME_COMMAND_WRITE_ZEROES);
		break;
	default:
		CHECK(request->header.command == NBD_CMD_FLUSH);
		submit(request, VOLUME_COMMAND_FLUSH, 0, 0);
		break;
	}
	return true;
}

static void
io_done(struct volume_request *io, int error)
{
	struct nbd_request *request = container_of(io, struct nbd_request, io);
	struct connection *connection = request->connection;

	connection->io_count--;
	slow_log_enter(request, SLOW_STAGE_SOCKET);
	if (connection->state == CONNECTION_STATE_DROPPED)
		request_put(request);
	else if (io->command == VOLUME_COMMAND_READ)
		read_piece_done(request, error);
	else if (io->command == VOLUME_COMMAND_WRITE)
		write_piece_done(request, error);
	else if (io->command != VOLUME_COMMAND_EXTENTS)
		error == 0 ? answer_done(request) : answer_failure(request, error);
	else if (request->header.command == NBD_CMD_READ)
		read_extents_done(request, error);
	else
		status_done(request, error);
	connection_maybe_close(connection);
}

void
serve_part_sent(struct nbd_request *request)
{
	if (request->last) {
		slow_log_end(request);
		request_put(request);
		return;
	}
	request->served_bytes += request->part_bytes;
	if (left_bytes(request) > 0)
		read_next(request);
	else if (request->error == NBD_SUCCESS)
		answer_done(request);
	else
		answer_error_at(request, request->error, request->error_offset,
				"reading failed; zeros were sent from there on");
}
