/* A connection while it is negotiated: blocking bytes out and in, plain at first, and inside TLS from link_secure on.
 * Owned by who negotiates. */
#ifndef BENCH_LOAD_LINK_H
#define BENCH_LOAD_LINK_H

#include "net/address.h"
#include "net/tls_session.h"
#include "reactor/check.h"

#define LINK_TIMEOUT_S 10

/* Moved as it is to who goes on with it. */
struct link {
	int fd;
	struct tls_session *tls; /* NULL: plain */
	uint64_t deadline_ns;	 /* nothing is received after it */
};

/* Connect to ADDRESS.  From then on whatever takes more than LINK_TIMEOUT_S fails; and so does all receiving later than that behind
 * link_open, of a server that always has something more to say.
 * Returns 0 or a negative errno of connect(2), -ETIMEDOUT included; then LINK needs no link_close. */
int link_open(struct link *link, const struct address *address) MUST_USE;
void link_close(struct link *link);

/* Send, or receive, all COUNT bytes.  Returns 0; -ETIMEDOUT; -ECONNRESET also at the end; -EPROTO: link_why says what TLS found
 * wrong; or another errno of send(2) or recv(2). */
int link_send(struct link *link, const void *bytes, size_t count) MUST_USE;
int link_receive(struct link *link, void *bytes, size_t count) MUST_USE;

/* Go into TLS as CLIENT, which must outlive LINK.  Returns as the two above, or -ENOMEM. */
int link_secure(struct link *link, const struct tls_client *client) MUST_USE;

/* After an -EPROTO: what TLS found wrong. */
const char *link_why(const struct link *link);

#endif
