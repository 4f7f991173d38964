/* The life of a connection, and its handshake. */
#include "net/connection.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/export_share.h"
#include "net/peer_socket.h"
#include "net/slow_log.h"
#include "net/transmission.h"
#include "reactor/log.h"

/* How often to look whether the last replies have arrived, and when to give up. */
#define LINGER_NS	 ((uint64_t)5000000)
#define LINGER_COUNT_MAX 2000

/* A client that is to go has replies to read: how often to look whether it does, and what it must have taken since the last time. */
#define FINISH_LOOK_NS	 ((uint64_t)10 * 1000000000)
#define FINISH_BYTES_MIN 16384
#define NOT_READ	 "did not read its last replies in 10 s"

/* How long a client in the handshake has to ask for something, and so be told that the server is stopping. */
#define SHUTDOWN_GRACE_NS ((uint64_t)200 * 1000000)

/* How long a request that has been read in part, or has no room yet, is waited for then. */
#define SHUTDOWN_REST_NS ((uint64_t)5 * 1000000000)

static void connection_start(struct message *message);
static void on_received(struct channel *channel, ssize_t result);
static void on_sent(struct channel *channel, ssize_t result);
static void on_awake(struct channel *channel);
static void on_closed(struct channel *channel);
static void on_secured(struct channel *channel, int error);
static void receive(struct task *task);
static void flush(struct task *task);
static void receive_more(struct connection *connection);
static void deadline_expired(struct timer *timer);
static void set_deadline(struct connection *connection, uint64_t delay_ns);
static void linger(struct timer *timer);

/* ---- beginning ---- */

int
connection_create(struct service_core *home, struct service_settings *settings, int fd,
		  const struct address *peer)
{
	struct connection *connection = calloc(1, sizeof(*connection));
	struct connection_room *room = malloc(sizeof(*room));

	if (connection == NULL || room == NULL) {
		free(room);
		free(connection);
		kernel_close(fd);
		return -ENOMEM;
	}
	peer_socket_tune(fd, peer, settings->limits.dead_peer_s);
	connection->home = home;
	hold_get(&settings->hold);
	connection->settings = settings;
	connection->request_max = settings->limits.requests_per_connection;
	connection->state = CONNECTION_STATE_HANDSHAKE;
	connection->room = room;
	address_format(peer, connection->peer, sizeof(connection->peer));
	connection->channel.on_received = on_received;
	connection->channel.on_sent = on_sent;
	connection->channel.on_awake = on_awake;
	connection->channel.on_closed = on_closed;
	connection->channel.on_secured = on_secured;
	connection->fd = fd;
	list_init(&connection->node);
	handshake_init(&connection->handshake, &settings->exports);
	connection->handshake.peer = access_peer_of(peer);
	connection->handshake.tls_mode = settings->limits.tls_mode;
	timer_init(&connection->deadline, deadline_expired);
	timer_init(&connection->linger, linger);
	task_init(&connection->receive, receive);
	task_init(&connection->flush, flush);
	list_init(&connection->starved_node);
	limit_init(&connection->limit);
	service_move_init(connection);
	list_init(&connection->replies);
	connection->message.deliver = connection_start;
	reactor_send(home->core->reactor, &connection->message);
	return 0;
}

/* On its core, from here on. */
static void
connection_start(struct message *message)
{
	struct connection *connection = container_of(message, struct connection, message);
	struct service_core *home = connection->home;

	channel_init(&connection->channel, home->core->reactor, service_parking(home),
		     connection->fd);
	service_connection_active(connection);
	if (home->draining) {
		connection_drop(connection, NULL);
		return;
	}
	reactor_timer_start(home->core->reactor, &connection->deadline,
			    (uint64_t)connection->settings->limits.handshake_s * 1000000000);
	reactor_defer(home->core->reactor, &connection->flush);
}

/* ---- ending ---- */

static bool
is_open(const struct connection *connection)
{
	return connection->state == CONNECTION_STATE_HANDSHAKE ||
	       connection->state == CONNECTION_STATE_TRANSMISSION;
}

