/* Between the socket and its user.
 *
 * Inside TLS the stream moves ciphertext between the socket and the session's buffers, and each of its events is followed by
 * as much of the user's transfers as can be done.  A receive begins with what the session has already, in a task, so that on_received
 * does not come from within channel_receive; only when that is not enough the socket is read.  A send is encrypted when the output
 * is empty, and done when it is empty again: the user's data stays where it is until the kernel has it.
 *
 * Where the kernel encrypts (net/tls_kernel.h), the user's parts go to the stream as they are, some at a time, for the kernel does it within the
 * call. */
#include "net/channel.h"

#include <errno.h>

#include "net/peer_socket.h"

/* What the kernel encrypts in one call, while the core's other clients wait: as much as a session's output has. */
#define OFFLOADED_BYTES (4u * TLS_SESSION_RECORD_BYTES)

static void channel_of_received(struct stream *stream, ssize_t result);
static void channel_of_sent(struct stream *stream, ssize_t result);
static void channel_of_awake(struct stream *stream);
static void channel_of_closed(struct stream *stream);
static void go_on(struct task *task);
static void shake_hands(struct tls_line_place *place);

static struct channel *
channel_of(struct stream *stream)
{
	return container_of(stream, struct channel, stream);
}

void
channel_init(struct channel *channel, struct reactor *reactor, struct stream_parking *parking,
	     int fd)
{
	channel->stream.on_received = channel_of_received;
	channel->stream.on_sent = channel_of_sent;
	channel->stream.on_awake = channel_of_awake;
	channel->stream.on_closed = channel_of_closed;
	stream_init(&channel->stream, reactor, parking, fd);
	task_init(&channel->go_on, go_on);
	tls_line_place_init(&channel->place, shake_hands);
}

void
channel_attach(struct channel *channel, struct reactor *reactor, struct stream_parking *parking,
	       int fd)
{
	stream_init(&channel->stream, reactor, parking, fd);
}

static void
defer(struct channel *channel)
{
	reactor_defer(channel->stream.reactor, &channel->go_on);
}

/* ---- the socket's side ---- */

static void
receive_input(struct channel *channel)
{
	if (stream_receiving(&channel->stream))
		return;
	channel->input = tls_session_input(channel->tls);
	stream_receive(&channel->stream, &channel->input, 1);
}

/* Returns 0, or -EPROTO: TLS is over. */
static int
say_own(struct channel *channel)
{
	return tls_session_offloaded(channel->tls) && !stream_sending(&channel->stream)
		       ? tls_session_change_keys(channel->tls)
		       : 0;
}

bool
channel_says_more(const struct channel *channel)
{
	if (channel->tls == NULL || channel->broken)
		return false;
	return tls_session_output(channel->tls).iov_len > 0 ||
	       (tls_session_offloaded(channel->tls) && stream_unsent_bytes(&channel->stream) > 0);
}

static void
send_output(struct channel *channel)
{
	if (stream_sending(&channel->stream))
		return;
	channel->output = tls_session_output(channel->tls);
	if (channel->output.iov_len > 0)
		stream_send(&channel->stream, &channel->output, 1);
	else if (channel->ending && !channel_says_more(channel))
		stream_end_sending(
			&channel->stream); /* else what the kernel encrypts would be lost */
}

/* ---- the handshake of TLS ---- */

static void
secured(struct channel *channel, int error)
{
	channel->securing = false;
	channel->error = error;
	channel->on_secured(channel, error);
}

static void
shake_hands(struct tls_line_place *place)
{
	struct channel *channel = container_of(place, struct channel, place);
	int error = tls_session_handshake(channel->tls);

	send_output(channel);
	if (error != -EAGAIN)
		secured(channel, error);
	else if (!tls_session_may_read(channel->tls))
		receive_input(channel);
	/* else the output was full: on when it is sent */
}

int
channel_secure(struct channel *channel, struct tls_credentials *credentials, struct tls_line *line)
{
	int error;

	CHECK(channel->tls == NULL && !stream_receiving(&channel->stream) &&
	      !stream_sending(&channel->stream));
	error = tls_session_create(credentials, &channel->tls);
	if (error < 0)
		return error;
	channel->securing = true;
	channel->line = line;
	receive_input(channel);
	return 0;
}

void
channel_adopt(struct channel *channel, struct tls_session *session)
{
	CHECK(channel->tls == NULL && !stream_receiving(&channel->stream) &&
	      !stream_sending(&channel->stream));
	channel->tls = session;
}

/* ---- the user's side ---- */

/* The receive under way is over. */
static void
tell_received(struct channel *channel, ssize_t result)
{
	channel->receiving = NULL;
	channel->on_received(channel, result);
}

/* The user's parts are as they were. */
static void
mend_cut(struct channel *channel)
{
	if (channel->cut != NULL)
		channel->cut->iov_len += channel->cut_bytes;
	channel->cut = NULL;
}

