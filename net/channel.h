/* A channel: a connection's stream, plain at first, and inside TLS from channel_secure on.
 * To its user it is as a stream is (reactor/stream.h), with the same rules: at most one receive and one send under way; all calls on
 * the reactor's thread, and no callback from within a call.  What is sent inside TLS is encrypted when the socket takes it, many
 * records at a time; what comes is decrypted into the user's parts.
 * Embedded and owned by its user. */
#ifndef NET_CHANNEL_H
#define NET_CHANNEL_H

#include "net/tls_line.h"
#include "net/tls_session.h"
#include "reactor/stream.h"

struct channel {
	/* As those of struct stream; also, on_received(0) is the end of TLS, and on_received(-ENOMEM) may come instead of on_awake.
	 * -EPROTO: channel_why says what TLS found wrong; nothing more can be sent, and what a later receive finds is discarded, up to
	 * the end. */
	void (*on_received)(struct channel *channel, ssize_t result);
	void (*on_sent)(struct channel *channel, ssize_t result);
	void (*on_awake)(struct channel *channel);
	void (*on_closed)(struct channel *channel);
	/* The end of channel_secure.  error: 0; or -EPROTO as above, and an alert is on its way to the client; or the network's. */
	void (*on_secured)(struct channel *channel, int error);
	uint64_t moved_bytes; /* that the socket has received and sent */
	/* Private. */
	struct stream stream;
	struct tls_session *tls;     /* owned; NULL: plain */
	struct tls_line *line;	     /* of the core, once TLS has begun */
	struct tls_line_place place; /* in it, while a step of the handshake can be taken */
	bool securing;
	bool parked;		 /* inside TLS: the stream waits, and nothing is under way */
	bool broken;		 /* the socket, and that was told to nobody */
	bool ending;		 /* the end of TLS is in the output; then the socket's */
	int error;		 /* of TLS: nothing goes on after it; 0: none */
	struct iovec *receiving; /* parts of a receive under way, or NULL */
	unsigned receiving_count;
	struct iovec *sending; /* likewise */
	unsigned sending_count;
	size_t encrypted_bytes; /* of `sending`, in the output */
	bool offload_tried;	/* the kernel was asked to encrypt */
	/* A part of `sending` that the kernel gets the beginning of; NULL: none. */
	struct iovec *cut;
	size_t cut_bytes; /* that are left out of it */
	struct iovec input, output;
	struct task go_on; /* with what needs no event of the socket */
};

/* As the function of struct stream with that name; the callbacks must be set. */
void channel_init(struct channel *channel, struct reactor *reactor, struct stream_parking *parking,
		  int fd);
void channel_receive(struct channel *channel, struct iovec *parts, unsigned part_count);
void channel_send(struct channel *channel, struct iovec *parts, unsigned part_count);
void channel_send_piped(struct channel *channel, struct iovec *parts, unsigned part_count,
			int pipe_fd, size_t bytes); /* not inside TLS */
bool channel_receiving(const struct channel *channel);
bool channel_sending(const struct channel *channel);
bool channel_park(struct channel *channel);
void channel_abandon(struct channel *channel);
void channel_end_sending(struct channel *channel);
long channel_unsent_bytes(struct channel *channel);
void channel_detach(struct channel *channel);
void channel_close(struct channel *channel);

/* Begin TLS with what the client sends from now on, as its server; on_secured follows.  Nothing may be under way, and nothing
 * be received or sent until then.  CREDENTIALS: the caller's reference, taken over in any case.  The steps of the handshake wait for
 * their turn in LINE, the reactor's, which must outlive the channel.
 * Returns 0, or -ENOMEM; then CHANNEL is as before. */
int channel_secure(struct channel *channel, struct tls_credentials *credentials,
		   struct tls_line *line) MUST_USE;

/* Go on inside TLS: SESSION, whose handshake is complete, is CHANNEL's from now on.  Nothing may be under way. */
void channel_adopt(struct channel *channel, struct tls_session *session);

/* Whether nothing is under way, of TLS's own neither: then it can be detached. */
bool channel_quiet(const struct channel *channel);

/* Go on with FD, CHANNEL's own, behind channel_detach, on REACTOR, another one.  PARKING: as for stream_init. */
void channel_attach(struct channel *channel, struct reactor *reactor,
		    struct stream_parking *parking, int fd);

/* Whose, and how encrypted, it is (tls_session.h); NULL: plain. */
static inline const struct tls_session *
channel_tls(const struct channel *channel)
{
	return channel->tls;
}

/* Whether TLS has words of its own that the socket has not taken, or the kernel may have encrypted what it could not give to TCP yet:
 * closing loses that. */
bool channel_says_more(const struct channel *channel);

/* While no receive is under way: as peer_socket_end.  What TLS has received and not told yet is still to be received, too. */
int channel_end(const struct channel *channel) MUST_USE;

/* After -EPROTO: what TLS found wrong, and of what kind that is, as tls_session_reason. */
const char *channel_why(const struct channel *channel);
const char *channel_reason(const struct channel *channel);

#endif
