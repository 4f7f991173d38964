/* Certificates by GnuTLS, so that the tests need no program and no file in the tree that expires. */
#include "tests/unit/tls_fixture.h"

#include <criterion/criterion.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DAY ((time_t)86400)

struct pair {
	gnutls_x509_crt_t certificate;
	gnutls_x509_privkey_t key;
};

static struct pair ca;

static void
must(int error)
{
	cr_assert_geq(error, 0, "GnuTLS: %s", gnutls_strerror(error));
}

void
tls_fixture_write(const char *path, const char *text, unsigned mode)
{
	FILE *file = fopen(path, "w");

	cr_assert_not_null(file);
	fputs(text, file);
	fclose(file);
	cr_assert_eq(chmod(path, mode), 0);
}

static void
write_pair(const struct pair *pair, const char *certificate_path, const char *key_path)
{
	gnutls_datum_t text;

	must(gnutls_x509_crt_export2(pair->certificate, GNUTLS_X509_FMT_PEM, &text));
	tls_fixture_write(certificate_path, (const char *)text.data, 0644);
	gnutls_free(text.data);
	if (key_path == NULL)
		return;
	must(gnutls_x509_privkey_export2(pair->key, GNUTLS_X509_FMT_PEM, &text));
	tls_fixture_write(key_path, (const char *)text.data, 0600);
	gnutls_free(text.data);
}

/* A key and a certificate for it, not signed yet. */
static struct pair
make_pair(const char *name, bool authority, time_t begin, time_t end)
{
	static unsigned char serial;
	struct pair pair;

	serial++;
	must(gnutls_x509_privkey_init(&pair.key));
	must(gnutls_x509_privkey_generate(pair.key, GNUTLS_PK_ECDSA,
					  GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1), 0));
	must(gnutls_x509_crt_init(&pair.certificate));
	must(gnutls_x509_crt_set_version(pair.certificate, 3));
	must(gnutls_x509_crt_set_serial(pair.certificate, &serial, 1));
	must(gnutls_x509_crt_set_activation_time(pair.certificate, begin));
	must(gnutls_x509_crt_set_expiration_time(pair.certificate, end));
	must(gnutls_x509_crt_set_dn_by_oid(pair.certificate, GNUTLS_OID_X520_COMMON_NAME, 0, name,
					   (unsigned)strlen(name)));
	must(gnutls_x509_crt_set_key(pair.certificate, pair.key));
	must(gnutls_x509_crt_set_ca_status(pair.certificate, authority));
	if (authority)
		must(gnutls_x509_crt_set_key_usage(pair.certificate, GNUTLS_KEY_KEY_CERT_SIGN));
	else
		must(gnutls_x509_crt_set_subject_alt_name(pair.certificate, GNUTLS_SAN_DNSNAME,
							  "host.example", strlen("host.example"),
							  GNUTLS_FSAN_SET));
	return pair;
}

static void
free_pair(struct pair *pair)
{
	gnutls_x509_crt_deinit(pair->certificate);
	gnutls_x509_privkey_deinit(pair->key);
}

static void
issue(const char *name, const char *certificate_path, const char *key_path, time_t begin,
      time_t end)
{
	struct pair pair = make_pair(name, false, begin, end);

	must(gnutls_x509_crt_sign2(pair.certificate, ca.certificate, ca.key, GNUTLS_DIG_SHA256, 0));
	write_pair(&pair, certificate_path, key_path);
	free_pair(&pair);
}

void
tls_fixture_issue_server(struct tls_fixture *fixture, time_t begin, time_t end)
{
	issue("server", fixture->server, fixture->server_key, begin, end);
}

void
tls_fixture_append_authority(struct tls_fixture *fixture, time_t begin, time_t end)
{
	struct pair other = make_pair("other authority", true, begin, end);
	FILE *file = fopen(fixture->server, "a");
	gnutls_datum_t text;

	cr_assert_not_null(file);
	must(gnutls_x509_crt_sign2(other.certificate, other.certificate, other.key,
				   GNUTLS_DIG_SHA256, 0));
	must(gnutls_x509_crt_export2(other.certificate, GNUTLS_X509_FMT_PEM, &text));
	fputs((const char *)text.data, file);
	fclose(file);
	gnutls_free(text.data);
	free_pair(&other);
}

static void
name_file(struct tls_fixture *fixture, char *path, const char *name)
{
	snprintf(path, sizeof(fixture->ca), "%s/%s", fixture->directory, name);
}

void
tls_fixture_init(struct tls_fixture *fixture)
{
	time_t now = time(NULL);

	snprintf(fixture->directory, sizeof(fixture->directory), "/tmp/millrace-tls-XXXXXX");
	cr_assert_not_null(mkdtemp(fixture->directory));
	name_file(fixture, fixture->ca, "ca.pem");
	name_file(fixture, fixture->server, "server.pem");
	name_file(fixture, fixture->server_key, "server-key.pem");
	name_file(fixture, fixture->client, "client.pem");
	name_file(fixture, fixture->client_key, "client-key.pem");
	name_file(fixture, fixture->psk, "keys.psk");
	ca = make_pair("authority", true, now - DAY, now + DAY);
	must(gnutls_x509_crt_sign2(ca.certificate, ca.certificate, ca.key, GNUTLS_DIG_SHA256, 0));
	write_pair(&ca, fixture->ca, NULL);
	tls_fixture_issue_server(fixture, now - DAY, now + DAY);
	issue("client", fixture->client, fixture->client_key, now - DAY, now + DAY);
	tls_fixture_write(fixture->psk, "alice:" TLS_FIXTURE_PSK_HEX "\n", 0600);
}

void
tls_fixture_fini(struct tls_fixture *fixture)
{
	free_pair(&ca);
	(void)unlink(fixture->ca);
	(void)unlink(fixture->server);
	(void)unlink(fixture->server_key);
	(void)unlink(fixture->client);
	(void)unlink(fixture->client_key);
	(void)unlink(fixture->psk);
	cr_expect_eq(rmdir(fixture->directory), 0);
}

struct tls_files
tls_fixture_files(struct tls_fixture *fixture)
{
	return (struct tls_files){
		.ca = fixture->ca,
		.certificate = fixture->server,
		.key = fixture->server_key,
		.psk_file = fixture->psk,
		.verify_client = true,
	};
}
