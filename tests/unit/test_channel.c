/* net/channel.h on a real socket against GnuTLS's client: the handshake, data both ways, parking, the ends, and closing anywhere.
 * The test turns the reactor itself and lets the client's bytes through as it likes. */
#include "net/channel.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/tls_fixture.h"

#define MS	    ((uint64_t)1000000)
#define PATIENCE_NS (20000 * MS)
#define DATA_BYTES  ((size_t)3 << 20)
#define SMALL_BYTES 100

static struct reactor *reactor;
static struct stream_parking parking;
static struct tls_line line;
static struct tls_fixture fixture;
static struct tls_credentials *credentials;
static unsigned parking_stopped_count;

static struct channel channel;
static struct iovec in_part, out_part;
static uint8_t data[DATA_BYTES], got[DATA_BYTES];

/* What the channel has said. */
static struct {
	unsigned received_count, sent_count, awake_count, closed_count, secured_count;
	ssize_t received, sent;
	int secured;
} seen;
static bool calling;  /* in a call of the channel's: it may not call back */
static bool silenced; /* abandoned: only on_closed may come */

/* The client. */
static int peer;
static gnutls_session_t client;
static gnutls_certificate_credentials_t client_x509;
static uint8_t client_out[1 << 17];
static size_t client_out_bytes;
static size_t client_passed_bytes,
	client_limit_bytes; /* of its bytes, how many went out; how many may */

#define CALL(expression)                \
	do {                            \
		cr_assert_not(calling); \
		calling = true;         \
		expression;             \
		calling = false;        \
	} while (0)

/* ---- callbacks ---- */

static void
note(struct channel *which, unsigned *count)
{
	cr_assert_eq(which, &channel);
	cr_assert_not(calling, "a callback from within a call");
	(*count)++;
}

static void
on_received(struct channel *which, ssize_t result)
{
	note(which, &seen.received_count);
	cr_assert_not(silenced);
	cr_assert_not(channel_receiving(which));
	seen.received = result;
}

static void
on_sent(struct channel *which, ssize_t result)
{
	note(which, &seen.sent_count);
	cr_assert_not(silenced);
	cr_assert_not(channel_sending(which));
	seen.sent = result;
}

static void
on_awake(struct channel *which)
{
	note(which, &seen.awake_count);
	cr_assert_not(silenced);
}

static void
on_closed(struct channel *which)
{
	note(which, &seen.closed_count);
}

static void
on_secured(struct channel *which, int error)
{
	note(which, &seen.secured_count);
	cr_assert_not(silenced);
	seen.secured = error;
}

static void
on_parking_stopped(struct stream_parking *which)
{
	cr_assert_eq(which, &parking);
	parking_stopped_count++;
}

/* ---- the client ---- */

static ssize_t
client_push(gnutls_transport_ptr_t transport, const void *bytes, size_t count)
{
	(void)transport;
	if (count > sizeof(client_out) - client_out_bytes) {
		gnutls_transport_set_errno(client, EAGAIN);
		return -1;
	}
	memcpy(client_out + client_out_bytes, bytes, count);
	client_out_bytes += count;
	return (ssize_t)count;
}

static ssize_t
client_pull(gnutls_transport_ptr_t transport, void *bytes, size_t count)
{
	ssize_t result = recv(peer, bytes, count, MSG_DONTWAIT);

	(void)transport;
	if (result < 0)
		gnutls_transport_set_errno(client, errno);
	return result;
}

static int
client_pull_timeout(gnutls_transport_ptr_t transport, unsigned ms)
{
	int bytes = 0;

	(void)transport;
	(void)ms;
	return ioctl(peer, FIONREAD, &bytes) == 0 && bytes > 0;
}

