/* Listening addresses as text, both ways.
 * A host name stands for one address: the first IPv4 one, or else the first IPv6 one, so that
 * "localhost" does not mean ::1 on one machine and 127.0.0.1 on another. */
#include "net/address.h"

#include <assert.h>
#include <errno.h>
#include <linux/vm_sockets.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define UNIX_PREFIX	 "unix:"
#define VSOCK_PREFIX	 "vsock:"
#define DIGITS_MAX	 10 /* of 32 bits */
#define UNIX_PATH_OFFSET offsetof(struct sockaddr_un, sun_path)
#define UNIX_PATH_MAX	 (sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1)

static_assert(sizeof(UNIX_PREFIX) + UNIX_PATH_MAX <= ADDRESS_TEXT_BYTES,
	      "every Unix address fits its text");

/* HOST:PORT taken apart. */
struct host_port {
	char host[NI_MAXHOST];
	char port[6];
	bool bracketed; /* the host was in [], so it must be a numeric IPv6 address */
};

static const char *parse_unix(const char *path, struct address *address);
static const char *parse_vsock(const char *text, struct address *address);
static const char *parse_inet(const char *text, struct address *addresses, unsigned addresses_max,
			      unsigned *count);
static const char *split(const char *text, struct host_port *parts);
static const char *look_up(const struct host_port *parts, int family, struct address *addresses,
			   unsigned addresses_max, unsigned *count);
static bool is_every(const struct address *address);
static size_t unix_path_bytes(const struct address *address);
static void format_vsock(const struct sockaddr_vm *vm, char *text, size_t text_bytes);
static bool inet_names(const struct address *address, struct host_port *parts);
static void escape(const char *from, size_t from_bytes, char *to, size_t to_bytes);

int
address_parse(const char *text, struct address *address, const char **why)
{
	struct address parsed;
	int count = address_parse_all(text, &parsed, 1, why);

	if (count < 0)
		return count;
	*address = parsed;
	return 0;
}

int
address_parse_all(const char *text, struct address *addresses, unsigned addresses_max,
		  const char **why)
{
	const char *wrong;
	unsigned count = 1;

	memset(addresses, 0, addresses_max * sizeof(addresses[0]));
	if (strncmp(text, UNIX_PREFIX, strlen(UNIX_PREFIX)) == 0)
		wrong = parse_unix(text + strlen(UNIX_PREFIX), addresses);
	else if (strncmp(text, VSOCK_PREFIX, strlen(VSOCK_PREFIX)) == 0)
		wrong = parse_vsock(text + strlen(VSOCK_PREFIX), addresses);
	else
		wrong = parse_inet(text, addresses, addresses_max, &count);
	if (wrong) {
		*why = wrong;
		return -EINVAL;
	}
	return (int)count;
}

void
address_format(const struct address *address, char *text, size_t text_bytes)
{
	const struct sockaddr_un *un = (const struct sockaddr_un *)&address->storage;
	struct host_port parts;

	if (address->storage.ss_family == AF_UNIX)
		snprintf(text, text_bytes, UNIX_PREFIX "%.*s", (int)unix_path_bytes(address),
			 un->sun_path);
	else if (address->storage.ss_family == AF_VSOCK)
		format_vsock((const struct sockaddr_vm *)&address->storage, text, text_bytes);
	else if (!inet_names(address, &parts))
		snprintf(text, text_bytes, "(not an address)");
	else if (parts.bracketed)
		snprintf(text, text_bytes, "[%s]:%s", parts.host, parts.port);
	else
		snprintf(text, text_bytes, "%s:%s", parts.host, parts.port);
}

void
address_format_uri(const struct address *address, char *text, size_t text_bytes)
{
	const struct sockaddr_un *un = (const struct sockaddr_un *)&address->storage;
	char path[3 * UNIX_PATH_MAX + 1];
	char authority[ADDRESS_TEXT_BYTES];

	if (address->storage.ss_family == AF_UNIX) {
		escape(un->sun_path, unix_path_bytes(address), path, sizeof(path));
		snprintf(text, text_bytes, "nbd+unix:///?socket=%s", path);
		return;
	}
	if (address->storage.ss_family == AF_VSOCK) {
		const struct sockaddr_vm *vm = (const struct sockaddr_vm *)&address->storage;
		unsigned cid = vm->svm_cid == VMADDR_CID_ANY ? VMADDR_CID_LOCAL : vm->svm_cid;

		snprintf(text, text_bytes, "nbd+vsock://%u:%u", cid, vm->svm_port);
		return;
	}
	address_format(address, authority, sizeof(authority));
	snprintf(text, text_bytes, "nbd://%s", authority);
}

