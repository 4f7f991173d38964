/* Formatting replies.
 * Source: the protocol specification, sections "Simple reply message", "Structured reply chunk message", "Structured reply types";
 * and "Extended reply chunk message" of its branch extension-ext-header. */
#include "net/nbd_reply.h"

#include <endian.h>
#include <string.h>

_Static_assert(VOLUME_EXTENT_HOLE == NBD_STATE_HOLE && VOLUME_EXTENT_ZERO == NBD_STATE_ZERO,
	       "told as they are");
_Static_assert(sizeof(struct volume_extent) >= sizeof(struct nbd_wire_extended_extent),
	       "descriptors take the place of extents");
_Static_assert(sizeof(struct nbd_wire_extended_chunk) + 6 + NBD_REPLY_MESSAGE_BYTES_MAX + 8 <=
		       NBD_REPLY_BYTES_MAX,
	       "the longest reply fits");

static uint8_t *
put_u16(uint8_t *out, uint16_t value)
{
	value = htobe16(value);
	memcpy(out, &value, sizeof(value));
	return out + sizeof(value);
}

static uint8_t *
put_u32(uint8_t *out, uint32_t value)
{
	value = htobe32(value);
	memcpy(out, &value, sizeof(value));
	return out + sizeof(value);
}

static uint8_t *
put_u64(uint8_t *out, uint64_t value)
{
	value = htobe64(value);
	memcpy(out, &value, sizeof(value));
	return out + sizeof(value);
}

static uint8_t *
put_simple(uint8_t *out, const struct nbd_header *header, enum nbd_error error)
{
	struct nbd_wire_simple_reply wire = {
		.magic = htobe32(NBD_SIMPLE_REPLY_MAGIC),
		.error = htobe32((uint32_t)error),
		.cookie = htobe64(header->cookie),
	};

	memcpy(out, &wire, sizeof(wire));
	return out + sizeof(wire);
}

/* The header of a chunk, structured or extended. */
static uint8_t *
put_chunk(uint8_t *out, enum nbd_style style, const struct nbd_header *header, enum nbd_chunk type,
	  uint32_t payload_bytes, bool last)
{
	uint16_t flags = htobe16(last ? NBD_REPLY_FLAG_DONE : 0);

	if (style == NBD_STYLE_EXTENDED) {
		struct nbd_wire_extended_chunk wire = {
			.magic = htobe32(NBD_EXTENDED_REPLY_MAGIC),
			.flags = flags,
			.type = htobe16((uint16_t)type),
			.cookie = htobe64(header->cookie),
			.offset = htobe64(header->offset),
			.payload_bytes = htobe64(payload_bytes),
		};

		memcpy(out, &wire, sizeof(wire));
		return out + sizeof(wire);
	} else {
		struct nbd_wire_chunk wire = {
			.magic = htobe32(NBD_STRUCTURED_REPLY_MAGIC),
			.flags = flags,
			.type = htobe16((uint16_t)type),
			.cookie = htobe64(header->cookie),
			.payload_bytes = htobe32(payload_bytes),
		};

		memcpy(out, &wire, sizeof(wire));
		return out + sizeof(wire);
	}
}

unsigned
nbd_reply_done(uint8_t *out, enum nbd_style style, const struct nbd_header *header)
{
	if (style == NBD_STYLE_SIMPLE)
		return (unsigned)(put_simple(out, header, NBD_SUCCESS) - out);
	return (unsigned)(put_chunk(out, style, header, NBD_CHUNK_NONE, 0, true) - out);
}

static uint8_t *
put_error(uint8_t *out, enum nbd_style style, const struct nbd_header *header, enum nbd_chunk type,
	  enum nbd_error error, const char *message, uint32_t more_bytes)
{
	size_t message_bytes = strnlen(message, NBD_REPLY_MESSAGE_BYTES_MAX);

	out = put_chunk(out, style, header, type, 6 + (uint32_t)message_bytes + more_bytes, true);
	out = put_u32(out, (uint32_t)error);
	out = put_u16(out, (uint16_t)message_bytes);
	memcpy(out, message, message_bytes);
	return out + message_bytes;
}

unsigned
nbd_reply_error(uint8_t *out, enum nbd_style style, const struct nbd_header *header,
		enum nbd_error error, const char *message)
{
	if (style == NBD_STYLE_SIMPLE)
		return (unsigned)(put_simple(out, header, error) - out);
	return (unsigned)(put_error(out, style, header, NBD_CHUNK_ERROR, error, message, 0) - out);
}

unsigned
nbd_reply_error_at(uint8_t *out, enum nbd_style style, const struct nbd_header *header,
		   enum nbd_error error, uint64_t offset, const char *message)
{
	uint8_t *end;

	if (style == NBD_STYLE_SIMPLE)
		return nbd_reply_error(out, style, header, error, message);
	end = put_error(out, style, header, NBD_CHUNK_ERROR_OFFSET, error, message, sizeof(offset));
	return (unsigned)(put_u64(end, offset) - out);
}

unsigned
nbd_reply_data(uint8_t *out, enum nbd_style style, const struct nbd_header *header, uint64_t offset,
	       uint32_t length, bool last)
{
	uint8_t *end;

	if (style == NBD_STYLE_SIMPLE)
		return (unsigned)(put_simple(out, header, NBD_SUCCESS) - out);
	end = put_chunk(out, style, header, NBD_CHUNK_OFFSET_DATA,
			(uint32_t)sizeof(offset) + length, last);
	return (unsigned)(put_u64(end, offset) - out);
}

unsigned
nbd_reply_hole(uint8_t *out, enum nbd_style style, const struct nbd_header *header, uint64_t offset,
	       uint32_t length, bool last)
{
	uint8_t *end = put_chunk(out, style, header, NBD_CHUNK_OFFSET_HOLE,
				 sizeof(offset) + sizeof(length), last);

	end = put_u64(end, offset);
	return (unsigned)(put_u32(end, length) - out);
}

unsigned
nbd_reply_status(uint8_t *out, enum nbd_style style, const struct nbd_header *header,
		 uint32_t count)
{
	uint8_t *end;

	if (style == NBD_STYLE_EXTENDED) {
		end = put_chunk(out, style, header, NBD_CHUNK_BLOCK_STATUS_EXT,
				8 + count * (uint32_t)sizeof(struct nbd_wire_extended_extent),
				true);
		end = put_u32(end, NBD_CONTEXT_ALLOCATION_ID);
		return (unsigned)(put_u32(end, count) - out);
	}
	end = put_chunk(out, style, header, NBD_CHUNK_BLOCK_STATUS,
			4 + count * (uint32_t)sizeof(struct nbd_wire_extent), true);
	return (unsigned)(put_u32(end, NBD_CONTEXT_ALLOCATION_ID) - out);
}

size_t
nbd_reply_descriptors(struct volume_extent *extents, uint32_t count, enum nbd_style style)
{
	uint8_t *out = (uint8_t *)extents;

	/* A descriptor ends before the next extent begins. */
	for (uint32_t i = 0; i < count; i++) {
		struct volume_extent extent = extents[i];

		if (style == NBD_STYLE_EXTENDED) {
			out = put_u64(out, extent.length);
			out = put_u64(out, extent.flags);
		} else {
			out = put_u32(out, (uint32_t)extent.length);
			out = put_u32(out, extent.flags);
		}
	}
	return (size_t)(out - (uint8_t *)extents);
}
