/* net/peer_socket.h: what the kernel says was set.  That it works is tested end to end, with a network that is unplugged. */
#include "net/peer_socket.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>

static unsigned
option(int fd, int level, int name)
{
	unsigned value = 0;
	socklen_t bytes = sizeof(value);

	cr_assert_eq(getsockopt(fd, level, name, &value, &bytes), 0);
	return value;
}

static void
assert_noticed_within(int family, unsigned limit_s)
{
	struct address peer = { .storage = { .ss_family = (sa_family_t)family } };
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	unsigned idle_s, interval_s, probes, timeout_ms;

	cr_assert_geq(fd, 0);
	peer_socket_tune(fd, &peer, limit_s);
	idle_s = option(fd, IPPROTO_TCP, TCP_KEEPIDLE);
	interval_s = option(fd, IPPROTO_TCP, TCP_KEEPINTVL);
	probes = option(fd, IPPROTO_TCP, TCP_KEEPCNT);
	timeout_ms = option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT);
	cr_assert_neq(option(fd, SOL_SOCKET, SO_KEEPALIVE), 0);
	cr_assert_neq(option(fd, IPPROTO_TCP, TCP_NODELAY), 0);
	/* The last probe is due at the limit; the timeout has passed then, but not at the one before. */
	cr_assert_eq(idle_s + probes * interval_s, limit_s);
	cr_assert_lt(timeout_ms, limit_s * 1000);
	cr_assert_gt(timeout_ms, (limit_s - interval_s) * 1000);
	(void)close(fd);
}

Test(peer_socket, dead_peer_is_noticed_within_any_limit)
{
	static const unsigned limits_s[] = { 5, 6, 7, 8, 15, 16, 17, 60, 61, 3599, 3600 };

	for (size_t i = 0; i < ARRAY_COUNT(limits_s); i++) {
		assert_noticed_within(AF_INET, limits_s[i]);
		assert_noticed_within(AF_INET6, limits_s[i]);
	}
}

Test(peer_socket, end_is_told_behind_what_was_sent_before)
{
	int ends[2];
	char byte;

	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
	cr_assert_eq(peer_socket_end(ends[0]), -EAGAIN);
	cr_assert_eq(write(ends[1], "x", 1), 1);
	cr_assert_eq(peer_socket_end(ends[0]), -EAGAIN);
	(void)close(ends[1]);
	cr_assert_eq(peer_socket_end(ends[0]), -EAGAIN);
	cr_assert_eq(read(ends[0], &byte, 1), 1);
	cr_assert_eq(peer_socket_end(ends[0]), 0);
	(void)close(ends[0]);
}

Test(peer_socket, unix_socket_is_left_alone)
{
	struct address peer = { .storage = { .ss_family = AF_UNIX } };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	cr_assert_geq(fd, 0);
	peer_socket_tune(fd, &peer, 60);
	cr_assert_eq(option(fd, SOL_SOCKET, SO_KEEPALIVE), 0);
	(void)close(fd);
}
