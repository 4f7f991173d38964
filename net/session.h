/* What a client and the server have agreed on: the handshake makes it, the transmission keeps to it. */
#ifndef NET_SESSION_H
#define NET_SESSION_H

#include "net/export.h"
#include <stdbool.h>
#include <stdint.h>

/* The form of headers, both ways.  In this order: each can do more than the one before. */
enum nbd_style {
	NBD_STYLE_SIMPLE,     /* 28 byte requests, simple replies */
	NBD_STYLE_STRUCTURED, /* 28 byte requests, structured replies, and only those */
	NBD_STYLE_EXTENDED,   /* 32 byte requests with 64 bit lengths, replies likewise */
};

struct nbd_session {
	const struct export *export; /* NULL: none yet */
	uint64_t size_bytes; /* of the export, as the client was told; it may have grown since */
	enum nbd_style style;
	bool allocation; /* the client may ask for base:allocation; never with simple replies */
};

/* The transmission flags that the client is told. */
uint16_t session_flags(const struct nbd_session *session);

#endif
