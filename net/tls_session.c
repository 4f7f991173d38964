/* GnuTLS over two buffers.
 *
 * GnuTLS pulls ciphertext out of the input, which is empty when it says that it needs more: then it has what is left of a record
 * itself.  What it pushes is gathered in the output, so that many records leave in one send. */
#include "net/tls_session.h"

#include "net/tls_kernel.h"
#include "net/tls_key_limit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <gnutls/x509.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WHY_TEXT_BYTES 160

/* Records of one key: GnuTLS changes its own as often.  Source: RFC 8446, section 5.5. */
#define RECORDS_PER_KEY (1u << 24)

/* Source: RFC 8446, sections 5.1 and 4.6.3. */
enum {
	RECORD_ALERT = 21,
	RECORD_HANDSHAKE = 22,
	UPDATE_REQUESTED = 1,
};

/* A certificate that says what it is for must say that it is for clients: with a web server's own nobody comes in as one.  GnuTLS keeps the
 * pointer, and does not write.  Source: RFC 5280, section 4.2.1.12. */
static gnutls_typed_vdata_st client_purpose = {
	.type = GNUTLS_DT_KEY_PURPOSE_OID,
	.data = (unsigned char *)GNUTLS_KP_TLS_WWW_CLIENT,
};

/* What only a session at work needs. */
struct room {
	uint8_t input[TLS_SESSION_INPUT_BYTES];
	uint8_t output[TLS_SESSION_OUTPUT_BYTES];
	uint8_t gathered[TLS_SESSION_RECORD_BYTES]; /* of several parts, for one record */
};

struct tls_session {
	gnutls_session_t gnutls;
	struct tls_credentials *credentials; /* a reference; NULL: a client's session */
	const struct tls_client *client;     /* NULL: a server's session */
	struct room *room;		     /* owned; NULL while parked */
	size_t input_start, input_end;
	size_t output_start, output_end;
	bool input_ended;
	bool drained; /* GnuTLS has said that it needs more input, and none has come since */
	/* The kernel encrypts: */
	int kernel_fd;		 /* what is sent through this; -1: it does not */
	uint32_t kernel_records; /* with these keys, about */
	bool keys_wanted;	 /* new ones, by the peer; GnuTLS has not answered */
	int ended; /* what the next read returns: 0 or GnuTLS's error; GNUTLS_E_AGAIN: it has not ended */
	struct tls_names names;
	const char *reason; /* as tls_session_reason */
	char why[WHY_TEXT_BYTES];
};

static ssize_t pull(gnutls_transport_ptr_t transport, void *bytes, size_t count);
static int pull_timeout(gnutls_transport_ptr_t transport, unsigned ms);
static ssize_t push(gnutls_transport_ptr_t transport, const giovec_t *parts, int part_count);
static int prepare(struct tls_session *session);
static int set_up_server(struct tls_session *session);
static int set_up_client(struct tls_session *session);
static int know_peer(struct tls_session *session);
static int on_handshake_message(gnutls_session_t gnutls, unsigned type, unsigned when,
				unsigned incoming, const gnutls_datum_t *message);
static int failed(struct tls_session *session, int error);

/* ---- beginning and end ---- */

static int
create(struct tls_credentials *credentials, const struct tls_client *client,
       struct tls_session **session)
{
	struct tls_session *made = calloc(1, sizeof(*made));

	if (made == NULL) {
		tls_credentials_put(credentials);
		return -ENOMEM;
	}
	made->credentials = credentials;
	made->client = client;
	made->drained = true;
	made->kernel_fd = -1;
	made->ended = GNUTLS_E_AGAIN;
	if (tls_session_unpark(made) < 0 || prepare(made) < 0) {
		tls_session_destroy(made);
		return -ENOMEM; /* UNTESTED: no fault for malloc */
	}
	*session = made;
	return 0;
}

int
tls_session_create(struct tls_credentials *credentials, struct tls_session **session)
{
	return create(credentials, NULL, session);
}

int
tls_session_create_client(const struct tls_client *client, struct tls_session **session)
{
	return create(NULL, client, session);
}

