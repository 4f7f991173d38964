/* Options and their answers.
 * Source: the protocol specification, sections "Fixed newstyle negotiation" and "Option types". */
#include "net/handshake.h"

#include <endian.h>
#include <string.h>

#include "net/nbd.h"

#define BLOCK_BYTES_PREFERRED 4096u

/* The data of one option, read from the front. */
struct option_data {
	const uint8_t *bytes;
	size_t left;
};

void
handshake_init(struct handshake *handshake, const struct export_table *exports)
{
	*handshake = (struct handshake){
		.exports = exports,
		.state = HANDSHAKE_STATE_CLIENT_FLAGS,
	};
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

static enum handshake_result
drop(struct handshake *handshake, const char *why)
{
	handshake->why = why;
	return HANDSHAKE_DROP;
}

/* ---- replies ---- */

static void
add_reply(struct handshake *handshake, uint32_t option, uint32_t reply, uint32_t data_bytes)
{
	byte_buffer_add_u64(&handshake->reply, NBD_OPTION_REPLY_MAGIC);
	byte_buffer_add_u32(&handshake->reply, option);
	byte_buffer_add_u32(&handshake->reply, reply);
	byte_buffer_add_u32(&handshake->reply, data_bytes);
}

static enum handshake_result
refuse(struct handshake *handshake, uint32_t option, uint32_t error, const char *message)
{
	add_reply(handshake, option, error, (uint32_t)strlen(message));
	byte_buffer_add(&handshake->reply, message, strlen(message));
	return HANDSHAKE_REPLY;
}

static void
add_info_text(struct handshake *handshake, uint32_t option, enum nbd_info info, const char *text)
{
	add_reply(handshake, option, NBD_REP_INFO, (uint32_t)(sizeof(uint16_t) + strlen(text)));
	byte_buffer_add_u16(&handshake->reply, (uint16_t)info);
	byte_buffer_add(&handshake->reply, text, strlen(text));
}

static void
add_info_export(struct handshake *handshake, uint32_t option, const struct export *export)
{
	add_reply(handshake, option, NBD_REP_INFO, 12);
	byte_buffer_add_u16(&handshake->reply, NBD_INFO_EXPORT);
	byte_buffer_add_u64(&handshake->reply, export->volume->size_bytes);
	byte_buffer_add_u16(&handshake->reply, export_flags(export));
}

static void
add_info_block_size(struct handshake *handshake, uint32_t option, const struct export *export)
{
	uint32_t preferred = export->volume->block_bytes;

	if (preferred < BLOCK_BYTES_PREFERRED)
		preferred = BLOCK_BYTES_PREFERRED;
	add_reply(handshake, option, NBD_REP_INFO, 14);
	byte_buffer_add_u16(&handshake->reply, NBD_INFO_BLOCK_SIZE);
	byte_buffer_add_u32(&handshake->reply, 1); /* any byte: see doc/decisions */
	byte_buffer_add_u32(&handshake->reply, preferred);
	byte_buffer_add_u32(&handshake->reply, EXPORT_PAYLOAD_BYTES_MAX);
}

static void
add_info(struct handshake *handshake, uint32_t option, uint16_t info, const struct export *export)
{
	switch (info) {
	case NBD_INFO_NAME:
		add_info_text(handshake, option, NBD_INFO_NAME, export->name);
		break;
	case NBD_INFO_DESCRIPTION:
		if (export->description != NULL)
			add_info_text(handshake, option, NBD_INFO_DESCRIPTION, export->description);
		break;
	case NBD_INFO_BLOCK_SIZE:
		add_info_block_size(handshake, option, export);
		break;
	default:
		/* Told in any case (EXPORT), or unknown: ignored, as the specification wants. */
		break;
	}
}

/* ---- taking option data apart ---- */

static bool
take_u16(struct option_data *data, uint16_t *value)
{
	uint16_t wire;

	if (data->left < sizeof(wire))
		return false;
	memcpy(&wire, data->bytes, sizeof(wire));
	*value = be16toh(wire);
	data->bytes += sizeof(wire);
	data->left -= sizeof(wire);
	return true;
}

static bool
take_u32(struct option_data *data, uint32_t *value)
{
	uint32_t wire;

	if (data->left < sizeof(wire))
		return false;
	memcpy(&wire, data->bytes, sizeof(wire));
	*value = be32toh(wire);
	data->bytes += sizeof(wire);
	data->left -= sizeof(wire);
	return true;
}

static bool
take_bytes(struct option_data *data, size_t count, const uint8_t **bytes)
{
	if (data->left < count)
		return false;
	*bytes = data->bytes;
	data->bytes += count;
	data->left -= count;
	return true;
}

/* ---- options ---- */

/* The export of that name, as this client sees it.  One that it may not use does not exist for it: NULL. */
static const struct export *
find_export(struct handshake *handshake, const uint8_t *name, size_t name_bytes)
{
	const struct export *export =
		export_find(handshake->exports, (const char *)name, name_bytes);
	const struct export *view = export == NULL ? NULL : export_view(export, &handshake->peer);

	handshake->denied = view == NULL ? export : NULL;
	return view;
}

static enum handshake_result
answer_export_name(struct handshake *handshake, struct option_data data)
{
	handshake->export = find_export(handshake, data.bytes, data.left);
	if (handshake->export == NULL)
		return drop(handshake, "asked for an export that does not exist (EXPORT_NAME)");
	byte_buffer_add_u64(&handshake->reply, handshake->export->volume->size_bytes);
	byte_buffer_add_u16(&handshake->reply, export_flags(handshake->export));
	if (!handshake->no_zeroes)
		byte_buffer_add_zeros(&handshake->reply, NBD_EXPORT_NAME_PAD_BYTES);
	return HANDSHAKE_TRANSMISSION;
}

static enum handshake_result
answer_list(struct handshake *handshake, struct option_data data)
{
	if (data.left > 0)
		return refuse(handshake, NBD_OPT_LIST, NBD_REP_ERR_INVALID, "LIST takes no data");
	for (size_t i = 0; i < handshake->exports->count; i++) {
		const struct export *export = &handshake->exports->exports[i];
		const char *description = export->description == NULL ? "" : export->description;
		size_t name_bytes = strlen(export->name);
		size_t description_bytes = strlen(description);

		if (export_view(export, &handshake->peer) == NULL)
			continue;
		add_reply(handshake, NBD_OPT_LIST, NBD_REP_SERVER,
			  (uint32_t)(sizeof(uint32_t) + name_bytes + description_bytes));
		byte_buffer_add_u32(&handshake->reply, (uint32_t)name_bytes);
		byte_buffer_add(&handshake->reply, export->name, name_bytes);
		byte_buffer_add(&handshake->reply, description, description_bytes);
	}
	add_reply(handshake, NBD_OPT_LIST, NBD_REP_ACK, 0);
	return HANDSHAKE_REPLY;
}

/* INFO and GO: the name's length, the name, the number of infos, the infos. */
static enum handshake_result
answer_info(struct handshake *handshake, uint32_t option, struct option_data data)
{
	const struct export *export;
	const uint8_t *name;
	uint32_t name_bytes;
	uint16_t info, info_count;

	if (!take_u32(&data, &name_bytes) || !take_bytes(&data, name_bytes, &name) ||
	    !take_u16(&data, &info_count) || data.left != info_count * sizeof(uint16_t))
		return refuse(handshake, option, NBD_REP_ERR_INVALID, "the lengths do not add up");
	if (name_bytes > NBD_STRING_BYTES_MAX)
		return refuse(handshake, option, NBD_REP_ERR_TOO_BIG,
			      "a name has at most 4096 bytes");
	export = find_export(handshake, name, name_bytes);
	if (export == NULL)
		return refuse(handshake, option, NBD_REP_ERR_UNKNOWN, "no export of that name");
	add_info_export(handshake, option, export);
	while (take_u16(&data, &info))
		add_info(handshake, option, info, export);
	add_reply(handshake, option, NBD_REP_ACK, 0);
	if (option == NBD_OPT_INFO)
		return HANDSHAKE_REPLY;
	handshake->export = export;
	return HANDSHAKE_TRANSMISSION;
}

static enum handshake_result
answer_option(struct handshake *handshake, uint32_t option, struct option_data data)
{
	switch (option) {
	case NBD_OPT_EXPORT_NAME:
		return answer_export_name(handshake, data);
	case NBD_OPT_ABORT:
		add_reply(handshake, option, NBD_REP_ACK, 0);
		return HANDSHAKE_CLOSE;
	case NBD_OPT_LIST:
		return answer_list(handshake, data);
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		return answer_info(handshake, option, data);
	default:
		return refuse(handshake, option, NBD_REP_ERR_UNSUP, "this option is not supported");
	}
}

/* ---- the machine ---- */

static enum handshake_result
step_client_flags(struct handshake *handshake, const uint8_t *bytes, size_t count, size_t *consumed)
{
	struct option_data data = { .bytes = bytes, .left = count };
	uint32_t flags;

	if (!take_u32(&data, &flags))
		return HANDSHAKE_MORE;
	*consumed = sizeof(flags);
	if ((flags & ~(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)) != 0)
		return drop(handshake, "sent unknown client flags");
	handshake->no_zeroes = (flags & NBD_FLAG_NO_ZEROES) != 0;
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
		handshake->skip_bytes = data_bytes;
		handshake->state = HANDSHAKE_STATE_SKIP;
		return HANDSHAKE_REPLY;
	}
	if (count - sizeof(wire) < data_bytes)
		return HANDSHAKE_MORE;
	*consumed = sizeof(wire) + data_bytes;
	data = (struct option_data){ .bytes = bytes + sizeof(wire), .left = data_bytes };
	return answer_option(handshake, option, data);
}

