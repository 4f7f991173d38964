/* Address ranges as text and as prefixes.
 * IPv4 and IPv6 are families of their own: ::/0 contains no IPv4 client, so that "deny = ::/0" and "allow = 0.0.0.0/0" mean what
 * they say.  That is why mapped addresses and ranges are taken for IPv4 before anything is compared. */
#include "net/access.h"

#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <linux/vm_sockets.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAPPED_BITS 96 /* of ::ffff:0:0/96 */
#define IPV4_BITS   32
#define IPV6_BITS   128
#define CID_BITS    32

static_assert(INET6_ADDRSTRLEN + sizeof("/128") <= ACCESS_RANGE_TEXT_BYTES, "every range fits");

static const char not_a_range[] =
	"not an address range; expected all, unix, vsock, vsock:CID, or an address with or without "
	"/BITS, such as 10.0.0.0/8 or 2001:db8::/32";

static const uint8_t mapped_prefix[MAPPED_BITS / 8] = { [10] = 0xff, [11] = 0xff };

/* ---- peers ---- */

static void
peer_of_ipv6(struct access_peer *peer, const struct in6_addr *address)
{
	if (IN6_IS_ADDR_V4MAPPED(address)) {
		peer->family = AF_INET;
		memcpy(peer->bytes, &address->s6_addr[sizeof(mapped_prefix)], IPV4_BITS / 8);
		return;
	}
	peer->family = AF_INET6;
	memcpy(peer->bytes, address->s6_addr, sizeof(peer->bytes));
}

static void
put_cid(uint8_t *bytes, uint32_t cid)
{
	uint32_t wire = htonl(cid);

	memcpy(bytes, &wire, sizeof(wire));
}

struct access_peer
access_peer_of(const struct address *address)
{
	const struct sockaddr_storage *storage = &address->storage;
	struct access_peer peer = { .family = AF_UNSPEC };

	switch (storage->ss_family) {
	case AF_INET:
		peer.family = AF_INET;
		memcpy(peer.bytes, &((const struct sockaddr_in *)storage)->sin_addr, IPV4_BITS / 8);
		break;
	case AF_INET6:
		peer_of_ipv6(&peer, &((const struct sockaddr_in6 *)storage)->sin6_addr);
		break;
	case AF_UNIX:
		peer.family = AF_UNIX;
		break;
	case AF_VSOCK:
		peer.family = AF_VSOCK;
		put_cid(peer.bytes, ((const struct sockaddr_vm *)storage)->svm_cid);
		break;
	default:
		break;
	}
	return peer;
}

/* ---- ranges as text ---- */

/* Whether BYTES has nothing but zeros behind its first BITS. */
static bool
is_prefix(const uint8_t *bytes, size_t count, unsigned bits)
{
	for (size_t i = 0; i < count; i++) {
		unsigned kept = bits >= 8 * (i + 1) ? 8 : bits > 8 * i ? bits - 8 * (unsigned)i : 0;

		if ((bytes[i] & (0xff >> kept)) != 0)
			return false;
	}
	return true;
}

/* RANGE, an IPv6 one, is an IPv4 range if it lies within the mapped addresses. */
static void
unmap(struct access_range *range)
{
	if (range->bits < MAPPED_BITS ||
	    memcmp(range->bytes, mapped_prefix, sizeof(mapped_prefix)) != 0)
		return;
	range->family = AF_INET;
	range->bits -= MAPPED_BITS;
	memmove(range->bytes, range->bytes + sizeof(mapped_prefix), IPV4_BITS / 8);
	memset(range->bytes + IPV4_BITS / 8, 0, sizeof(range->bytes) - IPV4_BITS / 8);
}

/* The parse functions return NULL, or what is wrong. */

static const char *
parse_inet(const char *text, struct access_range *range)
{
	char address[INET6_ADDRSTRLEN];
	const char *slash = strchr(text, '/');
	size_t address_bytes = slash == NULL ? strlen(text) : (size_t)(slash - text);
	bool ipv6 = memchr(text, ':', address_bytes) != NULL;
	uint32_t bits = ipv6 ? IPV6_BITS : IPV4_BITS;

	if (address_bytes >= sizeof(address))
		return not_a_range;
	memcpy(address, text, address_bytes);
	address[address_bytes] = '\0';
	range->family = ipv6 ? AF_INET6 : AF_INET;
	if (inet_pton(range->family, address, range->bytes) != 1)
		return not_a_range;
	if (slash != NULL && !address_parse_number(slash + 1, bits, &bits))
		return ipv6 ? "behind the / of an IPv6 range comes a number from 0 to 128"
			    : "behind the / of an IPv4 range comes a number from 0 to 32";
	range->bits = (uint8_t)bits;
	if (!is_prefix(range->bytes, ipv6 ? IPV6_BITS / 8 : IPV4_BITS / 8, bits))
		return "the address has bits behind its prefix; write the range's first address, "
		       "or "
		       "more /BITS";
	if (ipv6)
		unmap(range);
	return NULL;
}

