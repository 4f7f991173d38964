/* TLS credentials: certificate, key, authorities, pre-shared keys and the choice of algorithms, loaded and checked.
 * Constant once loaded and counted by references: a session keeps what it began with, also when others have taken their place. */
#ifndef NET_TLS_CREDENTIALS_H
#define NET_TLS_CREDENTIALS_H

#include "net/tls_kernel.h"
#include "net/tls_psk.h"
#include "reactor/check.h"
#include <gnutls/gnutls.h>
#include <stdbool.h>

enum tls_mode {
	TLS_MODE_OFF,
	TLS_MODE_ALLOWED,  /* clients may use it */
	TLS_MODE_REQUIRED, /* clients that do not are told to, and nothing else */
};

/* How messages name what was given, such as "FILE:LINE: KEY = VALUE"; NULL: by its path or text.  Not owned. */
struct tls_origins {
	const char *ca, *certificate, *key, *psk_file, *priority;
};

/* Where the credentials are; NULL: not given.  The strings are the configuration's. */
struct tls_files {
	char *ca;	    /* certificates of the authorities that sign those of clients, PEM */
	char *certificate;  /* the server's, and those between it and an authority, PEM */
	char *key;	    /* the certificate's, PEM, not encrypted */
	char *psk_file;	    /* as psktool writes it */
	char *priority;	    /* GnuTLS's priority string; NULL: TLS_PRIORITY_DEFAULT */
	bool verify_client; /* clients that use certificates need one that CA has signed */
	bool kernel;	    /* have the kernel encrypt where it can */
	struct tls_origins origins;
};

/* TLS 1.3, then 1.2; AEAD ciphers only, the cheapest with hardware's help first; forward secrecy also with PSK.
 * Source: the GnuTLS manual, "Priority Strings". */
#define TLS_PRIORITY_DEFAULT                                                                \
	"NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:" \
	"+CHACHA20-POLY1305:+ECDHE-PSK:+DHE-PSK:%SERVER_PRECEDENCE"

/* To be read only. */
struct tls_credentials {
	unsigned references; /* atomic */
	bool verify_client;
	struct tls_kernel kernel; /* what it is to be used for */
	gnutls_priority_t priority;
	gnutls_certificate_credentials_t x509; /* NULL: none */
	gnutls_psk_server_credentials_t psk;   /* NULL: none */
	struct tls_psk_table keys;	       /* of psk */
};

/* Load and check what FILES names; each mistake is logged with its origin, the reason and what to do.  Reads files: not on a core.
 * *credentials has one reference, the caller's.
 * Returns 0, or a negative errno; then *credentials is unchanged.  Errors: those of open(2) and read(2); -EPERM a file with keys is
 * open to others; -EINVAL content that cannot be used: no PEM, a key of another certificate, the server's own expired or not valid
 * yet (of one behind it that is a warning), no authority that is valid; a priority string that GnuTLS does not take, or with other
 * versions than TLS 1.2 and later; or FILES is incomplete (not logged); -ENOMEM. */
int tls_credentials_load(const struct tls_files *files,
			 struct tls_credentials **credentials) MUST_USE;

/* One reference more, or less; the last one frees.  Any thread. */
struct tls_credentials *tls_credentials_get(struct tls_credentials *credentials);
void tls_credentials_put(struct tls_credentials *credentials);

#endif
