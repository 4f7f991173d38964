/* Names that TLS has proved: what a client is called by its certificate or its pre-shared key, and who may use an export. */
#ifndef NET_TLS_NAMES_H
#define NET_TLS_NAMES_H

#include "reactor/check.h"
#include <gnutls/x509.h>
#include <stdbool.h>
#include <stddef.h>

/* Owned by whoever has it; all zeros: none. */
struct tls_names {
	char **names;
	size_t count;
};

/* Add NAME of BYTES.  One that is empty or has a NUL in it is left out: it would compare as something shorter.
 * Returns 0 or -ENOMEM; then NAMES is unchanged. */
int tls_names_add(struct tls_names *names, const void *name, size_t bytes) MUST_USE;

/* Add those of CERTIFICATE: common name, and DNS, mail and URI names.
 * Returns 0 or -ENOMEM; then some may have been added. */
int tls_names_add_certificate(struct tls_names *names, gnutls_x509_crt_t certificate) MUST_USE;

void tls_names_clear(struct tls_names *names);

/* Whether some name is in both, byte for byte. */
bool tls_names_meet(const struct tls_names *some, const struct tls_names *others);

#endif
