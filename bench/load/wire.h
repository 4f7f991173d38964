/* A client's side of the wire, in any of the three styles: requests to bytes, and replies from bytes.  Pure functions.
 * Written from the specification, for a client that trusts nobody: what a server may not send is an error. */
#ifndef BENCH_LOAD_WIRE_H
#define BENCH_LOAD_WIRE_H

#include "net/nbd_wire.h"
#include "reactor/check.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_REQUEST_BYTES_MAX sizeof(struct nbd_wire_extended_request)

/* Write the header of REQUEST to OUT.  Returns how many bytes it has; a WRITE's payload is to follow. */
size_t wire_put_request(uint8_t *out, enum nbd_style style, const struct nbd_header *request);

/* The longest head: an error with its message, of at most 4096 bytes. */
#define WIRE_REPLY_HEAD_BYTES_MAX \
	(sizeof(struct nbd_wire_extended_chunk) + 14u + NBD_STRING_BYTES_MAX)

enum wire_kind {
	WIRE_KIND_SIMPLE, /* the whole answer; after a READ without error its data follows */
	WIRE_KIND_END,	  /* nothing but that it is done */
	WIRE_KIND_DATA,	  /* LENGTH bytes of data follow, from OFFSET on */
	WIRE_KIND_HOLE,	  /* LENGTH zeros from OFFSET on, which do not follow */
	WIRE_KIND_ERROR,
};

/* A reply, or a chunk of one, without the data that follows it. */
struct wire_reply {
	enum wire_kind kind;
	bool last; /* of its request */
	uint64_t cookie;
	uint64_t offset;
	uint32_t length;
	uint32_t error;	     /* of NBD; SIMPLE: 0 if there is none, ERROR: never 0 */
	const char *message; /* of MESSAGE_BYTES, in the bytes that were given; for a person */
	unsigned message_bytes;
};

/* Read the head of a reply in a session of STYLE out of COUNT bytes.  With structured replies a server may answer what is no READ by
 * simple ones.
 * Returns how many bytes it has, at most WIRE_REPLY_HEAD_BYTES_MAX; 0: there are not enough yet; or -EBADMSG, and *why (static text)
 * says what is wrong. */
int wire_parse_reply(enum nbd_style style, const uint8_t *bytes, size_t count,
		     struct wire_reply *reply, const char **why) MUST_USE;

#endif
