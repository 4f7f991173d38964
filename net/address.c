/* Listening addresses as text, both ways.
 * A host name stands for one address: the first IPv4 one, or else the first IPv6 one, so that
 * "localhost" does not mean ::1 on one machine and 127.0.0.1 on another. */
#include "net/address.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define UNIX_PREFIX	 "unix:"
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
static const char *parse_inet(const char *text, struct address *address);
static const char *split(const char *text, struct host_port *parts);
static bool port_valid(const char *text);
static const char *look_up(const struct host_port *parts, int family, struct address *address);
static size_t unix_path_bytes(const struct address *address);
static bool inet_names(const struct address *address, struct host_port *parts);
static void escape(const char *from, size_t from_bytes, char *to, size_t to_bytes);

int
address_parse(const char *text, struct address *address, const char **why)
{
	size_t prefix_bytes = strlen(UNIX_PREFIX);
	struct address parsed;
	const char *wrong;

	memset(&parsed, 0, sizeof(parsed));
	if (strncmp(text, UNIX_PREFIX, prefix_bytes) == 0)
		wrong = parse_unix(text + prefix_bytes, &parsed);
	else
		wrong = parse_inet(text, &parsed);
	if (wrong) {
		*why = wrong;
		return -EINVAL;
	}
	*address = parsed;
	return 0;
}

void
address_format(const struct address *address, char *text, size_t text_bytes)
{
	const struct sockaddr_un *un = (const struct sockaddr_un *)&address->storage;
	struct host_port parts;

	if (address->storage.ss_family == AF_UNIX)
		snprintf(text, text_bytes, UNIX_PREFIX "%.*s", (int)unix_path_bytes(address),
			 un->sun_path);
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
	address_format(address, authority, sizeof(authority));
	snprintf(text, text_bytes, "nbd://%s", authority);
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

static const char *
parse_inet(const char *text, struct address *address)
{
	struct host_port parts;
	const char *wrong = split(text, &parts);

	if (wrong)
		return wrong;
	if (parts.bracketed)
		return look_up(&parts, AF_INET6, address);
	wrong = look_up(&parts, AF_INET, address);
	return wrong ? look_up(&parts, AF_INET6, address) : NULL;
}

static const char *
split(const char *text, struct host_port *parts)
{
	const char *colon = strrchr(text, ':');
	const char *host = text;
	size_t host_bytes;

	if (!colon || !port_valid(colon + 1))
		return "no port from 0 to 65535 at the end; expected HOST:PORT, [IPV6]:PORT or "
		       "unix:PATH";
	host_bytes = (size_t)(colon - text);
	parts->bracketed = host_bytes >= 2 && host[0] == '[' && host[host_bytes - 1] == ']';
	if (parts->bracketed) {
		host++;
		host_bytes -= 2;
	} else if (memchr(host, ':', host_bytes)) {
		return "an IPv6 address needs brackets; expected [IPV6]:PORT";
	}
	if (host_bytes == 0)
		return "the host is missing; 0.0.0.0:PORT and [::]:PORT mean every address";
	if (host_bytes >= sizeof(parts->host))
		return "the host name is too long; at most 1024 bytes";
	memcpy(parts->host, host, host_bytes);
	parts->host[host_bytes] = '\0';
	strcpy(parts->port, colon + 1);
	return NULL;
}

/* One to five digits, at most 65535.  getaddrinfo(3) would take 65536 as 0. */
static bool
port_valid(const char *text)
{
	unsigned port = 0;
	size_t i;

	for (i = 0; text[i] >= '0' && text[i] <= '9' && i < 5; i++)
		port = port * 10 + (unsigned)(text[i] - '0');
	return i > 0 && text[i] == '\0' && port <= 65535;
}

static const char *
look_up(const struct host_port *parts, int family, struct address *address)
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
	memcpy(&address->storage, found->ai_addr, found->ai_addrlen);
	address->bytes = found->ai_addrlen;
	freeaddrinfo(found);
	return NULL;
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
