/* A core's line of TLS handshakes: each step of one can take a millisecond of the core (a signature of an RSA key), so they take
 * turns, one step at a time, and as long as the core serves requests beside them they get a quarter of its time: a flood of
 * handshakes delays a request by one step, not by all.
 * Owned by the core; all calls on its thread. */
#ifndef NET_TLS_LINE_H
#define NET_TLS_LINE_H

#include "reactor/reactor.h"
#include <stdbool.h>

struct tls_line {
	/* Private. */
	struct reactor *reactor;
	struct list_node waiting; /* struct tls_line_place, in order of arrival */
	struct task next;
	struct timer pause;
	uint64_t requests;	/* begun on this core, counted */
	uint64_t requests_seen; /* of them, at the end of the last step */
	uint64_t free_ns;	/* when the next step may be taken beside requests */
};

/* One handshake's place in a line; embedded by its owner. */
struct tls_line_place {
	/* It is its turn: take one step.  It has left the line. */
	void (*step)(struct tls_line_place *place);
	/* Private. */
	struct list_node node;
};

/* A line of handshakes on REACTOR. */
void tls_line_init(struct tls_line *line, struct reactor *reactor);

/* The end of LINE, which nobody waits in: it uses the reactor no more. */
void tls_line_fini(struct tls_line *line);

static inline void
tls_line_place_init(struct tls_line_place *place, void (*step)(struct tls_line_place *place))
{
	place->step = step;
	list_init(&place->node);
}

/* Let PLACE wait for its turn; its step comes later, never from within this.  Harmless if it waits already. */
void tls_line_join(struct tls_line *line, struct tls_line_place *place);

/* PLACE wants no turn.  Harmless if it waits for none. */
static inline void
tls_line_leave(struct tls_line_place *place)
{
	list_remove(&place->node);
}

/* The core has begun a request. */
static inline void
tls_line_count_request(struct tls_line *line)
{
	line->requests++;
}

#endif
