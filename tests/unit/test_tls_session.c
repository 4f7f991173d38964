/* The server's side of TLS against GnuTLS's client, through memory. */
#include <criterion/criterion.h>
#include <errno.h>
#include <gnutls/abstract.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/tls_session.h"
#include "tests/unit/tls_fixture.h"

#define DATA_BYTES (100u * 1024)

enum kind {
	KIND_X509,
	KIND_PSK,
};

/* Both ends; what the server has sent waits in `to_client`, what the client has sent in `to_server`. */
struct trial {
	struct tls_fixture fixture;
	struct tls_session *server;
	gnutls_session_t client;
	gnutls_certificate_credentials_t x509;
	gnutls_psk_client_credentials_t psk;
	uint8_t to_server[1 << 18], to_client[1 << 18];
	size_t to_server_bytes, to_client_bytes;
	size_t step_bytes; /* the server gets so many at a time */
};

static struct trial trial;
static uint8_t data[DATA_BYTES], got[DATA_BYTES];

static ssize_t
client_push(gnutls_transport_ptr_t transport, const void *bytes, size_t count)
{
	(void)transport;
	cr_assert_leq(trial.to_server_bytes + count, sizeof(trial.to_server));
	memcpy(trial.to_server + trial.to_server_bytes, bytes, count);
	trial.to_server_bytes += count;
	return (ssize_t)count;
}

static ssize_t
client_pull(gnutls_transport_ptr_t transport, void *bytes, size_t count)
{
	(void)transport;
	if (trial.to_client_bytes == 0) {
		gnutls_transport_set_errno(trial.client, EAGAIN);
		return -1;
	}
	if (count > trial.to_client_bytes)
		count = trial.to_client_bytes;
	memcpy(bytes, trial.to_client, count);
	trial.to_client_bytes -= count;
	memmove(trial.to_client, trial.to_client + count, trial.to_client_bytes);
	return (ssize_t)count;
}

static int
client_pull_timeout(gnutls_transport_ptr_t transport, unsigned ms)
{
	(void)transport;
	(void)ms;
	return trial.to_client_bytes > 0;
}

/* Take the server's output, which must go out in any pieces. */
static void
carry_output(void)
{
	struct iovec output;

	while ((output = tls_session_output(trial.server)).iov_len > 0) {
		size_t count = output.iov_len > 1000 ? 1000 : output.iov_len;

		cr_assert_leq(trial.to_client_bytes + count, sizeof(trial.to_client));
		memcpy(trial.to_client + trial.to_client_bytes, output.iov_base, count);
		trial.to_client_bytes += count;
		tls_session_sent(trial.server, count);
	}
}

/* Give the server one step of what the client has sent.  Returns whether there was any. */
static bool
carry_input(void)
{
	struct iovec input = tls_session_input(trial.server);
	size_t count = trial.to_server_bytes;

	if (count > trial.step_bytes)
		count = trial.step_bytes;
	if (count > input.iov_len)
		count = input.iov_len;
	if (count == 0)
		return false;
	memcpy(input.iov_base, trial.to_server, count);
	trial.to_server_bytes -= count;
	memmove(trial.to_server, trial.to_server + count, trial.to_server_bytes);
	tls_session_received(trial.server, count);
	return true;
}

