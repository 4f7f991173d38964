/* The names of the files are those that libnbd, nbdkit and QEMU use, too. */
#include "bench/load/credentials.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/tls_psk.h"

#define CA_NAME		 "ca-cert.pem"
#define CERTIFICATE_NAME "client-cert.pem"
#define KEY_NAME	 "client-key.pem"

#define PSK_FILE_BYTES_MAX 65536u

/* Only one of the two kinds is offered: who names a file of keys does not want to be served by a certificate. */
#define PRIORITY_X509 "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2"
#define PRIORITY_PSK  PRIORITY_X509 ":-KX-ALL:+ECDHE-PSK:+DHE-PSK:+PSK"

static int
mistake(FILE *errors, const char *path, const char *what)
{
	fprintf(errors, "%s: %s\n", path, what);
	return -EINVAL;
}

/* ---- certificates ---- */

static int
load_trust(const char *directory, struct tls_client *client, FILE *errors)
{
	char *path;
	int count, error = 0;

	if (asprintf(&path, "%s/%s", directory, CA_NAME) < 0)
		return -ENOMEM;
	count = access(path, R_OK) < 0 ? 0
				       : gnutls_certificate_set_x509_trust_file(
						 client->x509, path, GNUTLS_X509_FMT_PEM);
	if (count == 0 && access(path, R_OK) < 0)
		error = mistake(errors, path, strerror(errno));
	else if (count <= 0)
		error = mistake(errors, path, "holds no certificate in PEM form");
	free(path);
	return error;
}

/* The client's own certificate, which not every server wants. */
static int
load_own(const char *directory, struct tls_client *client, FILE *errors)
{
	char *certificate = NULL, *key = NULL;
	int error = 0;

	if (asprintf(&certificate, "%s/%s", directory, CERTIFICATE_NAME) < 0)
		certificate = NULL;
	if (asprintf(&key, "%s/%s", directory, KEY_NAME) < 0)
		key = NULL;
	if (certificate == NULL || key == NULL)
		error = -ENOMEM;
	else if (access(certificate, F_OK) < 0 && access(key, F_OK) < 0)
		error = 0;
	else if (access(certificate, R_OK) < 0)
		error = mistake(errors, certificate, strerror(errno));
	else if (access(key, R_OK) < 0)
		error = mistake(errors, key, strerror(errno));
	else {
		int result = gnutls_certificate_set_x509_key_file(client->x509, certificate, key,
								  GNUTLS_X509_FMT_PEM);

		if (result < 0)
			error = mistake(errors, certificate, gnutls_strerror(result));
	}
	free(certificate);
	free(key);
	return error;
}

static int
load_x509(const struct credentials_files *files, struct tls_client *client, FILE *errors)
{
	int error = 0;

	if (gnutls_certificate_allocate_credentials(&client->x509) < 0)
		return -ENOMEM;
	if (files->directory == NULL && files->verify &&
	    gnutls_certificate_set_x509_system_trust(client->x509) <= 0)
		error = mistake(errors, "tls-certificates",
				"the system trusts no authority; name a directory with " CA_NAME);
	else if (files->directory != NULL && files->verify)
		error = load_trust(files->directory, client, errors);
	if (error == 0 && files->directory != NULL)
		error = load_own(files->directory, client, errors);
	return error;
}

/* ---- pre-shared keys ---- */

static int
read_keys(const char *path, struct tls_psk_table *table, FILE *errors)
{
	char why[TLS_PSK_LINE_TEXT];
	char *text = malloc(PSK_FILE_BYTES_MAX);
	FILE *file = fopen(path, "re");
	size_t bytes;
	int error;

	if (text == NULL || file == NULL) {
		error = text == NULL ? -ENOMEM : mistake(errors, path, strerror(errno));
	} else {
		bytes = fread(text, 1, PSK_FILE_BYTES_MAX, file);
		error = bytes == PSK_FILE_BYTES_MAX ? mistake(errors, path, "has more than 64 KiB")
						    : tls_psk_parse(table, text, bytes, why);
		if (error < 0 && bytes < PSK_FILE_BYTES_MAX)
			error = mistake(errors, path, why);
		explicit_bzero(text, bytes);
	}
	if (file != NULL)
		(void)fclose(file);
	free(text);
	return error;
}

static int
use_key(const struct tls_psk_table *table, const struct credentials_files *files,
	struct tls_client *client, FILE *errors)
{
	const struct tls_psk *psk = &table->keys[0];
	gnutls_datum_t key;

	if (files->identity != NULL)
		psk = tls_psk_find(table, files->identity, strlen(files->identity));
	else if (table->count > 1)
		return mistake(errors, files->psk_file,
			       "has several keys; say whose, as in nbds://IDENTITY@HOST/");
	if (psk == NULL) {
		fprintf(errors, "%s: has no key of %s\n", files->psk_file, files->identity);
		return -EINVAL;
	}
	key = (gnutls_datum_t){ (uint8_t *)psk->key, (unsigned)psk->key_bytes };
	if (gnutls_psk_allocate_client_credentials(&client->psk) < 0 ||
	    gnutls_psk_set_client_credentials(client->psk, psk->identity, &key,
					      GNUTLS_PSK_KEY_RAW) < 0)
		return -ENOMEM;
	return 0;
}

static int
load_psk(const struct credentials_files *files, struct tls_client *client, FILE *errors)
{
	struct tls_psk_table table;
	int error = read_keys(files->psk_file, &table, errors);

	if (error < 0)
		return error;
	error = use_key(&table, files, client, errors);
	tls_psk_clear(&table);
	return error;
}

/* ---- the whole ---- */

static int
load(const struct credentials_files *files, struct credentials *made, FILE *errors)
{
	struct tls_client *client = &made->client;
	bool is_psk = files->psk_file != NULL;

	if (gnutls_priority_init(&client->priority, is_psk ? PRIORITY_PSK : PRIORITY_X509, NULL) <
	    0) {
		client->priority = NULL;
		return -ENOMEM;
	}
	if (is_psk)
		return load_psk(files, client, errors);
	client->verify = files->verify;
	if (files->host != NULL && (made->host = strdup(files->host)) == NULL)
		return -ENOMEM;
	client->host = made->host;
	return load_x509(files, client, errors);
}

int
credentials_create(const struct credentials_files *files, struct credentials **credentials,
		   FILE *errors)
{
	struct credentials *made = calloc(1, sizeof(*made));
	int error = made == NULL ? -ENOMEM : load(files, made, errors);

	if (error == 0) {
		*credentials = made;
		return 0;
	}
	if (error == -ENOMEM)
		fprintf(errors, "no memory for TLS\n");
	credentials_destroy(made);
	return error;
}

void
credentials_destroy(struct credentials *credentials)
{
	if (credentials == NULL)
		return;
	if (credentials->client.x509 != NULL)
		gnutls_certificate_free_credentials(credentials->client.x509);
	if (credentials->client.psk != NULL)
		gnutls_psk_free_client_credentials(credentials->client.psk);
	if (credentials->client.priority != NULL)
		gnutls_priority_deinit(credentials->client.priority);
	free(credentials->host);
	free(credentials);
}
