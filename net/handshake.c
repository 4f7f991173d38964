/* Options and their answers.
 * Source: the protocol specification, sections "Fixed newstyle negotiation" and "Option types". */
#include "net/handshake.h"

#include <string.h>

#include "net/meta_context.h"
#include "net/nbd.h"
#include "net/option_data.h"
#include "net/option_reply.h"

/* An option that is known. */
struct known_option {
	uint32_t option; /* enum nbd_option */
	bool takes_data;
	/* Answer it: DATA is all of its data, and empty where it takes none. */
	enum handshake_result (*answer)(struct handshake *handshake, uint32_t option,
					struct option_data data);
};

void
handshake_init(struct handshake *handshake, const struct export_table *exports)
{
	*handshake = (struct handshake){
		.exports = exports,
		.state = HANDSHAKE_STATE_CLIENT_FLAGS,
	};
	handshake_reset(handshake);
	byte_buffer_init(&handshake->reply);
	byte_buffer_add_u64(&handshake->reply, NBD_MAGIC);
	byte_buffer_add_u64(&handshake->reply, NBD_OPTION_MAGIC);
	byte_buffer_add_u16(&handshake->reply, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
}

void
handshake_fini(struct handshake *handshake)
{
	byte_buffer_fini(&handshake->reply);
}

void
handshake_reset(struct handshake *handshake)
{
	handshake->session = (struct nbd_session){ .style = NBD_STYLE_SIMPLE };
	handshake->contexts_export = NULL;
}

bool
handshake_goes_on(const struct handshake *handshake)
{
	return handshake->state == HANDSHAKE_STATE_LIST;
}

unsigned
handshake_extend_s(struct handshake *handshake)
{
	size_t seconds = handshake->described_count - handshake->extended_count;

	handshake->extended_count = handshake->described_count;
	return (unsigned)seconds;
}

void
handshake_shut_down(struct handshake *handshake)
{
	handshake->shutting_down = true;
}

void
handshake_secured(struct handshake *handshake, const struct tls_names *names)
{
	handshake_reset(handshake);
	handshake->names = names;
}

static enum handshake_result
drop(struct handshake *handshake, const char *why)
{
	handshake->why = why;
	return HANDSHAKE_DROP;
}

static enum handshake_result
refuse(struct handshake *handshake, uint32_t option, uint32_t error, const char *message)
{
	option_reply_error(&handshake->reply, option, error, message);
	return HANDSHAKE_REPLY;
}

/* ---- options ---- */

/* EXPORT as this client sees it, by its address, and inside TLS by its names.  One that it may not use does not exist for it: NULL,
 * and what to tell it or the log. */
static const struct export *
view_export(struct handshake *handshake, const struct export *export)
{
	const struct export *view = export_view(export, &handshake->peer);

	handshake->needs_tls = false;
	if (view == NULL) {
		handshake->refused = "denied to this address (allow and deny of the export)";
		return NULL;
	}
	if (handshake->names == NULL && export_needs_tls(export)) {
		handshake->needs_tls = true;
		handshake->refused = "asked for without TLS, which this export needs";
		return NULL;
	}
	if (handshake->names != NULL && !export_allows_names(export, handshake->names)) {
		handshake->refused =
			"denied to this certificate or key (allow-names of the export)";
		return NULL;
	}
	return view;
}

/* The export of that name, as above. */
static const struct export *
find_export(struct handshake *handshake, const uint8_t *name, size_t name_bytes)
{
	const struct export *export =
		export_find(handshake->exports, (const char *)name, name_bytes);

	handshake->needs_tls = false;
	handshake->refused_name = (const char *)name;
	handshake->refused_name_bytes = (unsigned)name_bytes;
	if (export != NULL)
		return view_export(handshake, export);
	handshake->refused = "there is no such export";
	return NULL;
}

/* INFO or GO for an export that this client does not have. */
static enum handshake_result
refuse_export(struct handshake *handshake, uint32_t option)
{
	if (handshake->needs_tls && !handshake->no_tls)
		return refuse(handshake, option, NBD_REP_ERR_TLS_REQD, "this export needs TLS");
	return refuse(handshake, option, NBD_REP_ERR_UNKNOWN, "no export of that name");
}

static enum handshake_result
answer_starttls(struct handshake *handshake, uint32_t option, struct option_data data)
{
	(void)data;
	if (handshake->names != NULL)
		return refuse(handshake, option, NBD_REP_ERR_INVALID, "TLS has begun already");
	if (handshake->tls_mode == TLS_MODE_OFF)
		return refuse(handshake, option, NBD_REP_ERR_POLICY, "TLS is off on this server");
	if (handshake->no_tls)
		return refuse(handshake, option, NBD_REP_ERR_POLICY,
			      "TLS needs the client's flag FIXED_NEWSTYLE");
	option_reply_ack(&handshake->reply, option);
	return HANDSHAKE_TLS;
}

/* The session that begins with the export of that name; without an export if there is none. */
static struct nbd_session
session_with(struct handshake *handshake, const uint8_t *name, size_t name_bytes)
{
	struct nbd_session session = handshake->session;

	session.export = find_export(handshake, name, name_bytes);
	session.size_bytes = session.export == NULL ? 0 : volume_size(session.export->volume);
	session.allocation = session.export != NULL && handshake->contexts_export == session.export;
	return session;
}

static enum handshake_result
answer_export_name(struct handshake *handshake, uint32_t option, struct option_data data)
{
	struct nbd_session session = session_with(handshake, data.bytes, data.left);

	(void)option; /* it has an answer of its own form */
	if (session.export == NULL)
		return drop(handshake, "asked for an export that does not exist (EXPORT_NAME)");
	if (session.style == NBD_STYLE_EXTENDED)
		return drop(handshake, "sent EXPORT_NAME after EXTENDED_HEADERS; GO is needed");
	handshake->session = session;
	byte_buffer_add_u64(&handshake->reply, session.size_bytes);
	byte_buffer_add_u16(&handshake->reply, session_flags(&session));
	if (!handshake->no_zeroes)
		byte_buffer_add_zeros(&handshake->reply, NBD_EXPORT_NAME_PAD_BYTES);
	return HANDSHAKE_TRANSMISSION;
}

static enum handshake_result
answer_abort(struct handshake *handshake, uint32_t option, struct option_data data)
{
	(void)data; /* there should be none; to be ignored if there is */
	option_reply_ack(&handshake->reply, option);
	return HANDSHAKE_CLOSE;
}

/* One more part of the answer to LIST: thousands of exports at one time would be megabytes for each client that asks and does not
 * read. */
static enum handshake_result
step_list(struct handshake *handshake)
{
	const struct export_table *table = handshake->exports;

	while (handshake->list_next < table->count &&
	       handshake->reply.used < HANDSHAKE_LIST_BYTES) {
		const struct export *export = &table->exports[handshake->list_next++];

		if (view_export(handshake, export) != NULL)
			option_reply_server(&handshake->reply, export);
	}
	handshake->refused = NULL; /* it has not asked for these */
	handshake->state = HANDSHAKE_STATE_LIST;
	if (handshake->list_next == table->count) {
		option_reply_ack(&handshake->reply, NBD_OPT_LIST);
		handshake->state = HANDSHAKE_STATE_OPTION;
	}
	return HANDSHAKE_REPLY;
}

static enum handshake_result
answer_list(struct handshake *handshake, uint32_t option, struct option_data data)
{
	(void)option;
	(void)data;
	handshake->list_next = 0;
	return step_list(handshake);
}

/* Answer each of the infos in DATA, once: clients must not ask for one twice, and thousands of answers to one option would be
 * a way to make this side work and send much for little. */
static void
reply_infos(struct handshake *handshake, uint32_t option, struct option_data data,
	    const struct export *export)
{
	uint32_t answered = 0;
	uint16_t info;

	while (option_data_take_u16(&data, &info)) {
		if (info > NBD_INFO_BLOCK_SIZE || (answered & 1u << info) != 0)
			continue;
		answered |= 1u << info;
		option_reply_info(&handshake->reply, option, info, export);
	}
}

/* INFO and GO: the name, the number of infos, the infos. */
static enum handshake_result
answer_info(struct handshake *handshake, uint32_t option, struct option_data data)
{
	struct nbd_session session;
	const uint8_t *name;
	uint32_t name_bytes;
	uint16_t info_count;

	if (!option_data_take_string(&data, &name, &name_bytes) ||
	    !option_data_take_u16(&data, &info_count) || data.left != info_count * sizeof(uint16_t))
		return refuse(handshake, option, NBD_REP_ERR_INVALID, "the lengths do not add up");
	if (name_bytes > NBD_STRING_BYTES_MAX)
		return refuse(handshake, option, NBD_REP_ERR_TOO_BIG,
			      "a name has at most 4096 bytes");
	session = session_with(handshake, name, name_bytes);
	if (session.export == NULL)
		return refuse_export(handshake, option);
	option_reply_info_export(&handshake->reply, option, &session);
	reply_infos(handshake, option, data, session.export);
	option_reply_ack(&handshake->reply, option);
	if (option == NBD_OPT_INFO) {
		if (handshake->described_count < handshake->exports->count)
			handshake->described_count++;
		return HANDSHAKE_REPLY;
	}
	handshake->session = session;
	return HANDSHAKE_TRANSMISSION;
}

static enum handshake_result
answer_structured_reply(struct handshake *handshake, uint32_t option, struct option_data data)
{
	(void)data;
	if (handshake->session.style == NBD_STYLE_EXTENDED)
		return refuse(handshake, option, NBD_REP_ERR_EXT_HEADER_REQD,
			      "extended headers were negotiated already");
	handshake->session.style = NBD_STYLE_STRUCTURED;
	option_reply_ack(&handshake->reply, option);
	return HANDSHAKE_REPLY;
}

static enum handshake_result
answer_extended_headers(struct handshake *handshake, uint32_t option, struct option_data data)
{
	(void)data;
	handshake->session.style = NBD_STYLE_EXTENDED;
	option_reply_ack(&handshake->reply, option);
	return HANDSHAKE_REPLY;
}

/* LIST_META_CONTEXT and SET_META_CONTEXT. */
static enum handshake_result
answer_meta_context(struct handshake *handshake, uint32_t option, struct option_data data)
{
	bool set = option == NBD_OPT_SET_META_CONTEXT;
	struct meta_context_query query;
	const struct export *export;
	const char *why;
	uint32_t error;

	/* What was set before is replaced, also by a failure. */
	if (set)
		handshake->contexts_export = NULL;
	if (set && handshake->session.style == NBD_STYLE_SIMPLE)
		return refuse(handshake, option, NBD_REP_ERR_INVALID,
			      "structured replies must be negotiated first");
	error = meta_context_parse(data, &query, &why);
	if (error != 0)
		return refuse(handshake, option, error, why);
	export = find_export(handshake, query.name, query.name_bytes);
	if (export == NULL)
		return refuse(handshake, option, NBD_REP_ERR_UNKNOWN, "no export of that name");
	if (query.exact || (!set && (query.wildcard || query.query_count == 0))) {
		option_reply_meta_context(&handshake->reply, option,
					  set ? NBD_CONTEXT_ALLOCATION_ID : 0,
					  NBD_CONTEXT_ALLOCATION);
		if (set)
			handshake->contexts_export = export;
	}
	option_reply_ack(&handshake->reply, option);
	return HANDSHAKE_REPLY;
}

static const struct known_option known_options[] = {
	{ NBD_OPT_EXPORT_NAME, true, answer_export_name },
	{ NBD_OPT_ABORT, true, answer_abort },
	{ NBD_OPT_LIST, false, answer_list },
	{ NBD_OPT_STARTTLS, false, answer_starttls },
	{ NBD_OPT_INFO, true, answer_info },
	{ NBD_OPT_GO, true, answer_info },
	{ NBD_OPT_STRUCTURED_REPLY, false, answer_structured_reply },
	{ NBD_OPT_LIST_META_CONTEXT, true, answer_meta_context },
	{ NBD_OPT_SET_META_CONTEXT, true, answer_meta_context },
	{ NBD_OPT_EXTENDED_HEADERS, false, answer_extended_headers },
};

static const struct known_option *
find_option(uint32_t option)
{
	for (size_t i = 0; i < ARRAY_COUNT(known_options); i++) {
		if (known_options[i].option == option)
			return &known_options[i];
	}
	return NULL;
}

/* Whether OPTION must wait until TLS has begun. */
static bool
needs_tls_first(const struct handshake *handshake, uint32_t option)
{
	return handshake->tls_mode == TLS_MODE_REQUIRED && handshake->names == NULL &&
	       option != NBD_OPT_STARTTLS && option != NBD_OPT_ABORT;
}

static enum handshake_result
answer_needs_tls(struct handshake *handshake, uint32_t option)
{
	if (option == NBD_OPT_EXPORT_NAME)
		return drop(handshake, "asked for an export without TLS, which is required here");
	/* It may not be told, and there is nothing else for it here.  Source: the specification, "Server-side requirements". */
	if (handshake->no_tls)
		return drop(handshake, "has no TLS, which is required here (no FIXED_NEWSTYLE)");
	handshake->refused = "asked for something without TLS, which is required here";
	return refuse(handshake, option, NBD_REP_ERR_TLS_REQD, "this server needs TLS");
}

/* The server is stopping: it tells so, once, to a client that can be told. */
static enum handshake_result
answer_shutting_down(struct handshake *handshake, uint32_t option)
{
	if (option == NBD_OPT_EXPORT_NAME)
		return drop(handshake, "asked for an export while the server is stopping");
	if (option == NBD_OPT_ABORT)
		option_reply_ack(&handshake->reply, option);
	else
		option_reply_error(&handshake->reply, option, NBD_REP_ERR_SHUTDOWN,
				   "the server is stopping");
	return HANDSHAKE_CLOSE;
}

/* Answer OPTION, of which DATA_BYTES came; only DATA is here, all of it or, if it is too much, nothing. */
static enum handshake_result
answer_option(struct handshake *handshake, uint32_t option, uint32_t data_bytes,
	      struct option_data data)
{
	const struct known_option *known = find_option(option);

	if (handshake->shutting_down)
		return answer_shutting_down(handshake, option);
	if (needs_tls_first(handshake, option))
		return answer_needs_tls(handshake, option);
	if (known == NULL)
		return refuse(handshake, option, NBD_REP_ERR_UNSUP, "this option is not supported");
	if (!known->takes_data && data_bytes > 0)
		return refuse(handshake, option, NBD_REP_ERR_INVALID, "this option takes no data");
	if (data.left == data_bytes || option == NBD_OPT_ABORT)
		return known->answer(handshake, option, data);
	/* As any failure of it does. */
	if (option == NBD_OPT_SET_META_CONTEXT)
		handshake->contexts_export = NULL;
	return refuse(handshake, option, NBD_REP_ERR_TOO_BIG, "more than 16384 bytes of data");
}

/* ---- the machine ---- */

static enum handshake_result
step_client_flags(struct handshake *handshake, const uint8_t *bytes, size_t count, size_t *consumed)
{
	struct option_data data = { .bytes = bytes, .left = count };
	uint32_t flags;

	if (!option_data_take_u32(&data, &flags))
		return HANDSHAKE_MORE;
	*consumed = sizeof(flags);
	if ((flags & ~(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)) != 0)
		return drop(handshake, "sent unknown client flags");
	handshake->no_zeroes = (flags & NBD_FLAG_NO_ZEROES) != 0;
	handshake->no_tls = (flags & NBD_FLAG_FIXED_NEWSTYLE) == 0;
	handshake->state = HANDSHAKE_STATE_OPTION;
	return HANDSHAKE_REPLY;
}

static enum handshake_result
step_option(struct handshake *handshake, const uint8_t *bytes, size_t count, size_t *consumed)
{
	struct nbd_wire_option wire;
	uint32_t option, data_bytes;
	struct option_data data;

	if (count < sizeof(wire))
		return HANDSHAKE_MORE;
	memcpy(&wire, bytes, sizeof(wire));
	option = be32toh(wire.option);
	data_bytes = be32toh(wire.data_bytes);
	if (be64toh(wire.magic) != NBD_OPTION_MAGIC)
		return drop(handshake, "sent something that is no NBD option");
	if (data_bytes > HANDSHAKE_DATA_BYTES_MAX) {
		if (option == NBD_OPT_EXPORT_NAME)
			return drop(handshake, "asked for an export with too long a name");
		*consumed = sizeof(wire);
		handshake->skip_option = option;
		handshake->skipped_bytes = data_bytes;
		handshake->skip_bytes = data_bytes;
		handshake->state = HANDSHAKE_STATE_SKIP;
		return HANDSHAKE_REPLY;
	}
	if (count - sizeof(wire) < data_bytes)
		return HANDSHAKE_MORE;
	*consumed = sizeof(wire) + data_bytes;
	data = (struct option_data){ .bytes = bytes + sizeof(wire), .left = data_bytes };
	return answer_option(handshake, option, data_bytes, data);
}

static enum handshake_result
step_skip(struct handshake *handshake, size_t count, size_t *consumed)
{
	*consumed = count < handshake->skip_bytes ? count : handshake->skip_bytes;
	handshake->skip_bytes -= (uint32_t)*consumed;
	if (handshake->skip_bytes > 0)
		return HANDSHAKE_MORE;
	handshake->state = HANDSHAKE_STATE_OPTION;
	return answer_option(handshake, handshake->skip_option, handshake->skipped_bytes,
			     (struct option_data){ .left = 0 });
}

enum handshake_result
handshake_step(struct handshake *handshake, const uint8_t *bytes, size_t count, size_t *consumed)
{
	enum handshake_result result = HANDSHAKE_DROP;

	*consumed = 0;
	handshake->refused = NULL;
	handshake->refused_name = NULL;
	switch (handshake->state) {
	case HANDSHAKE_STATE_CLIENT_FLAGS:
		result = step_client_flags(handshake, bytes, count, consumed);
		break;
	case HANDSHAKE_STATE_OPTION:
		result = step_option(handshake, bytes, count, consumed);
		break;
	case HANDSHAKE_STATE_SKIP:
		result = step_skip(handshake, count, consumed);
		break;
	case HANDSHAKE_STATE_LIST:
		result = step_list(handshake);
		break;
	}
	if (byte_buffer_failed(&handshake->reply))
		return drop(handshake, "could not be answered: out of memory");
	return result;
}
