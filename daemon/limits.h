/* What a configuration takes of the machine's limits: slots for asynchronous I/O, files, memory. */
#ifndef DAEMON_LIMITS_H
#define DAEMON_LIMITS_H

#include "daemon/config.h"
#include "reactor/check.h"
#include "reactor/reactor.h"

/* What the host has of slots for asynchronous I/O, and what it would take to have what was asked for. */
struct aio_budget {
	bool known; /* else nothing is of the first two: /proc/sys is hidden */
	uint64_t limit, used_by_others;
	uint64_t needed;
};

/* The slots of each core that CONFIG asks for; all other fields as CONFIG says too. */
struct reactor_config limits_reactor_config(const struct config *config);

struct aio_budget limits_aio_budget(const struct config *config);

/* If the host is known to have not enough slots for all cores, lower REACTOR's to each core's share:
 * the first ones would leave nothing for the last. */
void limits_share_aio(struct reactor_config *reactor, const struct aio_budget *budget,
		      unsigned core_count);

/* Look whether the files, the memory and the locked memory that CONFIG, finished, needs are within RLIMIT_NOFILE, the machine's
 * memory and its cgroup's, and RLIMIT_MEMLOCK.  Each that is not is logged with both numbers and what to do.
 * Returns 0 or -ENOMEM, -EMFILE. */
int limits_check(const struct config *config) MUST_USE;

/* The files alone, which are all that a reload can need more of.  Returns 0 or -EMFILE. */
int limits_check_files(const struct config *config) MUST_USE;

/* Raise the soft limit of files to the hard one: connections are files, take as many as the administrator allows. */
void limits_raise_files(void);

/* Write what CONFIG needs and what there is to OUT, aligned as config_describe. */
void limits_describe(const struct config *config, FILE *out);

#endif
