/* Turning bytes from the wire into checked values, and values into bytes.  Pure functions.
 * Everything that a client sends in the transmission phase is validated here and nowhere else. */
#ifndef NET_NBD_WIRE_H
#define NET_NBD_WIRE_H

#include "net/export.h"
#include "net/nbd.h"
#include "reactor/check.h"
#include <stdint.h>

/* A request's header in host order. */
struct nbd_header {
	uint16_t flags;
	uint16_t command; /* enum nbd_command, or a value that no one knows */
	uint64_t cookie;
	uint64_t offset;
	uint32_t length;
};

/* Read a header.  Returns 0, or -EBADMSG if the magic is wrong: then nothing that follows can be trusted. */
int nbd_header_parse(const uint8_t bytes[sizeof(struct nbd_wire_request)],
		     struct nbd_header *header) MUST_USE;

/* May a client of EXPORT ask for this?  NBD_SUCCESS, or the error to answer with. */
enum nbd_error nbd_header_validate(const struct nbd_header *header, const struct export *export);

/* The NBD error for a negative errno (or 0). */
enum nbd_error nbd_error_from_errno(int error);

/* Write a simple reply's header. */
void nbd_simple_reply_format(struct nbd_wire_simple_reply *reply, uint64_t cookie,
			     enum nbd_error error);

#endif
