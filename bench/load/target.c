/* Connecting, and the handshake as a client: fixed newstyle, GO. */
#include "bench/load/target.h"

#include <endian.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>
#include <uriparser/Uri.h>

#include "net/nbd.h"

#define SCHEME_TCP  "nbd"
#define SCHEME_UNIX "nbd+unix"
#define PORT_TEXT   "10809"

/* Of a reply to an option: the longest that a server may need to say what is wrong. */
#define REPLY_BYTES_MAX 65536u

#define PAYLOAD_BYTES_MAX_DEFAULT (32u << 20)

/* ---- the URI ---- */

static int
wrong(FILE *errors, const char *uri, const char *what)
{
	fprintf(errors, "%s: %s\n", uri, what);
	return -EINVAL;
}

/* A copy of RANGE, with what is percent-encoded decoded; NULL without memory. */
static char *
decoded(const UriTextRangeA *range)
{
	char *text;

	if (range->first == NULL)
		return strdup("");
	text = strndup(range->first, (size_t)(range->afterLast - range->first));
	if (text != NULL)
		uriUnescapeInPlaceA(text);
	return text;
}

/* The path without the slash in front is the export's name; further slashes are part of it. */
static char *
export_name_of(const UriUriA *uri)
{
	UriTextRangeA path = { NULL, NULL };

	if (uri->pathHead != NULL) {
		path.first = uri->pathHead->text.first;
		path.afterLast = uri->pathTail->text.afterLast;
	}
	return decoded(&path);
}

/* The value of socket= in the query, or NULL. */
static char *
socket_of(const UriUriA *uri)
{
	UriQueryListA *list;
	char *path = NULL;
	int count;

	if (uri->query.first == NULL || uriDissectQueryMallocA(&list, &count, uri->query.first,
							       uri->query.afterLast) != URI_SUCCESS)
		return NULL;
	for (UriQueryListA *entry = list; entry != NULL; entry = entry->next) {
		if (strcmp(entry->key, "socket") == 0 && entry->value != NULL && path == NULL)
			path = strdup(entry->value);
	}
	uriFreeQueryListA(list);
	return path;
}

static bool
has_scheme(const UriUriA *uri, const char *scheme)
{
	size_t bytes = (size_t)(uri->scheme.afterLast - uri->scheme.first);

	return bytes == strlen(scheme) && memcmp(uri->scheme.first, scheme, bytes) == 0;
}

/* The address as address_parse takes it; NULL without memory or, with *why, if URI has none. */
static char *
address_text(const UriUriA *uri, const char **why)
{
	char *text = NULL, *host, *port, *path;
	bool is_ipv6 = uri->hostData.ip6 != NULL;

	*why = "no memory";
	if (has_scheme(uri, SCHEME_UNIX)) {
		path = socket_of(uri);
		if (path == NULL)
			*why = "says no socket; expected nbd+unix:///EXPORT?socket=PATH";
		else if (asprintf(&text, "unix:%s", path) < 0)
			text = NULL;
		free(path);
		return text;
	}
	host = decoded(&uri->hostText);
	port = uri->portText.first == uri->portText.afterLast ? strdup(PORT_TEXT)
							      : decoded(&uri->portText);
	if (host != NULL && *host == '\0')
		*why = "says no host; expected nbd://HOST[:PORT]/EXPORT";
	else if (host != NULL && port != NULL &&
		 asprintf(&text, is_ipv6 ? "[%s]:%s" : "%s:%s", host, port) < 0)
		text = NULL;
	free(host);
	free(port);
	return text;
}

static int
parse_parts(const UriUriA *parts, struct target *target, FILE *errors)
{
	const char *why;
	char *text;
	int error;

	if (!has_scheme(parts, SCHEME_TCP) && !has_scheme(parts, SCHEME_UNIX))
		return wrong(errors, target->uri,
			     "is not of a kind that is known; nbd and nbd+unix are");
	text = address_text(parts, &why);
	if (text == NULL)
		return wrong(errors, target->uri, why);
	error = address_parse(text, &target->address, &why);
	free(text);
	if (error < 0)
		return wrong(errors, target->uri, why);
	target->export_name = export_name_of(parts);
	if (target->export_name == NULL)
		return wrong(errors, target->uri, "no memory");
	if (strlen(target->export_name) > NBD_STRING_BYTES_MAX) {
		free(target->export_name);
		return wrong(errors, target->uri, "the export's name has more than 4096 bytes");
	}
	return 0;
}

