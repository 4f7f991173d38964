/* A connection's turns at its export's limits (disk/throttle.h): taken for a request before it holds anything but itself, so that one
 * request of a connection waits at a time, and nothing behind it is read. */
#ifndef NET_LIMIT_H
#define NET_LIMIT_H

#include "disk/throttle.h"
#include "reactor/check.h"
#include <stdbool.h>
#include <stdint.h>

struct connection;

/* Embedded by the connection. */
struct limit {
	/* Private. */
	struct throttle_wait wait;
	bool has_turn; /* for the request that is about to begin */
};

void limit_init(struct limit *limit);

/* Take a turn for the next request of CONNECTION, of which BYTES are read or written.  Returns true if it has come, also if asked again before
 * limit_used; or false: then the connection is resumed when it has. */
bool limit_take(struct connection *connection, uint64_t bytes) MUST_USE;

/* The request has begun: the next needs a turn of its own. */
void limit_used(struct connection *connection);

/* CONNECTION has no request that waits any more. */
void limit_cancel(struct connection *connection);

#endif
