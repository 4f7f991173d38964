/* Parsing and validating of the transmission phase.
 * Source: the protocol specification, sections "Request message", "Command flags" and "Request types". */
#include "net/nbd_wire.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

/* What is special about a command. */
struct command {
	const char *name;
	uint16_t flags;	 /* that it may have, beside FUA, which is legal on every command */
	bool has_range;	 /* offset and length say what it is about */
	bool is_limited; /* to EXPORT_PAYLOAD_BYTES_MAX */
	bool writes;
	enum nbd_error beyond; /* the export's end */
};

static const struct command commands[] = {
	[NBD_CMD_READ] = { .name = "READ",
			   .flags = NBD_CMD_FLAG_DF,
			   .has_range = true,
			   .is_limited = true,
			   .beyond = NBD_EINVAL },
	[NBD_CMD_WRITE] = { .name = "WRITE",
			    .flags = NBD_CMD_FLAG_PAYLOAD_LEN,
			    .has_range = true,
			    .is_limited = true,
			    .writes = true,
			    .beyond = NBD_ENOSPC },
	[NBD_CMD_DISC] = { .name = "DISC" },
	[NBD_CMD_FLUSH] = { .name = "FLUSH" },
	[NBD_CMD_TRIM] = { .name = "TRIM",
			   .has_range = true,
			   .writes = true,
			   .beyond = NBD_EINVAL },
	[NBD_CMD_CACHE] = { .name = "CACHE", .has_range = true, .beyond = NBD_EINVAL },
	[NBD_CMD_WRITE_ZEROES] = { .name = "WRITE_ZEROES",
				   .flags = NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO,
				   .has_range = true,
				   .writes = true,
				   .beyond = NBD_ENOSPC },
	[NBD_CMD_BLOCK_STATUS] = { .name = "BLOCK_STATUS",
				   .flags = NBD_CMD_FLAG_REQ_ONE,
				   .has_range = true,
				   .beyond = NBD_EINVAL },
};

int
nbd_header_parse(const uint8_t *bytes, enum nbd_style style, struct nbd_header *header)
{
	bool extended = style == NBD_STYLE_EXTENDED;
	/* But for the length, which ends it, they are the same. */
	struct nbd_wire_request wire;
	uint64_t length;

	memcpy(&wire, bytes, sizeof(wire));
	if (be32toh(wire.magic) != (extended ? NBD_EXTENDED_REQUEST_MAGIC : NBD_REQUEST_MAGIC))
		return -EBADMSG;
	length = be32toh(wire.length);
	if (extended) {
		memcpy(&length, bytes + offsetof(struct nbd_wire_extended_request, length),
		       sizeof(length));
		length = be64toh(length);
	}
	*header = (struct nbd_header){
		.flags = be16toh(wire.flags),
		.command = be16toh(wire.command),
		.cookie = be64toh(wire.cookie),
		.offset = be64toh(wire.offset),
		.length = length,
	};
	return 0;
}

uint64_t
nbd_header_payload_bytes(const struct nbd_header *header, enum nbd_style style)
{
	bool announced =
		style == NBD_STYLE_EXTENDED && (header->flags & NBD_CMD_FLAG_PAYLOAD_LEN) != 0;
	/* A WRITE always sends what is to be written.  With extended headers it must say so, but a client that forgets the flag works with
	 * QEMU; and if its bytes were taken for requests, those who write through it could make some of their own.
	 * Source: the specification's branch extension-ext-header, "Command flags", bit 5; QEMU's nbd/server.c. */
	bool follows = announced || header->command == NBD_CMD_WRITE;

	return follows ? header->length : 0;
}

static enum nbd_error
refuse(enum nbd_error error, const char *text, const char **why)
{
	*why = text;
	return error;
}

static bool
is_within(const struct nbd_header *header, uint64_t size_bytes)
{
	return header->length <= size_bytes && header->offset <= size_bytes - header->length;
}

/* The flags beside FUA that HEADER's command may have in SESSION. */
static unsigned
allowed_flags(const struct nbd_header *header, const struct nbd_session *session)
{
	unsigned flags = commands[header->command].flags | NBD_CMD_FLAG_FUA;

	if (session->style == NBD_STYLE_SIMPLE)
		flags &= ~NBD_CMD_FLAG_DF;
	if (session->style != NBD_STYLE_EXTENDED)
		flags &= ~NBD_CMD_FLAG_PAYLOAD_LEN;
	return flags;
}

