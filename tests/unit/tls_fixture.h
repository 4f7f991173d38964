/* For tests of TLS: keys and certificates, made when they are needed, in files of a directory of the test's own. */
#ifndef TESTS_UNIT_TLS_FIXTURE_H
#define TESTS_UNIT_TLS_FIXTURE_H

#include "net/tls_credentials.h"
#include <time.h>

/* The files of an authority, and of a server and a client that it has signed; a file of the keys of "alice". */
struct tls_fixture {
	char directory[64];
	char ca[96], server[96], server_key[96], client[96], client_key[96], psk[96];
};

#define TLS_FIXTURE_PSK_HEX "00112233445566778899aabbccddeeff"

void tls_fixture_init(struct tls_fixture *fixture);
void tls_fixture_fini(struct tls_fixture *fixture);

/* Sign the server's certificate again, with a new key, valid from BEGIN to END. */
void tls_fixture_issue_server(struct tls_fixture *fixture, time_t begin, time_t end);

/* Put an authority that nobody needs, valid from BEGIN to END, behind the server's certificate in its file. */
void tls_fixture_append_authority(struct tls_fixture *fixture, time_t begin, time_t end);

/* What the server is loaded from. */
struct tls_files tls_fixture_files(struct tls_fixture *fixture);

/* Write TEXT into the file at PATH, with MODE. */
void tls_fixture_write(const char *path, const char *text, unsigned mode);

#endif
