/* Addresses to listen on, as people write them: HOST:PORT, [V6]:PORT, unix:PATH, vsock:CID:PORT.
 * Parsing may look a host name up (getaddrinfo blocks): call before the cores run. */
#ifndef NET_ADDRESS_H
#define NET_ADDRESS_H

#include "reactor/check.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

#define ADDRESS_TEXT_BYTES 128 /* room for address_format's text and its NUL */

struct address {
	struct sockaddr_storage storage;
	socklen_t bytes;
};

/* Parse TEXT: "127.0.0.1:10809", "[::1]:10809", "localhost:10809", "unix:/run/millrace.sock", "vsock:any:10809" (or "local", this
 * machine itself, or a number instead of "any").
 * Port 0 lets the kernel choose.  On failure *why (static text) says what is wrong and what is expected.
 * Returns 0, or -EINVAL; then *address is unchanged.  Source: getaddrinfo(3), unix(7), vsock(7). */
int address_parse(const char *text, struct address *address, const char **why) MUST_USE;

/* As address_parse, but all addresses of a name, IPv4 first, into ADDRESSES, which has room for ADDRESSES_MAX, at least 1; more are left out.
 * Returns how many, at least 1, or -EINVAL. */
int address_parse_all(const char *text, struct address *addresses, unsigned addresses_max,
		      const char **why) MUST_USE;

/* Write ADDRESS as address_parse takes it into TEXT, cut if it does not fit.  An unnamed Unix peer is "unix:". */
void address_format(const struct address *address, char *text, size_t text_bytes);

/* Write the NBD URI of export "" at ADDRESS, as this machine reaches it, into TEXT: nbd://127.0.0.1:10809,
 * nbd+unix:///?socket=PATH or nbd+vsock://1:10809. */
void address_format_uri(const struct address *address, char *text, size_t text_bytes);

/* Whether LEFT and RIGHT are the same: address_format writes one text for both.  Unlike address_collides, one that is
 * every address equals only itself, and port 0 equals port 0. */
bool address_equal(const struct address *left, const struct address *right);

/* Whether one process cannot listen on both LEFT and RIGHT: they are the same, or one is every address with the other's port.  Port 0, any that is
 * free, is another one each time.  Source: ip(7), ipv6(7) with IPV6_V6ONLY, vsock(7). */
bool address_collides(const struct address *left, const struct address *right);

/* Read the decimal number from 0 to MAX that all of TEXT is, without sign or space.  Returns false, and leaves *number alone, if it is
 * anything else. */
bool address_parse_number(const char *text, uint32_t max, uint32_t *number) MUST_USE;

#endif
