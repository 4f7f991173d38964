/* What all servers under comparison have in common; server.c has the main.
 *
 * A server is one file with server_run, on one thread.  Only how it waits and does its I/O is its own: what a request
 * is, and what it calls for, is decided here for all alike, and costs all the same.
 *
 * Every load is a closed loop: a connection has one request or reply on its way at a time.  So a reply always fits into
 * the socket's buffer, and a send that takes less than all of it is server_fail, not a case to handle. */
#ifndef BENCH_LOOPS_SERVER_H
#define BENCH_LOOPS_SERVER_H

#include "bench/loops/counters.h"
#include "bench/loops/wire.h"
#include "reactor/check.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define BLOCK_BYTES	  4096
#define RECEIVE_BYTES_MAX 4096
#define REPLIES_MAX	  16  /* that one receive can call for */
#define EVENTS_MAX	  512 /* to take from the kernel at a time, where a loop has the choice */

enum load {
	LOAD_ECHO,
	LOAD_HTTP,
	LOAD_TOKENS, /* no clients: tokens go round among the server's own sockets */
};

/* DATA, BYTES of it, to be sent on CONNECTION. */
struct reply {
	unsigned connection;
	unsigned bytes;
	const void *data; /* until that connection's next request */
};

/* A connection's part of a request so far, and its reply. */
struct session {
	struct reply reply;
	unsigned taken_bytes;
	uint8_t request[ECHO_REQUEST_BYTES]; /* of HTTP the last bytes only, at its start */
};

struct server {
	enum load load;
	/* The most bytes to receive at a time: RECEIVE_BYTES_MAX or REPLIES_MAX.  Who gets fewer has got all there was. */
	unsigned receive_bytes;
	unsigned connection_count; /* at most; their numbers are less, and none is used again */
	int listen_fd;		   /* non-blocking; -1: no clients */
	int *open_fds; /* LOAD_TOKENS: [connection_count], non-blocking stream sockets; else NULL */

	/* Each slot is for one read at a time, of BLOCK_BYTES into server_block(slot). */
	unsigned read_slots; /* 0: nothing is read */
	/* True: a request is answered when the read in its connection's slot is done.
	 * False: all slots are read all the time, beside the requests. */
	bool fetch;
	int disk_fd; /* O_DIRECT */

	/* For the loops that know the difference. */
	bool edge_triggered;
	unsigned spin_us;
	unsigned socket_batch_min; /* 0: the loop's default */

	/* Private. */
	struct session *sessions;
	uint8_t *blocks;
	uint64_t disk_blocks;
	uint64_t random;
	struct counters *counters;
	unsigned accepted_count;
};

/* Serve until a signal ends the process. */
_Noreturn void server_run(struct server *server);

/* Accept a client.  Returns its socket, non-blocking, or -1: nobody waits. */
int server_accept(struct server *server);

/* CONNECTION has received BYTES of DATA, at least 1.
 * Returns how many replies to send, at most REPLIES_MAX; with `fetch`, how many reads to start in its slot. */
unsigned server_receive(struct server *server, unsigned connection, const uint8_t *data,
			size_t bytes, struct reply *replies);

/* Where the next read is from, in bytes; and where to. */
uint64_t server_next_offset(struct server *server);
void *server_block(struct server *server, unsigned slot);

/* The read in SLOT has got RESULT, bytes or a negative errno.
 * Returns with `fetch` the reply to send, else NULL: start the next one. */
const struct reply *server_read_done(struct server *server, unsigned slot, long result);

/* A send of REPLY has got RESULT, bytes or a negative errno. */
void server_sent(const struct reply *reply, long result);

/* Whether a receive's RESULT means that the client is gone; -EAGAIN does not.  Its socket is then no longer watched, but
 * stays open: a read that it asked for may still be answered, and the process ends soon. */
bool server_client_gone(long result);

/* Memory for COUNT elements of BYTES each, zeroed; never NULL. */
void *server_allocate(size_t count, size_t bytes);

/* Exit if RESULT, of the call WHAT, is negative: a negative errno, or -1 and errno. */
void server_check(const char *what, long result);

/* Print WHAT and exit. */
_Noreturn void server_fail(const char *what);

#endif
