/* A head is read when all of it is there, so that nothing has to be remembered in between. */
#include "bench/load/wire.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#define CHUNK_IS_ERROR (1u << 15)

/* Behind the header of a chunk. */
#define DATA_HEAD_BYTES	 8u  /* offset */
#define HOLE_HEAD_BYTES	 12u /* offset, length */
#define ERROR_HEAD_BYTES 6u  /* error, length of the message */

/* A chunk's header, of either size. */
struct chunk {
	unsigned header_bytes;
	uint16_t type;
	uint64_t payload_bytes;
};

/* ---- requests ---- */

size_t
wire_put_request(uint8_t *out, enum nbd_style style, const struct nbd_header *request)
{
	struct nbd_wire_extended_request extended;
	struct nbd_wire_request header = {
		.magic = htobe32(NBD_REQUEST_MAGIC),
		.flags = htobe16(request->flags),
		.command = htobe16(request->command),
		.cookie = htobe64(request->cookie),
		.offset = htobe64(request->offset),
		.length = htobe32((uint32_t)request->length),
	};

	if (style != NBD_STYLE_EXTENDED) {
		memcpy(out, &header, sizeof(header));
		return sizeof(header);
	}
	extended = (struct nbd_wire_extended_request){
		.magic = htobe32(NBD_EXTENDED_REQUEST_MAGIC),
		.flags = header.flags,
		.command = header.command,
		.cookie = header.cookie,
		.offset = header.offset,
		.length = htobe64(request->length),
	};
	if (request->command == NBD_CMD_WRITE)
		extended.flags |= htobe16(NBD_CMD_FLAG_PAYLOAD_LEN);
	memcpy(out, &extended, sizeof(extended));
	return sizeof(extended);
}

/* ---- replies ---- */

static int
wrong(const char **why, const char *text)
{
	*why = text;
	return -EBADMSG;
}

static uint64_t
get64(const uint8_t *bytes)
{
	uint64_t value;

	memcpy(&value, bytes, sizeof(value));
	return be64toh(value);
}

static uint32_t
get32(const uint8_t *bytes)
{
	uint32_t value;

	memcpy(&value, bytes, sizeof(value));
	return be32toh(value);
}

static uint16_t
get16(const uint8_t *bytes)
{
	uint16_t value;

	memcpy(&value, bytes, sizeof(value));
	return be16toh(value);
}

static int
parse_simple(const uint8_t *bytes, size_t count, struct wire_reply *reply)
{
	struct nbd_wire_simple_reply wire;

	if (count < sizeof(wire))
		return 0;
	memcpy(&wire, bytes, sizeof(wire));
	reply->kind = WIRE_KIND_SIMPLE;
	reply->last = true;
	reply->error = be32toh(wire.error);
	reply->cookie = be64toh(wire.cookie);
	return sizeof(wire);
}

/* Read the header of a chunk, which is all there, of either style; they begin alike. */
static struct chunk
parse_header(enum nbd_style style, const uint8_t *bytes, struct wire_reply *reply)
{
	struct nbd_wire_chunk wire;
	struct chunk chunk = { .header_bytes = sizeof(wire) };

	memcpy(&wire, bytes, sizeof(wire));
	chunk.type = be16toh(wire.type);
	chunk.payload_bytes = be32toh(wire.payload_bytes);
	if (style == NBD_STYLE_EXTENDED) {
		struct nbd_wire_extended_chunk extended;

		memcpy(&extended, bytes, sizeof(extended));
		chunk.header_bytes = sizeof(extended);
		chunk.payload_bytes = be64toh(extended.payload_bytes);
	}
	reply->cookie = be64toh(wire.cookie);
	reply->last = (be16toh(wire.flags) & NBD_REPLY_FLAG_DONE) != 0;
	return chunk;
}

