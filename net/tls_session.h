/* A TLS session, a server's or a client's, bytes in and bytes out: ciphertext goes into its input and comes out of its output, each a
 * bounded buffer; no socket, no waiting.  GnuTLS does the protocol.
 * Owned by one connection, on one core; "the peer" is who is at its other end. */
#ifndef NET_TLS_SESSION_H
#define NET_TLS_SESSION_H

#include "net/tls_credentials.h"
#include "net/tls_names.h"
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

/* One receive: some records, or many small ones. */
#define TLS_SESSION_INPUT_BYTES 65536u

/* One send.  A record has at most 16 KiB of data and some overhead; behind what data may fill there is room for alerts and
 * updates of keys. */
#define TLS_SESSION_RECORD_BYTES 16384u
#define TLS_SESSION_RECORD_ROOM	 (TLS_SESSION_RECORD_BYTES + 512u)
#define TLS_SESSION_OUTPUT_BYTES (4u * TLS_SESSION_RECORD_ROOM + 4096u)

struct tls_session;

/* A session that is to begin with what the client sends next.  CREDENTIALS: the caller's reference, taken over in any case.
 * Returns 0 or -ENOMEM. */
int tls_session_create(struct tls_credentials *credentials, struct tls_session **session) MUST_USE;

/* What clients' sessions are made from: constant while there are any.  For the tools; the daemon is nobody's client. */
struct tls_client {
	gnutls_priority_t priority;
	gnutls_certificate_credentials_t x509; /* NULL: none */
	gnutls_psk_client_credentials_t psk;   /* instead of x509, or NULL */
	/* A name or an address that the server's certificate must be for; NULL: any. */
	const char *host;
	bool verify; /* one of the authorities of x509 must have signed the server's certificate */
};

/* A client's session, which begins with tls_session_handshake.  CLIENT, which must outlive it, may be used by several threads.
 * Returns 0 or -ENOMEM. */
int tls_session_create_client(const struct tls_client *client,
			      struct tls_session **session) MUST_USE;
void tls_session_destroy(struct tls_session *session);

/* Where received ciphertext goes; that so much came; that no more will come; forget it, TLS has
 * failed.  There is room whenever all was read (a read said -EAGAIN). */
struct iovec tls_session_input(struct tls_session *session);
void tls_session_received(struct tls_session *session, size_t count);
void tls_session_input_ended(struct tls_session *session);
void tls_session_discard_input(struct tls_session *session);

/* Whether a read can find something without more input. */
bool tls_session_may_read(const struct tls_session *session);

/* What is to be sent; that its first COUNT bytes were; forget it: the socket has failed. */
struct iovec tls_session_output(struct tls_session *session);
void tls_session_sent(struct tls_session *session, size_t count);
void tls_session_discard_output(struct tls_session *session);

/* Go on with the handshake.  Whatever it returns, there may be output.
 * Returns 0 when it is complete; -EAGAIN: after more input, or when the output is sent; -EPROTO: it has failed, tls_session_why says
 * why and the output has an alert for the peer. */
int tls_session_handshake(struct tls_session *session) MUST_USE;

/* Decrypt into PARTS, as much as there is and fits.  There may be output (answers of the protocol's own).
 * Returns bytes; 0: the peer has ended TLS in order; -EAGAIN: not without more input; -EPROTO: tls_session_why says what is wrong,
 * a connection that ended without the end of TLS included. */
ssize_t tls_session_read(struct tls_session *session, const struct iovec *parts,
			 unsigned part_count) MUST_USE;

/* Encrypt of PARTS, one byte at least, as much as fits into the output, which must be empty but for answers as above.
 * Returns bytes, at least one; or -EPROTO, and tls_session_why. */
ssize_t tls_session_write(struct tls_session *session, const struct iovec *parts,
			  unsigned part_count) MUST_USE;

/* Have the kernel encrypt what is sent through FD, SESSION's socket, from now on, if it can (tls_kernel.h); the handshake is complete
 * and the output empty.  Then nothing is written any more: what is to be sent goes to the socket as it is, and tls_session_kernel_sent is
 * told.  Returns whether it does. */
bool tls_session_offload(struct tls_session *session, int fd);
bool tls_session_offloaded(const struct tls_session *session);
void tls_session_kernel_sent(struct tls_session *session, size_t count);

/* Offloaded, and nothing is under way to the socket: change the keys if that is due and the socket has room.  Before each send, and
 * after a read.  Returns 0; or -EPROTO, and tls_session_why. */
int tls_session_change_keys(struct tls_session *session) MUST_USE;

/* Put the end of TLS into the output, or offloaded into the socket; nothing may be written any more. */
void tls_session_end(struct tls_session *session);

/* Free the buffers while nothing is in them and nothing may be read; false if there is something.  Reading and writing
 * need tls_session_unpark first, which returns 0 or -ENOMEM. */
bool tls_session_park(struct tls_session *session);
int tls_session_unpark(struct tls_session *session) MUST_USE;

/* After an -EPROTO: what happened, valid until the next call; and what kind of thing that is, static text.  Peers choose among some
 * hundred of the former, and among few of the latter, by which lines of the log are limited. */
const char *tls_session_why(const struct tls_session *session);
const char *tls_session_reason(const struct tls_session *session);

/* After a server's handshake: the names of the client that its certificate proves (common name, and DNS, mail and URI names), or
 * the identity of its key; none if it was not asked for any.  And how it is encrypted, for the log, as "TLS1.3, AES-128-GCM". */
const struct tls_names *tls_session_names(const struct tls_session *session);
void tls_session_describe(const struct tls_session *session, char *text, size_t text_bytes);

#endif
