/* Formatting replies to options.
 * Source: the protocol specification, section "Option reply types". */
#include "net/option_reply.h"

#include <string.h>

#include "net/nbd.h"

#define BLOCK_BYTES_PREFERRED 4096u

void
option_reply_add(struct byte_buffer *out, uint32_t option, uint32_t reply, uint32_t data_bytes)
{
	byte_buffer_add_u64(out, NBD_OPTION_REPLY_MAGIC);
	byte_buffer_add_u32(out, option);
	byte_buffer_add_u32(out, reply);
	byte_buffer_add_u32(out, data_bytes);
}

void
option_reply_ack(struct byte_buffer *out, uint32_t option)
{
	option_reply_add(out, option, NBD_REP_ACK, 0);
}

void
option_reply_error(struct byte_buffer *out, uint32_t option, uint32_t error, const char *message)
{
	option_reply_add(out, option, error, (uint32_t)strlen(message));
	byte_buffer_add(out, message, strlen(message));
}

void
option_reply_server(struct byte_buffer *out, const struct export *export)
{
	const char *description = export->description == NULL ? "" : export->description;
	size_t name_bytes = strlen(export->name);
	size_t description_bytes = strlen(description);

	option_reply_add(out, NBD_OPT_LIST, NBD_REP_SERVER,
			 (uint32_t)(sizeof(uint32_t) + name_bytes + description_bytes));
	byte_buffer_add_u32(out, (uint32_t)name_bytes);
	byte_buffer_add(out, export->name, name_bytes);
	byte_buffer_add(out, description, description_bytes);
}

void
option_reply_meta_context(struct byte_buffer *out, uint32_t option, uint32_t id, const char *name)
{
	option_reply_add(out, option, NBD_REP_META_CONTEXT, (uint32_t)(sizeof(id) + strlen(name)));
	byte_buffer_add_u32(out, id);
	byte_buffer_add(out, name, strlen(name));
}

void
option_reply_info_export(struct byte_buffer *out, uint32_t option,
			 const struct nbd_session *session)
{
	option_reply_add(out, option, NBD_REP_INFO, 12);
	byte_buffer_add_u16(out, NBD_INFO_EXPORT);
	byte_buffer_add_u64(out, session->size_bytes);
	byte_buffer_add_u16(out, session_flags(session));
}

static void
add_text(struct byte_buffer *out, uint32_t option, enum nbd_info info, const char *text)
{
	option_reply_add(out, option, NBD_REP_INFO, (uint32_t)(sizeof(uint16_t) + strlen(text)));
	byte_buffer_add_u16(out, (uint16_t)info);
	byte_buffer_add(out, text, strlen(text));
}

static void
add_block_size(struct byte_buffer *out, uint32_t option, const struct export *export)
{
	uint32_t preferred = export->volume->block_bytes;

	if (preferred < BLOCK_BYTES_PREFERRED)
		preferred = BLOCK_BYTES_PREFERRED;
	option_reply_add(out, option, NBD_REP_INFO, 14);
	byte_buffer_add_u16(out, NBD_INFO_BLOCK_SIZE);
	byte_buffer_add_u32(out, 1); /* any byte: see doc/decisions */
	byte_buffer_add_u32(out, preferred);
	byte_buffer_add_u32(out, EXPORT_PAYLOAD_BYTES_TOLD);
}

void
option_reply_info(struct byte_buffer *out, uint32_t option, uint16_t info,
		  const struct export *export)
{
	switch (info) {
	case NBD_INFO_NAME:
		add_text(out, option, NBD_INFO_NAME, export->name);
		break;
	case NBD_INFO_DESCRIPTION:
		if (export->description != NULL)
			add_text(out, option, NBD_INFO_DESCRIPTION, export->description);
		break;
	case NBD_INFO_BLOCK_SIZE:
		add_block_size(out, option, export);
		break;
	default:
		/* Told in any case (EXPORT), or unknown: ignored, as the specification wants. */
		break;
	}
}