static const char *
parse_range(const char *text, struct access_range *range)
{
	static const char vsock[] = "vsock:";
	uint32_t cid;

	if (strcmp(text, "all") == 0) {
		range->family = AF_UNSPEC;
		return NULL;
	}
	if (strcmp(text, "unix") == 0) {
		range->family = AF_UNIX;
		return NULL;
	}
	if (strcmp(text, "vsock") == 0) {
		range->family = AF_VSOCK;
		return NULL;
	}
	if (strncmp(text, vsock, strlen(vsock)) != 0)
		return parse_inet(text, range);
	if (!address_parse_number(text + strlen(vsock), VMADDR_CID_ANY - 1, &cid))
		return "behind vsock: comes the CID of a machine, a number below 4294967295";
	range->family = AF_VSOCK;
	range->bits = CID_BITS;
	put_cid(range->bytes, cid);
	return NULL;
}

int
access_range_parse(const char *text, struct access_range *range, const char **why)
{
	struct access_range parsed;
	const char *wrong;

	memset(&parsed, 0, sizeof(parsed));
	wrong = parse_range(text, &parsed);
	if (wrong != NULL) {
		*why = wrong;
		return -EINVAL;
	}
	*range = parsed;
	return 0;
}

static void
format_inet(const struct access_range *range, unsigned bits_max, char *text)
{
	char address[INET6_ADDRSTRLEN];

	CHECK(inet_ntop(range->family, range->bytes, address, sizeof(address)) != NULL);
	if (range->bits == bits_max)
		snprintf(text, ACCESS_RANGE_TEXT_BYTES, "%s", address);
	else
		snprintf(text, ACCESS_RANGE_TEXT_BYTES, "%s/%u", address, range->bits);
}

void
access_range_format(const struct access_range *range, char *text)
{
	uint32_t cid;

	switch (range->family) {
	case AF_INET:
		format_inet(range, IPV4_BITS, text);
		break;
	case AF_INET6:
		format_inet(range, IPV6_BITS, text);
		break;
	case AF_UNIX:
		strcpy(text, "unix");
		break;
	case AF_VSOCK:
		memcpy(&cid, range->bytes, sizeof(cid));
		if (range->bits == 0)
			strcpy(text, "vsock");
		else
			snprintf(text, ACCESS_RANGE_TEXT_BYTES, "vsock:%u", ntohl(cid));
		break;
	default:
		strcpy(text, "all");
		break;
	}
}

/* ---- matching ---- */

bool
access_range_contains(const struct access_range *range, const struct access_peer *peer)
{
	size_t whole_bytes = range->bits / 8;
	unsigned rest_bits = range->bits % 8;

	if (range->family == AF_UNSPEC)
		return true;
	if (range->family != peer->family || memcmp(range->bytes, peer->bytes, whole_bytes) != 0)
		return false;
	return rest_bits == 0 ||
	       (range->bytes[whole_bytes] ^ peer->bytes[whole_bytes]) >> (8 - rest_bits) == 0;
}

bool
access_list_contains(const struct access_list *list, const struct access_peer *peer)
{
	for (size_t i = 0; i < list->count; i++) {
		if (access_range_contains(&list->ranges[i], peer))
			return true;
	}
	return false;
}

bool
access_allowed(const struct access_rules *rules, const struct access_peer *peer)
{
	if (access_list_contains(&rules->deny, peer))
		return false;
	return rules->allow.count == 0 || access_list_contains(&rules->allow, peer);
}

/* ---- lists ---- */

int
access_list_add(struct access_list *list, const struct access_range *ranges, size_t count)
{
	struct access_range *all = reallocarray(list->ranges, list->count + count, sizeof(*all));

	if (all == NULL)
		return -ENOMEM;
	memcpy(all + list->count, ranges, count * sizeof(*ranges));
	list->ranges = all;
	list->count += count;
	return 0;
}

void
access_list_clear(struct access_list *list)
{
	free(list->ranges);
	*list = (struct access_list){ 0 };
}

void
access_rules_clear(struct access_rules *rules)
{
	access_list_clear(&rules->allow);
	access_list_clear(&rules->deny);
}