static int
prepare(struct tls_session *session)
{
	unsigned side = session->client == NULL ? GNUTLS_SERVER : GNUTLS_CLIENT;
	int error = gnutls_init(&session->gnutls,
				side | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | GNUTLS_NO_TICKETS);

	if (error < 0) {
		session->gnutls = NULL;
		return error;
	}
	gnutls_transport_set_ptr(session->gnutls, session);
	gnutls_transport_set_pull_function(session->gnutls, pull);
	gnutls_transport_set_pull_timeout_function(session->gnutls, pull_timeout);
	gnutls_transport_set_vec_push_function(session->gnutls, push);
	return session->client == NULL ? set_up_server(session) : set_up_client(session);
}

static int
set_up_server(struct tls_session *session)
{
	struct tls_credentials *credentials = session->credentials;
	gnutls_session_t gnutls = session->gnutls;
	int error;

	gnutls_session_set_ptr(gnutls, credentials);
	gnutls_handshake_set_hook_function(gnutls, GNUTLS_HANDSHAKE_ANY, GNUTLS_HOOK_PRE,
					   on_handshake_message);
	error = gnutls_priority_set(gnutls, credentials->priority);
	if (error == 0 && credentials->x509 != NULL)
		error = gnutls_credentials_set(gnutls, GNUTLS_CRD_CERTIFICATE, credentials->x509);
	if (error == 0 && credentials->psk != NULL)
		error = gnutls_credentials_set(gnutls, GNUTLS_CRD_PSK, credentials->psk);
	if (credentials->verify_client) {
		gnutls_certificate_server_set_request(gnutls, GNUTLS_CERT_REQUIRE);
		gnutls_session_set_verify_cert2(gnutls, &client_purpose, 1, 0);
	}
	return error;
}

static bool
is_ip_address(const char *host)
{
	uint8_t address[sizeof(struct in6_addr)];

	return inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;
}

static int
set_up_client(struct tls_session *session)
{
	const struct tls_client *client = session->client;
	gnutls_session_t gnutls = session->gnutls;
	int error = gnutls_priority_set(gnutls, client->priority);

	if (error == 0 && client->x509 != NULL)
		error = gnutls_credentials_set(gnutls, GNUTLS_CRD_CERTIFICATE, client->x509);
	if (error == 0 && client->psk != NULL)
		error = gnutls_credentials_set(gnutls, GNUTLS_CRD_PSK, client->psk);
	/* Addresses are not for the server's name indication.  Source: RFC 6066, section 3. */
	if (error == 0 && client->host != NULL && !is_ip_address(client->host))
		error = gnutls_server_name_set(gnutls, GNUTLS_NAME_DNS, client->host,
					       strlen(client->host));
	if (client->verify)
		gnutls_session_set_verify_cert(gnutls, client->host, 0);
	return error;
}

void
tls_session_destroy(struct tls_session *session)
{
	if (session == NULL)
		return;
	if (session->gnutls != NULL)
		gnutls_deinit(session->gnutls);
	tls_credentials_put(session->credentials);
	tls_names_clear(&session->names);
	free(session->room);
	free(session);
}

bool
tls_session_park(struct tls_session *session)
{
	if (tls_session_may_read(session) || session->output_end > session->output_start)
		return false;
	free(session->room);
	session->room = NULL;
	return true;
}

int
tls_session_unpark(struct tls_session *session)
{
	if (session->room == NULL)
		session->room = malloc(sizeof(*session->room));
	return session->room == NULL ? -ENOMEM : 0;
}

/* ---- ciphertext ---- */

static ssize_t
pull(gnutls_transport_ptr_t transport, void *bytes, size_t count)
{
	struct tls_session *session = transport;
	size_t there = session->input_end - session->input_start;

	if (there == 0 && !session->input_ended) {
		gnutls_transport_set_errno(session->gnutls, EAGAIN);
		return -1;
	}
	if (count > there)
		count = there;
	if (count > 0) /* else room may be NULL */
		memcpy(bytes, session->room->input + session->input_start, count);
	session->input_start += count;
	if (session->input_start == session->input_end)
		session->input_start = session->input_end = 0;
	return (ssize_t)count;
}