static void
tell_sent(struct channel *channel, ssize_t result)
{
	mend_cut(channel);
	channel->sending = NULL;
	channel->encrypted_bytes = 0;
	channel->on_sent(channel, result);
}

/* Go on with the receive under way. */
static void
receive_more(struct channel *channel)
{
	ssize_t result;

	if (channel->receiving == NULL)
		return;
	if (channel->error != 0) {
		/* The user knows that there is nothing to come but the end. */
		tls_session_discard_input(channel->tls);
		receive_input(channel);
		return;
	}
	result = tls_session_read(channel->tls, channel->receiving, channel->receiving_count);
	send_output(channel);
	if (say_own(channel) < 0)
		result = -EPROTO;
	if (result == -EAGAIN) {
		receive_input(channel);
		return;
	}
	if (result < 0)
		channel->error = (int)result;
	tell_received(channel, result);
}

/* Whether the kernel encrypts from now on; it is asked once, when nothing of TLS's own is on its way. */
static bool
offloaded(struct channel *channel)
{
	if (!channel->offload_tried) {
		channel->offload_tried = true;
		(void)tls_session_offload(channel->tls, channel->stream.fd);
	}
	return tls_session_offloaded(channel->tls);
}

/* The first OFFLOADED_BYTES of the send under way, to be encrypted by the kernel. */
static void
send_plain(struct channel *channel)
{
	size_t room = OFFLOADED_BYTES;
	unsigned count = 0;

	while (count < channel->sending_count && room > 0) {
		struct iovec *part = &channel->sending[count++];

		if (part->iov_len > room) {
			channel->cut = part;
			channel->cut_bytes = part->iov_len - room;
			part->iov_len = room;
		}
		room -= part->iov_len;
	}
	stream_send(&channel->stream, channel->sending, count);
}

/* The kernel has taken, and encrypted, so much of it. */
static void
plain_sent(struct channel *channel, size_t count)
{
	tls_session_kernel_sent(channel->tls, count);
	tell_sent(channel, (ssize_t)count);
}

/* Encrypt what fits of the send under way, and send that. */
static void
begin_sending(struct channel *channel)
{
	ssize_t result;

	if (stream_sending(&channel->stream))
		return; /* an answer of TLS's own: on when that is sent */
	if (offloaded(channel)) {
		channel->error = say_own(channel);
		if (channel->error == 0)
			send_plain(channel);
		else
			defer(channel);
		return;
	}
	result = tls_session_write(channel->tls, channel->sending, channel->sending_count);
	if (result < 0) {
		channel->error = (int)result;
		defer(channel);
		return;
	}
	channel->encrypted_bytes = (size_t)result;
	send_output(channel);
}

/* Go on with the send under way: the socket is done with the output, or TLS is over. */
static void
send_more(struct channel *channel)
{
	if (channel->sending == NULL || stream_sending(&channel->stream))
		return;
	if (channel->error != 0)
		tell_sent(channel, channel->error);
	else if (channel->encrypted_bytes > 0)
		tell_sent(channel, (ssize_t)channel->encrypted_bytes);
	else
		begin_sending(channel);
}

static void
go_on(struct task *task)
{
	struct channel *channel = container_of(task, struct channel, go_on);

	send_more(channel);
	if (!stream_receiving(&channel->stream))
		receive_more(channel);
}

void
channel_receive(struct channel *channel, struct iovec *parts, unsigned part_count)
{
	if (channel->tls == NULL) {
		stream_receive(&channel->stream, parts, part_count);
		return;
	}
	CHECK(channel->receiving == NULL && !channel->securing);
	channel->receiving = parts;
	channel->receiving_count = part_count;
	if (channel->error == 0 && !tls_session_may_read(channel->tls))
		receive_input(channel);
	else
		defer(channel);
}

void
channel_send(struct channel *channel, struct iovec *parts, unsigned part_count)
{
	if (channel->tls == NULL) {
		stream_send(&channel->stream, parts, part_count);
		return;
	}
	CHECK(channel->sending == NULL && !channel->securing && !channel->ending);
	channel->sending = parts;
	channel->sending_count = part_count;
	if (channel->error == 0)
		begin_sending(channel);
	else
		defer(channel);
}

void
channel_send_piped(struct channel *channel, struct iovec *parts, unsigned part_count, int pipe_fd,
		   size_t bytes)
{
	CHECK(channel->tls == NULL);
	stream_send_piped(&channel->stream, parts, part_count, pipe_fd, bytes);
}

bool
channel_receiving(const struct channel *channel)
{
	return channel->tls == NULL
		       ? stream_receiving(&channel->stream)
		       : channel->receiving != NULL || channel->securing || channel->parked;
}

bool
channel_sending(const struct channel *channel)
{
	return channel->tls == NULL ? stream_sending(&channel->stream)
				    : channel->sending != NULL || channel->securing;
}

const char *
channel_why(const struct channel *channel)
{
	return tls_session_why(channel->tls);
}

