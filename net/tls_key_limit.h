/* How large the key of a client's certificate may be.  That the client has the key is proved first, and only then whether an authority has
 * signed the certificate: with a key that anybody can have made up, and one of 131,072 bits would keep the core for minutes. */
#ifndef NET_TLS_KEY_LIMIT_H
#define NET_TLS_KEY_LIMIT_H

#include "reactor/check.h"
#include <gnutls/x509.h>

/* Verifying a signature takes a few milliseconds at most. */
#define TLS_KEY_BITS_MAX	  8192u
#define TLS_KEY_EXPONENT_BITS_MAX 64u /* of RSA's; its makers choose 17 bits */

/* Returns 0; GNUTLS_E_CONSTRAINT_ERROR: larger than that; or another error of GnuTLS. */
int tls_key_limit_check(gnutls_x509_crt_t certificate) MUST_USE;

#endif
