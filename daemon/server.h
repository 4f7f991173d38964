/* The server: a configuration brought to life, from opened volumes to accepted connections, its change, and its orderly end.
 * One thread starts, changes and stops it; the cores do the rest. */
#ifndef DAEMON_SERVER_H
#define DAEMON_SERVER_H

#include "daemon/config.h"
#include "reactor/check.h"
#include <stdbool.h>

struct server;

/* Listening sockets that a service manager made, as file descriptors from FIRST on. */
struct server_sockets {
	int first;
	unsigned count;
};

/* Open everything that CONFIG, finished, names, and begin to serve.  Takes over what is in CONFIG, also if it fails.
 * sockets: listened on too; one that listens where CONFIG says takes that one's place, and if there is any CONFIG's default
 * listener is not opened.  They are the server's, also if this fails.
 * Signals that the caller waits for, and SERVER_SIGNAL, must be blocked already: the cores inherit the mask.
 * Returns 0, or a negative errno, logged with the object and what to do; then nothing runs. */
int server_start(struct config *config, const struct server_sockets *sockets,
		 struct server **server) MUST_USE;

/* When it comes, the thread that has started the server is to call server_tidy. */
#define SERVER_SIGNAL SIGRTMIN

/* Let CONFIG, finished, take the place of what is served, all or nothing: exports, listeners,
 * limits, who may connect, certificates.  Takes over what is in it, also if it fails.  Files and
 * devices that have become larger since they were opened are so for whoever connects from now on.
 * Connections stay as they are; those whose export is gone until their client leaves, or, where
 * CONFIG says so, until what they asked is answered.  What [reactor] says holds from the next start
 * on; a change there is logged.
 * Returns 0, or a negative errno, logged with the object and what to do; then nothing has changed. */
int server_reload(struct server *server, struct config *config) MUST_USE;

/* Close what nobody uses any more.  Blocks for as long as the volumes' last flushes take. */
void server_tidy(struct server *server);

/* Log what is served, and to whom, in a bounded number of lines of level info. */
void server_report(struct server *server);

/* How many exports are offered. */
size_t server_export_count(const struct server *server);

/* The caller, which has started the server, begins with WHAT, a literal, that may block it; NULL: it waits for signals.  See
 * daemon/alive.h. */
void server_busy(struct server *server, const char *what);

/* Accept no more, answer what was asked, flush and close the volumes, free all.
 * Returns 0, or the negative errno of a last flush that failed (logged). */
int server_stop(struct server *server);

#endif
