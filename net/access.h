/* Who may connect, and to what: ranges of client addresses, and rules made of them.
 * Pure: no socket, no state.  Rules are made before the cores run and constant from then on, so any thread may ask. */
#ifndef NET_ACCESS_H
#define NET_ACCESS_H

#include "net/address.h"
#include "reactor/check.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ACCESS_RANGE_TEXT_BYTES 64

/* A client's address without its port, in the form that ranges are compared with.  All zeros: an unknown client, whom only
 * the range "all" contains. */
struct access_peer {
	/* AF_INET, AF_INET6 (never a mapped IPv4 address), AF_UNIX, AF_VSOCK; or AF_UNSPEC: unknown. */
	sa_family_t family;
	uint8_t bytes[16]; /* in network order: 4, 16, none, or the CID's 4; zeros behind */
};

/* The peers of a family whose first bits are these. */
struct access_range {
	sa_family_t family; /* as above; AF_UNSPEC: every peer, of any family */
	uint8_t bits;	    /* so many are compared */
	uint8_t bytes[16];
};

struct access_list {
	struct access_range *ranges; /* owned */
	size_t count;
};

/* A peer may if it is in no range of DENY and, when ALLOW has any, in one of those.  The order does not matter. */
struct access_rules {
	struct access_list allow, deny;
};

/* The peer at ADDRESS, as accept(2) gave it.  An IPv4 address mapped into IPv6 (::ffff:0:0/96) is that IPv4 address. */
struct access_peer access_peer_of(const struct address *address);

/* Parse TEXT: "all"; "10.0.0.0/8", "10.1.2.3"; "2001:db8::/32", "::1" (a mapped IPv4 range is that IPv4 range); "unix"; "vsock",
 * "vsock:CID".  On failure *why (static text) says what is wrong and what is expected.
 * Returns 0, or -EINVAL; then *range is unchanged.  Source: inet_pton(3). */
int access_range_parse(const char *text, struct access_range *range, const char **why) MUST_USE;

/* Write RANGE as access_range_parse takes it into TEXT, which has ACCESS_RANGE_TEXT_BYTES. */
void access_range_format(const struct access_range *range, char *text);

bool access_range_contains(const struct access_range *range, const struct access_peer *peer);

/* Add the COUNT ranges to LIST; all zeros is an empty one.  Returns 0 or -ENOMEM; then LIST is unchanged. */
int access_list_add(struct access_list *list, const struct access_range *ranges,
		    size_t count) MUST_USE;

/* Free the ranges, of which there are none then. */
void access_list_clear(struct access_list *list);
void access_rules_clear(struct access_rules *rules);

bool access_list_contains(const struct access_list *list, const struct access_peer *peer);

bool access_allowed(const struct access_rules *rules, const struct access_peer *peer);

#endif
