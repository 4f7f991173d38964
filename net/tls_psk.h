/* Pre-shared keys: the identities that may connect with TLS-PSK, and their keys, from a file as GnuTLS's psktool writes it.
 * Constant once loaded, so any thread may look keys up. */
#ifndef NET_TLS_PSK_H
#define NET_TLS_PSK_H

#include "reactor/check.h"
#include <stddef.h>
#include <stdint.h>

#define TLS_PSK_KEY_BYTES_MIN 16
#define TLS_PSK_KEY_BYTES_MAX 64
#define TLS_PSK_LINE_TEXT     128

struct tls_psk {
	char *identity; /* owned; no NUL and no ":" in it */
	uint8_t key[TLS_PSK_KEY_BYTES_MAX];
	size_t key_bytes;
};

struct tls_psk_table {
	struct tls_psk *keys; /* owned */
	size_t count;
};

/* Read TEXT of BYTES, lines of IDENTITY:KEY with the key in hexadecimal, into TABLE; lines that are empty or begin with "# " do
 * not count.  On failure why, which has TLS_PSK_LINE_TEXT, says in which line and what is wrong, without anything of the key.
 * Returns 0; -EINVAL a line is wrong, or there is none; -ENOMEM.  Then TABLE is empty.
 * Source: psktool(1). */
int tls_psk_parse(struct tls_psk_table *table, const char *text, size_t bytes, char *why) MUST_USE;

/* The key of the identity NAME of BYTES, or NULL. */
const struct tls_psk *tls_psk_find(const struct tls_psk_table *table, const void *name,
				   size_t bytes);

/* Wipe and free the keys. */
void tls_psk_clear(struct tls_psk_table *table);

#endif