static void
begin(enum kind kind, const char *priority)
{
	struct tls_files files;
	struct tls_credentials *credentials;

	memset(&trial, 0, sizeof(trial));
	trial.step_bytes = SIZE_MAX;
	for (size_t i = 0; i < DATA_BYTES; i++)
		data[i] = (uint8_t)(i * 7 + i / 256);
	tls_fixture_init(&trial.fixture);
	files = tls_fixture_files(&trial.fixture);
	cr_assert_eq(tls_credentials_load(&files, &credentials), 0);
	cr_assert_eq(tls_session_create(credentials, &trial.server), 0);
	cr_assert_eq(gnutls_init(&trial.client, GNUTLS_CLIENT | GNUTLS_NONBLOCK), 0);
	cr_assert_eq(gnutls_priority_set_direct(trial.client, priority, NULL), 0);
	gnutls_certificate_allocate_credentials(&trial.x509);
	gnutls_psk_allocate_client_credentials(&trial.psk);
	if (kind == KIND_X509) {
		cr_assert_eq(gnutls_certificate_set_x509_key_file(trial.x509, trial.fixture.client,
								  trial.fixture.client_key,
								  GNUTLS_X509_FMT_PEM),
			     0);
		gnutls_credentials_set(trial.client, GNUTLS_CRD_CERTIFICATE, trial.x509);
	} else {
		gnutls_datum_t key = { (unsigned char *)TLS_FIXTURE_PSK_HEX,
				       (unsigned)strlen(TLS_FIXTURE_PSK_HEX) };

		gnutls_psk_set_client_credentials(trial.psk, "alice", &key, GNUTLS_PSK_KEY_HEX);
		gnutls_credentials_set(trial.client, GNUTLS_CRD_PSK, trial.psk);
	}
	gnutls_transport_set_push_function(trial.client, client_push);
	gnutls_transport_set_pull_function(trial.client, client_pull);
	gnutls_transport_set_pull_timeout_function(trial.client, client_pull_timeout);
}

static void
end(void)
{
	tls_session_destroy(trial.server);
	gnutls_deinit(trial.client);
	gnutls_certificate_free_credentials(trial.x509);
	gnutls_psk_free_client_credentials(trial.psk);
	tls_fixture_fini(&trial.fixture);
}

/* Both ends to the end of the handshake.  Returns the server's result. */
static int
shake_hands(void)
{
	int server = -EAGAIN, client = GNUTLS_E_AGAIN;

	for (int i = 0; i < 100000 && (server == -EAGAIN || client == GNUTLS_E_AGAIN); i++) {
		if (client == GNUTLS_E_AGAIN)
			client = gnutls_handshake(trial.client);
		if (server == -EAGAIN && carry_input())
			server = tls_session_handshake(trial.server);
		carry_output();
		if (server < 0 && server != -EAGAIN)
			return server;
	}
	cr_assert_eq(client, 0, "the client: %s", gnutls_strerror(client));
	return server;
}

static void
client_sends(const uint8_t *bytes, size_t count)
{
	while (count > 0) {
		ssize_t sent = gnutls_record_send(trial.client, bytes, count);

		cr_assert_gt(sent, 0);
		bytes += sent;
		count -= (size_t)sent;
	}
}

/* Read COUNT bytes of the server's side into `got`, in PARTS parts of different sizes. */
static void
server_reads(size_t count)
{
	size_t have = 0;

	while (have < count) {
		size_t half = (count - have) / 3;
		struct iovec parts[] = { { got + have, half },
					 { got + have + half, count - have - half } };
		ssize_t result = half == 0 ? tls_session_read(trial.server, parts + 1, 1)
					   : tls_session_read(trial.server, parts, 2);

		carry_output();
		if (result == -EAGAIN) {
			cr_assert_not(tls_session_may_read(trial.server));
			cr_assert(carry_input(), "%zu of %zu bytes", have, count);
			continue;
		}
		cr_assert_gt(result, 0, "%s", tls_session_why(trial.server));
		have += (size_t)result;
	}
}

static void
client_reads(size_t count)
{
	size_t have = 0;

	while (have < count) {
		ssize_t result = gnutls_record_recv(trial.client, got + have, count - have);

		if (result == GNUTLS_E_AGAIN && trial.to_client_bytes > 0)
			continue; /* behind an update of keys */
		cr_assert_gt(result, 0, "%s", gnutls_strerror((int)result));
		have += (size_t)result;
	}
}

