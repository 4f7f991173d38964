/* Lists of names, and the names in a certificate. */
#include "net/tls_names.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int
tls_names_add(struct tls_names *names, const void *name, size_t bytes)
{
	char *copy, **grown;

	if (bytes == 0 || memchr(name, '\0', bytes) != NULL)
		return 0;
	copy = strndup(name, bytes);
	grown = reallocarray(names->names, names->count + 1, sizeof(*grown));
	if (grown != NULL)
		names->names = grown;
	if (copy == NULL || grown == NULL) {
		free(copy); /* UNTESTED: no fault for malloc */
		return -ENOMEM;
	}
	names->names[names->count++] = copy;
	return 0;
}

static int
add_subject(struct tls_names *names, gnutls_x509_crt_t certificate)
{
	char name[256];
	size_t bytes = sizeof(name);

	if (gnutls_x509_crt_get_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, 0, 0, name,
					  &bytes) < 0)
		return 0; /* none, or longer than names may be (RFC 5280: 64) */
	return tls_names_add(names, name, bytes);
}

static int
add_alternatives(struct tls_names *names, gnutls_x509_crt_t certificate)
{
	int error = 0;

	for (unsigned i = 0; error == 0; i++) {
		char name[1024];
		size_t bytes = sizeof(name);
		int type = gnutls_x509_crt_get_subject_alt_name(certificate, i, name, &bytes, NULL);

		if (type == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
			break;
		if (type == GNUTLS_SAN_DNSNAME || type == GNUTLS_SAN_RFC822NAME ||
		    type == GNUTLS_SAN_URI)
			error = tls_names_add(names, name, bytes);
	}
	return error;
}

int
tls_names_add_certificate(struct tls_names *names, gnutls_x509_crt_t certificate)
{
	int error = add_subject(names, certificate);

	return error == 0 ? add_alternatives(names, certificate) : error;
}

void
tls_names_clear(struct tls_names *names)
{
	for (size_t i = 0; i < names->count; i++)
		free(names->names[i]);
	free(names->names);
	*names = (struct tls_names){ .count = 0 };
}

bool
tls_names_meet(const struct tls_names *some, const struct tls_names *others)
{
	for (size_t i = 0; i < some->count; i++) {
		for (size_t j = 0; j < others->count; j++) {
			if (strcmp(some->names[i], others->names[j]) == 0)
				return true;
		}
	}
	return false;
}
