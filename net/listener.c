/* Binding and accepting. */
#include "net/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/peer_socket.h"
#include "reactor/log.h"

#define BACKLOG		 4096
#define ACCEPTS_PER_TURN 8 /* each takes some 50 us, and those that are connected wait meanwhile */
#define PAUSE_NS	 100000000 /* after running out of something; others may give it back */

static int open_socket(struct listener *listener, const struct address *address, bool shares);

static int
log_open_error(const struct address *address, int error)
{
	char text[ADDRESS_TEXT_BYTES];
	const char *fix = "";

	address_format(address, text, sizeof(text));
	switch (error) {
	case -EADDRINUSE:
		fix = "; another program listens there: stop it, or choose another address with "
		      "listen";
		break;
	case -EACCES:
		fix = "; ports below 1024 need CAP_NET_BIND_SERVICE, Unix sockets a directory this "
		      "user may write";
		break;
	case -EADDRNOTAVAIL:
		fix = "; this machine has no such address (vsock:local needs the module "
		      "vsock_loopback)";
		break;
	case -EAFNOSUPPORT:
		fix = "; this kernel lacks that kind of socket: for vsock load the module vsock";
		break;
	case -ENOENT:
		fix = "; create the socket's directory first";
		break;
	case -ENOTDIR:
		fix = "; what is to be the socket's directory is a file: choose another path";
		break;
	case -EROFS:
		fix = "; choose another directory, or let this one be written (in a unit: "
		      "ReadWritePaths=)";
		break;
	case -EEXIST:
		fix = ", and is no socket; remove it, or choose another path";
		break;
	default:
		break;
	}
	log_error("listen %s: %s%s", text, strerror(-error), fix);
	return error;
}

static bool
is_unix(const struct address *address)
{
	return address->storage.ss_family == AF_UNIX;
}

/* Say WHAT is in the way at ADDRESS, with ERROR, and how to FIX that.  Returns ERROR. */
static int
log_in_the_way(const struct address *address, const char *what, int error, const char *fix)
{
	char text[ADDRESS_TEXT_BYTES];

	address_format(address, text, sizeof(text));
	log_error("listen %s: %s: %s; %s", text, what, strerror(-error), fix);
	return error;
}

/* Remove the socket that a server which is gone left at ADDRESS.  One that answers, and any other kind of file, is left
 * alone: bind then refuses it.  Returns 0, or, where bind would not know why it has to, a negative errno, logged. */
static int
remove_stale_socket(const struct address *address)
{
	const struct sockaddr_un *name = (const struct sockaddr_un *)&address->storage;
	struct stat status;
	int fd, error;

	if (lstat(name->sun_path, &status) != 0 || !S_ISSOCK(status.st_mode))
		return 0;
	/* Non-blocking: the queue of one that hangs may be full. */
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return 0; /* UNTESTED: the one that is to listen was just made */
	error = connect(fd, (const struct sockaddr *)name, address->bytes) == 0 ? 0 : -errno;
	(void)close(fd);
	if (error == -EACCES)
		return log_in_the_way(address,
				      "a socket is there that this user may not connect to", error,
				      "remove it, if nobody listens there");
	if (error != -ECONNREFUSED || unlink(name->sun_path) == 0 || errno == ENOENT)
		return 0;
	return log_in_the_way(address,
			      "a socket that nobody listens on is there and cannot be removed",
			      -errno, "remove it");
}

/* The directory of the socket at PATH may be entered and written.  Returns 0, or a negative errno. */
static int
check_directory(const char *path)
{
	char copy[sizeof(((struct sockaddr_un *)NULL)->sun_path) + 1];

	snprintf(copy, sizeof(copy), "%s", path);
	return faccessat(AT_FDCWD, dirname(copy), W_OK | X_OK, AT_EACCESS) == 0 ? 0 : -errno;
}

int
listener_check(const struct address *address)
{
	const struct sockaddr_un *name = (const struct sockaddr_un *)&address->storage;
	struct stat status;
	int error;

	if (!is_unix(address))
		return 0;
	if (lstat(name->sun_path, &status) == 0)
		/* A service manager's, or one that listener_open replaces. */
		return S_ISSOCK(status.st_mode) ? 0 : log_open_error(address, -EEXIST);
	error = errno == ENOENT ? check_directory(name->sun_path) : -errno;
	return error < 0 ? log_open_error(address, error) : 0;
}

void
listener_share(struct listener *listener, bool shares)
{
	int flag = shares;

	(void)setsockopt(listener->fd, SOL_SOCKET, SO_REUSEPORT, &flag, sizeof(flag));
}

int
listener_open(struct listener *listener, const struct address *address)
{
	return open_socket(listener, address, false);
}

int
listener_open_beside(struct listener *listener, const struct address *address)
{
	int error = open_socket(listener, address, true);

	if (error == 0)
		listener_share(listener, false);
	return error;
}