static void
assert_both_ways(void)
{
	/* As replies are: headers, small and large payloads. */
	struct iovec parts[] = { { data, 16 },
				 { data + 16, 4096 },
				 { data + 4112, 1 },
				 { data + 4113, 60000 },
				 { data + 64113, DATA_BYTES - 64113 } };
	size_t sent = 0;

	client_sends(data, DATA_BYTES);
	memset(got, 0, sizeof(got));
	server_reads(DATA_BYTES);
	cr_assert_eq(memcmp(got, data, DATA_BYTES), 0);

	for (size_t i = 0; sent < DATA_BYTES;) {
		ssize_t taken = tls_session_write(trial.server, parts + i,
						  (unsigned)(ARRAY_COUNT(parts) - i));

		cr_assert_gt(taken, 0);
		sent += (size_t)taken;
		carry_output();
		while (i < ARRAY_COUNT(parts) && (size_t)taken >= parts[i].iov_len)
			taken -= (ssize_t)parts[i++].iov_len;
		if (i < ARRAY_COUNT(parts)) {
			parts[i].iov_base = (uint8_t *)parts[i].iov_base + taken;
			parts[i].iov_len -= (size_t)taken;
		}
	}
	memset(got, 0, sizeof(got));
	client_reads(DATA_BYTES);
	cr_assert_eq(memcmp(got, data, DATA_BYTES), 0);
}

static bool
is_named(const char *name)
{
	struct tls_names names = { 0 };
	bool is;

	cr_assert_eq(tls_names_add(&names, name, strlen(name)), 0);
	is = tls_names_meet(tls_session_names(trial.server), &names);
	tls_names_clear(&names);
	return is;
}

#define TLS12 "NORMAL:-VERS-ALL:+VERS-TLS1.2:+ECDHE-PSK:+DHE-PSK"
#define TLS13 "NORMAL:-VERS-ALL:+VERS-TLS1.3:+ECDHE-PSK:+DHE-PSK"

Test(tls_session, both_kinds_and_versions_carry_data_and_prove_names)
{
	static const char *const priorities[] = { TLS12, TLS13 };
	static const char *const texts[] = { "TLS1.2, AES-128-GCM", "TLS1.3, AES-128-GCM" };

	for (int i = 0; i < 4; i++) {
		enum kind kind = i / 2 == 0 ? KIND_X509 : KIND_PSK;
		char text[64];

		begin(kind, priorities[i % 2]);
		cr_assert_eq(shake_hands(), 0, "%s", tls_session_why(trial.server));
		tls_session_describe(trial.server, text, sizeof(text));
		/* In TLS 1.2 there is no AES-GCM for PSK with elliptic curves. */
		if (kind == KIND_X509 || i % 2 == 1)
			cr_assert_str_eq(text, texts[i % 2]);
		cr_assert_eq(is_named("client"), kind == KIND_X509);
		cr_assert_eq(is_named("host.example"), kind == KIND_X509);
		cr_assert_eq(is_named("alice"), kind == KIND_PSK);
		assert_both_ways();
		end();
	}
}

Test(tls_session, a_byte_at_a_time_is_enough)
{
	begin(KIND_X509, TLS13);
	trial.step_bytes = 1;
	cr_assert_eq(shake_hands(), 0, "%s", tls_session_why(trial.server));
	assert_both_ways();
	end();
}

Test(tls_session, a_client_without_certificate_gets_an_alert)
{
	static const char *const priorities[] = { TLS12, TLS13 };

	for (int i = 0; i < 2; i++) {
		ssize_t result;

		begin(KIND_X509, priorities[i]);
		gnutls_certificate_free_keys(trial.x509);
		cr_assert_eq(shake_hands(), -EPROTO);
		cr_assert_str_not_empty(tls_session_why(trial.server));
		do {
			result = i == 0 ? gnutls_handshake(trial.client)
					: gnutls_record_recv(trial.client, got, 1);
		} while (result == GNUTLS_E_INTERRUPTED);
		cr_assert_eq(result, GNUTLS_E_FATAL_ALERT_RECEIVED, "%s",
			     gnutls_strerror((int)result));
		end();
	}
}

/* A key that nobody has: its signatures are noise. */
static unsigned made_up_bits;

static int
make_up_signature(gnutls_privkey_t key, gnutls_sign_algorithm_t algorithm, void *context,
		  unsigned flags, const gnutls_datum_t *what, gnutls_datum_t *signature)
{
	(void)key;
	(void)algorithm;
	(void)context;
	(void)flags;
	(void)what;
	signature->size = made_up_bits / 8;
	signature->data = gnutls_malloc(signature->size);
	cr_assert_not_null(signature->data);
	memset(signature->data, 0x35, signature->size);
	return 0;
}

