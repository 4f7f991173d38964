/* Connecting, and the handshake as a client: fixed newstyle, TLS if the URI wants it, the style of replies, GO. */
#include <ctype.h>
#include <endian.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "bench/load/target.h"
#include "bench/load/wire.h"

/* Of a reply to an option: the longest that a server may need to say what is wrong. */
#define REPLY_BYTES_MAX 65536u

#define PAYLOAD_BYTES_MAX_DEFAULT (32u << 20)

/* What was refused, and why, is said already. */
#define SAID (-EPROTONOSUPPORT)

struct answer {
	struct nbd_wire_option_reply header; /* in host order */
	uint8_t data[REPLY_BYTES_MAX + 1];   /* one more, for a NUL behind a message */
};

struct negotiation {
	const struct target *target;
	struct target_session session;
	FILE *errors;
	struct answer answer; /* the last one */
};

/* ---- options and answers ---- */

static int
send_option(struct negotiation *negotiation, enum nbd_option option, const void *data,
	    uint32_t bytes)
{
	uint8_t message[sizeof(struct nbd_wire_option) + 4 + NBD_STRING_BYTES_MAX + 4];
	struct nbd_wire_option header = {
		.magic = htobe64(NBD_OPTION_MAGIC),
		.option = htobe32(option),
		.data_bytes = htobe32(bytes),
	};
	uint8_t *end = mempcpy(message, &header, sizeof(header));

	if (bytes > 0)
		end = mempcpy(end, data, bytes);
	return link_send(&negotiation->session.link, message, (size_t)(end - message));
}

static int
read_answer(struct negotiation *negotiation, enum nbd_option option)
{
	struct answer *answer = &negotiation->answer;
	struct nbd_wire_option_reply *header = &answer->header;
	int error = link_receive(&negotiation->session.link, header, sizeof(*header));

	if (error < 0)
		return error;
	header->option = be32toh(header->option);
	header->reply = be32toh(header->reply);
	header->data_bytes = be32toh(header->data_bytes);
	if (be64toh(header->magic) != NBD_OPTION_REPLY_MAGIC || header->option != option ||
	    header->data_bytes > REPLY_BYTES_MAX)
		return -EBADMSG;
	answer->data[header->data_bytes] = '\0';
	return link_receive(&negotiation->session.link, answer->data, header->data_bytes);
}

/* The last answer is an error: say it, in the server's words where it has some, which may come to a terminal. */
static int
refused(struct negotiation *negotiation, const char *what)
{
	struct answer *answer = &negotiation->answer;
	const char *text =
		answer->header.data_bytes > 0 ? (const char *)answer->data : "no reason given";

	for (uint32_t i = 0; i < answer->header.data_bytes; i++) {
		if (!isprint(answer->data[i]))
			answer->data[i] = '?';
	}
	fprintf(negotiation->errors, "%s: the server refuses %s (error %u): %s\n",
		negotiation->target->uri, what, answer->header.reply & ~NBD_REP_ERROR, text);
	return SAID;
}

/* ---- the steps ---- */