/* Pass on COUNT of the client's bytes at most, and no more than it may. */
static void
client_pass(size_t count)
{
	ssize_t sent;

	if (count > client_limit_bytes - client_passed_bytes)
		count = client_limit_bytes - client_passed_bytes;
	if (count > client_out_bytes)
		count = client_out_bytes;
	if (count == 0)
		return;
	sent = send(peer, client_out, count, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (sent <= 0)
		return;
	client_passed_bytes += (size_t)sent;
	client_out_bytes -= (size_t)sent;
	memmove(client_out, client_out + sent, client_out_bytes);
}

static void
client_begin(void)
{
	client_out_bytes = client_passed_bytes = 0;
	client_limit_bytes = SIZE_MAX;
	cr_assert_eq(gnutls_init(&client, GNUTLS_CLIENT | GNUTLS_NONBLOCK), 0);
	cr_assert_eq(gnutls_set_default_priority(client), 0);
	gnutls_credentials_set(client, GNUTLS_CRD_CERTIFICATE, client_x509);
	gnutls_transport_set_push_function(client, client_push);
	gnutls_transport_set_pull_function(client, client_pull);
	gnutls_transport_set_pull_timeout_function(client, client_pull_timeout);
}

/* ---- beginning and end ---- */

static void
open_channel_on(const int fds[2])
{
	memset(&seen, 0, sizeof(seen));
	memset(&channel, 0, sizeof(channel));
	silenced = false;
	peer = fds[1];
	channel.on_received = on_received;
	channel.on_sent = on_sent;
	channel.on_awake = on_awake;
	channel.on_closed = on_closed;
	channel.on_secured = on_secured;
	CALL(channel_init(&channel, reactor, &parking, fds[0]));
	client_begin();
}

static void
open_channel(void)
{
	int fds[2];

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
	open_channel_on(fds);
}

/* Over TCP, with a client that has room for little. */
static void
open_channel_over_tcp(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t address_bytes = sizeof(address);
	int listener = socket(AF_INET, SOCK_STREAM, 0), little = 4096, fds[2];

	cr_assert_eq(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	cr_assert_eq(listen(listener, 1), 0);
	cr_assert_eq(getsockname(listener, (struct sockaddr *)&address, &address_bytes), 0);
	fds[1] = socket(AF_INET, SOCK_STREAM, 0);
	cr_assert_eq(setsockopt(fds[1], SOL_SOCKET, SO_RCVBUF, &little, sizeof(little)), 0);
	cr_assert_eq(connect(fds[1], (struct sockaddr *)&address, sizeof(address)), 0);
	fds[0] = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
	cr_assert_geq(fds[0], 0);
	(void)close(listener);
	open_channel_on(fds);
}

static void
turn(void)
{
	(void)reactor_turn(reactor);
}

static void
turn_until(const unsigned *count, unsigned value)
{
	uint64_t until_ns = kernel_clock_ns() + PATIENCE_NS;

	while (*count < value) {
		cr_assert_lt(kernel_clock_ns(), until_ns);
		turn();
	}
	cr_assert_eq(*count, value);
}

static void
turn_for_a_while(void)
{
	for (int i = 0; i < 20; i++)
		turn();
}

/* Close it as it is; nothing but on_closed may come. */
static void
close_channel(void)
{
	silenced = true;
	CALL(channel_close(&channel));
	turn_until(&seen.closed_count, 1);
	turn_for_a_while();
	cr_assert_eq(seen.closed_count, 1);
	gnutls_deinit(client);
	(void)close(peer);
}

static void
setup(void)
{
	const struct reactor_config config = { .disk_slots = 1, .poll_slots = 4 };
	struct tls_files files;

	signal(SIGPIPE, SIG_IGN);
	for (size_t i = 0; i < DATA_BYTES; i++)
		data[i] = (uint8_t)(i * 7 + i / 256);
	cr_assert_eq(reactor_create(&config, &reactor), 0);
	cr_assert_eq(stream_parking_start(&parking, reactor), 0);
	tls_line_init(&line, reactor);
	tls_fixture_init(&fixture);
	files = tls_fixture_files(&fixture);
	cr_assert_eq(tls_credentials_load(&files, &credentials), 0);
	gnutls_certificate_allocate_credentials(&client_x509);
	cr_assert_eq(gnutls_certificate_set_x509_key_file(client_x509, fixture.client,
							  fixture.client_key, GNUTLS_X509_FMT_PEM),
		     0);
}

static void
teardown(void)
{
	tls_credentials_put(credentials);
	gnutls_certificate_free_credentials(client_x509);
	tls_fixture_fini(&fixture);
	tls_line_fini(&line);
	stream_parking_stop(&parking, on_parking_stopped);
	turn_until(&parking_stopped_count, 1);
	turn_for_a_while();
	cr_assert_eq(reactor_free_slots(reactor, OP_KIND_POLL), 4, "no poll is left over");
	reactor_destroy(reactor);
}

TestSuite(channel, .init = setup, .fini = teardown, .timeout = 120);

/* ---- transfers ---- */

static void
begin_receive(size_t bytes)
{
	in_part = (struct iovec){ got, bytes };
	CALL(channel_receive(&channel, &in_part, 1));
}

static void
begin_send(const uint8_t *bytes, size_t count)
{
	out_part = (struct iovec){ (void *)(uintptr_t)bytes, count };
	CALL(channel_send(&channel, &out_part, 1));
}

static void
secure(void)
{
	CALL(cr_assert_eq(channel_secure(&channel, tls_credentials_get(credentials), &line), 0));
	cr_assert(channel_receiving(&channel) && channel_sending(&channel),
		  "nothing else meanwhile");
}

/* Both ends, the client's bytes STEP_BYTES a turn, until the channel has said how it went or the client may pass no more. */
static void
shake_hands(size_t step_bytes)
{
	uint64_t until_ns = kernel_clock_ns() + PATIENCE_NS;
	int error = GNUTLS_E_AGAIN;

	while (seen.secured_count == 0 || error == GNUTLS_E_AGAIN) {
		cr_assert_lt(kernel_clock_ns(), until_ns);
		if (error == GNUTLS_E_AGAIN || error == GNUTLS_E_INTERRUPTED)
			error = gnutls_handshake(client);
		client_pass(step_bytes);
		turn();
		if (client_passed_bytes == client_limit_bytes)
			break;
	}
	while (client_out_bytes > 0 && client_passed_bytes < client_limit_bytes)
		client_pass(step_bytes);
}

static void
secure_open(void)
{
	secure();
	shake_hands(SIZE_MAX);
	cr_assert_eq(seen.secured_count, 1);
	cr_assert_eq(seen.secured, 0, "%s", channel_why(&channel));
	cr_assert_not(channel_receiving(&channel) || channel_sending(&channel));
}

static void
open_secured(void)
{
	open_channel();
	secure_open();
}

/* DATA_BYTES from the client, in receives of at most STEP_BYTES. */
static void
receive_all(size_t step_bytes)
{
	size_t have = 0, put = 0;

	while (have < DATA_BYTES) {
		unsigned count = seen.received_count;

		if (put < DATA_BYTES) {
			size_t left = DATA_BYTES - put;
			ssize_t sent =
				gnutls_record_send(client, data + put, left > 16384 ? 16384 : left);

			cr_assert(sent > 0 || sent == GNUTLS_E_AGAIN);
			put += sent > 0 ? (size_t)sent : 0;
		}
		client_pass(SIZE_MAX);
		begin_receive(step_bytes);
		while (seen.received_count == count) {
			client_pass(SIZE_MAX);
			turn();
		}
		cr_assert(seen.received > 0 && (size_t)seen.received <= step_bytes);
		cr_assert_eq(memcmp(got, data + have, (size_t)seen.received), 0);
		have += (size_t)seen.received;
	}
}

/* DATA_BYTES to the client, which reads slowly. */
static void
send_all(void)
{
	size_t sent = 0, have = 0;
	bool was_full = false;

	while (have < DATA_BYTES) {
		unsigned count = seen.sent_count;
		ssize_t result;

		if (sent < DATA_BYTES && !channel_sending(&channel))
			begin_send(data + sent, DATA_BYTES - sent);
		for (int i = 0; i < 3; i++)
			turn();
		if (seen.sent_count > count) {
			cr_assert_gt(seen.sent, 0);
			sent += (size_t)seen.sent;
		} else {
			was_full = true;
		}
		result = gnutls_record_recv(client, got + have, 16384);
		cr_assert(result > 0 || result == GNUTLS_E_AGAIN);
		have += result > 0 ? (size_t)result : 0;
	}
	cr_assert(was_full, "the socket never made it wait");
	cr_assert_eq(memcmp(got, data, DATA_BYTES), 0);
}

/* ---- plain ---- */

Test(channel, plain_it_is_a_stream)
{
	open_channel();
	cr_assert_null(channel_tls(&channel));
	begin_receive(SMALL_BYTES);
	cr_assert(channel_receiving(&channel));
	turn_for_a_while();
	cr_assert_eq(write(peer, data, 7), 7);
	turn_until(&seen.received_count, 1);
	cr_assert_eq(seen.received, 7);
	begin_send(data, 9);
	turn_until(&seen.sent_count, 1);
	cr_assert_eq(seen.sent, 9);
	cr_assert_eq(read(peer, got, SMALL_BYTES), 9);
	begin_receive(SMALL_BYTES);
	turn_for_a_while();
	cr_assert(channel_park(&channel));
	cr_assert(channel_receiving(&channel));
	cr_assert_eq(write(peer, data, 1), 1);
	turn_until(&seen.awake_count, 1);
	cr_assert_not(channel_receiving(&channel));
	CALL(channel_end_sending(&channel));
	cr_assert_eq(read(peer, got, 1), 0);
	close_channel();
}

/* ---- the handshake ---- */

Test(channel, the_handshake_takes_bytes_as_they_come)
{
	static const size_t steps[] = { 1, 2, 100, SIZE_MAX };

	for (size_t i = 0; i < ARRAY_COUNT(steps); i++) {
		open_channel();
		secure();
		shake_hands(steps[i]);
		cr_assert_eq(seen.secured_count, 1);
		cr_assert_eq(seen.secured, 0, "%s", channel_why(&channel));
		cr_assert_not_null(channel_tls(&channel));
		begin_send(data, SMALL_BYTES);
		turn_until(&seen.sent_count, 1);
		cr_assert_eq(gnutls_record_recv(client, got, DATA_BYTES), SMALL_BYTES);
		close_channel();
	}
}

Test(channel, what_comes_with_the_last_of_the_handshake_is_not_lost)
{
	open_channel();
	secure();
	while (gnutls_handshake(client) == GNUTLS_E_AGAIN) {
		client_pass(SIZE_MAX);
		turn();
	}
	cr_assert_eq(seen.secured_count, 0, "the client's last flight has not been passed on");
	cr_assert_eq(gnutls_record_send(client, data, SMALL_BYTES), SMALL_BYTES);
	client_pass(SIZE_MAX);
	turn_until(&seen.secured_count, 1);
	cr_assert_eq(seen.secured, 0);
	/* No event of the socket will follow. */
	begin_receive(10);
	turn_until(&seen.received_count, 1);
	cr_assert_eq(seen.received, 10);
	begin_receive(DATA_BYTES);
	turn_until(&seen.received_count, 2);
	cr_assert_eq(seen.received, SMALL_BYTES - 10);
	close_channel();
}

Test(channel, a_handshake_sleeps_and_wakes_and_is_not_parked)
{
	open_channel();
	secure();
	cr_assert_eq(gnutls_handshake(client), GNUTLS_E_AGAIN);
	for (int i = 0; i < 5; i++) {
		uint64_t until_ns = kernel_clock_ns() + 5 * MS;

		client_pass(20);
		while (kernel_clock_ns() < until_ns)
			turn(); /* it tries unasked for a while, then waits */
		cr_assert_not(channel_park(&channel));
		cr_assert_eq(seen.awake_count, 0);
	}
	shake_hands(SIZE_MAX);
	cr_assert_eq(seen.secured, 0);
	close_channel();
}

Test(channel, garbage_fails_the_handshake_with_an_alert_and_nothing_goes_on)
{
	uint8_t alert[7];

	open_channel();
	secure();
	cr_assert_eq(write(peer, data, 4000), 4000);
	turn_until(&seen.secured_count, 1);
	cr_assert_eq(seen.secured, -EPROTO);
	cr_assert_str_not_empty(channel_why(&channel));
	begin_send(data, SMALL_BYTES);
	turn_until(&seen.sent_count, 1);
	cr_assert_eq(seen.sent, -EPROTO);
	begin_receive(SMALL_BYTES);
	cr_assert_eq(write(peer, data, 4000), 4000);
	turn_for_a_while();
	cr_assert_eq(seen.received_count, 0, "what comes now is discarded");
	CALL(channel_end_sending(&channel));
	turn_for_a_while();
	cr_assert_eq(read(peer, alert, sizeof(alert)), 7);
	cr_assert_eq(alert[0], 21, "an alert");
	cr_assert_eq(read(peer, alert, 1), 0);
	cr_assert_eq(channel_unsent_bytes(&channel), 0);
	cr_assert_eq(shutdown(peer, SHUT_WR), 0);
	turn_until(&seen.received_count, 1);
	cr_assert_eq(seen.received, 0);
	close_channel();
}

Test(channel, the_end_of_the_socket_ends_the_handshake)
{
	open_channel();
	secure();
	cr_assert_eq(gnutls_handshake(client), GNUTLS_E_AGAIN);
	client_pass(client_out_bytes - 1);
	turn_for_a_while();
	cr_assert_eq(shutdown(peer, SHUT_WR), 0);
	turn_until(&seen.secured_count, 1);
	cr_assert_eq(seen.secured, -EPROTO);
	close_channel();
}

Test(channel, it_may_be_closed_anywhere_in_the_handshake)
{
	size_t total;

	open_secured();
	total = client_passed_bytes;
	close_channel();
	for (size_t limit = 0; limit <= total; limit += total / 60) {
		open_channel();
		client_limit_bytes = limit;
		secure();
		shake_hands(SIZE_MAX);
		cr_assert(seen.secured_count == 0 || limit + 60 > total);
		close_channel();
	}
}

Test(channel, it_may_be_abandoned_while_its_answer_waits_for_room)
{
	int bytes = 1; /* the kernel takes the least it can */

	open_channel();
	cr_assert_eq(gnutls_handshake(client), GNUTLS_E_AGAIN);
	cr_assert_eq(setsockopt(channel.stream.fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)),
		     0);
	while (send(channel.stream.fd, data, 1, MSG_DONTWAIT) == 1)
		;
	secure();
	client_pass(SIZE_MAX);
	turn_for_a_while();
	cr_assert_eq(seen.secured_count, 0);
	cr_assert_gt(channel_unsent_bytes(&channel), 0);
	silenced = true;
	CALL(channel_abandon(&channel));
	turn_for_a_while();
	close_channel();
}

/* ---- data ---- */

Test(channel, data_is_the_same_in_any_pieces_both_ways)
{
	open_secured();
	receive_all(1000);
	receive_all(DATA_BYTES);
	send_all();
	close_channel();
}

Test(channel, a_record_larger_than_the_parts_is_told_in_turn)
{
	open_secured();
	cr_assert_eq(gnutls_record_send(client, data, 16384), 16384);
	client_pass(SIZE_MAX);
	for (unsigned i = 1; i <= 16; i++) {
		begin_receive(1024);
		turn_until(&seen.received_count, i);
		cr_assert_eq(seen.received, 1024);
		cr_assert_eq(memcmp(got, data + 1024 * (i - 1), 1024), 0);
	}
	begin_receive(1024);
	turn_for_a_while();
	cr_assert_eq(seen.received_count, 16);
	close_channel();
}

Test(channel, it_may_be_closed_with_transfers_under_way)
{
	for (int sending = 0; sending < 2; sending++) {
		for (int receiving = 0; receiving < 3; receiving++) {
			open_secured();
			if (sending)
				begin_send(data, DATA_BYTES); /* more than the socket takes */
			for (int i = 0; sending && i < 100; i++) {
				turn();
				if (!channel_sending(&channel))
					begin_send(data, DATA_BYTES);
			}
			if (receiving == 2) {
				/* There is something already: its end is a task that has not come. */
				cr_assert_gt(gnutls_record_send(client, data, SMALL_BYTES), 0);
				client_pass(SIZE_MAX);
				begin_receive(1);
				turn_until(&seen.received_count, 1);
			}
			if (receiving > 0)
				begin_receive(SMALL_BYTES);
			close_channel();
		}
	}
}

/* ---- parking ---- */

Test(channel, parked_it_wakes_up_and_goes_on)
{
	open_secured();
	for (unsigned i = 1; i <= 3; i++) {
		uint64_t until_ns = kernel_clock_ns() + PATIENCE_NS;

		begin_receive(SMALL_BYTES);
		while (!channel_park(&channel)) {
			cr_assert_lt(kernel_clock_ns(), until_ns);
			turn();
		}
		cr_assert(channel_receiving(&channel), "as of a stream that is parked");
		turn_for_a_while();
		cr_assert_eq(seen.awake_count, i - 1);
		cr_assert_eq(gnutls_record_send(client, data, SMALL_BYTES), SMALL_BYTES);
		client_pass(SIZE_MAX);
		turn_until(&seen.awake_count, i);
		cr_assert_not(channel_receiving(&channel));
		begin_receive(SMALL_BYTES);
		turn_until(&seen.received_count, i);
		cr_assert_eq(seen.received, SMALL_BYTES);
		cr_assert_eq(memcmp(got, data, SMALL_BYTES), 0);
	}
	begin_receive(SMALL_BYTES);
	turn_for_a_while();
	(void)channel_park(&channel);
	close_channel();
}

/* As a server that stops ends those that are parked: without waking them up. */
Test(channel, parked_it_ends_in_order)
{
	uint64_t until_ns = kernel_clock_ns() + PATIENCE_NS;
	ssize_t result;

	open_secured();
	begin_receive(SMALL_BYTES);
	while (!channel_park(&channel)) {
		cr_assert_lt(kernel_clock_ns(), until_ns);
		turn();
	}
	CALL(channel_end_sending(&channel));
	turn_for_a_while();
	cr_assert_eq(channel_unsent_bytes(&channel), 0);
	cr_assert(channel_receiving(&channel), "still parked");
	do
		result = gnutls_record_recv(client, got, SMALL_BYTES);
	while (result == GNUTLS_E_AGAIN && kernel_clock_ns() < until_ns);
	cr_assert_eq(result, 0, "the end of TLS: %zd", result);
	close_channel();
}

Test(channel, it_is_not_parked_with_something_to_read_or_to_send)
{
	open_secured();
	cr_assert_not(channel_park(&channel), "nothing is being received");
	cr_assert_eq(gnutls_record_send(client, data, 2), 2);
	client_pass(SIZE_MAX);
	begin_receive(1);
	turn_until(&seen.received_count, 1);
	begin_receive(1);
	cr_assert_not(channel_park(&channel), "there is another byte");
	turn_until(&seen.received_count, 2);
	begin_receive(1);
	turn_for_a_while();
	begin_send(data, DATA_BYTES);
	cr_assert_not(channel_park(&channel), "it sends");
	close_channel();
}

/* ---- ends ---- */

Test(channel, the_clients_end_is_told_from_a_truncation)
{
	for (int truncated = 0; truncated < 2; truncated++) {
		open_secured();
		cr_assert_eq(gnutls_record_send(client, data, SMALL_BYTES), SMALL_BYTES);
		if (!truncated)
			cr_assert_eq(gnutls_bye(client, GNUTLS_SHUT_WR), 0);
		client_pass(SIZE_MAX);
		cr_assert_eq(shutdown(peer, SHUT_WR), 0);
		begin_receive(DATA_BYTES);
		turn_until(&seen.received_count, 1);
		cr_assert_eq(seen.received, SMALL_BYTES);
		begin_receive(DATA_BYTES);
		turn_until(&seen.received_count, 2);
		cr_assert_eq(seen.received, truncated ? -EPROTO : 0);
		close_channel();
	}
}

Test(channel, a_reset_is_told)
{
	open_secured();
	begin_receive(SMALL_BYTES);
	turn_for_a_while();
	/* A Unix socket is reset when it is closed with something unread. */
	begin_send(data, SMALL_BYTES);
	turn_until(&seen.sent_count, 1);
	cr_assert_eq(close(peer), 0);
	turn_until(&seen.received_count, 1);
	cr_assert_eq(seen.received, -ECONNRESET);
	begin_send(data, SMALL_BYTES);
	turn_until(&seen.sent_count, 2);
	cr_assert_eq(seen.sent, -EPIPE);
	peer = -1;
	close_channel();
}

Test(channel, behind_a_reset_there_is_nothing_to_wait_for)
{
	struct linger now = { .l_onoff = 1 };

	open_channel_over_tcp();
	secure_open();
	begin_send(data, DATA_BYTES);
	turn_until(&seen.sent_count, 1);
	cr_assert_gt(seen.sent, 0);
	cr_assert_gt(channel_unsent_bytes(&channel), 0, "the client had room for it");
	cr_assert_eq(setsockopt(peer, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
	(void)close(peer);
	CALL(channel_end_sending(&channel));
	turn_for_a_while();
	cr_assert_eq(channel_unsent_bytes(&channel), 0);
	cr_assert_not(channel_says_more(&channel));
	peer = -1;
	close_channel();
}

Test(channel, its_own_end_is_told_to_the_client)
{
	ssize_t result;

	open_secured();
	begin_send(data, SMALL_BYTES);
	turn_until(&seen.sent_count, 1);
	CALL(channel_end_sending(&channel));
	turn_for_a_while();
	cr_assert_eq(gnutls_record_recv(client, got, DATA_BYTES), SMALL_BYTES);
	do {
		result = gnutls_record_recv(client, got, DATA_BYTES);
	} while (result == GNUTLS_E_AGAIN);
	cr_assert_eq(result, 0, "the end of TLS, not of the socket alone");
	cr_assert_eq(recv(peer, got, 1, 0), 0);
	cr_assert_eq(channel_unsent_bytes(&channel), 0);
	close_channel();
}

Test(channel, changed_ciphertext_ends_it)
{
	open_secured();
	cr_assert_eq(gnutls_record_send(client, data, SMALL_BYTES), SMALL_BYTES);
	client_out[20] ^= 1;
	client_pass(SIZE_MAX);
	begin_receive(DATA_BYTES);
	turn_until(&seen.received_count, 1);
	cr_assert_eq(seen.received, -EPROTO);
	cr_assert_str_not_empty(channel_why(&channel));
	begin_send(data, SMALL_BYTES);
	turn_until(&seen.sent_count, 1);
	cr_assert_eq(seen.sent, -EPROTO);
	close_channel();
}
