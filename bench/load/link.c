/* A blocking socket, with a session of TLS that moves bytes between its buffers and that. */
#include "bench/load/link.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "net/peer_socket.h"
#include "reactor/kernel.h"

#define LINK_TIMEOUT_NS ((uint64_t)LINK_TIMEOUT_S * 1000000000)

int
link_open(struct link *link, const struct address *address)
{
	struct timeval timeout = { .tv_sec = LINK_TIMEOUT_S };
	int one = 1, error;
	int fd = socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	if (address->storage.ss_family != AF_UNIX)
		(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	peer_socket_unpace(fd, address);
	if (connect(fd, (const struct sockaddr *)&address->storage, address->bytes) == 0) {
		*link = (struct link){ .fd = fd,
				       .deadline_ns = kernel_clock_ns() + LINK_TIMEOUT_NS };
		return 0;
	}
	error = errno == EAGAIN || errno == EINPROGRESS ? -ETIMEDOUT : -errno;
	(void)close(fd);
	return error;
}

const char *
link_why(const struct link *link)
{
	return tls_session_why(link->tls);
}

/* ---- the socket ---- */

static int
socket_send(int fd, const void *bytes, size_t count)
{
	const uint8_t *next = bytes;

	while (count > 0) {
		ssize_t result = send(fd, next, count, MSG_NOSIGNAL);

		if (result < 0 && errno == EINTR)
			continue;
		if (result < 0)
			return errno == EAGAIN ? -ETIMEDOUT : -errno;
		next += result;
		count -= (size_t)result;
	}
	return 0;
}

/* Some bytes, up to COUNT; 0: the end. */
static ssize_t
socket_receive(const struct link *link, void *bytes, size_t count)
{
	ssize_t result;

	if (kernel_clock_ns() > link->deadline_ns)
		return -ETIMEDOUT;
	do
		result = recv(link->fd, bytes, count, 0);
	while (result < 0 && errno == EINTR);
	if (result >= 0)
		return result;
	return errno == EAGAIN ? -ETIMEDOUT : -errno;
}

/* ---- TLS ---- */

/* Send what the session has to say. */
static int
finish_tls_output(struct link *link)
{
	struct iovec output;

	while ((output = tls_session_output(link->tls)).iov_len > 0) {
		int error = socket_send(link->fd, output.iov_base, output.iov_len);

		if (error < 0)
			return error;
		tls_session_sent(link->tls, output.iov_len);
	}
	return 0;
}

/* Give the session more of what comes, its end included. */
static int
feed_tls(struct link *link)
{
	struct iovec input = tls_session_input(link->tls);
	ssize_t count = socket_receive(link, input.iov_base, input.iov_len);

	if (count < 0)
		return (int)count;
	if (count > 0)
		tls_session_received(link->tls, (size_t)count);
	else
		tls_session_input_ended(link->tls);
	return 0;
}

int
link_secure(struct link *link, const struct tls_client *client)
{
	int error = tls_session_create_client(client, &link->tls);

	while (error == 0) {
		int result = tls_session_handshake(link->tls);

		error = finish_tls_output(link);
		if (result != -EAGAIN)
			return result < 0 ? result : error;
		if (error == 0 && !tls_session_may_read(link->tls))
			error = feed_tls(link);
	}
	return error;
}

static ssize_t
tls_receive(struct link *link, struct iovec *part)
{
	ssize_t result;
	int error;

	while ((result = tls_session_read(link->tls, part, 1)) == -EAGAIN) {
		error = finish_tls_output(link);
		if (error == 0)
			error = feed_tls(link);
		if (error < 0)
			return error;
	}
	return result;
}

static int
tls_send(struct link *link, struct iovec part)
{
	while (part.iov_len > 0) {
		ssize_t result = tls_session_write(link->tls, &part, 1);
		int error = result < 0 ? (int)result : finish_tls_output(link);

		if (error < 0)
			return error;
		part.iov_base = (uint8_t *)part.iov_base + result;
		part.iov_len -= (size_t)result;
	}
	return 0;
}

/* ---- either ---- */

int
link_send(struct link *link, const void *bytes, size_t count)
{
	if (link->tls == NULL)
		return socket_send(link->fd, bytes, count);
	return tls_send(link, (struct iovec){ (void *)bytes, count });
}

int
link_receive(struct link *link, void *bytes, size_t count)
{
	struct iovec part = { bytes, count };

	while (part.iov_len > 0) {
		ssize_t result = link->tls == NULL
					 ? socket_receive(link, part.iov_base, part.iov_len)
					 : tls_receive(link, &part);

		if (result <= 0)
			return result < 0 ? (int)result : -ECONNRESET;
		part.iov_base = (uint8_t *)part.iov_base + result;
		part.iov_len -= (size_t)result;
	}
	return 0;
}

/* The end of TLS is said, so that the server can tell it from an attacker's. */
void
link_close(struct link *link)
{
	if (link->tls != NULL) {
		tls_session_end(link->tls);
		(void)finish_tls_output(link);
		tls_session_destroy(link->tls);
		link->tls = NULL;
	}
	(void)close(link->fd);
}
