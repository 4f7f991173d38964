/* The server: a configuration brought to life, from opened volumes to accepted connections, and its orderly end.
 * One thread starts and stops it; the cores do the rest. */
#ifndef DAEMON_SERVER_H
#define DAEMON_SERVER_H

#include "daemon/config.h"
#include "reactor/check.h"
#include <stdbool.h>
#include <stdio.h>

struct server;

/* Listening sockets that a service manager made, as file descriptors from FIRST on. */
struct server_sockets {
	int first;
	unsigned count;
};

/* Open everything that CONFIG, finished, names, and begin to serve.  CONFIG must outlive the server.
 * sockets: listened on too; one that listens where CONFIG says takes that one's place, and if there is any CONFIG's default
 * listener is not opened.  They are the server's, also if this fails.
 * Signals that the caller waits for must be blocked already: the cores inherit the mask.
 * Returns 0, or a negative errno, logged with the object and what to do; then nothing runs. */
int server_start(const struct config *config, const struct server_sockets *sockets,
		 struct server **server) MUST_USE;

/* Returns true if every core has done something since the last call, or the start. */
bool server_alive(struct server *server);

/* Read the certificates and keys of TLS again, for connections that begin from now on; the others are not touched.
 * Returns 0, or a negative errno, logged; then those that were read before stay in use. */
int server_reload_tls(struct server *server);

/* Accept no more, answer what was asked, flush and close the volumes, free all.
 * Returns 0, or the negative errno of a last flush that failed (logged). */
int server_stop(struct server *server);

/* Look at everything CONFIG names without serving it, and write what would be done to OUT.
 * Returns 0, or a negative errno if the server could not start (each reason is logged). */
int server_check(const struct config *config, FILE *out) MUST_USE;

#endif
