/* The socket's options of TLS in the kernel, filled in from GnuTLS's state. */
#include "net/tls_kernel.h"

#include <errno.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

enum {
	SEQUENCE_BYTES = 8,
	NONCE_BYTES =
		12, /* of all ciphers below; in TLS 1.2 with AES only its first four are the session's */
};

/* One struct of linux/tls.h; they differ only in how long the key is, and where the nonce is divided. */
union crypto_info {
	struct tls_crypto_info info;
	struct tls12_crypto_info_aes_gcm_128 aes_gcm_128;
	struct tls12_crypto_info_aes_gcm_256 aes_gcm_256;
	struct tls12_crypto_info_chacha20_poly1305 chacha20_poly1305;
};

/* What GnuTLS would encrypt its next record with. */
struct keys {
	uint16_t version;
	gnutls_datum_t nonce, key;
	uint8_t sequence[SEQUENCE_BYTES];
};

/* In the order of their bits in struct tls_kernel. */
static const gnutls_cipher_algorithm_t ciphers[] = {
	GNUTLS_CIPHER_AES_128_GCM,
	GNUTLS_CIPHER_AES_256_GCM,
	GNUTLS_CIPHER_CHACHA20_POLY1305,
};

/* The fields that each of the structs has, of its own lengths.  In TLS 1.2 the second part of AES's nonce is sent with each record, and counts
 * as the sequence does.  Source: RFC 5288, section 3; RFC 7905, section 2. */
struct fields {
	unsigned char *key, *salt, *iv, *sequence;
	size_t key_bytes, salt_bytes;
};

#define FIELDS_OF(crypto)                                                       \
	(struct fields)                                                         \
	{                                                                       \
		(crypto)->key, (crypto)->salt, (crypto)->iv, (crypto)->rec_seq, \
			sizeof((crypto)->key), sizeof((crypto)->salt)           \
	}

static void
fill(struct fields fields, const struct keys *keys)
{
	CHECK(keys->key.size == fields.key_bytes);
	memcpy(fields.key, keys->key.data, fields.key_bytes);
	memcpy(fields.sequence, keys->sequence, SEQUENCE_BYTES);
	memcpy(fields.salt, keys->nonce.data, fields.salt_bytes);
	if (keys->nonce.size == NONCE_BYTES)
		memcpy(fields.iv, keys->nonce.data + fields.salt_bytes,
		       NONCE_BYTES - fields.salt_bytes);
	else
		memcpy(fields.iv, keys->sequence, SEQUENCE_BYTES);
}

/* Returns how many bytes of CRYPTO are used. */
static socklen_t
fill_in(union crypto_info *crypto, gnutls_cipher_algorithm_t cipher, const struct keys *keys)
{
	memset(crypto, 0, sizeof(*crypto));
	crypto->info.version = keys->version;
	switch (cipher) {
	case GNUTLS_CIPHER_AES_128_GCM:
		crypto->info.cipher_type = TLS_CIPHER_AES_GCM_128;
		fill(FIELDS_OF(&crypto->aes_gcm_128), keys);
		return sizeof(crypto->aes_gcm_128);
	case GNUTLS_CIPHER_AES_256_GCM:
		crypto->info.cipher_type = TLS_CIPHER_AES_GCM_256;
		fill(FIELDS_OF(&crypto->aes_gcm_256), keys);
		return sizeof(crypto->aes_gcm_256);
	default:
		crypto->info.cipher_type = TLS_CIPHER_CHACHA20_POLY1305;
		fill(FIELDS_OF(&crypto->chacha20_poly1305), keys);
		return sizeof(crypto->chacha20_poly1305);
	}
}

static int
set_keys(int fd, gnutls_cipher_algorithm_t cipher, const struct keys *keys)
{
	union crypto_info crypto;
	socklen_t bytes = fill_in(&crypto, cipher, keys);
	int error = setsockopt(fd, SOL_TLS, TLS_TX, &crypto, bytes) < 0 ? -errno : 0;

	explicit_bzero(&crypto, sizeof(crypto));
	return error;
}

