/* The servers' common part: options, sessions, and the numbers for the load to read. */
#include "bench/loops/server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG 4096
#define TOKEN_STRIDE \
	7919 /* prime: the way round passes every socket, and neighbours in time are none in memory */
#define HUGE_PAGE_BYTES ((size_t)2 << 20)
#define HTTP_END	"\r\n\r\n"
#define HTTP_END_BYTES	4

static const char token = 't';

struct http_reply {
	char text[256 + HTTP_BODY_BYTES];
	unsigned bytes;
};

/* ---- failing ---- */

void
server_fail(const char *what)
{
	fprintf(stderr, "%s\n", what);
	exit(1);
}

void
server_check(const char *what, long result)
{
	if (result >= 0)
		return;
	fprintf(stderr, "%s: %s\n", what, strerror(result == -1 ? errno : (int)-result));
	exit(1);
}

void *
server_allocate(size_t count, size_t bytes)
{
	void *memory = NULL;

	if (posix_memalign(&memory, HUGE_PAGE_BYTES, count * bytes + 1) != 0)
		server_fail("no memory");
	/* State of 10,000 connections: with small pages the table of pages would be measured, too. */
	if (count * bytes >= HUGE_PAGE_BYTES)
		(void)madvise(memory, count * bytes, MADV_HUGEPAGE);
	memset(memory, 0, count * bytes);
	return memory;
}

/* ---- requests ---- */

static unsigned
receive_echo(struct session *session, const uint8_t *data, size_t bytes)
{
	if (bytes > ECHO_REQUEST_BYTES - session->taken_bytes)
		server_fail("more than one request");
	memcpy(session->request + session->taken_bytes, data, bytes);
	session->taken_bytes += (unsigned)bytes;
	if (session->taken_bytes < ECHO_REQUEST_BYTES)
		return 0;
	session->taken_bytes = 0;
	return 1;
}

/* A request has no body and nothing follows it before the reply: what ends with the empty line is a request. */
static unsigned
receive_http(struct session *session, const uint8_t *data, size_t bytes)
{
	if (bytes >= HTTP_END_BYTES) {
		memcpy(session->request, data + bytes - HTTP_END_BYTES, HTTP_END_BYTES);
	} else {
		memmove(session->request, session->request + bytes, HTTP_END_BYTES - bytes);
		memcpy(session->request + HTTP_END_BYTES - bytes, data, bytes);
	}
	return memcmp(session->request, HTTP_END, HTTP_END_BYTES) == 0;
}

/* Pass on the tokens that CONNECTION got, each to a socket of its own, so that two that met part again.  A socket becomes
 * readable by a send on its partner, whose number differs in the last bit. */
static unsigned
receive_tokens(struct server *server, unsigned connection, size_t bytes, struct reply *replies)
{
	unsigned target = connection;

	for (size_t i = 0; i < bytes; i++) {
		target = (target + TOKEN_STRIDE) % server->connection_count;
		replies[i] = (struct reply){ .connection = target ^ 1, .bytes = 1, .data = &token };
	}
	counters_add(&server->counters->tokens, bytes);
	return (unsigned)bytes;
}

unsigned
server_receive(struct server *server, unsigned connection, const uint8_t *data, size_t bytes,
	       struct reply *replies)
{
	struct session *session = &server->sessions[connection];
	unsigned count;

	if (server->load == LOAD_TOKENS)
		return receive_tokens(server, connection, bytes, replies);
	if (server->load == LOAD_ECHO)
		count = receive_echo(session, data, bytes);
	else
		count = receive_http(session, data, bytes);
	if (count > 0)
		replies[0] = session->reply;
	return count;
}

void
server_sent(const struct reply *reply, long result)
{
	if (result != reply->bytes && !server_client_gone(result)) {
		fprintf(stderr, "sent %ld of %u bytes\n", result, reply->bytes);
		exit(1);
	}
}

bool
server_client_gone(long result)
{
	return result == 0 || result == -ECONNRESET || result == -EPIPE;
}

/* ---- disk ---- */

uint64_t
server_next_offset(struct server *server)
{
	/* xorshift64 */
	server->random ^= server->random << 13;
	server->random ^= server->random >> 7;
	server->random ^= server->random << 17;
	return server->random % server->disk_blocks * BLOCK_BYTES;
}

void *
server_block(struct server *server, unsigned slot)
{
	return server->blocks + (size_t)slot * BLOCK_BYTES;
}

const struct reply *
server_read_done(struct server *server, unsigned slot, long result)
{
	if (result != BLOCK_BYTES) {
		fprintf(stderr, "read %ld of %d bytes\n", result, BLOCK_BYTES);
		exit(1);
	}
	counters_add(&server->counters->reads, 1);
	return server->fetch ? &server->sessions[slot].reply : NULL;
}

static void
open_disk(struct server *server, const char *path)
{
	off_t bytes;

	server->disk_fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	server_check(path, server->disk_fd);
	bytes = lseek(server->disk_fd, 0, SEEK_END);
	server->disk_blocks = bytes < 0 ? 0 : (uint64_t)bytes / BLOCK_BYTES;
	if (server->disk_blocks == 0)
		server_fail("the disk is empty");
	if (server->fetch)
		server->read_slots = server->connection_count;
	if (posix_memalign((void **)&server->blocks, BLOCK_BYTES,
			   (size_t)server->read_slots * BLOCK_BYTES) != 0)
		server_fail("no memory");
}

/* ---- sockets ---- */