/* GnuTLS asks before it reads where it would wait for a time; here nothing waits. */
static int
pull_timeout(gnutls_transport_ptr_t transport, unsigned ms)
{
	const struct tls_session *session = transport;

	(void)ms;
	return session->input_end > session->input_start || session->input_ended ? 1 : 0;
}

static ssize_t
push(gnutls_transport_ptr_t transport, const giovec_t *parts, int part_count)
{
	struct tls_session *session = transport;
	size_t count = 0;

	for (int i = 0; i < part_count; i++)
		count += parts[i].iov_len;
	/* Only what a peer makes the protocol answer, while it reads nothing, can fill it. */
	if (session->room == NULL || count > TLS_SESSION_OUTPUT_BYTES - session->output_end) {
		gnutls_transport_set_errno(session->gnutls, EAGAIN);
		return -1;
	}
	for (int i = 0; i < part_count; i++) {
		memcpy(session->room->output + session->output_end, parts[i].iov_base,
		       parts[i].iov_len);
		session->output_end += parts[i].iov_len;
	}
	return (ssize_t)count;
}

struct iovec
tls_session_input(struct tls_session *session)
{
	CHECK(session->room != NULL && session->input_end == 0);
	return (struct iovec){ session->room->input, TLS_SESSION_INPUT_BYTES };
}

void
tls_session_received(struct tls_session *session, size_t count)
{
	session->input_end += count;
	session->drained = false;
}

void
tls_session_input_ended(struct tls_session *session)
{
	session->input_ended = true;
	session->drained = false;
}

void
tls_session_discard_input(struct tls_session *session)
{
	session->input_start = session->input_end = 0;
}

bool
tls_session_may_read(const struct tls_session *session)
{
	return !session->drained;
}

struct iovec
tls_session_output(struct tls_session *session)
{
	if (session->output_end == session->output_start)
		return (struct iovec){ NULL, 0 };
	return (struct iovec){ session->room->output + session->output_start,
			       session->output_end - session->output_start };
}

void
tls_session_sent(struct tls_session *session, size_t count)
{
	session->output_start += count;
	if (session->output_start == session->output_end)
		session->output_start = session->output_end = 0;
}

void
tls_session_discard_output(struct tls_session *session)
{
	session->output_start = session->output_end = 0;
}

/* ---- failures ---- */

static void
say_alert(struct tls_session *session)
{
	const char *name = gnutls_alert_get_name(gnutls_alert_get(session->gnutls));

	session->reason = "TLS: an alert";
	snprintf(session->why, sizeof(session->why), "TLS: the %s says: %s",
		 session->client == NULL ? "client" : "server",
		 name == NULL ? "an unknown alert" : name);
}

static void
say_unverified(struct tls_session *session)
{
	unsigned status = gnutls_session_get_verify_cert_status(session->gnutls);
	gnutls_datum_t text;

	session->reason = "TLS: a certificate was refused";
	if (gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0) < 0)
		return; /* UNTESTED: no fault for GnuTLS's malloc */
	snprintf(session->why, sizeof(session->why), "TLS: its certificate was refused: %s",
		 (const char *)text.data);
	gnutls_free(text.data);
}

/* Note what ERROR of GnuTLS means.  Returns -EPROTO. */
static int
failed(struct tls_session *session, int error)
{
	snprintf(session->why, sizeof(session->why), "TLS: %s", gnutls_strerror(error));
	session->reason = "TLS: not as it should be";
	switch (error) {
	case GNUTLS_E_FATAL_ALERT_RECEIVED:
		say_alert(session);
		break;
	case GNUTLS_E_NO_CERTIFICATE_FOUND:
		/* Also what GnuTLS makes of an alert in the place of the certificate. */
		if (gnutls_alert_get(session->gnutls) != GNUTLS_A_CLOSE_NOTIFY)
			say_alert(session);
		break;
	case GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR:
		say_unverified(session);
		break;
	case GNUTLS_E_CONSTRAINT_ERROR:
		session->reason = "TLS: a certificate was refused";
		snprintf(session->why, sizeof(session->why),
			 "TLS: its certificate was refused: a key of more than %u bits, or an RSA "
			 "exponent of more than %u",
			 TLS_KEY_BITS_MAX, TLS_KEY_EXPONENT_BITS_MAX);
		break;
	case GNUTLS_E_PREMATURE_TERMINATION:
		session->reason = "closed the connection without ending TLS";
		snprintf(session->why, sizeof(session->why),
			 "closed the connection without ending TLS");
		break;
	case GNUTLS_E_REHANDSHAKE:
		snprintf(session->why, sizeof(session->why),
			 "TLS: asked for a second handshake, which NBD has no use for");
		break;
	default:
		break;
	}
	return -EPROTO;
}

