#include "net/tls_key_limit.h"

#include <gnutls/abstract.h>

static int
check(gnutls_pubkey_t key)
{
	gnutls_datum_t modulus, exponent;
	unsigned bits, exponent_bytes;
	int algorithm = gnutls_pubkey_get_pk_algorithm(key, &bits), error;

	if (algorithm < 0)
		return algorithm; /* UNTESTED: GnuTLS has read it before */
	if (bits > TLS_KEY_BITS_MAX)
		return GNUTLS_E_CONSTRAINT_ERROR;
	if (algorithm != GNUTLS_PK_RSA && algorithm != GNUTLS_PK_RSA_PSS)
		return 0;
	error = gnutls_pubkey_export_rsa_raw2(key, &modulus, &exponent, GNUTLS_EXPORT_FLAG_NO_LZ);
	if (error < 0)
		return error; /* UNTESTED: no fault for GnuTLS's malloc */
	exponent_bytes = exponent.size;
	gnutls_free(modulus.data);
	gnutls_free(exponent.data);
	return exponent_bytes > TLS_KEY_EXPONENT_BITS_MAX / 8 ? GNUTLS_E_CONSTRAINT_ERROR : 0;
}

int
tls_key_limit_check(gnutls_x509_crt_t certificate)
{
	gnutls_pubkey_t key;
	int error = gnutls_pubkey_init(&key);

	if (error < 0)
		return error; /* UNTESTED: no fault for GnuTLS's malloc */
	error = gnutls_pubkey_import_x509(key, certificate, 0);
	if (error == 0)
		error = check(key);
	gnutls_pubkey_deinit(key);
	return error;
}