static int
open_socket(struct listener *listener, const struct address *address, bool shares)
{
	int family = address->storage.ss_family;
	int one = 1, error = listener_check(address);

	if (error < 0)
		return error;
	listener->fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (listener->fd < 0)
		return log_open_error(address, -errno);
	if (is_unix(address))
		error = remove_stale_socket(address);
	else
		(void)setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (error < 0)
		goto err_after_socket;
	if (shares)
		listener_share(listener, true);
	if (family == AF_INET6)
		(void)setsockopt(listener->fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	peer_socket_unpace(listener->fd, address);
	if (bind(listener->fd, (const struct sockaddr *)&address->storage, address->bytes) != 0 ||
	    listen(listener->fd, BACKLOG) != 0) {
		error = log_open_error(address, -errno);
		goto err_after_socket;
	}
	listener->adopted = false;
	listener->address = *address;
	listener->address.bytes = sizeof(listener->address.storage);
	if (is_unix(address) ||
	    getsockname(listener->fd, (struct sockaddr *)&listener->address.storage,
			&listener->address.bytes) != 0)
		listener->address = *address;
	return 0;

err_after_socket:
	(void)close(listener->fd);
	return error;
}

static bool
listens(int fd)
{
	int type, accepts;
	socklen_t bytes = sizeof(int);

	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &bytes) == 0 && type == SOCK_STREAM &&
	       getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &accepts, &bytes) == 0 && accepts;
}

int
listener_adopt(struct listener *listener, int fd)
{
	struct address address = { .bytes = sizeof(address.storage) };
	int family;

	if (getsockname(fd, (struct sockaddr *)&address.storage, &address.bytes) != 0) {
		int error = -errno;

		log_error("socket %d, from the service manager: %s", fd, strerror(-error));
		return error;
	}
	family = address.storage.ss_family;
	if (!listens(fd) ||
	    (family != AF_INET && family != AF_INET6 && family != AF_UNIX && family != AF_VSOCK)) {
		log_error("socket %d, from the service manager, is not a listening stream socket: "
			  "use ListenStream= and Accept=no",
			  fd);
		return -EINVAL;
	}
	if (fcntl(fd, F_SETFL, O_NONBLOCK) != 0)
		return -errno; /* UNTESTED: it does not fail on a socket */
	peer_socket_unpace(fd, &address);
	listener->fd = fd;
	listener->adopted = true;
	listener->address = address;
	return 0;
}

void
listener_close(struct listener *listener)
{
	kernel_close(listener->fd);
	if (is_unix(&listener->address) && !listener->adopted)
		(void)unlink(((struct sockaddr_un *)&listener->address.storage)->sun_path);
}

static void
arm(struct listener *listener)
{
	op_poll(&listener->poll, listener->fd, POLLIN);
	reactor_start(listener->core->reactor, &listener->poll);
}

/* Accept what waits, within a turn's budget.  Returns 0, or the error that calls for a pause. */
static int
accept_waiting(struct listener *listener)
{
	for (unsigned i = 0; i < ACCEPTS_PER_TURN; i++) {
		struct address peer;
		int fd = kernel_accept(listener->fd, &peer.storage, &peer.bytes);

		if (fd >= 0)
			listener->on_accept(listener, fd, &peer);
		else if (fd == -EAGAIN)
			return 0;
		else if (fd == -EMFILE || fd == -ENFILE || fd == -ENOBUFS || fd == -ENOMEM)
			return fd;
		/* All others are of one connection that is gone already. */
	}
	return 0;
}

static void
log_accept_error(struct listener *listener, int error)
{
	char text[ADDRESS_TEXT_BYTES];
	unsigned left_out;

	if (!log_limit_take(&listener->complaints, kernel_clock_ns(), &left_out))
		return;
	address_format(&listener->address, text, sizeof(text));
	if (left_out > 0)
		log_warning("listen %s: %u more times in %u s:", text, left_out, LOG_LIMIT_S);
	log_warning("listen %s: cannot accept: %s; clients wait (raise the limit of open files, or "
		    "lower max-connections)",
		    text, strerror(-error));
}

static void
poll_done(struct op *op, long result)
{
	struct listener *listener = container_of(op, struct listener, poll);
	int error;

	(void)result;
	if (listener->stopping) {
		listener->on_stopped(listener);
		return;
	}
	error = accept_waiting(listener);
	if (error == 0) {
		arm(listener);
		return;
	}
	log_accept_error(listener, error);
	reactor_timer_start(listener->core->reactor, &listener->pause, PAUSE_NS);
}

static void
pause_expired(struct timer *timer)
{
	arm(container_of(timer, struct listener, pause));
}

void
listener_start(struct listener *listener, struct core *core)
{
	listener->core = core;
	listener->stopping = false;
	listener->complaints = (struct log_limit){ 0 };
	op_init(&listener->poll, poll_done);
	timer_init(&listener->pause, pause_expired);
	arm(listener);
}

void
listener_stop(struct listener *listener)
{
	listener->stopping = true;
	reactor_timer_stop(listener->core->reactor, &listener->pause);
	if (op_idle(&listener->poll))
		reactor_complete(listener->core->reactor, &listener->poll, 0);
	else
		reactor_cancel_poll(listener->core->reactor, &listener->poll);
}