const char *
tls_session_why(const struct tls_session *session)
{
	return session->why;
}

const char *
tls_session_reason(const struct tls_session *session)
{
	return session->reason;
}

/* Whether after ERROR the same call may be made again at once, because it has taken something: there were INPUT_BYTES before.
 * GNUTLS_E_AGAIN is said behind a message of the protocol's own, too, with more in the input. */
static bool
is_passing(const struct tls_session *session, ssize_t error, size_t input_bytes)
{
	size_t left = session->input_end - session->input_start;

	if (error == GNUTLS_E_AGAIN)
		return left > 0 && left < input_bytes;
	return error == GNUTLS_E_INTERRUPTED || error == GNUTLS_E_WARNING_ALERT_RECEIVED;
}

/* ---- handshake ---- */

int
tls_session_handshake(struct tls_session *session)
{
	size_t input_bytes;
	int error;

	do {
		input_bytes = session->input_end - session->input_start;
		error = gnutls_handshake(session->gnutls);
	} while (is_passing(session, error, input_bytes));
	if (error == GNUTLS_E_AGAIN) {
		session->drained = session->input_end == session->input_start;
		return -EAGAIN;
	}
	if (error == 0)
		error = know_peer(session);
	if (error == 0)
		return 0;
	(void)failed(session, error);
	/* For the peer's user; an alert of the peer's own needs none. */
	if (error != GNUTLS_E_FATAL_ALERT_RECEIVED)
		(void)gnutls_alert_send_appropriate(session->gnutls, error);
	return -EPROTO;
}

/* The client's own.  *certificate: the caller's.  Returns 0 or an error of GnuTLS. */
static int
import_certificate(gnutls_session_t gnutls, gnutls_x509_crt_t *certificate)
{
	unsigned count;
	const gnutls_datum_t *chain = gnutls_certificate_get_peers(gnutls, &count);
	int error;

	if (chain == NULL || count == 0)
		return GNUTLS_E_NO_CERTIFICATE_FOUND; /* UNTESTED: GnuTLS has seen it */
	error = gnutls_x509_crt_init(certificate);
	if (error < 0)
		return error; /* UNTESTED: no fault for GnuTLS's malloc */
	error = gnutls_x509_crt_import(*certificate, &chain[0], GNUTLS_X509_FMT_DER);
	if (error < 0)
		gnutls_x509_crt_deinit(*certificate); /* UNTESTED: GnuTLS has done so before */
	return error;
}

static int
check_key_of_client(gnutls_session_t gnutls)
{
	gnutls_x509_crt_t certificate;
	int error = import_certificate(gnutls, &certificate);

	if (error < 0)
		return error;
	error = tls_key_limit_check(certificate);
	gnutls_x509_crt_deinit(certificate);
	return error;
}

/* GnuTLS is about to take MESSAGE.  When the peer wants new keys of ours, GnuTLS answers when it sends next, which it does no more once
 * the kernel does. */
static int
on_handshake_message(gnutls_session_t gnutls, unsigned type, unsigned when, unsigned incoming,
		     const gnutls_datum_t *message)
{
	struct tls_session *session = gnutls_transport_get_ptr(gnutls);

	(void)when;
	if (!incoming)
		return 0;
	if (type == GNUTLS_HANDSHAKE_CERTIFICATE_VERIFY)
		return check_key_of_client(gnutls);
	if (type == GNUTLS_HANDSHAKE_KEY_UPDATE && message->size > 0 &&
	    message->data[message->size - 1] == UPDATE_REQUESTED)
		session->keys_wanted = true;
	return 0;
}

