/* What a client needs for TLS, from the files that a URI names.  Constant once loaded, so any thread may use it. */
#ifndef BENCH_LOAD_CREDENTIALS_H
#define BENCH_LOAD_CREDENTIALS_H

#include "net/tls_session.h"
#include "reactor/check.h"
#include <stdbool.h>
#include <stdio.h>

struct credentials_files {
	/* With ca-cert.pem in it, and client-cert.pem and client-key.pem or neither; NULL: the authorities that the system trusts. */
	const char *directory;
	const char *psk_file; /* as psktool writes it; instead of certificates; or NULL */
	const char *identity; /* whose key in psk_file; NULL: the only one there */
	const char *host;     /* that a certificate must be for; NULL: any that is signed */
	bool verify;	      /* false: any certificate will do */
};

struct credentials {
	struct tls_client client;
	char *host; /* owned */
};

/* Load what FILES names.  A mistake is written to ERRORS, with the file.  credentials_destroy takes NULL, too.
 * Returns 0; -EINVAL; or -ENOMEM. */
int credentials_create(const struct credentials_files *files, struct credentials **credentials,
		       FILE *errors) MUST_USE;
void credentials_destroy(struct credentials *credentials);

#endif
