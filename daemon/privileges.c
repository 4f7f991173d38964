/* In this order: the user, for which system calls are needed that the filter then takes away. */
#include "daemon/privileges.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "daemon/config.h"
#include "daemon/config_tls.h"
#include "daemon/seccomp_filter.h"
#include "reactor/log.h"

static int find_user(const struct config *config, struct passwd **user);
static int become(const struct config *config);
static void warn_of_reloads(const struct config *config);

int
privileges_check(const struct config *config)
{
	struct passwd *user;

	return config->user ? find_user(config, &user) : 0;
}

int
privileges_drop(const struct config *config)
{
	int error = config->user ? become(config) : 0;

	if (error < 0)
		return error;
	if (geteuid() == 0)
		log_info("runs as root; user = NAME in the configuration makes it somebody who may "
			 "do less");
	warn_of_reloads(config);
	/* Without dumps others of the same user can't look into the process either.  With them it must be said after a change of
	 * user, which takes them away.  Source: prctl(2). */
	if (prctl(PR_SET_DUMPABLE, config->core_dumps ? 1 : 0, 0, 0, 0) != 0)
		return -errno; /* UNTESTED: it does not fail */
	return config->seccomp ? seccomp_filter_load() : 0;
}

static int
find_user(const struct config *config, struct passwd **user)
{
	const char *where = config_origin(config, "server", "user", "user");

	errno = 0;
	*user = getpwnam(config->user);
	if (!*user) {
		log_error("%s: %s; create it (systemd-sysusers, adduser --system), or name another",
			  where, errno ? strerror(errno) : "no such user");
		return -ENOENT;
	}
	if (geteuid() == 0 || geteuid() == (*user)->pw_uid)
		return 0;
	log_error("%s: only root can change to it; start as root, or take user out", where);
	return -EPERM;
}

/* glibc changes all threads.  The kernel drops all capabilities with root's uid.  Source: nptl(7), capabilities(7). */
static int
become(const struct config *config)
{
	const char *where = config_origin(config, "server", "user", "user");
	struct passwd *user;
	int error = find_user(config, &user);

	if (error < 0)
		return error;
	if (geteuid() == user->pw_uid)
		return 0; /* systemd has done it */
	if (initgroups(user->pw_name, user->pw_gid) != 0 ||
	    setresgid(user->pw_gid, user->pw_gid, user->pw_gid) != 0 ||
	    setresuid(user->pw_uid, user->pw_uid, user->pw_uid) != 0) {
		error = -errno;
		log_error("%s: cannot change to it: %s", where, strerror(errno));
		return error;
	}
	log_info("runs as %s from now on", config->user);
	return 0;
}

/* What root has read, and nobody else may: now is the time to say so, not when a certificate must be changed. */
static void
warn_unreadable(const char *path, const char *origin, const char *user)
{
	if (path != NULL && access(path, R_OK) != 0 && errno == EACCES)
		log_warning("%s: user %s may not read it, so that every reload will fail: let its "
			    "group read it (chgrp %u %s, chmod 640 %s), and enter the directories "
			    "above",
			    origin, user, (unsigned)getegid(), path, path);
}

static void
warn_of_reloads(const struct config *config)
{
	struct tls_files files = config_tls_files(config);

	if (config->user == NULL || config->tls_mode == TLS_MODE_OFF)
		return;
	warn_unreadable(files.certificate, files.origins.certificate, config->user);
	warn_unreadable(files.key, files.origins.key, config->user);
	warn_unreadable(files.ca, files.origins.ca, config->user);
	warn_unreadable(files.psk_file, files.origins.psk_file, config->user);
}