static enum handshake_result
step_skip(struct handshake *handshake, size_t count, size_t *consumed)
{
	*consumed = count < handshake->skip_bytes ? count : (size_t)handshake->skip_bytes;
	handshake->skip_bytes -= *consumed;
	if (handshake->skip_bytes > 0)
		return HANDSHAKE_MORE;
	handshake->state = HANDSHAKE_STATE_OPTION;
	switch (handshake->skip_option) {
	case NBD_OPT_ABORT:
		add_reply(handshake, NBD_OPT_ABORT, NBD_REP_ACK, 0);
		return HANDSHAKE_CLOSE;
	case NBD_OPT_LIST:
		return refuse(handshake, NBD_OPT_LIST, NBD_REP_ERR_INVALID, "LIST takes no data");
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		return refuse(handshake, handshake->skip_option, NBD_REP_ERR_TOO_BIG,
			      "more than 8192 bytes of data");
	default:
		return refuse(handshake, handshake->skip_option, NBD_REP_ERR_UNSUP,
			      "this option is not supported");
	}
}

enum handshake_result
handshake_step(struct handshake *handshake, const uint8_t *bytes, size_t count, size_t *consumed)
{
	enum handshake_result result = HANDSHAKE_DROP;

	*consumed = 0;
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
	}
	if (byte_buffer_failed(&handshake->reply))
		return drop(handshake, "could not be answered: out of memory");
	return result;
}