/* How many bytes of the payload belong to the head; or -EBADMSG. */
static int
head_payload_bytes(const struct chunk *chunk, const char **why)
{
	switch (chunk->type) {
	case NBD_CHUNK_NONE:
		if (chunk->payload_bytes != 0)
			return wrong(why, "the server sent a chunk of no type with a payload");
		return 0;
	case NBD_CHUNK_OFFSET_DATA:
		if (chunk->payload_bytes <= DATA_HEAD_BYTES || chunk->payload_bytes > UINT32_MAX)
			return wrong(why, "the server sent a chunk of data without any");
		return DATA_HEAD_BYTES;
	case NBD_CHUNK_OFFSET_HOLE:
		if (chunk->payload_bytes != HOLE_HEAD_BYTES)
			return wrong(why, "the server sent a hole of the wrong form");
		return HOLE_HEAD_BYTES;
	default:
		if ((chunk->type & CHUNK_IS_ERROR) == 0)
			return wrong(why, "the server sent a chunk that was not asked for");
		if (chunk->payload_bytes < ERROR_HEAD_BYTES ||
		    chunk->payload_bytes > WIRE_REPLY_HEAD_BYTES_MAX - chunk->header_bytes)
			return wrong(why, "the server sent an error of the wrong length");
		return (int)chunk->payload_bytes;
	}
}

static int
parse_payload(const struct chunk *chunk, const uint8_t *payload, struct wire_reply *reply,
	      const char **why)
{
	switch (chunk->type) {
	case NBD_CHUNK_NONE:
		reply->kind = WIRE_KIND_END;
		if (!reply->last)
			return wrong(why,
				     "the server sent a chunk of no type that is not the last");
		return 0;
	case NBD_CHUNK_OFFSET_DATA:
		reply->kind = WIRE_KIND_DATA;
		reply->offset = get64(payload);
		reply->length = (uint32_t)chunk->payload_bytes - DATA_HEAD_BYTES;
		return 0;
	case NBD_CHUNK_OFFSET_HOLE:
		reply->kind = WIRE_KIND_HOLE;
		reply->offset = get64(payload);
		reply->length = get32(payload + 8);
		if (reply->length == 0)
			return wrong(why, "the server sent a hole of no length");
		return 0;
	default:
		/* All begin alike; what is behind the message is of no use here. */
		reply->kind = WIRE_KIND_ERROR;
		reply->error = get32(payload);
		reply->message = (const char *)payload + ERROR_HEAD_BYTES;
		reply->message_bytes = get16(payload + 4);
		if (reply->error == 0 ||
		    reply->message_bytes > chunk->payload_bytes - ERROR_HEAD_BYTES)
			return wrong(why, "the server sent an error of the wrong form");
		return 0;
	}
}

int
wire_parse_reply(enum nbd_style style, const uint8_t *bytes, size_t count, struct wire_reply *reply,
		 const char **why)
{
	uint32_t magic;
	struct chunk chunk;
	int more;

	if (count < sizeof(struct nbd_wire_simple_reply))
		return 0;
	magic = get32(bytes);
	if (magic == NBD_SIMPLE_REPLY_MAGIC && style != NBD_STYLE_EXTENDED)
		return parse_simple(bytes, count, reply);
	if (style == NBD_STYLE_SIMPLE)
		return wrong(why, "the server sent something that is no simple reply");
	if (magic !=
	    (style == NBD_STYLE_EXTENDED ? NBD_EXTENDED_REPLY_MAGIC : NBD_STRUCTURED_REPLY_MAGIC))
		return wrong(why, "the server sent something that is no reply");
	if (count < (style == NBD_STYLE_EXTENDED ? sizeof(struct nbd_wire_extended_chunk)
						 : sizeof(struct nbd_wire_chunk)))
		return 0;
	chunk = parse_header(style, bytes, reply);
	more = head_payload_bytes(&chunk, why);
	if (more < 0)
		return more;
	if (count < chunk.header_bytes + (size_t)more)
		return 0;
	if (parse_payload(&chunk, bytes + chunk.header_bytes, reply, why) < 0)
		return -EBADMSG;
	return (int)chunk.header_bytes + more;
}
