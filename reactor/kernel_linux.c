/* The Linux implementation of kernel.h: system calls and nothing else. */
#include "reactor/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000

int
kernel_context_create(unsigned slots, io_context_t *context)
{
	*context = NULL;
	return io_setup((int)slots, context);
}

void
kernel_context_destroy(io_context_t context)
{
	(void)io_destroy(context);
}

long
kernel_submit(io_context_t context, long count, struct iocb **iocbs)
{
	return io_submit(context, count, iocbs);
}

long
kernel_sleep(io_context_t context, struct io_event *events, long count_max, int64_t timeout_ns)
{
	struct timespec timeout = {
		.tv_sec = timeout_ns / NS_PER_S,
		.tv_nsec = timeout_ns % NS_PER_S,
	};

	return io_pgetevents(context, 1, count_max, events, timeout_ns < 0 ? NULL : &timeout, NULL);
}

int
kernel_cancel(io_context_t context, struct iocb *iocb)
{
	struct io_event event;

	return io_cancel(context, iocb, &event);
}

ssize_t
kernel_recvmsg(int fd, struct iovec *parts, unsigned part_count)
{
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = part_count };
	ssize_t result;

	if (part_count == 1)
		result = recv(fd, parts->iov_base, parts->iov_len, MSG_DONTWAIT);
	else
		result = recvmsg(fd, &message, MSG_DONTWAIT);
	if (result < 0 && errno == ENOTSOCK) /* a pipe */
		result = readv(fd, parts, (int)part_count);
	return result < 0 ? -errno : result;
}

ssize_t
kernel_sendmsg(int fd, struct iovec *parts, unsigned part_count)
{
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = part_count };
	ssize_t result;

	if (part_count == 1)
		result = send(fd, parts->iov_base, parts->iov_len, MSG_DONTWAIT | MSG_NOSIGNAL);
	else
		result = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (result < 0 && errno == ENOTSOCK) /* a pipe */
		result = writev(fd, parts, (int)part_count);
	return result < 0 ? -errno : result;
}

/* As sendmsg(2), but what is sent waits in the kernel for what follows. */
static ssize_t
send_beginning(int fd, struct iovec *parts, unsigned part_count)
{
	struct msghdr message = { .msg_iov = parts, .msg_iovlen = part_count };

	return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL | MSG_MORE);
}

ssize_t
kernel_send_piped(int fd, struct iovec *parts, unsigned part_count, int pipe_fd, size_t bytes)
{
	ssize_t piped, sent = 0;
	size_t wanted = 0;

	for (unsigned i = 0; i < part_count; i++)
		wanted += parts[i].iov_len;
	if (part_count > 0)
		sent = send_beginning(fd, parts, part_count);
	if (sent < 0)
		return -errno;
	if ((size_t)sent < wanted)
		return sent;
	piped = splice(pipe_fd, NULL, fd, NULL, bytes, SPLICE_F_NONBLOCK);
	if (piped < 0 && sent == 0)
		return -errno;
	/* If it failed behind the parts, the next call says why. */
	return piped > 0 ? sent + piped : sent;
}

int
kernel_accept(int fd, struct sockaddr_storage *peer, socklen_t *peer_bytes)
{
	int result;

	*peer_bytes = sizeof(*peer);
	result = accept4(fd, (struct sockaddr *)peer, peer_bytes, SOCK_NONBLOCK | SOCK_CLOEXEC);
	return result < 0 ? -errno : result;
}

int
kernel_wakeup_create(void)
{
	int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

void
kernel_wakeup_signal(int fd)
{
	uint64_t one = 1;
	/* The only failure of a non-blocking eventfd is a full counter: then it is readable already. */
	ssize_t written = write(fd, &one, sizeof(one));

	(void)written;
}

void
kernel_wakeup_clear(int fd)
{
	uint64_t count;
	/* -EAGAIN: somebody cleared it already. */
	ssize_t taken = read(fd, &count, sizeof(count));

	(void)taken;
}

int
kernel_epoll_create(void)
{
	int fd = epoll_create1(EPOLL_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int
epoll_control(int epoll_fd, int operation, int fd, unsigned events, void *user)
{
	struct epoll_event event = { .events = events, .data.ptr = user };

	return epoll_ctl(epoll_fd, operation, fd, &event) < 0 ? -errno : 0;
}

int
kernel_epoll_add(int epoll_fd, int fd, unsigned events, void *user)
{
	return epoll_control(epoll_fd, EPOLL_CTL_ADD, fd, events, user);
}

int
kernel_epoll_rearm(int epoll_fd, int fd, unsigned events, void *user)
{
	return epoll_control(epoll_fd, EPOLL_CTL_MOD, fd, events, user);
}

int
kernel_epoll_remove(int epoll_fd, int fd)
{
	return epoll_control(epoll_fd, EPOLL_CTL_DEL, fd, 0, NULL);
}

int
kernel_epoll_wait(int epoll_fd, struct epoll_event *events, unsigned count_max)
{
	int count = epoll_wait(epoll_fd, events, (int)count_max, 0);

	return count < 0 ? -errno : count;
}

void
kernel_shutdown_send(int fd)
{
	(void)shutdown(fd, SHUT_WR);
}

int
kernel_unsent_bytes(int fd)
{
	socklen_t bytes = sizeof(int);
	int domain, unsent;

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &bytes) != 0 || domain == AF_UNIX ||
	    ioctl(fd, SIOCOUTQ, &unsent) != 0)
		return 0;
	return unsent;
}

#ifndef SO_PASSPIDFD
#define SO_PASSPIDFD 76
#endif

/* Option NAME of socket FD, or -1. */
static int
socket_option(int fd, int name)
{
	socklen_t bytes = sizeof(int);
	int value;

	return getsockopt(fd, SOL_SOCKET, name, &value, &bytes) == 0 ? value : -1;
}

bool
kernel_receives_all(int fd)
{
	if (socket_option(fd, SO_DOMAIN) == AF_UNIX)
		return socket_option(fd, SO_TYPE) == SOCK_STREAM &&
		       socket_option(fd, SO_PASSCRED) == 0 && socket_option(fd, SO_PASSSEC) <= 0 &&
		       socket_option(fd, SO_PASSPIDFD) <= 0;
	return socket_option(fd, SO_PROTOCOL) == IPPROTO_TCP;
}

void
kernel_shutdown(int fd)
{
	/* -ENOTCONN: the peer was faster. */
	(void)shutdown(fd, SHUT_RDWR);
}

void
kernel_close(int fd)
{
	/* Nothing was written that close could still lose: sockets, eventfds and the like only. */
	(void)close(fd);
}

void
kernel_yield(void)
{
	(void)sched_yield();
}

uint64_t
kernel_clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}