static int
tell_of_made_up_key(gnutls_privkey_t key, unsigned flags, void *context)
{
	(void)key;
	(void)context;
	if (flags & GNUTLS_PRIVKEY_INFO_PK_ALGO)
		return GNUTLS_PK_RSA;
	if (flags & GNUTLS_PRIVKEY_INFO_HAVE_SIGN_ALGO)
		return 1;
	return flags & GNUTLS_PRIVKEY_INFO_PK_ALGO_BITS ? (int)made_up_bits : -1;
}

/* A certificate of a made-up RSA key, which the authority is said to have signed. */
static void
sign_made_up_key(unsigned exponent_bits, gnutls_datum_t *der)
{
	uint8_t modulus_bytes[2048], exponent_bytes[2048];
	gnutls_datum_t modulus = { modulus_bytes, made_up_bits / 8 };
	gnutls_datum_t exponent = { exponent_bytes, (exponent_bits + 7) / 8 };
	gnutls_datum_t authority;
	gnutls_pubkey_t key;
	gnutls_x509_crt_t certificate, issuer;
	gnutls_x509_privkey_t signer;

	memset(modulus_bytes, 0xb7, sizeof(modulus_bytes));
	memset(exponent_bytes, 0x6d, sizeof(exponent_bytes));
	exponent_bytes[0] = (uint8_t)(1u << ((exponent_bits - 1) % 8));
	gnutls_pubkey_init(&key);
	cr_assert_eq(gnutls_pubkey_import_rsa_raw(key, &modulus, &exponent), 0);
	gnutls_x509_privkey_init(&signer);
	cr_assert_eq(gnutls_x509_privkey_generate(signer, GNUTLS_PK_ECDSA,
						  GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1),
						  0),
		     0);
	gnutls_x509_crt_init(&issuer);
	cr_assert_eq(gnutls_load_file(trial.fixture.ca, &authority), 0);
	cr_assert_eq(gnutls_x509_crt_import(issuer, &authority, GNUTLS_X509_FMT_PEM), 0);
	gnutls_free(authority.data);
	cr_assert_eq(gnutls_x509_crt_set_key(issuer, signer), 0);
	gnutls_x509_crt_init(&certificate);
	gnutls_x509_crt_set_version(certificate, 3);
	gnutls_x509_crt_set_serial(certificate, "\1", 1);
	gnutls_x509_crt_set_activation_time(certificate, 0);
	gnutls_x509_crt_set_expiration_time(certificate, INT32_MAX);
	cr_assert_eq(gnutls_x509_crt_set_pubkey(certificate, key), 0);
	cr_assert_eq(gnutls_x509_crt_sign2(certificate, issuer, signer, GNUTLS_DIG_SHA256, 0), 0);
	cr_assert_eq(gnutls_x509_crt_export2(certificate, GNUTLS_X509_FMT_DER, der), 0);
	gnutls_x509_crt_deinit(certificate);
	gnutls_x509_crt_deinit(issuer);
	gnutls_x509_privkey_deinit(signer);
	gnutls_pubkey_deinit(key);
}

/* The client has such a certificate, instead of its own. */
static void
give_made_up_key(unsigned bits, unsigned exponent_bits)
{
	gnutls_datum_t der;
	gnutls_pcert_st *chain = gnutls_malloc(sizeof(*chain));
	gnutls_privkey_t key;

	made_up_bits = bits;
	sign_made_up_key(exponent_bits, &der);
	cr_assert_eq(gnutls_pcert_import_x509_raw(chain, &der, GNUTLS_X509_FMT_DER, 0), 0);
	gnutls_free(der.data);
	gnutls_privkey_init(&key);
	cr_assert_eq(gnutls_privkey_import_ext4(key, NULL, make_up_signature, make_up_signature,
						NULL, NULL, tell_of_made_up_key, 0),
		     0);
	gnutls_certificate_free_keys(trial.x509);
	gnutls_certificate_set_flags(trial.x509, GNUTLS_CERTIFICATE_SKIP_KEY_CERT_MATCH);
	cr_assert_eq(gnutls_certificate_set_key(trial.x509, NULL, 0, chain, 1, key), 0);
}

