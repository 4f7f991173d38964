/* Listeners: sockets that accept connections, polled on one core each. */
#ifndef NET_LISTENER_H
#define NET_LISTENER_H

#include "net/address.h"
#include "reactor/core.h"
#include "reactor/log_limit.h"
#include "reactor/reactor.h"

struct listener {
	/* A connection came: FD, non-blocking, is the callee's now. */
	void (*on_accept)(struct listener *listener, int fd, const struct address *peer);
	/* The end of listener_stop. */
	void (*on_stopped)(struct listener *listener);
	/* Where it listens; with the port that the kernel chose for port 0. */
	struct address address;
	/* Private. */
	struct core *core;
	int fd;
	bool adopted;
	bool stopping;
	struct op poll;
	struct timer pause;
	struct log_limit complaints;
};

/* Look whether ADDRESS, if it is a Unix socket, could be opened: whether its directory is there and may be written, and nothing but a
 * socket stands in its place.  Of other addresses nothing is known before listener_open.  Opens and changes nothing.
 * Returns 0, or a negative errno, logged with the address and what to do: -EEXIST what is there is no socket; those of stat(2) and access(2)
 * for its directory. */
int listener_check(const struct address *address) MUST_USE;

/* Open a socket that listens on ADDRESS.  A stale Unix socket is replaced.  Not yet accepting; the callbacks may
 * be set before or after.  On failure the reason is logged, with the address and what to do.
 * Returns 0, or a negative errno; then LISTENER is not usable.
 * Errors: those of listener_check; -EADDRINUSE, -EACCES, -EADDRNOTAVAIL and others of bind(2); those
 * of connect(2) and unlink(2) for a Unix socket that is there and that this user may not replace. */
int listener_open(struct listener *listener, const struct address *address) MUST_USE;

/* The same, where other listeners of this process collide with ADDRESS (see address_collides) that share with it until this returns: until all of
 * them are closed, the kernel gives a connection to the one whose address is nearer.  Not all can share: vsock has no such thing, and
 * nobody can with what another user opened, which is what this process was before it changed its user. */
int listener_open_beside(struct listener *listener, const struct address *address) MUST_USE;

/* Let LISTENER share its port, or not any more.  From a listener_open_beside on the kernel lets every process of this user have the port that
 * asks for it in the same way, until nothing of it is open; who opens as listener_open does is refused.
 * Source: socket(7), SO_REUSEPORT; sk_reuseport_match in Linux's net/ipv4/inet_connection_sock.c. */
void listener_share(struct listener *listener, bool shares);

/* Take FD, a listening stream socket of the families that an address may have, which a service manager made; it is the
 * listener's from then on, but a Unix socket's path stays the manager's.  The rest as listener_open.
 * Returns 0, or a negative errno, logged; then FD is the caller's.
 * Errors: -EINVAL it is no such socket; those of getsockname(2). */
int listener_adopt(struct listener *listener, int fd) MUST_USE;

/* Close a listener that was never started, or has stopped; removes the path of a Unix socket that it made. */
void listener_close(struct listener *listener);

/* Begin to accept, on CORE, whose thread must call this. */
void listener_start(struct listener *listener, struct core *core);

/* Accept no more; on_stopped follows.  On the listener's core. */
void listener_stop(struct listener *listener);

#endif
