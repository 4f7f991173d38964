/* What is to be loaded: an NBD URI, taken apart, and connections to it.
 * nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH and nbd+vsock://[CID[:PORT]]/EXPORT; with TLS nbds://, nbds+unix:// and
 * nbds+vsock://, which may say tls-certificates=DIR, tls-psk-file=FILE with an identity in front of the host, tls-verify-peer=false and
 * tls-hostname=NAME.
 * Source: the NBD URI specification, doc/uri.md of the reference implementation; for what is in the query nbd_connect_uri(3). */
#ifndef BENCH_LOAD_TARGET_H
#define BENCH_LOAD_TARGET_H

#include "bench/load/credentials.h"
#include "bench/load/link.h"
#include "net/address.h"
#include "net/session.h"
#include "reactor/check.h"
#include <stdint.h>
#include <stdio.h>

/* What to ask for; the server may have less. */
enum target_replies {
	TARGET_REPLIES_AUTO, /* the best that the server has */
	TARGET_REPLIES_SIMPLE,
	TARGET_REPLIES_STRUCTURED,
	TARGET_REPLIES_EXTENDED,
};

#define TARGET_ADDRESSES_MAX 8u

struct target {
	const char *uri;				/* as it was given; the caller's */
	struct address addresses[TARGET_ADDRESSES_MAX]; /* of its host, to be tried in order */
	unsigned address_count;
	char *export_name;		 /* owned; "" is the default export */
	struct credentials *credentials; /* owned; NULL: no TLS */
	enum target_replies replies;	 /* AUTO at first */
};

/* Take URI apart, look its host up, which blocks, and load what TLS needs.  URI must outlive TARGET; target_fini frees the rest.
 * Returns 0, -EINVAL or -ENOMEM; then what is wrong is written to ERRORS, and TARGET needs no target_fini. */
int target_parse(const char *uri, struct target *target, FILE *errors) MUST_USE;
void target_fini(struct target *target);

/* A connection that is negotiated: transmission has begun on it, and nothing was sent yet. */
struct target_session {
	struct link link;    /* for who goes on with it */
	uint64_t size_bytes; /* of the export */
	uint16_t flags;	     /* NBD_FLAG_ */
	enum nbd_style style;
	uint32_t block_bytes_min, block_bytes_max; /* 1 and 32 MiB if the server does not say */
};

/* Connect to TARGET and ask for its export.  Blocks, at most LINK_TIMEOUT_S for each answer.  TARGET must outlive the session.
 * Returns 0, or a negative errno; then why is written to ERRORS, and *session is unchanged. */
int target_connect(const struct target *target, struct target_session *session,
		   FILE *errors) MUST_USE;

/* Say goodbye, and close. */
void target_disconnect(struct target_session *session);

#endif
