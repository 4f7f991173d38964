/* The load: some of many connections to a server are active, each in a closed loop, and every reply is looked at.
 *
 * Every connection makes one request before the window begins, so that an idle one is known to be served.  The server's
 * CPU time, its counters and its system calls are read at the window's two ends from here: what comes before and after
 * the window is in none of the figures, and the server is not disturbed.
 * One thread, which the caller pins away from the server. */
#include "bench/loops/counters.h"
#include "bench/loops/system_calls.h"
#include "bench/loops/wire.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S	 ((uint64_t)1000000000)
#define EVENTS_MAX	 512
#define GREETED_AT_ONCE	 128
#define PATIENCE_S	 10 /* for a connection, a reply, a first token */
#define REPLY_BYTES_MAX	 2048
#define CONNECT_RETRY_NS 2000000

/* Latencies: SUB_COUNT buckets for each power of two, so that they are right to 1/64. */
#define SUB_BITS	6
#define SUB_COUNT	(1u << SUB_BITS)
#define HISTOGRAM_COUNT (64 * SUB_COUNT)

/* CPUCLOCK_SCHED of the kernel's posix-timers.h: the CPU time of all threads, in nanoseconds. */
#define CLOCK_OF_PROCESS 2

struct connection {
	int fd;
	unsigned have_bytes;  /* of the reply */
	unsigned reply_bytes; /* 0: not known yet */
	uint64_t sent_ns;
	uint64_t sequence;
	uint8_t request[ECHO_REQUEST_BYTES];
	uint8_t reply[REPLY_BYTES_MAX];
};

struct load {
	/* Options. */
	bool http;
	uint16_t port;
	unsigned connection_count, active_count;
	double seconds;
	pid_t server_pid;
	struct counters *counters;
	bool count_system_calls;

	struct connection *connections;
	int epoll_fd;
	uint64_t request_count;
	uint64_t histogram[HISTOGRAM_COUNT];
	struct system_calls system_calls;
};

/* What is read at each end of the window. */
struct snapshot {
	uint64_t clock_ns, server_cpu_ns, client_cpu_ns, requests, reads, tokens, system_calls;
};

/* ---- failing, clocks ---- */

static _Noreturn void
fail(const char *what)
{
	fprintf(stderr, "%s\n", what);
	exit(1);
}

static _Noreturn void
fail_errno(const char *what)
{
	perror(what);
	exit(1);
}

