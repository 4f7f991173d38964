/* The handshake: fixed newstyle negotiation as a machine from bytes to bytes, without a socket.
 *
 * The caller feeds what the client sent, sends what `reply` holds, and goes on until the machine says that
 * transmission begins or that the connection ends.  One option is answered at a time, and a list of exports in parts, so a client
 * that does not read its replies can't make them pile up. */
#ifndef NET_HANDSHAKE_H
#define NET_HANDSHAKE_H

#include "net/byte_buffer.h"
#include "net/session.h"
#include "net/tls_credentials.h"
#include "reactor/check.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The longest option data that is looked at; longer ones are skipped and refused.  The input buffer must hold a whole
 * option: HANDSHAKE_INPUT_BYTES_MIN. */
#define HANDSHAKE_DATA_BYTES_MAX  16384u
#define HANDSHAKE_INPUT_BYTES_MIN (HANDSHAKE_DATA_BYTES_MAX + 16u)

/* The reply of one step, which is all that a client can make this side hold: so much of a list, and one export more, of texts as long
 * as they may be; nothing else is longer. */
#define HANDSHAKE_LIST_BYTES 16384u

enum handshake_state {
	HANDSHAKE_STATE_CLIENT_FLAGS,
	HANDSHAKE_STATE_OPTION,
	HANDSHAKE_STATE_SKIP, /* the rest of an option that is too long */
	HANDSHAKE_STATE_LIST, /* the rest of an answer to LIST: nothing is taken */
};

enum handshake_result {
	HANDSHAKE_MORE,	 /* feed more bytes behind those that were not consumed */
	HANDSHAKE_REPLY, /* send `reply`, clear it, then feed again, whether there is more or not */
	HANDSHAKE_TRANSMISSION, /* send `reply`; then `session` begins */
	HANDSHAKE_TLS,	 /* send `reply`; then TLS begins, and handshake_secured when it has */
	HANDSHAKE_CLOSE, /* send `reply`, then close: the client wants to leave */
	HANDSHAKE_DROP,	 /* close at once: `why` says what the client did */
};

struct handshake {
	struct byte_buffer reply;   /* to be sent */
	struct nbd_session session; /* complete once transmission begins */
	const char *why;	    /* static text */
	/* Who asks: to be set after handshake_init; decides what it sees. */
	struct access_peer peer;
	enum tls_mode tls_mode; /* to be set after handshake_init, too */
	/* For the log, after a step: why the client does not get what it asked for (static text; NULL: it gets that), and the export's name,
	 * within the bytes that were fed (NULL: of no export). */
	const char *refused;
	const char *refused_name;
	unsigned refused_name_bytes;
	/* Private. */
	const struct export_table *exports;
	enum handshake_state state;
	bool no_zeroes;
	bool no_tls; /* the client can't: it has not said that it speaks fixed newstyle */
	const struct tls_names *names; /* of the client, once TLS has begun; NULL before */
	bool needs_tls;		       /* what was asked for last */
	bool shutting_down;
	const struct export *contexts_export; /* that session.allocation is about, or NULL */
	uint32_t skip_bytes;		      /* yet to come */
	uint32_t skipped_bytes;		      /* in all */
	uint32_t skip_option;
	size_t list_next;	/* the first export that the answer has not come to */
	size_t described_count; /* answers to INFO, no more than there are exports */
	size_t extended_count;	/* of these, have been paid for with time */
};

/* Begin, with the greeting in `reply`.  EXPORTS must outlive the handshake. */
void handshake_init(struct handshake *handshake, const struct export_table *exports);
void handshake_fini(struct handshake *handshake);

/* Forget all that was negotiated so far, but for the client's flags: the next option finds a fresh start. */
void handshake_reset(struct handshake *handshake);

/* TLS has begun, and has proved that the client is called NAMES, which must outlive the handshake: what came before is forgotten. */
void handshake_secured(struct handshake *handshake, const struct tls_names *names);

/* Whether there is more to be answered without more bytes. */
bool handshake_goes_on(const struct handshake *handshake);

/* How many more seconds the client may take, for what it did since the last call: one for each export that it had described to it, as a
 * client does that lists them all; in all at most one for each that there is. */
unsigned handshake_extend_s(struct handshake *handshake);

/* The server stops: from now on options are answered with ERR_SHUTDOWN, and the connection ends. */
void handshake_shut_down(struct handshake *handshake);

/* Take the next step with the BYTES received and not yet consumed; says how many of them it *consumed. */
enum handshake_result handshake_step(struct handshake *handshake, const uint8_t *bytes,
				     size_t count, size_t *consumed) MUST_USE;

#endif
