/* The daemon's settings: what the configuration file and the command line say, checked, before anything is
 * opened.  Plain data; the strings belong to the config. */
#ifndef DAEMON_CONFIG_H
#define DAEMON_CONFIG_H

#include "daemon/config_origin.h"
#include "disk/volume_options.h"
#include "net/access.h"
#include "net/address.h"
#include "net/tls_credentials.h"
#include "net/tls_names.h"
#include "reactor/check.h"
#include "reactor/cpu_list.h"
#include "reactor/log.h"
#include "reactor/priority.h"
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define CONFIG_LISTEN_MAX      64
#define CONFIG_QUEUE_DEPTH_MIN 16
#define CONFIG_QUEUE_DEPTH_MAX 16384
#define CONFIG_POLL_US_MAX     10000
#define CONFIG_STALL_MS_MIN    50 /* five times the longest spin, which is no turn either */
#define CONFIG_SLOW_MS_MAX     3600000
#define CONFIG_SLOW_MS_UNSET   UINT_MAX
#define CONFIG_STALL_MS_MAX    3600000
#define CONFIG_BUFFER_MEMORY_MIN \
	((uint64_t)64 << 20) /* bytes per core: a request of 32 MiB and its frame */
#define CONFIG_BUFFER_MEMORY_MAX ((uint64_t)64 << 30)
#define CONFIG_CONNECTIONS_MAX	 20000
#define CONFIG_SOCKET_BATCH_MAX	 20000
#define CONFIG_REQUESTS_MAX	 4096 /* per connection */
#define CONFIG_HANDSHAKE_S_MAX	 3600
#define CONFIG_DEAD_PEER_S_MIN	 5 /* four probes a second apart, and one before them */
#define CONFIG_DEAD_PEER_S_MAX	 3600
#define CONFIG_LIMIT_IOPS_MAX	 1000000000
#define CONFIG_BURST_MS_MAX	 60000
#define CONFIG_VOLUME_BYTES_MAX	 ((uint64_t)1 << 50)

struct config_export {
	char *name; /* "" is the default export */
	enum volume_kind type;
	char *path;	     /* or NULL */
	uint64_t size_bytes; /* 0: not given */
	char *fault;	     /* or NULL */
	enum volume_cache cache;
	enum volume_create create;
	char *description; /* or NULL */
	bool read_only;
	enum priority priority;
	unsigned limit_iops;  /* 0: no limit */
	uint64_t limit_bytes; /* per second; 0: no limit */
	unsigned burst_ms;
	unsigned slow_ms; /* as below; CONFIG_SLOW_MS_UNSET: that one holds */
	struct access_rules access;
	struct access_list read_only_for;
	bool tls_only;
	struct tls_names allow_names;
	char *origin;		       /* "FILE:LINE" of its section, or "--export": for messages */
	struct config_origins origins; /* of its keys */
};

/* How lines of the log are written. */
enum log_format {
	LOG_FORMAT_TEXT, /* for people; with fields where standard error is the journal */
	LOG_FORMAT_JSON, /* for programs */
};

/* What becomes of connections whose export a reload takes away. */
enum config_removed {
	CONFIG_REMOVED_DRAIN, /* they stay until their client leaves */
	CONFIG_REMOVED_DROP,  /* they end when what they asked is answered */
};