/* The client's certificate, which the handshake has verified. */
static int
learn_certificate(struct tls_session *session)
{
	gnutls_x509_crt_t certificate;
	int error = import_certificate(session->gnutls, &certificate);

	if (error < 0)
		return error;
	error = tls_names_add_certificate(&session->names, certificate);
	gnutls_x509_crt_deinit(certificate);
	return error == -ENOMEM ? GNUTLS_E_MEMORY_ERROR : error;
}

/* Learn the names of a server's client.  A client's server has proved what it had to, unless it chose a certificate where a key is
 * wanted. */
static int
know_peer(struct tls_session *session)
{
	const char *identity;

	if (session->client != NULL)
		return session->client->psk != NULL && gnutls_auth_server_get_type(
							       session->gnutls) != GNUTLS_CRD_PSK
			       ? GNUTLS_E_INSUFFICIENT_CREDENTIALS
			       : 0;
	if (gnutls_auth_client_get_type(session->gnutls) == GNUTLS_CRD_CERTIFICATE)
		return session->credentials->verify_client ? learn_certificate(session) : 0;
	identity = gnutls_psk_server_get_username(session->gnutls);
	if (identity == NULL || tls_names_add(&session->names, identity, strlen(identity)) < 0)
		return GNUTLS_E_INSUFFICIENT_CREDENTIALS; /* UNTESTED: it has proved one */
	return 0;
}

const struct tls_names *
tls_session_names(const struct tls_session *session)
{
	return &session->names;
}

void
tls_session_describe(const struct tls_session *session, char *text, size_t text_bytes)
{
	snprintf(text, text_bytes, "%s, %s",
		 gnutls_protocol_get_name(gnutls_protocol_get_version(session->gnutls)),
		 gnutls_cipher_get_name(gnutls_cipher_get(session->gnutls)));
}

/* ---- data ---- */

ssize_t
tls_session_read(struct tls_session *session, const struct iovec *parts, unsigned part_count)
{
	size_t total = 0, filled = 0;
	unsigned part = 0;

	while (part < part_count && session->ended == GNUTLS_E_AGAIN) {
		size_t input_bytes = session->input_end - session->input_start;
		ssize_t got = gnutls_record_recv(session->gnutls,
						 (uint8_t *)parts[part].iov_base + filled,
						 parts[part].iov_len - filled);

		if (got > 0) {
			total += (size_t)got;
			filled += (size_t)got;
			if (filled == parts[part].iov_len) {
				part++;
				filled = 0;
			}
			continue;
		}
		if (is_passing(session, got, input_bytes))
			continue;
		if (got == GNUTLS_E_AGAIN && session->input_end == session->input_start) {
			session->drained = true;
			return total > 0 ? (ssize_t)total : -EAGAIN;
		}
		/* What GnuTLS wants to answer does not fit, because the peer reads nothing. */
		session->ended = got == GNUTLS_E_AGAIN ? GNUTLS_E_PUSH_ERROR : (int)got;
	}
	/* The end is told when all that is before it was taken. */
	if (total > 0 || session->ended == GNUTLS_E_AGAIN)
		return (ssize_t)total;
	return session->ended == 0 ? 0 : failed(session, session->ended);
}

/* Where reading PARTS goes on. */
struct cursor {
	const struct iovec *parts;
	unsigned part_count;
	size_t taken; /* of parts[0] */
};

static void
cursor_advance(struct cursor *cursor, size_t count)
{
	cursor->taken += count;
	while (cursor->part_count > 0 && cursor->taken >= cursor->parts[0].iov_len) {
		cursor->taken -= cursor->parts[0].iov_len;
		cursor->parts++;
		cursor->part_count--;
	}
}

/* The data of the next record: of one part where that fills it, else gathered from several. */
static struct iovec
next_record(struct tls_session *session, struct cursor cursor)
{
	uint8_t *gathered = session->room->gathered;
	size_t used = 0;

	while (cursor.part_count > 0 && used < TLS_SESSION_RECORD_BYTES) {
		uint8_t *from = (uint8_t *)cursor.parts[0].iov_base + cursor.taken;
		size_t count = cursor.parts[0].iov_len - cursor.taken;

		if (count > TLS_SESSION_RECORD_BYTES - used)
			count = TLS_SESSION_RECORD_BYTES - used;
		if (used == 0 && (count == TLS_SESSION_RECORD_BYTES || cursor.part_count == 1))
			return (struct iovec){ from, count };
		memcpy(gathered + used, from, count);
		used += count;
		cursor_advance(&cursor, count);
	}
	return (struct iovec){ gathered, used };
}

