/* A socket's options. */
#ifndef NET_PEER_SOCKET_H
#define NET_PEER_SOCKET_H

#include "net/address.h"

/* Set FD, which PEER has connected, up: answers leave at once, and a peer that is dead is noticed.
 * dead_peer_s: TCP ends the connection with -ETIMEDOUT (or what the network said) when the peer's kernel has acknowledged nothing
 * for so many seconds, 5 to 3600: neither what was sent to it, nor that it is there while nothing is.  A peer that
 * lives but reads none of what waits for it all that time counts as dead, too: that is how TCP_USER_TIMEOUT works.
 * Nothing is set where the kernel itself knows the peer's end: Unix sockets and vsock.
 * Source: tcp(7); tcp_keepalive_timer and tcp_probe_timer in Linux's net/ipv4/tcp_timer.c. */
void peer_socket_tune(int fd, const struct address *peer, unsigned dead_peer_s);

/* Let FD, which is to listen on ADDRESS or to connect to it, send at any pace where that is within
 * this machine.  There is no congestion, but some ways to control it pace what is sent all the
 * same, by what they believe the path can carry: bbr halves large reads.  Reno is in every kernel,
 * for everybody, and does not pace.  Before there is a connection, as one that was made under bbr
 * goes on pacing.  Best effort.
 * Source: tcp(7); tcp_pacing_check in Linux's net/ipv4/tcp_output.c. */
void peer_socket_unpace(int fd, const struct address *address);

/* Whether FD's peer is gone, of which a receive would tell if one were made.  Returns -EAGAIN: it
 * is not, as far as is known, or has sent something before that is still to be received; 0: it has
 * ended its side; or the connection's negative errno, which is told once.
 * Source: poll(2), recv(2). */
int peer_socket_end(int fd) MUST_USE;

/* The CPU that handled the last packet of FD, or -1.  On loopback that is where its client ran.  Source: socket(7). */
int peer_socket_cpu(int fd);

#endif