bool
address_equal(const struct address *left, const struct address *right)
{
	char left_text[ADDRESS_TEXT_BYTES], right_text[ADDRESS_TEXT_BYTES];

	address_format(left, left_text, sizeof(left_text));
	address_format(right, right_text, sizeof(right_text));
	return strcmp(left_text, right_text) == 0;
}

bool
address_collides(const struct address *left, const struct address *right)
{
	char texts[2][ADDRESS_TEXT_BYTES];
	const char *ports[2];

	if (left->storage.ss_family != right->storage.ss_family)
		return false;
	address_format(left, texts[0], sizeof(texts[0]));
	address_format(right, texts[1], sizeof(texts[1]));
	if (left->storage.ss_family == AF_UNIX)
		return strcmp(texts[0], texts[1]) == 0;
	ports[0] = strrchr(texts[0], ':');
	ports[1] = strrchr(texts[1], ':');
	if (!ports[0] || !ports[1] || strcmp(ports[0], ports[1]) != 0 ||
	    strcmp(ports[0], ":0") == 0)
		return false;
	return strcmp(texts[0], texts[1]) == 0 || is_every(left) || is_every(right);
}

bool
address_parse_number(const char *text, uint32_t max, uint32_t *number)
{
	uint64_t parsed = 0;
	size_t i;

	for (i = 0; text[i] >= '0' && text[i] <= '9' && i < DIGITS_MAX; i++)
		parsed = parsed * 10 + (uint64_t)(text[i] - '0');
	if (i == 0 || text[i] != '\0' || parsed > max)
		return false;
	*number = (uint32_t)parsed;
	return true;
}

/* The parse functions return NULL, or what is wrong. */

static const char *
parse_unix(const char *path, struct address *address)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&address->storage;
	size_t path_bytes = strlen(path);

	if (path_bytes == 0)
		return "the socket's path is missing; expected unix:PATH";
	if (path_bytes > UNIX_PATH_MAX)
		return "the socket's path is too long; at most 107 bytes";
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, path_bytes);
	address->bytes = (socklen_t)(UNIX_PATH_OFFSET + path_bytes + 1);
	return NULL;
}

/* Port 0 is the kernel's choice here as elsewhere, although vsock itself would take it for a port. */
static const char *
parse_vsock(const char *text, struct address *address)
{
	struct sockaddr_vm *vm = (struct sockaddr_vm *)&address->storage;
	const char *colon = strchr(text, ':');
	char cid[DIGITS_MAX + 1];

	if (!colon || !address_parse_number(colon + 1, VMADDR_PORT_ANY - 1, &vm->svm_port))
		return "no port from 0 to 4294967294 at the end; expected vsock:CID:PORT";
	if (vm->svm_port == 0)
		vm->svm_port = VMADDR_PORT_ANY;
	snprintf(cid, sizeof(cid), "%.*s", (int)(colon - text), text);
	if (strcmp(cid, "any") == 0)
		vm->svm_cid = VMADDR_CID_ANY;
	else if (strcmp(cid, "local") == 0)
		vm->svm_cid = VMADDR_CID_LOCAL;
	else if (colon - text > DIGITS_MAX ||
		 !address_parse_number(cid, VMADDR_CID_ANY - 1, &vm->svm_cid))
		return "behind vsock: comes any, local, or a CID below 4294967295 of this machine";
	vm->svm_family = AF_VSOCK;
	address->bytes = sizeof(*vm);
	return NULL;
}

static const char *
parse_inet(const char *text, struct address *addresses, unsigned addresses_max, unsigned *count)
{
	struct host_port parts;
	const char *wrong = split(text, &parts);

	*count = 0;
	if (wrong)
		return wrong;
	if (!parts.bracketed)
		wrong = look_up(&parts, AF_INET, addresses, addresses_max, count);
	if (*count < addresses_max)
		wrong = look_up(&parts, AF_INET6, addresses, addresses_max, count);
	return *count == 0 ? wrong : NULL;
}