static void
listen_on(struct server *server, uint16_t port)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };
	int one = 1;

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	server->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	server_check("socket", server->listen_fd);
	server_check("SO_REUSEADDR",
		     setsockopt(server->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)));
	server_check("bind", bind(server->listen_fd, (struct sockaddr *)&address, sizeof(address)));
	server_check("listen", listen(server->listen_fd, BACKLOG));
}

int
server_accept(struct server *server)
{
	int fd = accept4(server->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	int one = 1;

	if (fd < 0 && (errno == EAGAIN || errno == ECONNABORTED))
		return -1;
	server_check("accept", fd);
	if (server->accepted_count++ == server->connection_count)
		server_fail("more clients than --connections");
	server_check("TCP_NODELAY", setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)));
	return fd;
}

static void
open_token_sockets(struct server *server)
{
	server->open_fds = server_allocate(server->connection_count, sizeof(int));
	for (unsigned i = 0; i < server->connection_count; i += 2)
		server_check("socketpair",
			     socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0,
					server->open_fds + i));
}

/* Set out TOKENS tokens, evenly along their way. */
static void
send_tokens(struct server *server, unsigned tokens)
{
	for (unsigned i = 0; i < tokens; i++) {
		uint64_t step = (uint64_t)i * server->connection_count / tokens;
		uint64_t target = step * TOKEN_STRIDE % server->connection_count;

		server_check("send", send(server->open_fds[target ^ 1], &token, 1, 0));
	}
}

/* ---- main ---- */

static void
make_http_reply(struct http_reply *reply)
{
	int head_bytes = snprintf(reply->text, sizeof(reply->text),
				  "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
				  "Content-Length: %d\r\n\r\n",
				  HTTP_BODY_BYTES);

	for (unsigned i = 0; i < HTTP_BODY_BYTES; i++)
		reply->text[(unsigned)head_bytes + i] = http_body_byte(i);
	reply->bytes = (unsigned)head_bytes + HTTP_BODY_BYTES;
}

static void
make_sessions(struct server *server)
{
	struct http_reply *http = server_allocate(1, sizeof(*http));

	make_http_reply(http);
	server->sessions = server_allocate(server->connection_count, sizeof(server->sessions[0]));
	for (unsigned i = 0; i < server->connection_count; i++) {
		struct session *session = &server->sessions[i];

		if (server->load == LOAD_HTTP)
			session->reply = (struct reply){ i, http->bytes, http->text };
		else
			session->reply = (struct reply){ i, ECHO_REPLY_BYTES,
							 session->request + ECHO_REPLY_OFFSET };
	}
}

static _Noreturn void
usage(void)
{
	server_fail("usage: PROGRAM --counters FILE --connections N --echo PORT | --http PORT | "
		    "--tokens N\n"
		    "               [--disk PATH --reads N | --disk PATH --fetch] [--edge] "
		    "[--spin-us N] [--socket-batch N]");
}

struct options {
	const char *counters, *disk;
	uint16_t port;
	unsigned tokens;
};

static void
parse_options(int argc, char **argv, struct server *server, struct options *options)
{
	static const struct option known[] = {
		{ "echo", required_argument, NULL, 'e' },
		{ "http", required_argument, NULL, 'h' },
		{ "tokens", required_argument, NULL, 't' },
		{ "connections", required_argument, NULL, 'c' },
		{ "counters", required_argument, NULL, 'n' },
		{ "disk", required_argument, NULL, 'd' },
		{ "reads", required_argument, NULL, 'r' },
		{ "fetch", no_argument, NULL, 'f' },
		{ "edge", no_argument, NULL, 'g' },
		{ "spin-us", required_argument, NULL, 's' },
		{ "socket-batch", required_argument, NULL, 'b' },
		{ NULL, 0, NULL, 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
		unsigned value = optarg == NULL ? 0 : (unsigned)strtoul(optarg, NULL, 10);

		switch (option) {
		case 'e':
			options->port = (uint16_t)value;
			break;
		case 'h':
			server->load = LOAD_HTTP;
			options->port = (uint16_t)value;
			break;
		case 't':
			server->load = LOAD_TOKENS;
			options->tokens = value;
			break;
		case 'c':
			server->connection_count = value;
			break;
		case 'n':
			options->counters = optarg;
			break;
		case 'd':
			options->disk = optarg;
			break;
		case 'r':
			server->read_slots = value;
			break;
		case 'f':
			server->fetch = true;
			break;
		case 'g':
			server->edge_triggered = true;
			break;
		case 's':
			server->spin_us = value;
			break;
		case 'b':
			server->socket_batch_min = value;
			break;
		default:
			usage();
		}
	}
	if (options->counters == NULL || server->connection_count == 0 ||
	    (server->load == LOAD_TOKENS &&
	     (server->connection_count % 2 != 0 || server->connection_count % TOKEN_STRIDE == 0)) ||
	    (options->disk == NULL) != (server->read_slots == 0 && !server->fetch))
		usage();
}

int
main(int argc, char **argv)
{
	struct options options = { 0 };
	struct server server = { .load = LOAD_ECHO, .listen_fd = -1, .random = 88172645463325252 };

	parse_options(argc, argv, &server, &options);
	(void)signal(SIGPIPE, SIG_IGN);
	server.receive_bytes = server.load == LOAD_TOKENS ? REPLIES_MAX : RECEIVE_BYTES_MAX;
	server.counters = counters_map(options.counters);
	make_sessions(&server);
	if (options.disk != NULL)
		open_disk(&server, options.disk);
	if (server.load == LOAD_TOKENS) {
		open_token_sockets(&server);
		send_tokens(&server, options.tokens);
	} else {
		listen_on(&server, options.port);
	}
	server_run(&server);
}