Test(tls_session, a_key_that_would_keep_the_core_is_refused_before_it_is_used)
{
	static const struct {
		unsigned bits, exponent_bits;
		const char *why;
	} keys[] = {
		{ 8192, 64, "signature verification has failed" },
		{ 8192, 65, "more than 8192 bits" },
		{ 8200, 17, "more than 8192 bits" },
		{ 16384, 16000, "more than 8192 bits" },
	};

	for (size_t i = 0; i < ARRAY_COUNT(keys); i++) {
		begin(KIND_X509, TLS13);
		give_made_up_key(keys[i].bits, keys[i].exponent_bits);
		cr_assert_eq(shake_hands(), -EPROTO);
		cr_assert_not_null(strstr(tls_session_why(trial.server), keys[i].why), "%u, %u: %s",
				   keys[i].bits, keys[i].exponent_bits,
				   tls_session_why(trial.server));
		end();
		/* There the authority's signature is looked at before the key is used. */
		begin(KIND_X509, TLS12);
		give_made_up_key(keys[i].bits, keys[i].exponent_bits);
		cr_assert_eq(shake_hands(), -EPROTO);
		cr_assert_not_null(strstr(tls_session_why(trial.server), "NOT trusted"), "%u: %s",
				   keys[i].bits, tls_session_why(trial.server));
		end();
	}
}

Test(tls_session, groups_that_would_keep_the_core_are_refused)
{
	static const struct {
		enum kind kind;
		const char *priority;
		int result;
	} cases[] = {
		{ KIND_X509, TLS13 ":-GROUP-ALL:+GROUP-FFDHE8192", -EPROTO },
		{ KIND_X509, TLS13 ":-GROUP-ALL:+GROUP-FFDHE3072", -EPROTO },
		{ KIND_X509, TLS13 ":-GROUP-ALL:+GROUP-FFDHE2048", 0 },
		{ KIND_X509, TLS12 ":-KX-ALL:+DHE-RSA:-GROUP-ALL:+GROUP-FFDHE8192", -EPROTO },
		{ KIND_X509, TLS13 ":-GROUP-ALL:+GROUP-X25519", 0 },
		{ KIND_PSK, TLS12 ":-KX-ALL:+DHE-PSK:-GROUP-ALL:+GROUP-FFDHE8192", -EPROTO },
		{ KIND_PSK, TLS12 ":-KX-ALL:+DHE-PSK:-GROUP-ALL:+GROUP-FFDHE2048", 0 },
		{ KIND_PSK, TLS12 ":-KX-ALL:+DHE-PSK:-GROUP-ALL", 0 },
	};

	for (size_t i = 0; i < ARRAY_COUNT(cases); i++) {
		begin(cases[i].kind, cases[i].priority);
		cr_assert_eq(shake_hands(), cases[i].result, "%s: %s", cases[i].priority,
			     tls_session_why(trial.server));
		end();
	}
}

Test(tls_session, versions_before_1_2_are_refused)
{
	begin(KIND_X509, "NORMAL:-VERS-ALL:+VERS-TLS1.1:%COMPAT");
	cr_assert_eq(shake_hands(), -EPROTO);
	end();
}

Test(tls_session, keys_may_be_updated)
{
	begin(KIND_X509, TLS13);
	cr_assert_eq(shake_hands(), 0);
	for (int i = 0; i < 3; i++) {
		/* It asks for the server's too, which the server answers from within a read. */
		cr_assert_eq(gnutls_session_key_update(trial.client, GNUTLS_KU_PEER), 0);
		assert_both_ways();
	}
	end();
}

Test(tls_session, a_flood_of_key_updates_ends_it)
{
	int result = -EAGAIN;

	begin(KIND_X509, TLS13);
	cr_assert_eq(shake_hands(), 0);
	for (int i = 0; i < 100 && result == -EAGAIN; i++) {
		struct iovec part = { got, 1 };

		cr_assert_eq(gnutls_session_key_update(trial.client, GNUTLS_KU_PEER), 0);
		cr_assert(carry_input());
		result = (int)tls_session_read(trial.server, &part, 1);
		(void)tls_session_output(trial.server); /* nobody sends it */
	}
	cr_assert_eq(result, -EPROTO);
	end();
}