/* Sent to CONNECTION's peer, and there, as far as is known; with what came from it. */
static int64_t
arrived_bytes(struct connection *connection)
{
	return (int64_t)connection->channel.moved_bytes -
	       channel_unsent_bytes(&connection->channel);
}

/* Its peer has until the next look for what waits; for what the volume still has, until the one behind that. */
static void
begin_finish_look(struct connection *connection)
{
	connection->arrived_seen = arrived_bytes(connection);
	if (connection->io_count > 0)
		connection->arrived_seen -= FINISH_BYTES_MIN;
	set_deadline(connection, FINISH_LOOK_NS);
}

/* CONNECTION has been finishing for a while: that may take as long as the volume does, but its peer has to read. */
static void
look_at_finishing(struct connection *connection)
{
	if (connection->io_count == 0 &&
	    arrived_bytes(connection) < connection->arrived_seen + FINISH_BYTES_MIN)
		connection_drop(connection, NOT_READ);
	else
		begin_finish_look(connection);
}

static void
deadline_expired(struct timer *timer)
{
	struct connection *connection = container_of(timer, struct connection, deadline);
	unsigned more_s;
	char text[64];

	if (connection->state == CONNECTION_STATE_FINISHING) {
		look_at_finishing(connection);
		return;
	}
	if (!is_open(connection))
		return; /* it lingers, for which there is another timer, or is gone */
	if (connection->shutting_down) {
		connection_finish(connection);
		return;
	}
	if (connection->handshake.shutting_down) {
		connection_drop(connection, NULL); /* it asked for nothing */
		return;
	}
	more_s = handshake_extend_s(&connection->handshake);
	if (more_s > 0) {
		set_deadline(connection, more_s * (uint64_t)1000000000);
		return;
	}
	(void)snprintf(text, sizeof(text), "did not finish the handshake in %u s (handshake-s)",
		       connection->settings->limits.handshake_s);
	connection_drop(connection, text);
}

static void
end_handshake(struct connection *connection)
{
	struct service_settings *settings = connection->settings;

	reactor_timer_stop(connection->home->core->reactor, &connection->deadline);
	handshake_fini(&connection->handshake);
	connection->settings = NULL;
	if (settings != NULL)
		hold_put(&settings->hold);
}

static void
on_closed(struct channel *channel)
{
	struct connection *connection = container_of(channel, struct connection, channel);
	struct service_core *home = connection->home;
	struct access_peer client = connection->handshake.peer;

	CHECK(connection->io_count == 0 && connection->request_count == 0);
	task_cancel(&connection->receive);
	task_cancel(&connection->flush);
	service_move_cancel(connection);
	end_handshake(connection);
	reactor_timer_stop(home->core->reactor, &connection->linger);
	list_remove(&connection->node);
	export_share_leave(connection);
	traffic_add(&home->traffic_of_gone, &connection->traffic);
	free(connection->room);
	if (connection->session.export != NULL)
		hold_put(connection->session.export->hold);
	free(connection);
	service_connection_gone(home, &client);
}

static void
close_now(struct connection *connection)
{
	connection->state = CONNECTION_STATE_DROPPED;
	channel_abandon(&connection->channel);
	transmission_discard(connection);
	channel_close(&connection->channel);
}

/* Whether the network has reported that CONNECTION, from which nothing is received any more, has
 * failed. */
static bool
has_failed(const struct connection *connection)
{
	int result;

	if (channel_receiving(&connection->channel))
		return false;
	result = channel_end(&connection->channel);
	return result < 0 && result != -EAGAIN;
}

/* All is sent: wait until it has arrived, or nobody is there any more. */
static void
linger(struct timer *timer)
{
	struct connection *connection = container_of(timer, struct connection, linger);
	long unsent_bytes = channel_unsent_bytes(&connection->channel);

	if (connection->linger_count == 0 ||
	    connection->linger_bytes >= unsent_bytes + FINISH_BYTES_MIN) {
		connection->linger_bytes = unsent_bytes;
		connection->linger_count = 0;
	}
	if (unsent_bytes == 0 || has_failed(connection))
		close_now(connection);
	else if (connection->linger_count++ == LINGER_COUNT_MAX)
		connection_drop(connection, NOT_READ);
	else
		reactor_timer_start(connection->home->core->reactor, timer, LINGER_NS);
}