/* What to say of HEADER's flags, which are not allowed.  The flag of a payload is still there where that is no struct
 * nbd_wire_status_payload: more contexts than there are to choose from, or none. */
static const char *
refused_flags(const struct nbd_header *header, const struct nbd_session *session)
{
	unsigned flags = header->flags & ~allowed_flags(header, session);

	if (session->style == NBD_STYLE_EXTENDED && header->command == NBD_CMD_BLOCK_STATUS &&
	    flags == NBD_CMD_FLAG_PAYLOAD_LEN)
		return "a payload that is not a length and one context";
	return "a flag that is not valid for this command";
}

/* Whether SESSION knows the command at all. */
static bool
is_offered(const struct nbd_header *header, const struct nbd_session *session)
{
	switch (header->command) {
	case NBD_CMD_TRIM:
		return (session_flags(session) & NBD_FLAG_SEND_TRIM) != 0;
	case NBD_CMD_BLOCK_STATUS:
		return session->allocation;
	default:
		return header->command < ARRAY_COUNT(commands);
	}
}

static enum nbd_error
validate_range(const struct nbd_header *header, const struct nbd_session *session, const char **why)
{
	const struct command *command = &commands[header->command];

	if (header->length == 0)
		return refuse(NBD_EINVAL, "a length of 0", why);
	if (command->is_limited && header->length > EXPORT_PAYLOAD_BYTES_MAX)
		return refuse(NBD_EINVAL, "more than 64 MiB", why);
	if ((header->flags & NBD_CMD_FLAG_DF) != 0 && header->length > EXPORT_PAYLOAD_BYTES_TOLD)
		return refuse(NBD_EOVERFLOW, "more than 32 MiB in one chunk", why);
	if (!is_within(header, session->size_bytes))
		return refuse(command->beyond, "beyond the end of the export", why);
	return NBD_SUCCESS;
}

enum nbd_error
nbd_header_validate(const struct nbd_header *header, const struct nbd_session *session,
		    const char **why)
{
	if (header->command >= ARRAY_COUNT(commands))
		return refuse(NBD_EINVAL, "a command that is not known", why);
	if (commands[header->command].writes && session->export->read_only)
		return refuse(NBD_EPERM, "the export is read-only", why);
	if (!is_offered(header, session))
		return refuse(NBD_EINVAL, "a command that was not offered, or not negotiated", why);
	if ((header->flags & ~allowed_flags(header, session)) != 0)
		return refuse(NBD_EINVAL, refused_flags(header, session), why);
	return commands[header->command].has_range ? validate_range(header, session, why)
						   : NBD_SUCCESS;
}

bool
nbd_header_has_status_payload(const struct nbd_header *header, enum nbd_style style)
{
	return header->command == NBD_CMD_BLOCK_STATUS &&
	       nbd_header_payload_bytes(header, style) == sizeof(struct nbd_wire_status_payload);
}

enum nbd_error
nbd_status_payload_parse(const uint8_t payload[sizeof(struct nbd_wire_status_payload)],
			 struct nbd_header *header, const char **why)
{
	struct nbd_wire_status_payload wire;

	memcpy(&wire, payload, sizeof(wire));
	header->flags &= (uint16_t)~NBD_CMD_FLAG_PAYLOAD_LEN;
	header->length = be64toh(wire.length);
	if (be32toh(wire.context) != NBD_CONTEXT_ALLOCATION_ID)
		return refuse(NBD_EINVAL, "a context that was not negotiated", why);
	return NBD_SUCCESS;
}

const char *
nbd_command_name(uint16_t command)
{
	return command < ARRAY_COUNT(commands) ? commands[command].name : "unknown command";
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
	case -EINVAL:
		return NBD_EINVAL;
	case -ENOSPC:
	case -EDQUOT:
	case -EFBIG:
		return NBD_ENOSPC;
	default:
		/* -ENOMEM and -EOPNOTSUPP, too: the specification does not want them told. */
		return NBD_EIO;
	}
}
