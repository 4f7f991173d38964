/* Parsing, validating and formatting of the transmission phase. */
#include "net/nbd_wire.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

int
nbd_header_parse(const uint8_t bytes[sizeof(struct nbd_wire_request)], struct nbd_header *header)
{
	struct nbd_wire_request wire;

	memcpy(&wire, bytes, sizeof(wire));
	if (be32toh(wire.magic) != NBD_REQUEST_MAGIC)
		return -EBADMSG;
	*header = (struct nbd_header){
		.flags = be16toh(wire.flags),
		.command = be16toh(wire.command),
		.cookie = be64toh(wire.cookie),
		.offset = be64toh(wire.offset),
		.length = be32toh(wire.length),
	};
	return 0;
}

static bool
is_within(const struct nbd_header *header, uint64_t size_bytes)
{
	return header->length <= size_bytes && header->offset <= size_bytes - header->length;
}

enum nbd_error
nbd_header_validate(const struct nbd_header *header, const struct export *export)
{
	uint64_t size_bytes = export->volume->size_bytes;

	/* FUA is legal on every command, also where it has no effect. */
	if ((header->flags & ~NBD_CMD_FLAG_FUA) != 0)
		return NBD_EINVAL;
	switch (header->command) {
	case NBD_CMD_READ:
		if (header->length == 0 || header->length > EXPORT_PAYLOAD_BYTES_MAX ||
		    !is_within(header, size_bytes))
			return NBD_EINVAL;
		return NBD_SUCCESS;
	case NBD_CMD_WRITE:
		if (export->read_only)
			return NBD_EPERM;
		if (header->length == 0 || header->length > EXPORT_PAYLOAD_BYTES_MAX)
			return NBD_EINVAL;
		return is_within(header, size_bytes) ? NBD_SUCCESS : NBD_ENOSPC;
	case NBD_CMD_FLUSH:
	case NBD_CMD_DISC:
		return NBD_SUCCESS;
	default:
		return NBD_EINVAL;
	}
}

enum nbd_error
nbd_error_from_errno(int error)
{
	switch (error) {
	case 0:
		return NBD_SUCCESS;
	case -EPERM:
	case -EROFS:
		return NBD_EPERM;
	case -ENOMEM:
		return NBD_ENOMEM;
	case -EINVAL:
		return NBD_EINVAL;
	case -ENOSPC:
	case -EDQUOT:
	case -EFBIG:
		return NBD_ENOSPC;
	default:
		return NBD_EIO;
	}
}

void
nbd_simple_reply_format(struct nbd_wire_simple_reply *reply, uint64_t cookie, enum nbd_error error)
{
	reply->magic = htobe32(NBD_SIMPLE_REPLY_MAGIC);
	reply->error = htobe32((uint32_t)error);
	reply->cookie = htobe64(cookie);
}
