/* The options, and when a dead peer is noticed.
 * Where something is unacknowledged, TCP_USER_TIMEOUT decides.  Where nothing is, keepalive probes are sent, and TCP_USER_TIMEOUT
 * decides too, but only at the time of a probe.  So the probes are spread over the second half of the time, the last of
 * them due at its very end, and the timeout ends half an interval before. */
#include "net/peer_socket.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>

#define PROBES		    4
#define INTERVALS_PER_LIMIT 8

static void
set(int fd, int level, int option, unsigned value)
{
	/* Best effort: without it it is only slower to answer, or to notice a dead peer. */
	(void)setsockopt(fd, level, option, &value, sizeof(value));
}

void
peer_socket_tune(int fd, const struct address *peer, unsigned dead_peer_s)
{
	unsigned interval_s = dead_peer_s / INTERVALS_PER_LIMIT;

	if (peer->storage.ss_family != AF_INET && peer->storage.ss_family != AF_INET6)
		return;
	if (interval_s == 0)
		interval_s = 1;
	CHECK(dead_peer_s > PROBES * interval_s);
	set(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
	set(fd, IPPROTO_TCP, TCP_KEEPIDLE, dead_peer_s - PROBES * interval_s);
	set(fd, IPPROTO_TCP, TCP_KEEPINTVL, interval_s);
	set(fd, IPPROTO_TCP, TCP_KEEPCNT, PROBES);
	set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, dead_peer_s * 1000 - interval_s * 500);
}

int
peer_socket_end(int fd)
{
	struct pollfd look = { .fd = fd, .events = POLLRDHUP };
	socklen_t bytes = sizeof(int);
	ssize_t count;
	int error;
	char byte;

	if (poll(&look, 1, 0) <= 0)
		return -EAGAIN;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &bytes) == 0 && error != 0)
		return -error;
	count = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
	if (count < 0)
		return -errno;
	return count == 0 ? 0 : -EAGAIN;
}

int
peer_socket_cpu(int fd)
{
	socklen_t bytes = sizeof(int);
	int cpu;

	return getsockopt(fd, SOL_SOCKET, SO_INCOMING_CPU, &cpu, &bytes) == 0 ? cpu : -1;
}

static bool
is_loopback(const struct address *address)
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address->storage;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address->storage;

	switch (address->storage.ss_family) {
	case AF_INET:
		return ntohl(v4->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
	case AF_INET6:
		return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
	default:
		return false;
	}
}

void
peer_socket_unpace(int fd, const struct address *address)
{
	static const char name[] = "reno";

	if (is_loopback(address))
		(void)setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, sizeof(name) - 1);
}
