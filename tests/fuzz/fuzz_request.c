/* A request's header in each style: what validation lets through is what the rest of the server relies on. */
#include <string.h>

#include "net/nbd_wire.h"
#include "net/session.h"
#include "tests/fuzz/fuzz.h"

static struct volume volume = { .size_bytes = (5ull << 32) + 12345, .block_bytes = 4096 };
static const struct export writable = { .name = "a", .volume = &volume };
static const struct export read_only = { .name = "b", .volume = &volume, .read_only = true };

/* HEADER was let through. */
static void
check_valid(const struct nbd_header *header, const struct nbd_session *session)
{
	uint64_t size_bytes = session->size_bytes;

	FUZZ_CHECK(header->command <= NBD_CMD_BLOCK_STATUS);
	if (header->command == NBD_CMD_FLUSH || header->command == NBD_CMD_DISC)
		return;
	FUZZ_CHECK(header->length > 0);
	FUZZ_CHECK(header->length <= size_bytes && header->offset <= size_bytes - header->length);
	if (header->command == NBD_CMD_READ || header->command == NBD_CMD_WRITE)
		FUZZ_CHECK(header->length <= EXPORT_PAYLOAD_BYTES_MAX);
	if (header->command == NBD_CMD_WRITE || header->command == NBD_CMD_TRIM ||
	    header->command == NBD_CMD_WRITE_ZEROES)
		FUZZ_CHECK(!session->export->read_only);
	if (header->command == NBD_CMD_BLOCK_STATUS)
		FUZZ_CHECK(session->allocation && session->style != NBD_STYLE_SIMPLE);
	if (session->style != NBD_STYLE_EXTENDED)
		FUZZ_CHECK((header->flags & NBD_CMD_FLAG_PAYLOAD_LEN) == 0);
	else if (header->command == NBD_CMD_WRITE)
		FUZZ_CHECK(nbd_header_payload_bytes(header, session->style) == header->length);
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	/* It has grown since the client was told. */
	struct nbd_session session = { .export = &writable,
				       .size_bytes = volume.size_bytes - 4096 };
	struct nbd_header header;
	const char *why = NULL;
	enum nbd_error error;

	if (count < 1 + sizeof(struct nbd_wire_extended_request))
		return 0;
	if ((bytes[0] & 4) != 0)
		session.export = &read_only;
	session.style = (enum nbd_style)(bytes[0] % 4 % 3);
	session.allocation = (bytes[0] & 8) != 0 && session.style != NBD_STYLE_SIMPLE;
	if (nbd_header_parse(bytes + 1, session.style, &header) != 0)
		return 0;
	if (nbd_header_has_status_payload(&header, session.style) &&
	    count >= 1 + sizeof(struct nbd_wire_extended_request) +
			     sizeof(struct nbd_wire_status_payload) &&
	    nbd_status_payload_parse(bytes + 1 + sizeof(struct nbd_wire_extended_request), &header,
				     &why) != NBD_SUCCESS) {
		FUZZ_CHECK(why != NULL);
		return 0;
	}
	error = nbd_header_validate(&header, &session, &why);
	if (error == NBD_SUCCESS)
		check_valid(&header, &session);
	else
		FUZZ_CHECK(why != NULL);
	return 0;
}
