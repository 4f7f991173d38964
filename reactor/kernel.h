/* The seam to the kernel: every way in which the data path reaches it, and the clock.
 * The product links kernel_linux.c; a simulation links an implementation with virtual time and injected
 * faults.  All results follow the kernel's: a count, or a negative errno; nothing sets errno. */
#ifndef REACTOR_KERNEL_H
#define REACTOR_KERNEL_H

#include "reactor/check.h"
#include <libaio.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

/* Set up an AIO context with room for SLOTS operations in flight.  The context's id is the address of its
 * mapped completion ring (see ring.h).
 * Errors: -EAGAIN fs.aio-max-nr would be exceeded; -ENOMEM.  Source: io_setup(2). */
int kernel_context_create(unsigned slots, io_context_t *context) MUST_USE;

/* Waits for what is in flight; takes 30 to 80 ms. */
void kernel_context_destroy(io_context_t context);

/* Submit COUNT operations.  Returns how many were taken, which may be fewer; or the error of the first one.
 * Errors: -EAGAIN no slot; others are of iocbs[0].  Source: io_submit(2). */
long kernel_submit(io_context_t context, long count, struct iocb **iocbs) MUST_USE;

/* Wait until an event is in the ring, TIMEOUT_NS has passed (negative: for ever) or a signal came, and move up
 * to COUNT_MAX events to EVENTS.  Returns how many, or -EINTR.  Source: io_pgetevents(2). */
long kernel_sleep(io_context_t context, struct io_event *events, long count_max,
		  int64_t timeout_ns) MUST_USE;

/* Ask to cancel IOCB; its event still comes through the ring.  -EINPROGRESS is the good answer.  Slow where much
 * is in flight: not for the data path.  Source: io_cancel(2). */
int kernel_cancel(io_context_t context, struct iocb *iocb);

/* Non-blocking receive and send on a socket; a peer that is gone raises no signal.  On a pipe, which must be set to O_NONBLOCK,
 * it raises SIGPIPE.
 * Errors: -EAGAIN and those of recv(2), sendmsg(2). */
ssize_t kernel_recvmsg(int fd, struct iovec *parts, unsigned part_count) MUST_USE;
ssize_t kernel_sendmsg(int fd, struct iovec *parts, unsigned part_count) MUST_USE;

/* Non-blocking send on a socket of PARTS (0 to 1,024) and, behind these, BYTES (one at least) of what is in a pipe, which may be less than
 * that has.  Returns how many bytes of all; or an error of sendmsg(2) or splice(2), -EAGAIN among them. */
ssize_t kernel_send_piped(int fd, struct iovec *parts, unsigned part_count, int pipe_fd,
			  size_t bytes) MUST_USE;

/* Non-blocking accept; the new socket is non-blocking and close-on-exec.  Errors: as accept4(2). */
int kernel_accept(int fd, struct sockaddr_storage *peer, socklen_t *peer_bytes) MUST_USE;

/* An eventfd for waking a sleeper, adding to it, and emptying it. */
int kernel_wakeup_create(void) MUST_USE;
void kernel_wakeup_signal(int fd);
void kernel_wakeup_clear(int fd);

/* A set of descriptors, itself pollable while one of them is ready; close it with kernel_close.
 * Errors: -EMFILE, -ENFILE, -ENOMEM.  Source: epoll_create1(2). */
int kernel_epoll_create(void) MUST_USE;

/* Put FD into the set: it is reported, with USER, when it is ready for EVENTS, hung up or in error.  With EPOLLONESHOT among EVENTS
 * once; then it stays in the set, disarmed.  With EPOLLET each time that something new has come.  Rearm: with other EVENTS, reported
 * at once if it is ready already.  Remove: take it out, armed or not; before it is closed.
 * Errors: -EPERM files of its kind can't be polled; -EEXIST it is in the set already (add); -ENOENT it is not (rearm,
 * remove); -EBADF; -ENOSPC more than fs.epoll.max_user_watches; -ENOMEM; -EINVAL it is the set; -ELOOP sets in sets.
 * Source: epoll_ctl(2), epoll(7). */
int kernel_epoll_add(int epoll_fd, int fd, unsigned events, void *user) MUST_USE;
int kernel_epoll_rearm(int epoll_fd, int fd, unsigned events, void *user) MUST_USE;
int kernel_epoll_remove(int epoll_fd, int fd) MUST_USE;

/* Move up to COUNT_MAX reports to EVENTS, without waiting; data.ptr is the USER of each.  Returns how many.
 * Errors: -EINTR.  Source: epoll_wait(2). */
int kernel_epoll_wait(int epoll_fd, struct epoll_event *events, unsigned count_max) MUST_USE;

/* Send no more: the peer sees the end behind what was sent. */
void kernel_shutdown_send(int fd);

/* Bytes that were sent on a TCP socket and that the peer's kernel does not have yet, the end included; 0 for other
 * sockets, where closing loses nothing.  Source: tcp(7), SIOCOUTQ. */
int kernel_unsent_bytes(int fd);

/* Whether a receive on socket FD that has room left has taken all that there was: so it is of TCP and of Unix's streams, but for
 * those that tell who sends (SO_PASSCRED), where a receive ends with the bytes of one process, and for bytes with descriptors
 * (SCM_RIGHTS), which this does not know beforehand.  Of a vsock, whose transport may hand out one packet at a time, and of sockets of
 * packets it tells nothing.  Source: epoll(7), unix(7), vsock(7). */
bool kernel_receives_all(int fd);

/* End both directions of a socket: a poll that is armed on it completes at once.  Then, when no operation uses
 * FD any more, close it. */
void kernel_shutdown(int fd);
void kernel_close(int fd);

/* Let another thread run on this CPU, if one wants to. */
void kernel_yield(void);

/* Nanoseconds on CLOCK_MONOTONIC. */
uint64_t kernel_clock_ns(void);

#endif
