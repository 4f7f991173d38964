/* TLS in the kernel: of a session whose handshake is complete, the kernel can encrypt what is sent through its socket, which then takes plain
 * data.  What is received stays GnuTLS's: doc/decisions/0010-tls.md.
 * Source: Linux, Documentation/networking/tls.rst. */
#ifndef NET_TLS_KERNEL_H
#define NET_TLS_KERNEL_H

#include "reactor/check.h"
#include <gnutls/gnutls.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What this machine's kernel has. */
struct tls_kernel {
	unsigned ciphers; /* private; 0: none */
	/* A session's keys can be changed (Linux 6.14): TLS 1.3 needs that, where peers may ask for it; TLS 1.2 does not. */
	bool changes_keys;
};

/* Try it out, with connections over loopback that are closed again.  May wait for the kernel to load modules: not on a core. */
struct tls_kernel tls_kernel_find(void);

/* Whether KERNEL may encrypt for SESSION, whose handshake is complete: by its version and cipher. */
bool tls_kernel_suits(const struct tls_kernel *kernel, gnutls_session_t session);

/* Have the kernel encrypt what is sent through FD, a TCP socket, from now on, with the keys by which SESSION would send its next record;
 * all that SESSION has made must have been sent.  A later call changes the keys.
 * Returns 0, or the negative errno of setsockopt(2): -ENOENT the kernel has no TLS any more, -EOPNOTSUPP no TCP; in a first call nothing has
 * changed then. */
int tls_kernel_take_keys(int fd, gnutls_session_t session) MUST_USE;

/* Send BYTES, at most 255, as a record of TYPE that is TLS's own, at once.  Returns 0, or the negative errno of sendmsg(2), then nothing was
 * sent: -EAGAIN there is no room. */
int tls_kernel_send_record(int fd, uint8_t type, const void *bytes, size_t count) MUST_USE;

/* Whether the socket has room at the moment. */
bool tls_kernel_has_room(int fd);

#endif