void
connection_maybe_close(struct connection *connection)
{
	switch (connection->state) {
	case CONNECTION_STATE_HANDSHAKE:
	case CONNECTION_STATE_TRANSMISSION:
		return;
	case CONNECTION_STATE_FINISHING:
		if (!transmission_idle(connection) || connection->handshake.reply.used > 0)
			return;
		connection->state = CONNECTION_STATE_LINGERING;
		channel_end_sending(&connection->channel);
		receive_more(connection);
		linger(&connection->linger);
		return;
	case CONNECTION_STATE_LINGERING:
		return;
	case CONNECTION_STATE_DROPPED:
		if (connection->io_count > 0)
			return;
		break;
	}
	close_now(connection);
}

static void
set_deadline(struct connection *connection, uint64_t delay_ns)
{
	struct reactor *reactor = connection->home->core->reactor;

	reactor_timer_stop(reactor, &connection->deadline);
	reactor_timer_start(reactor, &connection->deadline, delay_ns);
}

void
connection_finish(struct connection *connection)
{
	if (!is_open(connection))
		return;
	if (connection->state == CONNECTION_STATE_TRANSMISSION)
		begin_finish_look(connection);
	connection->state = CONNECTION_STATE_FINISHING;
	list_remove(&connection->starved_node);
	connection_maybe_close(connection);
}

void
connection_shut_down(struct connection *connection)
{
	if (!is_open(connection) || connection->shutting_down)
		return;
	if (connection->state == CONNECTION_STATE_TRANSMISSION) {
		connection->shutting_down = true;
		set_deadline(connection, SHUTDOWN_REST_NS);
		service_move_cancel(connection);
		transmission_shut_down(connection);
	} else if (connection->transmission_follows) {
		connection_finish(connection);
	} else {
		handshake_shut_down(&connection->handshake);
		set_deadline(connection, SHUTDOWN_GRACE_NS);
	}
}

struct log_fields
connection_log_fields(const struct connection *connection)
{
	const struct export *export = connection->session.export;
	struct log_fields fields = { .count = 0 };

	log_fields_add(&fields, "client", connection->peer);
	if (export != NULL)
		log_fields_add(&fields, "export", export->name);
	return fields;
}

/* As connection_drop; REASON: by which lines such as WHY are limited. */
static void
drop(struct connection *connection, const char *reason, const char *why)
{
	const struct export *export = connection->session.export;
	struct log_fields fields = connection_log_fields(connection);

	if (connection->state == CONNECTION_STATE_DROPPED)
		return;
	if (why != NULL)
		service_log(connection->home, &fields, reason,
			    "client %s: %s%s%s; connection closed", connection->peer,
			    export == NULL ? "" : export->name, export == NULL ? "" : ": ", why);
	connection->state = CONNECTION_STATE_DROPPED;
	connection->dropped = true;
	channel_abandon(&connection->channel);
	transmission_discard(connection);
	connection_maybe_close(connection);
}

void
connection_drop(struct connection *connection, const char *why)
{
	drop(connection, why, why);
}

/* The peer has ended its side, or the network has. */
static void
peer_gone(struct connection *connection, long result)
{
	const char *why = result == 0	      ? "closed the connection"
			  : result == -EPROTO ? channel_why(&connection->channel)
					      : strerror((int)-result);
	const char *reason = result == -EPROTO ? channel_reason(&connection->channel) : why;
	char when[64], reason_text[256], text[256];

	if (connection->state == CONNECTION_STATE_HANDSHAKE)
		(void)snprintf(when, sizeof(when), "during the handshake");
	else if (connection->receiving != NULL || connection->input_end > 0)
		(void)snprintf(when, sizeof(when), "in the middle of a request");
	else if (connection->request_count > 0)
		(void)snprintf(when, sizeof(when), "with %u requests in flight",
			       connection->request_count);
	else if (result < 0 && result != -ECONNRESET && result != -EPIPE)
		(void)snprintf(when, sizeof(when), "while it was idle");
	else {
		/* Without DISC, but nothing is lost. */
		connection_drop(connection, NULL);
		return;
	}
	(void)snprintf(reason_text, sizeof(reason_text), "%s %s", reason, when);
	(void)snprintf(text, sizeof(text), "%s %s", why, when);
	drop(connection, reason_text, text);
}