static const char *
split(const char *text, struct host_port *parts)
{
	const char *colon = strrchr(text, ':');
	const char *host = text;
	size_t host_bytes;
	uint32_t port;

	/* getaddrinfo(3) would take 65536 as 0. */
	if (!colon || strlen(colon + 1) >= sizeof(parts->port) ||
	    !address_parse_number(colon + 1, 65535, &port))
		return "no port from 0 to 65535 at the end; expected HOST:PORT, [IPV6]:PORT, "
		       "unix:PATH or vsock:CID:PORT";
	host_bytes = (size_t)(colon - text);
	parts->bracketed = host_bytes >= 2 && host[0] == '[' && host[host_bytes - 1] == ']';
	if (parts->bracketed) {
		host++;
		host_bytes -= 2;
	} else if (memchr(host, ':', host_bytes)) {
		return "an IPv6 address needs brackets; expected [IPV6]:PORT";
	}
	if (host_bytes == 0 || (host_bytes == 1 && host[0] == '*'))
		return "the host is missing; 0.0.0.0:PORT means every IPv4 address, [::]:PORT "
		       "every IPv6 address";
	if (host_bytes >= sizeof(parts->host))
		return "the host name is too long; at most 1024 bytes";
	memcpy(parts->host, host, host_bytes);
	parts->host[host_bytes] = '\0';
	strcpy(parts->port, colon + 1);
	return NULL;
}

/* Add those of FAMILY. */
static const char *
look_up(const struct host_port *parts, int family, struct address *addresses,
	unsigned addresses_max, unsigned *count)
{
	struct addrinfo hints = {
		.ai_family = family,
		.ai_socktype = SOCK_STREAM,
		.ai_flags = AI_PASSIVE | AI_NUMERICSERV,
	};
	struct addrinfo *found;
	int error;

	if (parts->bracketed)
		hints.ai_flags |= AI_NUMERICHOST;
	error = getaddrinfo(parts->host, parts->port, &hints, &found);
	if (error == EAI_AGAIN)
		return "the name server does not answer; give a numeric address";
	if (error)
		return parts->bracketed ? "not an IPv6 address between the brackets"
					: "no address is known for this host";
	for (const struct addrinfo *one = found; one != NULL && *count < addresses_max;
	     one = one->ai_next) {
		struct address *address = &addresses[(*count)++];

		memcpy(&address->storage, one->ai_addr, one->ai_addrlen);
		address->bytes = one->ai_addrlen;
	}
	freeaddrinfo(found);
	return NULL;
}

/* Whether ADDRESS, of the Internet or vsock, stands for all of this machine's. */
static bool
is_every(const struct address *address)
{
	const struct sockaddr_in *in = (const struct sockaddr_in *)&address->storage;
	const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)&address->storage;
	const struct sockaddr_vm *vm = (const struct sockaddr_vm *)&address->storage;

	switch (address->storage.ss_family) {
	case AF_INET:
		return in->sin_addr.s_addr == htonl(INADDR_ANY);
	case AF_INET6:
		return IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr);
	default:
		return address->storage.ss_family == AF_VSOCK && vm->svm_cid == VMADDR_CID_ANY;
	}
}

/* Bytes of the path in sun_path, which need not end in a NUL; 0 for an unnamed or abstract socket.
 * Source: unix(7). */
static size_t
unix_path_bytes(const struct address *address)
{
	const struct sockaddr_un *un = (const struct sockaddr_un *)&address->storage;

	if (address->bytes <= UNIX_PATH_OFFSET)
		return 0;
	return strnlen(un->sun_path, address->bytes - UNIX_PATH_OFFSET);
}

static void
format_vsock(const struct sockaddr_vm *vm, char *text, size_t text_bytes)
{
	unsigned port = vm->svm_port == VMADDR_PORT_ANY ? 0 : vm->svm_port;

	if (vm->svm_cid == VMADDR_CID_ANY)
		snprintf(text, text_bytes, VSOCK_PREFIX "any:%u", port);
	else
		snprintf(text, text_bytes, VSOCK_PREFIX "%u:%u", vm->svm_cid, port);
}

/* Write the numeric host and port of ADDRESS into PARTS.  Returns false if it is no IP address. */
static bool
inet_names(const struct address *address, struct host_port *parts)
{
	parts->bracketed = address->storage.ss_family == AF_INET6;
	return getnameinfo((const struct sockaddr *)&address->storage, address->bytes, parts->host,
			   sizeof(parts->host), parts->port, sizeof(parts->port),
			   NI_NUMERICHOST | NI_NUMERICSERV) == 0;
}

/* Percent-encode what has a meaning in a URI's query.  Source: RFC 3986, section 2. */
static void
escape(const char *from, size_t from_bytes, char *to, size_t to_bytes)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				    "0123456789-._~/";
	size_t used = 0;

	CHECK(to_bytes > 3 * from_bytes);
	for (size_t i = 0; i < from_bytes; i++) {
		if (strchr(plain, from[i]))
			to[used++] = from[i];
		else
			used += (size_t)sprintf(to + used, "%%%02X", (unsigned char)from[i]);
	}
	to[used] = '\0';
}
