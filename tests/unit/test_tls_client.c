/* The client's side of TLS against our own server's, through memory. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "net/tls_session.h"
#include "tests/unit/tls_fixture.h"

static struct tls_fixture fixture;
static struct tls_client client;
static struct tls_session *near, *far; /* the client's and the server's */

static void
set_up(void)
{
	struct tls_files files;
	struct tls_credentials *credentials;

	tls_fixture_init(&fixture);
	files = tls_fixture_files(&fixture);
	cr_assert_eq(tls_credentials_load(&files, &credentials), 0);
	cr_assert_eq(tls_session_create(credentials, &far), 0);
	cr_assert_eq(gnutls_priority_init(&client.priority, "NORMAL", NULL), 0);
}

static void
tear_down(void)
{
	tls_session_destroy(near);
	tls_session_destroy(far);
	if (client.x509 != NULL)
		gnutls_certificate_free_credentials(client.x509);
	if (client.psk != NULL)
		gnutls_psk_free_client_credentials(client.psk);
	gnutls_priority_deinit(client.priority);
	tls_fixture_fini(&fixture);
}

TestSuite(tls_client, .init = set_up, .fini = tear_down);

/* HOST is what the server's certificate must be for; TRUSTING: it is one that the client can trust. */
static void
bring_certificate(const char *host, bool trusting)
{
	cr_assert_eq(gnutls_certificate_allocate_credentials(&client.x509), 0);
	if (trusting)
		cr_assert_eq(gnutls_certificate_set_x509_trust_file(client.x509, fixture.ca,
								    GNUTLS_X509_FMT_PEM),
			     1);
	cr_assert_eq(gnutls_certificate_set_x509_key_file(client.x509, fixture.client,
							  fixture.client_key, GNUTLS_X509_FMT_PEM),
		     0);
	client.host = host;
	client.verify = true;
	cr_assert_eq(tls_session_create_client(&client, &near), 0);
}

/* Move what FROM has to send to TO.  Returns whether there was anything. */
static bool
carry(struct tls_session *from, struct tls_session *to)
{
	struct iovec output = tls_session_output(from);
	struct iovec input;

	if (output.iov_len == 0 || tls_session_may_read(to))
		return false;
	input = tls_session_input(to);
	if (output.iov_len > input.iov_len)
		output.iov_len = input.iov_len;
	memcpy(input.iov_base, output.iov_base, output.iov_len);
	tls_session_sent(from, output.iov_len);
	tls_session_received(to, output.iov_len);
	return true;
}

/* Returns the client's result. */
static int
shake_hands(void)
{
	int near_result = tls_session_handshake(near), far_result = -EAGAIN;

	for (int i = 0; i < 100 && (near_result == -EAGAIN || far_result == -EAGAIN); i++) {
		if (carry(near, far) && far_result == -EAGAIN)
			far_result = tls_session_handshake(far);
		if (carry(far, near) && near_result == -EAGAIN)
			near_result = tls_session_handshake(near);
	}
	return near_result;
}

static void
check_one_way(struct tls_session *from, struct tls_session *to)
{
	static uint8_t data[50000], got[50000];
	struct iovec part = { data, sizeof(data) };
	size_t have = 0;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7 + i / 256);
	cr_assert_eq(tls_session_write(from, &part, 1), sizeof(data));
	while (have < sizeof(got)) {
		struct iovec room = { got + have, sizeof(got) - have };
		ssize_t result = tls_session_read(to, &room, 1);

		if (result == -EAGAIN) {
			cr_assert(carry(from, to), "%zu bytes came", have);
			continue;
		}
		cr_assert_gt(result, 0, "%s", tls_session_why(to));
		have += (size_t)result;
	}
	cr_assert_arr_eq(got, data, sizeof(data));
}

Test(tls_client, both_ends_understand_each_other)
{
	bring_certificate("host.example", true);
	cr_assert_eq(shake_hands(), 0, "%s", tls_session_why(near));
	check_one_way(near, far);
	check_one_way(far, near);
}

Test(tls_client, the_end_is_told_to_the_server)
{
	uint8_t byte;
	struct iovec part = { &byte, 1 };

	bring_certificate("host.example", true);
	cr_assert_eq(shake_hands(), 0);
	cr_assert_eq(tls_session_read(far, &part, 1), -EAGAIN);
	tls_session_end(near);
	cr_assert(carry(near, far));
	cr_assert_eq(tls_session_read(far, &part, 1), 0);
}

Test(tls_client, a_server_of_another_name_is_refused)
{
	bring_certificate("other.example", true);
	cr_assert_eq(shake_hands(), -EPROTO);
	cr_assert_not_null(strstr(tls_session_why(near), "does not match"), "%s",
			   tls_session_why(near));
}

Test(tls_client, a_server_that_nobody_vouches_for_is_refused)
{
	bring_certificate(NULL, false);
	cr_assert_eq(shake_hands(), -EPROTO);
	cr_assert_not_null(strstr(tls_session_why(near), "NOT trusted"), "%s",
			   tls_session_why(near));
}

static void
bring_key(const char *hex)
{
	gnutls_datum_t key = { (unsigned char *)hex, (unsigned)strlen(hex) };

	cr_assert_eq(gnutls_psk_allocate_client_credentials(&client.psk), 0);
	cr_assert_eq(
		gnutls_psk_set_client_credentials(client.psk, "alice", &key, GNUTLS_PSK_KEY_HEX),
		0);
	gnutls_priority_deinit(client.priority);
	cr_assert_eq(gnutls_priority_init(&client.priority, "NORMAL:+ECDHE-PSK:+DHE-PSK", NULL), 0);
	cr_assert_eq(tls_session_create_client(&client, &near), 0);
}

Test(tls_client, a_pre_shared_key_is_enough)
{
	bring_key(TLS_FIXTURE_PSK_HEX);
	cr_assert_eq(shake_hands(), 0, "%s", tls_session_why(near));
	check_one_way(far, near);
}

Test(tls_client, a_wrong_key_is_refused)
{
	bring_key("ffffffffffffffffffffffffffffffff");
	cr_assert_eq(shake_hands(), -EPROTO);
}