static uint64_t
clock_ns(clockid_t clock)
{
	struct timespec now;

	if (clock_gettime(clock, &now) != 0)
		fail_errno("clock_gettime: is the server gone?");
	return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static uint64_t
now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

static clockid_t
process_clock(pid_t pid)
{
	return (clockid_t)((~(unsigned)pid << 3) | CLOCK_OF_PROCESS);
}

/* ---- latencies ---- */

static unsigned
bucket_of(uint64_t ns)
{
	unsigned power;

	if (ns < SUB_COUNT)
		return (unsigned)ns;
	power = 63 - (unsigned)__builtin_clzll(ns) - SUB_BITS;
	return (power + 1) * SUB_COUNT + (unsigned)(ns >> power) - SUB_COUNT;
}

/* The least latency in BUCKET. */
static uint64_t
bucket_ns(unsigned bucket)
{
	if (bucket < SUB_COUNT)
		return bucket;
	return (uint64_t)(bucket % SUB_COUNT + SUB_COUNT) << (bucket / SUB_COUNT - 1);
}

static uint64_t
percentile_ns(const struct load *load, double part)
{
	uint64_t total = 0, seen = 0;

	for (unsigned i = 0; i < HISTOGRAM_COUNT; i++)
		total += load->histogram[i];
	for (unsigned i = 0; i < HISTOGRAM_COUNT; i++) {
		seen += load->histogram[i];
		if (seen > 0 && (double)seen >= part * (double)total)
			return bucket_ns(i);
	}
	return 0;
}

/* ---- requests and replies ---- */

static void
send_request(struct load *load, struct connection *connection)
{
	const void *data = HTTP_REQUEST;
	size_t bytes = sizeof(HTTP_REQUEST) - 1;

	connection->have_bytes = 0;
	if (!load->http) {
		/* No two requests of all connections have the same middle. */
		connection->sequence++;
		memcpy(connection->request + ECHO_REPLY_OFFSET, &connection->sequence, 8);
		memcpy(connection->request + ECHO_REPLY_OFFSET + 8, &connection->fd, sizeof(int));
		data = connection->request;
		bytes = ECHO_REQUEST_BYTES;
	}
	if (send(connection->fd, data, bytes, MSG_NOSIGNAL) != (ssize_t)bytes)
		fail_errno("send");
}

/* The length of the HTTP reply whose beginning there is; 0: not known yet. */
static unsigned
http_reply_bytes(struct connection *connection)
{
	static const char name[] = "Content-Length: ";
	char *text = (char *)connection->reply, *end, *length;
	unsigned long bytes;

	connection->reply[connection->have_bytes] = '\0';
	end = strstr(text, "\r\n\r\n");
	if (end == NULL)
		return 0;
	length = strstr(text, name);
	bytes = length == NULL || length > end ? 0 : strtoul(length + sizeof(name) - 1, NULL, 10);
	if (bytes != HTTP_BODY_BYTES)
		fail("the reply's length is wrong");
	return (unsigned)(end + 4 - text) + HTTP_BODY_BYTES;
}

static void
check_http(const struct connection *connection, const uint8_t *body)
{
	if (memcmp(connection->reply, "HTTP/1.1 200 ", 13) != 0)
		fail("the reply is not HTTP/1.1 200");
	for (unsigned i = 0; i < HTTP_BODY_BYTES; i += 64) {
		if (body[i] != (uint8_t)http_body_byte(i))
			fail("the reply's body is wrong");
	}
}

/* BYTES more have come.  Returns whether the reply is complete; it is right then. */
static bool
take_reply(struct load *load, struct connection *connection, size_t bytes)
{
	connection->have_bytes += (unsigned)bytes;
	if (load->http && connection->reply_bytes == 0)
		connection->reply_bytes = http_reply_bytes(connection);
	if (connection->reply_bytes == 0 || connection->have_bytes < connection->reply_bytes)
		return false;
	if (connection->have_bytes > connection->reply_bytes)
		fail("the reply is too long");
	if (load->http)
		check_http(connection,
			   connection->reply + connection->reply_bytes - HTTP_BODY_BYTES);
	else if (memcmp(connection->reply, connection->request + ECHO_REPLY_OFFSET,
			ECHO_REPLY_BYTES) != 0)
		fail("the reply is not the request's");
	return true;
}

/* Returns whether the reply is complete. */
static bool
receive(struct load *load, struct connection *connection)
{
	ssize_t received = recv(connection->fd, connection->reply + connection->have_bytes,
				REPLY_BYTES_MAX - 1 - connection->have_bytes, 0);

	if (received < 0)
		fail_errno("no reply");
	if (received == 0)
		fail("the server closed a connection");
	return take_reply(load, connection, (size_t)received);
}

/* ---- before the window ---- */

static int
connect_to(struct load *load, uint64_t deadline_ns)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(load->port) };

	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	for (;;) {
		struct timespec pause = { 0, CONNECT_RETRY_NS };
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

		if (fd < 0)
			fail_errno("socket");
		if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
			return fd;
		/* The server has only just been started. */
		if (errno != ECONNREFUSED || now_ns() > deadline_ns)
			fail_errno("connect");
		(void)close(fd);
		(void)nanosleep(&pause, NULL);
	}
}

static void
set_option(int fd, int level, int name, const void *value, socklen_t bytes)
{
	if (setsockopt(fd, level, name, value, bytes) != 0)
		fail_errno("setsockopt");
}