int
target_parse(const char *uri, struct target *target, FILE *errors)
{
	UriUriA parts;
	int error;

	*target = (struct target){ .uri = uri };
	if (uriParseSingleUriA(&parts, uri, NULL) != URI_SUCCESS)
		return wrong(errors, uri,
			     "is not a URI; expected nbd://HOST[:PORT]/EXPORT or "
			     "nbd+unix:///EXPORT?socket=PATH");
	if (parts.scheme.first == NULL)
		error = wrong(errors, uri, "says no kind; expected nbd://... or nbd+unix://...");
	else
		error = parse_parts(&parts, target, errors);
	uriFreeUriMembersA(&parts);
	return error;
}

void
target_fini(struct target *target)
{
	free(target->export_name);
}

/* ---- blocking input and output ---- */

static int
send_all(int fd, const void *bytes, size_t count)
{
	const uint8_t *next = bytes;

	while (count > 0) {
		ssize_t result = send(fd, next, count, MSG_NOSIGNAL);

		if (result < 0 && errno == EINTR)
			continue;
		if (result < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		next += result;
		count -= (size_t)result;
	}
	return 0;
}

static int
receive_all(int fd, void *bytes, size_t count)
{
	uint8_t *next = bytes;

	while (count > 0) {
		ssize_t result = recv(fd, next, count, 0);

		if (result < 0 && errno == EINTR)
			continue;
		if (result == 0)
			return -ECONNRESET;
		if (result < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		next += result;
		count -= (size_t)result;
	}
	return 0;
}

/* Sockets that answer within TARGET_TIMEOUT_S or not at all. */
static int
connect_socket(const struct address *address)
{
	struct timeval timeout = { .tv_sec = TARGET_TIMEOUT_S };
	int one = 1, error;
	int fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	if (address->storage.ss_family != AF_UNIX)
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (connect(fd, (const struct sockaddr *)&address->storage, address->bytes) == 0)
		return fd;
	error = errno == EAGAIN || errno == EINPROGRESS ? -ETIMEDOUT : -errno;
	(void)close(fd);
	return error;
}

/* ---- the handshake ---- */

/* What a GO brings. */
struct answer {
	struct nbd_wire_option_reply header; /* in host order */
	uint8_t data[REPLY_BYTES_MAX + 1];   /* one more, for a NUL behind a message */
};

static int
read_answer(int fd, struct answer *answer)
{
	struct nbd_wire_option_reply *header = &answer->header;
	int error = receive_all(fd, header, sizeof(*header));

	if (error < 0)
		return error;
	header->option = be32toh(header->option);
	header->reply = be32toh(header->reply);
	header->data_bytes = be32toh(header->data_bytes);
	if (be64toh(header->magic) != NBD_OPTION_REPLY_MAGIC || header->option != NBD_OPT_GO ||
	    header->data_bytes > REPLY_BYTES_MAX)
		return -EBADMSG;
	answer->data[header->data_bytes] = '\0';
	return receive_all(fd, answer->data, header->data_bytes);
}

static int
greet(int fd)
{
	struct {
		uint64_t magic, option_magic;
		uint16_t flags;
	} __attribute__((packed)) greeting;
	uint32_t flags = htobe32(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	int error = receive_all(fd, &greeting, sizeof(greeting));

	if (error < 0)
		return error;
	if (be64toh(greeting.magic) != NBD_MAGIC ||
	    be64toh(greeting.option_magic) != NBD_OPTION_MAGIC)
		return -EBADMSG;
	if ((be16toh(greeting.flags) & NBD_FLAG_FIXED_NEWSTYLE) == 0)
		return -EPROTONOSUPPORT;
	if ((be16toh(greeting.flags) & NBD_FLAG_NO_ZEROES) == 0)
		flags = htobe32(NBD_FLAG_FIXED_NEWSTYLE);
	return send_all(fd, &flags, sizeof(flags));
}

/* Ask for the export NAME and its block sizes. */
static int
send_go(int fd, const char *name)
{
	uint8_t message[sizeof(struct nbd_wire_option) + 4 + NBD_STRING_BYTES_MAX + 4];
	uint32_t name_bytes = (uint32_t)strlen(name);
	struct nbd_wire_option header = {
		.magic = htobe64(NBD_OPTION_MAGIC),
		.option = htobe32(NBD_OPT_GO),
		.data_bytes = htobe32(4 + name_bytes + 4),
	};
	uint32_t name_bytes_wire = htobe32(name_bytes);
	uint16_t infos[2] = { htobe16(1), htobe16(NBD_INFO_BLOCK_SIZE) };
	uint8_t *end = message;

	end = mempcpy(end, &header, sizeof(header));
	end = mempcpy(end, &name_bytes_wire, sizeof(name_bytes_wire));
	end = mempcpy(end, name, name_bytes);
	end = mempcpy(end, infos, sizeof(infos));
	return send_all(fd, message, (size_t)(end - message));
}

static void
take_info(const struct answer *answer, struct target_session *session, bool *sized)
{
	uint32_t bytes = answer->header.data_bytes;
	const uint8_t *data = answer->data;
	uint16_t kind, flags;
	uint64_t size;
	uint32_t min, max;

	if (bytes < sizeof(kind))
		return;
	memcpy(&kind, data, sizeof(kind));
	if (be16toh(kind) == NBD_INFO_EXPORT && bytes == 12) {
		memcpy(&size, data + 2, sizeof(size));
		memcpy(&flags, data + 10, sizeof(flags));
		session->size_bytes = be64toh(size);
		session->flags = be16toh(flags);
		*sized = true;
	} else if (be16toh(kind) == NBD_INFO_BLOCK_SIZE && bytes == 14) {
		memcpy(&min, data + 2, sizeof(min));
		memcpy(&max, data + 10, sizeof(max));
		session->block_bytes_min = be32toh(min);
		session->block_bytes_max = be32toh(max);
	}
}

/* Why the server refused, in its words where it has some. */
static int
refused(const struct answer *answer, const struct target *target, FILE *errors)
{
	const char *text =
		answer->header.data_bytes > 0 ? (const char *)answer->data : "no reason given";

	fprintf(errors, "%s: the server refuses the export \"%s\" (error %u): %s\n", target->uri,
		target->export_name, answer->header.reply & ~NBD_REP_ERROR, text);
	return -EPROTO;
}

static int
ask_for_export(const struct target *target, struct target_session *session, FILE *errors)
{
	struct answer *answer = malloc(sizeof(*answer));
	bool sized = false;
	int error = answer == NULL ? -ENOMEM : send_go(session->fd, target->export_name);

	while (error == 0) {
		error = read_answer(session->fd, answer);
		if (error < 0)
			break;
		if (answer->header.reply == NBD_REP_INFO) {
			take_info(answer, session, &sized);
		} else if (answer->header.reply == NBD_REP_ACK) {
			error = sized ? 0 : -EBADMSG;
			break;
		} else if ((answer->header.reply & NBD_REP_ERROR) != 0) {
			error = refused(answer, target, errors);
		} else {
			error = -EBADMSG;
		}
	}
	free(answer);
	return error;
}

static const char *
reason(int error)
{
	switch (error) {
	case -ETIMEDOUT:
		return "no answer within 10 s; is this an NBD server?";
	case -EBADMSG:
		return "what came back is not NBD";
	case -EPROTONOSUPPORT:
		return "the server does not speak fixed newstyle NBD";
	case -ECONNRESET:
		return "the server closed the connection during the handshake";
	default:
		return strerror(-error);
	}
}

int
target_connect(const struct target *target, struct target_session *result, FILE *errors)
{
	struct target_session session = {
		.fd = connect_socket(&target->address),
		.block_bytes_min = 1,
		.block_bytes_max = PAYLOAD_BYTES_MAX_DEFAULT,
	};
	int error = session.fd;

	if (error < 0) {
		fprintf(errors, "%s: cannot connect: %s\n", target->uri, reason(error));
		return error;
	}
	error = greet(session.fd);
	if (error == 0)
		error = ask_for_export(target, &session, errors);
	if (error == 0) {
		*result = session;
		return 0;
	}
	if (error != -EPROTO)
		fprintf(errors, "%s: %s\n", target->uri, reason(error));
	(void)close(session.fd);
	return error;
}