struct config {
	/* [reactor] */
	bool cores_auto;
	struct cpu_list cores; /* what cores = says; for auto what daemon/core_choice.h chooses */
	bool skip_core_0, skip_smt;   /* by auto */
	unsigned queue_depth;	      /* disk requests in flight per core */
	unsigned poll_us;	      /* spin at most this long before sleeping; 0: never */
	unsigned socket_batch;	      /* so many sockets are served by one io_submit; 0: never */
	unsigned stall_ms;	      /* a core busy with one turn for longer is logged */
	uint64_t buffer_memory_bytes; /* per core */
	bool lock_memory;
	/* [server] */
	size_t listen_count;
	struct address listen[CONFIG_LISTEN_MAX];
	char *listen_origins[CONFIG_LISTEN_MAX]; /* where each was set, or NULL */
	bool listen_default;			 /* none was set */
	bool listen_replaced; /* the command line has them: those of the file are not looked at */
	unsigned connections_max;
	unsigned connections_per_client_max; /* 0: any number */
	char *user;			     /* to become if started as root; or NULL */
	bool seccomp;			     /* filter system calls */
	bool core_dumps;		     /* allow them */
	char *exports_dir; /* or NULL; with the directory of the file that named it, once that is read */
	unsigned requests_per_connection; /* served at one time; what more was asked for waits */
	unsigned handshake_s;		  /* for choosing an export */
	unsigned dead_peer_s;		  /* silence of a TCP peer until it counts as gone */
	struct access_rules access;
	enum config_removed removed_exports;
	enum log_level log_level; /* lines of it and more severe ones are logged */
	enum log_format log_format;
	unsigned slow_ms; /* requests that take longer are logged; 0: none */
	/* [tls] */
	enum tls_mode tls_mode;
	struct tls_files tls;
	/* [export NAME] */
	size_t export_count;
	struct config_export *exports;

	/* Of the keys of all sections but exports. */
	struct config_origins origins[CONFIG_SECTIONS_MAX];
	bool mistaken; /* a source had a mistake, so what depends on several settings may be wrong for that */
};

/* Set the defaults: cores auto, queue-depth 256, poll-us 200, socket-batch 0, stall-ms 500,
 * buffer-memory 128M, max-connections 1024, requests-per-connection 128, handshake-s 10,
 * dead-peer-s 60, TLS off, clients' certificates verified, no listener, no export.  config_fini
 * must be called later. */
void config_init(struct config *config);
void config_fini(struct config *config);

/* Read the file at PATH, and those of the directory that its exports-dir names, into CONFIG, on top
 * of what it holds.  Every mistake is written to ERRORS, a line each, as
 * "PATH:LINE: [SECTION] KEY = VALUE: what is wrong; what is allowed"; reading goes on so that all
 * are found.
 * Returns 0, or -EINVAL if there was any mistake, or the file could not be read (said, with its name). */
int config_read_file(struct config *config, const char *path, FILE *errors) MUST_USE;

/* The command line's --export NAME=PATH (also NAME=memory:SIZE and NAME=null:SIZE), --listen ADDR
 * and --cores LIST, which takes back skip-core-0 and skip-smt, too.  One mistake is written to ERRORS as
 * "--export TEXT: what is wrong; what is allowed".  Returns 0 or -EINVAL; then CONFIG is unchanged
 * but for `mistaken`. */
int config_add_export(struct config *config, const char *text, FILE *errors) MUST_USE;
int config_add_listen(struct config *config, const char *text, FILE *errors) MUST_USE;
int config_set_cores(struct config *config, const char *text, FILE *errors) MUST_USE;

/* After all sources are read: fill in the defaults that depend on others (cores auto; no listener:
 * 127.0.0.1:10809), and check the whole: at least one export (unless a mistake may have cost it),
 * every core exists and is allowed.  May be called after a source had mistakes, to find more.
 * Mistakes go to ERRORS.  Returns 0 or -EINVAL. */
int config_finish(struct config *config, FILE *errors) MUST_USE;

/* What EXPORT's volume is opened from; the strings are EXPORT's. */
struct volume_options config_volume_options(const struct config_export *export);

/* Whether a mistake, which was reported, leaves open what EXPORT's volume is to be opened from. */
bool config_volume_in_doubt(const struct config_export *export) MUST_USE;

/* Whether both exports may be of one image: they only read it, or a mistake, which was reported, leaves open whether they do. */
bool config_may_share_image(const struct config_export *left,
			    const struct config_export *right) MUST_USE;

/* Write what CONFIG, finished, makes the daemon do to OUT, aligned, for a person: every key of daemon/config_key.h. */
void config_describe(const struct config *config, FILE *out);

#endif