ssize_t
tls_session_write(struct tls_session *session, const struct iovec *parts, unsigned part_count)
{
	struct cursor cursor = { .parts = parts, .part_count = part_count };
	size_t total = 0;

	while (cursor.part_count > 0 &&
	       TLS_SESSION_OUTPUT_BYTES - session->output_end >= TLS_SESSION_RECORD_ROOM) {
		struct iovec record = next_record(session, cursor);
		ssize_t sent;

		sent = gnutls_record_send(session->gnutls, record.iov_base, record.iov_len);
		if (sent == GNUTLS_E_INTERRUPTED)
			continue;
		if (sent < 0)
			return failed(session, (int)sent);
		total += (size_t)sent;
		cursor_advance(&cursor, (size_t)sent);
	}
	return (ssize_t)total;
}

/* ---- the kernel sends ---- */

/* What GnuTLS has to say itself.  Returns 0 or an error of GnuTLS. */
static int
say_record(struct tls_session *session, uint8_t type, const void *bytes, size_t count)
{
	return tls_kernel_send_record(session->kernel_fd, type, bytes, count) < 0
		       ? GNUTLS_E_PUSH_ERROR
		       : 0;
}

static int
on_message(gnutls_session_t gnutls, gnutls_record_encryption_level_t level,
	   gnutls_handshake_description_t type, const void *bytes, size_t count)
{
	(void)level;
	(void)type;
	return say_record(gnutls_transport_get_ptr(gnutls), RECORD_HANDSHAKE, bytes, count);
}

static int
on_alert(gnutls_session_t gnutls, gnutls_record_encryption_level_t level,
	 gnutls_alert_level_t alert_level, gnutls_alert_description_t description)
{
	uint8_t bytes[] = { (uint8_t)alert_level, (uint8_t)description };

	(void)level;
	return say_record(gnutls_transport_get_ptr(gnutls), RECORD_ALERT, bytes, sizeof(bytes));
}

bool
tls_session_offload(struct tls_session *session, int fd)
{
	if (session->credentials == NULL ||
	    !tls_kernel_suits(&session->credentials->kernel, session->gnutls) ||
	    tls_kernel_take_keys(fd, session->gnutls) < 0)
		return false;
	session->kernel_fd = fd;
	gnutls_handshake_set_read_function(session->gnutls, on_message);
	gnutls_alert_set_read_function(session->gnutls, on_alert);
	return true;
}

bool
tls_session_offloaded(const struct tls_session *session)
{
	return session->kernel_fd >= 0;
}

void
tls_session_kernel_sent(struct tls_session *session, size_t count)
{
	session->kernel_records += 1 + (uint32_t)(count / TLS_SESSION_RECORD_BYTES);
}

int
tls_session_change_keys(struct tls_session *session)
{
	bool due = session->keys_wanted || session->kernel_records >= RECORDS_PER_KEY;
	int error;

	/* A peer can't tell when it was heard, so that an answer may wait for room. */
	if (!due || gnutls_protocol_get_version(session->gnutls) != GNUTLS_TLS1_3 ||
	    !tls_kernel_has_room(session->kernel_fd))
		return 0;
	error = gnutls_session_key_update(session->gnutls, 0);
	if (error == 0 && tls_kernel_take_keys(session->kernel_fd, session->gnutls) < 0)
		error = GNUTLS_E_PUSH_ERROR;
	session->keys_wanted = false;
	session->kernel_records = 0;
	return error < 0 ? failed(session, error) : 0;
}

void
tls_session_end(struct tls_session *session)
{
	/* For the peer to tell the end from an attacker's; without room it is told by TCP alone. */
	if (tls_session_unpark(session) == 0)
		(void)gnutls_bye(session->gnutls, GNUTLS_SHUT_WR);
}