Test(tls_session, a_second_handshake_is_refused)
{
	struct iovec part = { got, 1 };

	begin(KIND_X509, TLS12);
	cr_assert_eq(shake_hands(), 0);
	cr_assert_eq(gnutls_handshake(trial.client), GNUTLS_E_AGAIN);
	cr_assert(carry_input());
	cr_assert_eq(tls_session_read(trial.server, &part, 1), -EPROTO);
	cr_assert_not_null(strstr(tls_session_why(trial.server), "second handshake"));
	end();
}

Test(tls_session, the_end_is_told_from_a_truncation)
{
	struct iovec part = { got, 100 };

	for (int truncated = 0; truncated < 2; truncated++) {
		begin(KIND_X509, TLS13);
		cr_assert_eq(shake_hands(), 0);
		client_sends(data, 10);
		if (!truncated)
			cr_assert_eq(gnutls_bye(trial.client, GNUTLS_SHUT_WR), 0);
		cr_assert(carry_input());
		if (truncated)
			tls_session_input_ended(trial.server);
		cr_assert_eq(tls_session_read(trial.server, &part, 1), 10, "what came before it");
		for (int again = 0; again < 2; again++)
			cr_assert_eq(tls_session_read(trial.server, &part, 1),
				     truncated ? -EPROTO : 0);
		tls_session_end(trial.server);
		carry_output();
		cr_assert_eq(gnutls_record_recv(trial.client, got, 1), 0);
		end();
	}
}

Test(tls_session, changed_ciphertext_is_refused)
{
	struct iovec part = { got, 100 };

	begin(KIND_X509, TLS13);
	cr_assert_eq(shake_hands(), 0);
	client_sends(data, 50);
	trial.to_server[20] ^= 1;
	cr_assert(carry_input());
	cr_assert_eq(tls_session_read(trial.server, &part, 1), -EPROTO);
	end();
}

Test(tls_session, what_a_client_says_is_one_reason)
{
	char first[160] = "", second[160] = "";
	unsigned said = 0;

	for (int alert = 0; alert < 256; alert++) {
		struct iovec part = { got, 100 };

		if (alert == GNUTLS_A_CLOSE_NOTIFY ||
		    gnutls_alert_get_name((gnutls_alert_description_t)alert) == NULL)
			continue;
		begin(KIND_PSK, TLS13);
		cr_assert_eq(shake_hands(), 0);
		cr_assert_eq(gnutls_alert_send(trial.client, GNUTLS_AL_FATAL,
					       (gnutls_alert_description_t)alert),
			     0);
		cr_assert(carry_input());
		cr_assert_eq(tls_session_read(trial.server, &part, 1), -EPROTO);
		cr_assert_str_eq(tls_session_reason(trial.server), "TLS: an alert");
		memcpy(first, second, sizeof(first));
		snprintf(second, sizeof(second), "%s", tls_session_why(trial.server));
		cr_assert_str_neq(first, second, "each is told in its own words");
		said++;
		end();
	}
	cr_assert_gt(said, 25);
}

Test(tls_session, parking_waits_until_nothing_is_there)
{
	begin(KIND_X509, TLS13);
	cr_assert_eq(shake_hands(), 0);
	client_sends(data, 2);
	cr_assert(carry_input());
	cr_assert_not(tls_session_park(trial.server), "there is something to read");
	server_reads(2);
	cr_assert_eq(tls_session_write(trial.server, &(struct iovec){ data, 1 }, 1), 1);
	cr_assert_eq(tls_session_read(trial.server, &(struct iovec){ got, 1 }, 1), -EAGAIN);
	cr_assert_not(tls_session_park(trial.server), "there is something to send");
	carry_output();
	client_reads(1);
	cr_assert(tls_session_park(trial.server));
	cr_assert_eq(tls_session_unpark(trial.server), 0);
	assert_both_ways();
	end();
}