/* ---- handshake ---- */

/* A name's first bytes are enough to find it by; any may be in it. */
#define NAME_BYTES_SHOWN 100

static void
log_refused(struct connection *connection)
{
	const struct handshake *handshake = &connection->handshake;
	struct log_fields fields = { .count = 0 };
	char name[NAME_BYTES_SHOWN + 4] = "";

	if (handshake->refused == NULL)
		return;
	if (handshake->refused_name != NULL) {
		unsigned bytes = handshake->refused_name_bytes;
		bool cut = bytes > NAME_BYTES_SHOWN;

		(void)snprintf(name, sizeof(name), "%.*s%s", cut ? NAME_BYTES_SHOWN : (int)bytes,
			       handshake->refused_name, cut ? "..." : "");
	}
	log_fields_add(&fields, "client", connection->peer);
	if (handshake->refused_name != NULL)
		log_fields_add(&fields, "export", name);
	service_log(connection->home, &fields, handshake->refused, "client %s: %s%s%s",
		    connection->peer, name, handshake->refused_name == NULL ? "" : ": ",
		    handshake->refused);
}

/* Take steps until the machine wants to send, or to have more.  Returns false if the connection ends. */
static bool
take_handshake_input(struct connection *connection)
{
	struct handshake *handshake = &connection->handshake;
	enum handshake_result result = HANDSHAKE_REPLY;

	while (result == HANDSHAKE_REPLY && handshake->reply.used == 0) {
		size_t consumed;

		result =
			handshake_step(handshake, connection->room->input + connection->input_start,
				       connection->input_end - connection->input_start, &consumed);
		connection->input_start += consumed;
		log_refused(connection);
	}
	switch (result) {
	case HANDSHAKE_MORE:
	case HANDSHAKE_REPLY:
		break;
	case HANDSHAKE_TRANSMISSION:
		connection->transmission_follows = true;
		break;
	case HANDSHAKE_TLS:
		/* Whoever sends ahead may be another than whom TLS will prove: nothing from before it may count behind it.
		 * Source: CVE-2011-0411 and its like, command injection behind STARTTLS. */
		if (connection->input_start < connection->input_end) {
			connection_drop(connection,
					"sent something behind STARTTLS before it was answered");
			return false;
		}
		connection->tls_follows = true;
		break;
	case HANDSHAKE_CLOSE:
		connection->state = CONNECTION_STATE_FINISHING;
		break;
	case HANDSHAKE_DROP:
		/* One line for one thing. */
		connection_drop(connection, handshake->refused == NULL ? handshake->why : NULL);
		return false;
	}
	memmove(connection->room->input, connection->room->input + connection->input_start,
		connection->input_end - connection->input_start);
	connection->input_end -= connection->input_start;
	connection->input_start = 0;
	if (handshake->reply.used > 0)
		reactor_defer(connection->home->core->reactor, &connection->flush);
	return true;
}

static void
start_tls(struct connection *connection)
{
	struct tls_credentials *credentials = tls_credentials_get(connection->settings->limits.tls);

	connection->tls_follows = false;
	if (channel_secure(&connection->channel, credentials, &connection->home->tls_line) < 0)
		connection_drop(connection, strerror(ENOMEM)); /* UNTESTED: no fault for malloc */
}