static int
begin(int fd)
{
	int error = setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof("tls")) < 0 ? -errno : 0;

	return error == -EEXIST ? 0 : error;
}

int
tls_kernel_take_keys(int fd, gnutls_session_t session)
{
	gnutls_datum_t mac_key;
	struct keys keys;
	int error = begin(fd);

	if (error < 0)
		return error;
	if (gnutls_record_get_state(session, 0, &mac_key, &keys.nonce, &keys.key, keys.sequence) <
	    0)
		return -EINVAL; /* UNTESTED: its handshake is complete */
	keys.version = gnutls_protocol_get_version(session) == GNUTLS_TLS1_3 ? TLS_1_3_VERSION
									     : TLS_1_2_VERSION;
	return set_keys(fd, gnutls_cipher_get(session), &keys);
}

/* ---- what there is ---- */

/* Zeros: nothing is ever sent with them. */
static void
try_cipher(struct tls_kernel *kernel, int fd, unsigned index)
{
	uint8_t zeros[32] = { 0 };
	struct keys keys = {
		.version = TLS_1_3_VERSION,
		.nonce = { zeros, NONCE_BYTES },
		.key = { zeros, (unsigned)gnutls_cipher_get_key_size(ciphers[index]) },
	};

	if (begin(fd) < 0 || set_keys(fd, ciphers[index], &keys) < 0)
		return;
	kernel->ciphers |= 1u << index;
	kernel->changes_keys = set_keys(fd, ciphers[index], &keys) == 0;
}

struct tls_kernel
tls_kernel_find(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
				       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t bytes = sizeof(address);
	struct tls_kernel kernel = { .ciphers = 0 };
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (listener < 0)
		return kernel; /* UNTESTED: no fault for socket */
	if (bind(listener, (struct sockaddr *)&address, bytes) == 0 &&
	    listen(listener, ARRAY_COUNT(ciphers)) == 0 &&
	    getsockname(listener, (struct sockaddr *)&address, &bytes) == 0) {
		for (unsigned i = 0; i < ARRAY_COUNT(ciphers); i++) {
			int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

			if (fd >= 0 && connect(fd, (struct sockaddr *)&address, bytes) == 0)
				try_cipher(&kernel, fd, i);
			if (fd >= 0)
				close(fd);
		}
	}
	close(listener);
	return kernel;
}

bool
tls_kernel_suits(const struct tls_kernel *kernel, gnutls_session_t session)
{
	unsigned index = 0;

	while (index < ARRAY_COUNT(ciphers) && ciphers[index] != gnutls_cipher_get(session))
		index++;
	return index < ARRAY_COUNT(ciphers) && (kernel->ciphers & 1u << index) != 0 &&
	       (kernel->changes_keys || gnutls_protocol_get_version(session) == GNUTLS_TLS1_2);
}

/* ---- TLS's own records ---- */

int
tls_kernel_send_record(int fd, uint8_t type, const void *bytes, size_t count)
{
	union {
		struct cmsghdr header;
		char room[CMSG_SPACE(sizeof(type))];
	} control = { .header = { .cmsg_level = SOL_TLS,
				  .cmsg_type = TLS_SET_RECORD_TYPE,
				  .cmsg_len = CMSG_LEN(sizeof(type)) } };
	struct iovec part = { (void *)bytes, count };
	struct msghdr message = { .msg_iov = &part,
				  .msg_iovlen = 1,
				  .msg_control = &control,
				  .msg_controllen = sizeof(control.room) };

	memcpy(CMSG_DATA(&control.header), &type, sizeof(type));
	return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

bool
tls_kernel_has_room(int fd)
{
	struct pollfd poller = { .fd = fd, .events = POLLOUT };

	return poll(&poller, 1, 0) == 1 && (poller.revents & POLLOUT) != 0;
}