const char *
channel_reason(const struct channel *channel)
{
	return tls_session_reason(channel->tls);
}

/* ---- what the stream says ---- */

/* -EPROTO is TLS's alone.  TCP has it for a peer that died behind an ICMP message of a packet's parameters: any peer may send one. */
static ssize_t
not_of_tls(ssize_t result)
{
	return result == -EPROTO ? -ECONNABORTED : result;
}

int
channel_end(const struct channel *channel)
{
	int result = (int)not_of_tls(peer_socket_end(channel->stream.fd));

	if (result == 0 && channel->tls != NULL && tls_session_may_read(channel->tls))
		return -EAGAIN;
	return result;
}

static void
channel_of_received(struct stream *stream, ssize_t result)
{
	struct channel *channel = channel_of(stream);

	result = not_of_tls(result);
	if (result > 0)
		channel->moved_bytes += (size_t)result;
	if (channel->tls == NULL) {
		channel->on_received(channel, result);
		return;
	}
	if (result > 0)
		tls_session_received(channel->tls, (size_t)result);
	else if (result == 0)
		tls_session_input_ended(channel->tls);
	if (channel->securing && result >= 0)
		tls_line_join(channel->line, &channel->place);
	else if (channel->securing)
		secured(channel, (int)result);
	else if (result < 0 || (result == 0 && channel->error != 0))
		tell_received(channel, result);
	else
		receive_more(channel);
}

/* The socket has failed for something of TLS's own, for which nobody waits. */
static void
break_off(struct channel *channel)
{
	tls_session_discard_output(channel->tls);
	channel->broken = true;
}

static void
channel_of_sent(struct stream *stream, ssize_t result)
{
	struct channel *channel = channel_of(stream);

	result = not_of_tls(result);
	if (result > 0)
		channel->moved_bytes += (size_t)result;
	if (channel->tls == NULL) {
		channel->on_sent(channel, result);
		return;
	}
	if (result < 0) {
		if (channel->securing)
			secured(channel, (int)result);
		else if (channel->sending != NULL)
			tell_sent(channel, result);
		else
			break_off(channel);
		return;
	}
	if (tls_session_offloaded(channel->tls)) {
		plain_sent(channel, (size_t)result);
		return;
	}
	tls_session_sent(channel->tls, (size_t)result);
	send_output(channel);
	if (stream_sending(stream))
		return;
	if (channel->securing)
		tls_line_join(channel->line, &channel->place);
	else
		send_more(channel);
}

static void
channel_of_awake(struct stream *stream)
{
	struct channel *channel = channel_of(stream);

	channel->parked = false;
	if (channel->tls != NULL && tls_session_unpark(channel->tls) < 0)
		channel->on_received(channel, -ENOMEM); /* UNTESTED: no fault for malloc */
	else
		channel->on_awake(channel);
}

static void
channel_of_closed(struct stream *stream)
{
	struct channel *channel = channel_of(stream);

	tls_session_destroy(channel->tls);
	channel->tls = NULL;
	channel->on_closed(channel);
}

/* ---- parking and ending ---- */

bool
channel_park(struct channel *channel)
{
	if (channel->tls == NULL)
		return stream_park(&channel->stream);
	if (channel->receiving == NULL || channel->sending != NULL || channel->error != 0 ||
	    tls_session_may_read(channel->tls) || !stream_park(&channel->stream))
		return false;
	channel->receiving = NULL;
	channel->parked = true;
	tls_session_park(channel->tls);
	return true;
}

void
channel_abandon(struct channel *channel)
{
	task_cancel(&channel->go_on);
	tls_line_leave(&channel->place);
	stream_abandon(&channel->stream);
	mend_cut(channel);
	channel->receiving = NULL;
	channel->sending = NULL;
	channel->securing = false;
	channel->parked = false;
}

void
channel_end_sending(struct channel *channel)
{
	if (channel->tls == NULL) {
		stream_end_sending(&channel->stream);
		return;
	}
	CHECK(channel->sending == NULL);
	channel->ending = true;
	if (channel->error == 0)
		tls_session_end(channel->tls);
	send_output(channel);
}

long
channel_unsent_bytes(struct channel *channel)
{
	long unsent = stream_unsent_bytes(&channel->stream);

	if (channel->broken)
		return 0; /* TCP goes on counting what it will never send */
	if (channel->tls != NULL)
		unsent += (long)tls_session_output(channel->tls).iov_len;
	return unsent;
}

bool
channel_quiet(const struct channel *channel)
{
	return !channel_receiving(channel) && !channel_sending(channel) &&
	       !stream_receiving(&channel->stream) && !stream_sending(&channel->stream) &&
	       !channel->ending;
}

void
channel_detach(struct channel *channel)
{
	CHECK(channel_quiet(channel));
	task_cancel(&channel->go_on);
	stream_detach(&channel->stream);
}

void
channel_close(struct channel *channel)
{
	channel_abandon(channel);
	stream_close(&channel->stream);
}