static void
on_secured(struct channel *channel, int error)
{
	struct connection *connection = container_of(channel, struct connection, channel);
	struct log_fields fields = connection_log_fields(connection);
	char text[64];

	if (!is_open(connection))
		return;
	if (error == 0) {
		tls_session_describe(channel_tls(channel), text, sizeof(text));
		log_line_about(LOG_LEVEL_DEBUG, &fields, "client %s: %s", connection->peer, text);
		handshake_secured(&connection->handshake, tls_session_names(channel_tls(channel)));
		connection_resume(connection);
	} else if (error == -EPROTO) {
		service_log(connection->home, &fields, channel_reason(channel),
			    "client %s: %s; connection closed", connection->peer,
			    channel_why(channel));
		/* In order, so that the alert arrives. */
		connection->state = CONNECTION_STATE_FINISHING;
		connection_maybe_close(connection);
	} else {
		peer_gone(connection, error);
	}
}

static void
log_connected(const struct connection *connection)
{
	struct log_fields fields = connection_log_fields(connection);

	log_line_about(LOG_LEVEL_DEBUG, &fields, "client %s: %s: connected on core %u",
		       connection->peer, connection->session.export->name,
		       connection->home->core->cpu);
}

/* The handshake's replies are sent: on to the next thing. */
static void
handshake_sent(struct connection *connection)
{
	if (connection->state != CONNECTION_STATE_HANDSHAKE)
		return; /* it is ending */
	if (connection->tls_follows) {
		start_tls(connection);
		return;
	}
	if (connection->transmission_follows) {
		connection->session = connection->handshake.session;
		hold_get(connection->session.export->hold);
		if (export_share_join(connection) < 0) {
			connection_drop(connection,
					strerror(ENOMEM)); /* UNTESTED: no fault for malloc */
			return;
		}
		connection->state = CONNECTION_STATE_TRANSMISSION;
		slow_log_settle(connection);
		connection->transmission_follows = false;
		stream_set_priority(&connection->channel.stream,
				    connection->session.export->priority);
		log_connected(connection);
		end_handshake(connection);
		service_connection_began(connection);
	}
	connection_resume(connection);
}

/* ---- receiving ---- */

/* Where the next bytes go.  Returns how many parts; 0: nothing may be received now. */
static unsigned
receive_parts(struct connection *connection, struct iovec *parts)
{
	switch (connection->state) {
	case CONNECTION_STATE_HANDSHAKE:
		/* One option is answered before the next is read. */
		if (connection->handshake.reply.used > 0)
			return 0;
		break;
	case CONNECTION_STATE_TRANSMISSION:
		return transmission_receive_parts(connection, parts);
	case CONNECTION_STATE_LINGERING:
		/* Only the end is of interest. */
		parts[0] = (struct iovec){ connection->room->input, CONNECTION_INPUT_BYTES };
		return 1;
	case CONNECTION_STATE_FINISHING:
	case CONNECTION_STATE_DROPPED:
		return 0;
	}
	parts[0] = (struct iovec){ connection->room->input + connection->input_end,
				   CONNECTION_INPUT_BYTES - connection->input_end };
	return 1;
}

static void
receive_more(struct connection *connection)
{
	unsigned count;

	if (channel_receiving(&connection->channel))
		return;
	count = receive_parts(connection, connection->room->receive_parts);
	if (count > 0) /* else whoever lifts what holds it back resumes it */
		channel_receive(&connection->channel, connection->room->receive_parts, count);
	else
		service_move_go_on(connection);
}

static void
take_input(struct connection *connection, size_t count)
{
	if (connection->state == CONNECTION_STATE_TRANSMISSION) {
		transmission_received(connection, count);
	} else {
		connection->input_end += count;
		(void)take_handshake_input(connection);
	}
}

static void
on_received(struct channel *channel, ssize_t result)
{
	struct connection *connection = container_of(channel, struct connection, channel);

	if (is_open(connection)) {
		if (result <= 0) {
			peer_gone(connection, result);
			return;
		}
		take_input(connection, (size_t)result);
	} else if (connection->state == CONNECTION_STATE_LINGERING && result <= 0) {
		/* A client that has ended TLS behind its goodbye may read on: the rest is linger's. */
		if (result < 0 || !channel_says_more(&connection->channel))
			close_now(connection);
		return;
	}
	receive_more(connection);
}

static void
receive(struct task *task)
{
	connection_retry(container_of(task, struct connection, receive));
}