static int
greet(struct negotiation *negotiation)
{
	struct {
		uint64_t magic, option_magic;
		uint16_t flags;
	} __attribute__((packed)) greeting;
	struct link *link = &negotiation->session.link;
	uint32_t flags = htobe32(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	int error = link_receive(link, &greeting, sizeof(greeting));

	if (error < 0)
		return error;
	if (be64toh(greeting.magic) != NBD_MAGIC ||
	    be64toh(greeting.option_magic) != NBD_OPTION_MAGIC)
		return -EBADMSG;
	if ((be16toh(greeting.flags) & NBD_FLAG_FIXED_NEWSTYLE) == 0) {
		fprintf(negotiation->errors, "%s: the server does not speak fixed newstyle NBD\n",
			negotiation->target->uri);
		return SAID;
	}
	if ((be16toh(greeting.flags) & NBD_FLAG_NO_ZEROES) == 0)
		flags = htobe32(NBD_FLAG_FIXED_NEWSTYLE);
	return link_send(link, &flags, sizeof(flags));
}

static int
start_tls(struct negotiation *negotiation)
{
	int error = send_option(negotiation, NBD_OPT_STARTTLS, NULL, 0);

	if (error == 0)
		error = read_answer(negotiation, NBD_OPT_STARTTLS);
	if (error < 0)
		return error;
	if ((negotiation->answer.header.reply & NBD_REP_ERROR) != 0)
		return refused(negotiation, "TLS");
	if (negotiation->answer.header.reply != NBD_REP_ACK)
		return -EBADMSG;
	return link_secure(&negotiation->session.link, &negotiation->target->credentials->client);
}

/* Ask for the replies that OPTION stands for.  Returns 1 if the server has them, 0 if not. */
static int
ask_for_style(struct negotiation *negotiation, enum nbd_option option)
{
	int error = send_option(negotiation, option, NULL, 0);

	if (error == 0)
		error = read_answer(negotiation, option);
	if (error < 0)
		return error;
	if (negotiation->answer.header.reply == NBD_REP_ACK)
		return 1;
	return (negotiation->answer.header.reply & NBD_REP_ERROR) != 0 ? 0 : -EBADMSG;
}

static int
choose_style(struct negotiation *negotiation)
{
	static const struct {
		enum nbd_option option;
		enum target_replies replies;
		enum nbd_style style;
		const char *name;
	} styles[] = {
		{ NBD_OPT_EXTENDED_HEADERS, TARGET_REPLIES_EXTENDED, NBD_STYLE_EXTENDED,
		  "extended headers; lower --replies" },
		{ NBD_OPT_STRUCTURED_REPLY, TARGET_REPLIES_STRUCTURED, NBD_STYLE_STRUCTURED,
		  "structured replies; lower --replies" },
	};
	enum target_replies wanted = negotiation->target->replies;

	negotiation->session.style = NBD_STYLE_SIMPLE;
	for (unsigned i = 0; i < sizeof(styles) / sizeof(styles[0]); i++) {
		int found;

		if (wanted != TARGET_REPLIES_AUTO && wanted != styles[i].replies)
			continue;
		found = ask_for_style(negotiation, styles[i].option);
		if (found < 0)
			return found;
		if (found > 0) {
			negotiation->session.style = styles[i].style;
			return 0;
		}
		/* A server that wants TLS first says so to GO, too. */
		if (wanted != TARGET_REPLIES_AUTO &&
		    negotiation->answer.header.reply != NBD_REP_ERR_TLS_REQD)
			return refused(negotiation, styles[i].name);
	}
	return 0;
}

/* Ask for the export and its block sizes. */
static int
send_go(struct negotiation *negotiation)
{
	const char *name = negotiation->target->export_name;
	uint8_t data[4 + NBD_STRING_BYTES_MAX + 4];
	uint32_t name_bytes = (uint32_t)strlen(name);
	uint32_t name_bytes_wire = htobe32(name_bytes);
	uint16_t infos[2] = { htobe16(1), htobe16(NBD_INFO_BLOCK_SIZE) };
	uint8_t *end = data;

	end = mempcpy(end, &name_bytes_wire, sizeof(name_bytes_wire));
	end = mempcpy(end, name, name_bytes);
	end = mempcpy(end, infos, sizeof(infos));
	return send_option(negotiation, NBD_OPT_GO, data, (uint32_t)(end - data));
}

/* Returns 0, or -EBADMSG: no server may have such blocks. */
static int
take_block_size(struct target_session *session, const uint8_t *data)
{
	uint32_t min, max;

	memcpy(&min, data, sizeof(min));
	memcpy(&max, data + 8, sizeof(max));
	session->block_bytes_min = be32toh(min);
	session->block_bytes_max = be32toh(max);
	return session->block_bytes_min == 0 || session->block_bytes_max < session->block_bytes_min
		       ? -EBADMSG
		       : 0;
}

static int
take_info(struct negotiation *negotiation, bool *sized)
{
	struct target_session *session = &negotiation->session;
	uint32_t bytes = negotiation->answer.header.data_bytes;
	const uint8_t *data = negotiation->answer.data;
	uint16_t kind, flags;
	uint64_t size;

	if (bytes < sizeof(kind))
		return -EBADMSG;
	memcpy(&kind, data, sizeof(kind));
	if (be16toh(kind) == NBD_INFO_EXPORT && bytes == 12) {
		memcpy(&size, data + 2, sizeof(size));
		memcpy(&flags, data + 10, sizeof(flags));
		session->size_bytes = be64toh(size);
		session->flags = be16toh(flags);
		*sized = true;
	} else if (be16toh(kind) == NBD_INFO_BLOCK_SIZE && bytes == 14) {
		return take_block_size(session, data + 2);
	}
	return 0;
}

static int
go_refused(struct negotiation *negotiation)
{
	char what[NBD_STRING_BYTES_MAX + 20];

	if (negotiation->answer.header.reply == NBD_REP_ERR_TLS_REQD)
		return refused(negotiation, "clients without TLS; use nbds:// or nbds+unix://");
	snprintf(what, sizeof(what), "the export \"%s\"", negotiation->target->export_name);
	return refused(negotiation, what);
}

static int
go(struct negotiation *negotiation)
{
	bool sized = false;
	int error = send_go(negotiation);

	while (error == 0) {
		uint32_t reply;

		error = read_answer(negotiation, NBD_OPT_GO);
		if (error < 0)
			break;
		reply = negotiation->answer.header.reply;
		if (reply == NBD_REP_INFO)
			error = take_info(negotiation, &sized);
		else if (reply == NBD_REP_ACK)
			return sized ? 0 : -EBADMSG;
		else if ((reply & NBD_REP_ERROR) != 0)
			error = go_refused(negotiation);
		else
			error = -EBADMSG;
	}
	return error;
}

/* ---- the whole ---- */

static void
say(const struct negotiation *negotiation, int error)
{
	const char *text;

	switch (error) {
	case SAID:
		return;
	case -ETIMEDOUT:
		text = "no answer within 10 s; is this an NBD server?";
		break;
	case -EBADMSG:
		text = "what came back is not NBD";
		break;
	case -ECONNRESET:
		text = "the server closed the connection during the handshake";
		break;
	case -EPROTO:
		text = link_why(&negotiation->session.link);
		break;
	default:
		text = strerror(-error);
	}
	fprintf(negotiation->errors, "%s: %s\n", negotiation->target->uri, text);
}

static int
negotiate(struct negotiation *negotiation, struct target_session *result)
{
	struct link *link = &negotiation->session.link;
	int error = greet(negotiation);

	if (error == 0 && negotiation->target->credentials != NULL)
		error = start_tls(negotiation);
	if (error == 0)
		error = choose_style(negotiation);
	if (error == 0)
		error = go(negotiation);
	if (error == 0) {
		*result = negotiation->session;
		return 0;
	}
	say(negotiation, error);
	link_close(link);
	return error;
}

/* Connect to the first address that answers.  Returns 0, or the last one's error. */
static int
open_link(const struct target *target, struct link *link)
{
	int error = -EINVAL;

	for (unsigned i = 0; i < target->address_count && error < 0; i++)
		error = link_open(link, &target->addresses[i]);
	return error;
}

int
target_connect(const struct target *target, struct target_session *session, FILE *errors)
{
	struct negotiation *negotiation = malloc(sizeof(*negotiation));
	int error = -ENOMEM;

	if (negotiation != NULL) {
		negotiation->target = target;
		negotiation->errors = errors;
		negotiation->session =
			(struct target_session){ .block_bytes_min = 1,
						 .block_bytes_max = PAYLOAD_BYTES_MAX_DEFAULT };
		error = open_link(target, &negotiation->session.link);
	}
	if (error < 0)
		fprintf(errors, "%s: cannot connect: %s\n", target->uri,
			error == -ETIMEDOUT ? "no answer within 10 s" : strerror(-error));
	else
		error = negotiate(negotiation, session);
	free(negotiation);
	return error;
}

void
target_disconnect(struct target_session *session)
{
	const struct nbd_header goodbye = { .command = NBD_CMD_DISC };
	uint8_t header[WIRE_REQUEST_BYTES_MAX];
	size_t bytes = wire_put_request(header, session->style, &goodbye);
	int error = link_send(&session->link, header, bytes);

	(void)error; /* a server that is not told sees the end all the same */
	link_close(&session->link);
}
