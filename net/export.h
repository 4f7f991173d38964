/* Exports: volumes under the names that clients ask for. */
#ifndef NET_EXPORT_H
#define NET_EXPORT_H

#include "disk/throttle.h"
#include "disk/volume.h"
#include "net/access.h"
#include "net/hold.h"
#include "net/tls_names.h"
#include <stdbool.h>
#include <stddef.h>

/* The largest READ or WRITE, in bytes: what clients are told, and what is served to those who ask for more. */
#define EXPORT_PAYLOAD_BYTES_TOLD (32u << 20)
#define EXPORT_PAYLOAD_BYTES_MAX  (64u << 20)

struct export
{
	const char *name;	 /* "" is the default export */
	const char *description; /* or NULL */
	struct volume *volume;
	bool read_only;
	enum priority priority;	   /* of its clients' requests */
	uint64_t slow_ns;	   /* requests that take longer are logged; 0: none */
	struct throttle *throttle; /* its limits, shared with those of the same name; NULL: none */
	/* Who may use it, and learn that it exists; NULL: everybody. */
	const struct access_rules *access;
	bool tls_only; /* hidden from clients without TLS, who are told so when they ask for it */
	/* Which clients may use it, by what TLS has proved; NULL, or none: all. */
	const struct tls_names *allow_names;
	const struct access_list *read_only_for; /* who gets read_only_view instead; NULL: nobody */
	const struct export *read_only_view;	 /* the same export, but read-only; NULL as above */
	struct hold *hold; /* by those who have chosen it or its view; NULL: nobody counts them */
};

/* The exports of a server, constant.  Owned by whoever made it, strings included. */
struct export_table {
	struct export *exports;
	size_t count;
};

/* The export of that name, or NULL.  NAME need not end in a NUL. */
const struct export *export_find(const struct export_table *table, const char *name,
				 size_t name_bytes);

/* EXPORT as PEER sees it: itself or its read_only_view; NULL if PEER may not use it. */
const struct export *export_view(const struct export *export, const struct access_peer *peer);

/* Whether EXPORT is for clients inside TLS only. */
bool export_needs_tls(const struct export *export);

/* Whether a client whom TLS has proved to be called NAMES may use EXPORT. */
bool export_allows_names(const struct export *export, const struct tls_names *names);

#endif