void
connection_retry(struct connection *connection)
{
	if (!is_open(connection))
		return;
	/* There may be input that could not be taken before, or more to answer without any. */
	if (!channel_receiving(&connection->channel) &&
	    (connection->input_end > 0 || connection->starved != NULL ||
	     handshake_goes_on(&connection->handshake)))
		take_input(connection, 0);
	receive_more(connection);
}

void
connection_resume(struct connection *connection)
{
	reactor_defer(connection->home->core->reactor, &connection->receive);
}

void
connection_notice_end(struct connection *connection)
{
	int result;

	if (connection->state != CONNECTION_STATE_TRANSMISSION || connection->move.target != NULL ||
	    channel_receiving(&connection->channel))
		return;
	result = channel_end(&connection->channel);
	if (result < 0 ? result != -EAGAIN : !transmission_has_goodbye(connection))
		peer_gone(connection, result);
}

/* ---- parking ---- */

static bool
is_idle(const struct connection *connection)
{
	return connection->request_count == 0 && connection->input_end == 0 &&
	       connection->skip_bytes == 0;
}

bool
connection_park_if_idle(struct connection *connection)
{
	if (connection->state != CONNECTION_STATE_TRANSMISSION)
		return false;
	if (!is_idle(connection) || connection->channel.moved_bytes != connection->moved_idle) {
		connection->moved_idle = connection->channel.moved_bytes;
		connection->moved_look = connection->home->idle_looks;
		return false;
	}
	if (connection->moved_look == connection->home->idle_looks)
		return false;
	if (!channel_park(&connection->channel))
		return false;
	free(connection->room);
	connection->room = NULL;
	service_connection_parked(connection);
	return true;
}

static void
on_awake(struct channel *channel)
{
	struct connection *connection = container_of(channel, struct connection, channel);

	connection->room = malloc(sizeof(*connection->room));
	if (connection->room == NULL || export_share_join(connection) < 0) {
		connection_drop(connection, strerror(ENOMEM));
		return;
	}
	service_connection_active(connection);
	receive_more(connection);
}

/* ---- sending ---- */

/* What is to be sent next; as transmission_send_parts. */
static unsigned
send_parts(struct connection *connection, struct iovec **parts, const struct pipe **pipe)
{
	const struct byte_buffer *reply = &connection->handshake.reply;

	*parts = connection->room->send_parts;
	if (reply->used == 0)
		return transmission_send_parts(connection, parts, pipe);
	**parts = (struct iovec){ reply->bytes + connection->handshake_sent_bytes,
				  reply->used - connection->handshake_sent_bytes };
	return 1;
}

static void
all_sent(struct connection *connection)
{
	connection_maybe_close(connection);
	service_move_go_on(connection);
}

static void
send_more(struct connection *connection)
{
	const struct pipe *pipe = NULL;
	struct iovec *parts;
	unsigned count;

	if (connection->state == CONNECTION_STATE_DROPPED || channel_sending(&connection->channel))
		return;
	count = send_parts(connection, &parts, &pipe);
	if (pipe != NULL)
		channel_send_piped(&connection->channel, parts, count - 1, pipe->read_fd,
				   parts[count - 1].iov_len);
	else if (count > 0)
		channel_send(&connection->channel, parts, count);
	else
		all_sent(connection);
}

static void
flush(struct task *task)
{
	send_more(container_of(task, struct connection, flush));
}

static void
handshake_bytes_sent(struct connection *connection, size_t count)
{
	connection->handshake_sent_bytes += count;
	if (connection->handshake_sent_bytes < connection->handshake.reply.used)
		return;
	byte_buffer_clear(&connection->handshake.reply);
	connection->handshake_sent_bytes = 0;
	handshake_sent(connection);
}

static void
on_sent(struct channel *channel, ssize_t result)
{
	struct connection *connection = container_of(channel, struct connection, channel);

	if (result < 0) {
		peer_gone(connection, result);
		return;
	}
	if (connection->handshake.reply.used > 0)
		handshake_bytes_sent(connection, (size_t)result);
	else
		transmission_sent(connection, (size_t)result);
	send_more(connection);
}
