/* Turning bytes from the wire into checked values.  Pure functions.
 * Everything that a client sends in the transmission phase is validated here and nowhere else. */
#ifndef NET_NBD_WIRE_H
#define NET_NBD_WIRE_H

#include "net/nbd.h"
#include "net/session.h"
#include "reactor/check.h"
#include <stdint.h>

/* A request's header in host order. */
struct nbd_header {
	uint16_t flags;
	uint16_t command; /* enum nbd_command, or a value that no one knows */
	uint64_t cookie;
	uint64_t offset;
	uint64_t length;
};

/* How many bytes a header has in a session of STYLE. */
static inline size_t
nbd_header_bytes(enum nbd_style style)
{
	return style == NBD_STYLE_EXTENDED ? sizeof(struct nbd_wire_extended_request)
					   : sizeof(struct nbd_wire_request);
}

/* Read a header of nbd_header_bytes(STYLE).  Returns 0, or -EBADMSG if the magic is wrong: then nothing that follows can be
 * trusted. */
int nbd_header_parse(const uint8_t *bytes, enum nbd_style style,
		     struct nbd_header *header) MUST_USE;

/* How many bytes of payload follow HEADER, whether it is valid or not. */
uint64_t nbd_header_payload_bytes(const struct nbd_header *header, enum nbd_style style);

/* May a client of SESSION ask for this?  NBD_SUCCESS, or the error to answer with; then *why (static text) is for a person. */
enum nbd_error nbd_header_validate(const struct nbd_header *header,
				   const struct nbd_session *session, const char **why);

/* HEADER is a BLOCK_STATUS with a PAYLOAD of the right size: make it the same without one, by moving into it what the payload says.
 * Returns NBD_SUCCESS, HEADER being yet to be validated; or as nbd_header_validate. */
enum nbd_error nbd_status_payload_parse(
	const uint8_t payload[sizeof(struct nbd_wire_status_payload)], struct nbd_header *header,
	const char **why);

/* Whether HEADER is one for nbd_status_payload_parse. */
bool nbd_header_has_status_payload(const struct nbd_header *header, enum nbd_style style);

/* The command's name, for messages. */
const char *nbd_command_name(uint16_t command);

/* The NBD error for a negative errno (or 0). */
enum nbd_error nbd_error_from_errno(int error);

#endif