static void
connect_all(struct load *load)
{
	/* Closed by a reset: 10,000 connections waiting in TIME_WAIT would leave no ports for the next turns. */
	struct linger reset = { .l_onoff = 1 };
	struct timeval patience = { .tv_sec = PATIENCE_S };
	uint64_t deadline_ns = now_ns() + PATIENCE_S * NS_PER_S;
	int one = 1;

	load->connections = calloc(load->connection_count, sizeof(load->connections[0]));
	if (load->connections == NULL && load->connection_count > 0)
		fail("no memory");
	for (unsigned i = 0; i < load->connection_count; i++) {
		struct connection *connection = &load->connections[i];

		connection->fd = connect_to(load, deadline_ns);
		connection->reply_bytes = load->http ? 0 : ECHO_REPLY_BYTES;
		set_option(connection->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
		set_option(connection->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
		set_option(connection->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	}
}

/* One request on each connection. */
static void
greet_all(struct load *load)
{
	for (unsigned first = 0; first < load->connection_count; first += GREETED_AT_ONCE) {
		unsigned end = first + GREETED_AT_ONCE;

		if (end > load->connection_count)
			end = load->connection_count;
		for (unsigned i = first; i < end; i++)
			send_request(load, &load->connections[i]);
		for (unsigned i = first; i < end; i++) {
			while (!receive(load, &load->connections[i]))
				;
		}
	}
}

/* ---- the window ---- */

static struct snapshot
take_snapshot(const struct load *load)
{
	return (struct snapshot){
		.clock_ns = now_ns(),
		.server_cpu_ns = clock_ns(process_clock(load->server_pid)),
		.client_cpu_ns = clock_ns(CLOCK_PROCESS_CPUTIME_ID),
		.requests = load->request_count,
		.reads = counters_get(&load->counters->reads),
		.tokens = counters_get(&load->counters->tokens),
		.system_calls = system_calls_count(&load->system_calls),
	};
}

/* Set the active connections going, spread over all of them. */
static void
activate(struct load *load)
{
	load->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (load->epoll_fd < 0)
		fail_errno("epoll_create1");
	for (unsigned i = 0; i < load->active_count; i++) {
		struct connection *connection =
			&load->connections[(uint64_t)i * load->connection_count /
					   load->active_count];
		struct epoll_event event = { .events = EPOLLIN, .data.ptr = connection };

		if (epoll_ctl(load->epoll_fd, EPOLL_CTL_ADD, connection->fd, &event) != 0)
			fail_errno("epoll_ctl");
		connection->sent_ns = now_ns();
		send_request(load, connection);
	}
}

static void
on_readable(struct load *load, struct connection *connection)
{
	uint64_t done_ns;

	if (!receive(load, connection))
		return;
	done_ns = now_ns();
	load->histogram[bucket_of(done_ns - connection->sent_ns)]++;
	load->request_count++;
	connection->sent_ns = done_ns;
	send_request(load, connection);
}

static void
run_clients_until(struct load *load, uint64_t end_ns)
{
	struct epoll_event events[EVENTS_MAX];

	while (now_ns() < end_ns) {
		int count = epoll_wait(load->epoll_fd, events, EVENTS_MAX, PATIENCE_S * 1000);

		if (count == 0 || (count < 0 && errno != EINTR))
			fail("no reply");
		for (int i = 0; i < count; i++)
			on_readable(load, events[i].data.ptr);
	}
}

static void
sleep_until(uint64_t end_ns)
{
	struct timespec end = { (time_t)(end_ns / NS_PER_S), (long)(end_ns % NS_PER_S) };

	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &end, NULL) == EINTR)
		;
}

static void
run_until(struct load *load, uint64_t end_ns)
{
	if (load->connection_count > 0)
		run_clients_until(load, end_ns);
	else
		sleep_until(end_ns);
}

/* The server has got ready when its tokens move. */
static void
await_tokens(struct load *load)
{
	uint64_t deadline_ns = now_ns() + PATIENCE_S * NS_PER_S;

	while (counters_get(&load->counters->tokens) == 0) {
		if (now_ns() > deadline_ns)
			fail("no token moves");
		sleep_until(now_ns() + CONNECT_RETRY_NS);
	}
}

static void
print_figures(const struct load *load, const struct snapshot *from, const struct snapshot *to)
{
	uint64_t clients = to->requests - from->requests, reads = to->reads - from->reads;
	uint64_t tokens = to->tokens - from->tokens;

	if (clients + tokens == 0)
		fail("nothing was done");
	printf("{\"seconds\": %.6f, \"replies\": %" PRIu64 ", \"reads\": %" PRIu64
	       ", \"tokens\": %" PRIu64 ", \"server_cpu_ns\": %" PRIu64
	       ", \"client_cpu_ns\": %" PRIu64,
	       (double)(to->clock_ns - from->clock_ns) / (double)NS_PER_S, clients, reads, tokens,
	       to->server_cpu_ns - from->server_cpu_ns, to->client_cpu_ns - from->client_cpu_ns);
	if (clients > 0)
		printf(", \"p50_ns\": %" PRIu64 ", \"p99_ns\": %" PRIu64, percentile_ns(load, 0.5),
		       percentile_ns(load, 0.99));
	if (load->count_system_calls)
		printf(", \"syscalls\": %" PRIu64, to->system_calls - from->system_calls);
	printf("}\n");
}

static void
start_counting(struct load *load)
{
	int error = system_calls_start(&load->system_calls, load->server_pid);

	if (error != 0) {
		fprintf(stderr, "cannot count system calls: %s\n", strerror(-error));
		exit(1);
	}
}

static void
measure(struct load *load)
{
	uint64_t window_ns = (uint64_t)(load->seconds * (double)NS_PER_S);
	struct snapshot from, to;

	run_until(load, now_ns() + window_ns / 10);
	if (load->count_system_calls)
		start_counting(load);
	memset(load->histogram, 0, sizeof(load->histogram));
	from = take_snapshot(load);
	run_until(load, from.clock_ns + window_ns);
	to = take_snapshot(load);
	print_figures(load, &from, &to);
}

/* ---- main ---- */

static _Noreturn void
usage(void)
{
	fail("usage: load --server PID --counters FILE --seconds S [--syscalls]\n"
	     "            [--echo PORT | --http PORT] --connections N --active N\n"
	     "With no connections: the server's tokens are looked at.");
}

static void
parse_options(int argc, char **argv, struct load *load)
{
	static const struct option known[] = {
		{ "echo", required_argument, NULL, 'e' },
		{ "http", required_argument, NULL, 'h' },
		{ "connections", required_argument, NULL, 'c' },
		{ "active", required_argument, NULL, 'a' },
		{ "seconds", required_argument, NULL, 's' },
		{ "server", required_argument, NULL, 'p' },
		{ "counters", required_argument, NULL, 'n' },
		{ "syscalls", no_argument, NULL, 'y' },
		{ NULL, 0, NULL, 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
		unsigned value = optarg == NULL ? 0 : (unsigned)strtoul(optarg, NULL, 10);

		switch (option) {
		case 'h':
			load->http = true;
			load->port = (uint16_t)value;
			break;
		case 'e':
			load->port = (uint16_t)value;
			break;
		case 'c':
			load->connection_count = value;
			break;
		case 'a':
			load->active_count = value;
			break;
		case 's':
			load->seconds = strtod(optarg, NULL);
			break;
		case 'p':
			load->server_pid = (pid_t)value;
			break;
		case 'n':
			load->counters = counters_map(optarg);
			break;
		case 'y':
			load->count_system_calls = true;
			break;
		default:
			usage();
		}
	}
	if (load->server_pid == 0 || load->counters == NULL || load->seconds <= 0 ||
	    load->active_count > load->connection_count ||
	    (load->active_count == 0) != (load->connection_count == 0))
		usage();
}

int
main(int argc, char **argv)
{
	static struct load load;

	parse_options(argc, argv, &load);
	if (load.connection_count > 0) {
		connect_all(&load);
		greet_all(&load);
		activate(&load);
	} else {
		await_tokens(&load);
	}
	measure(&load);
	return 0;
}
