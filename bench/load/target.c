/* Taking URIs apart. */
#include "bench/load/target.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <uriparser/Uri.h>

#include "net/nbd.h"

#define PORT_TEXT "10809"
#define CID_TEXT  "2" /* the host of a virtual machine */

enum transport {
	TRANSPORT_INET,
	TRANSPORT_UNIX,
	TRANSPORT_VSOCK,
};

static const struct scheme {
	const char *name;
	enum transport transport;
	bool secure;
} schemes[] = {
	{ "nbd", TRANSPORT_INET, false },	 { "nbds", TRANSPORT_INET, true },
	{ "nbd+unix", TRANSPORT_UNIX, false },	 { "nbds+unix", TRANSPORT_UNIX, true },
	{ "nbd+vsock", TRANSPORT_VSOCK, false }, { "nbds+vsock", TRANSPORT_VSOCK, true },
};

static int
wrong(FILE *errors, const char *uri, const char *what)
{
	fprintf(errors, "%s: %s\n", uri, what);
	return -EINVAL;
}

/* A copy of RANGE, with what is percent-encoded decoded; NULL without memory. */
static char *
decoded(const UriTextRangeA *range)
{
	char *text;

	if (range->first == NULL)
		return strdup("");
	text = strndup(range->first, (size_t)(range->afterLast - range->first));
	if (text != NULL)
		uriUnescapeInPlaceA(text);
	return text;
}

/* The path without the slash in front is the export's name; further slashes are part of it.  Segment by segment: the text of an empty one
 * may lie outside of the URI's. */
static char *
export_name_of(const UriUriA *uri)
{
	size_t bytes = 1;
	char *name, *end;

	for (const UriPathSegmentA *segment = uri->pathHead; segment != NULL;
	     segment = segment->next)
		bytes += 1 + (size_t)(segment->text.afterLast - segment->text.first);
	name = end = malloc(bytes);
	if (name == NULL)
		return NULL;
	for (const UriPathSegmentA *segment = uri->pathHead; segment != NULL;
	     segment = segment->next) {
		if (segment != uri->pathHead)
			*end++ = '/';
		for (const char *at = segment->text.first; at < segment->text.afterLast; at++)
			*end++ = *at;
	}
	*end = '\0';
	uriUnescapeInPlaceA(name);
	return name;
}

static const struct scheme *
scheme_of(const UriUriA *uri)
{
	size_t bytes = (size_t)(uri->scheme.afterLast - uri->scheme.first);

	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
		/* RFC 3986, 3.1: in either case. */
		if (strlen(schemes[i].name) == bytes &&
		    strncasecmp(uri->scheme.first, schemes[i].name, bytes) == 0)
			return &schemes[i];
	}
	return NULL;
}

/* ---- the query ---- */

/* What is of use in it; each is NULL if it is not there, and owned.  Source: nbd_connect_uri(3). */
struct query {
	char *socket;
	char *certificates, *psk_file, *verify_peer, *host;
};

static void
query_fini(struct query *query)
{
	free(query->socket);
	free(query->certificates);
	free(query->psk_file);
	free(query->verify_peer);
	free(query->host);
}

static char **
query_field(struct query *query, const char *key)
{
	struct {
		const char *key;
		char **field;
	} fields[] = {
		{ "socket", &query->socket },	      { "tls-certificates", &query->certificates },
		{ "tls-psk-file", &query->psk_file }, { "tls-verify-peer", &query->verify_peer },
		{ "tls-hostname", &query->host },
	};

	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		if (strcmp(fields[i].key, key) == 0)
			return fields[i].field;
	}
	return NULL;
}

/* Of a key that is there twice the first counts; those that mean nothing here are for others. */
static void
query_read(struct query *query, const UriUriA *uri)
{
	UriQueryListA *list;
	int count;

	*query = (struct query){ .socket = NULL };
	/* A plus is one: that it stands for a space is a custom of HTML's forms, and paths have them. */
	if (uri->query.first == NULL ||
	    uriDissectQueryMallocExA(&list, &count, uri->query.first, uri->query.afterLast,
				     URI_FALSE, URI_BR_DONT_TOUCH) != URI_SUCCESS)
		return;
	for (UriQueryListA *entry = list; entry != NULL; entry = entry->next) {
		char **field = query_field(query, entry->key);

		if (field != NULL && entry->value != NULL && *field == NULL)
			*field = strdup(entry->value);
	}
	uriFreeQueryListA(list);
}

/* ---- address and credentials ---- */

/* As address_text, of a socket of the file system. */
static char *
unix_address_text(const struct query *query, const char **why)
{
	char *text;

	if (query->socket == NULL) {
		*why = "says no socket; expected nbd+unix:///EXPORT?socket=PATH";
		return NULL;
	}
	return asprintf(&text, "unix:%s", query->socket) < 0 ? NULL : text;
}

/* HOST and PORT as address_parse takes them; NULL as address_text. */
static char *
join_address(const struct scheme *scheme, const char *host, const char *port, bool is_ipv6,
	     const char **why)
{
	const char *format = is_ipv6 ? "[%s]:%s" : "%s:%s";
	char *text;

	if (scheme->transport == TRANSPORT_VSOCK) {
		format = "vsock:%s:%s";
		host = *host == '\0' ? CID_TEXT : host;
	}
	if (*host == '\0') {
		*why = "says no host; expected nbd://HOST[:PORT]/EXPORT";
		return NULL;
	}
	return asprintf(&text, format, host, port) < 0 ? NULL : text;
}

/* The address as address_parse takes it; NULL without memory or, with *why, if URI has none. */
static char *
address_text(const UriUriA *uri, const struct scheme *scheme, const struct query *query,
	     const char **why)
{
	char *text = NULL, *host, *port;

	*why = "no memory";
	if (scheme->transport == TRANSPORT_UNIX)
		return unix_address_text(query, why);
	host = decoded(&uri->hostText);
	port = uri->portText.first == uri->portText.afterLast ? strdup(PORT_TEXT)
							      : decoded(&uri->portText);
	if (host != NULL && port != NULL)
		text = join_address(scheme, host, port, uri->hostData.ip6 != NULL, why);
	free(host);
	free(port);
	return text;
}

static int
parse_address(const UriUriA *parts, const struct scheme *scheme, const struct query *query,
	      struct target *target, FILE *errors)
{
	const char *why;
	char *text = address_text(parts, scheme, query, &why);
	int count;

	if (text == NULL)
		return wrong(errors, target->uri, why);
	count = address_parse_all(text, target->addresses, TARGET_ADDRESSES_MAX, &why);
	free(text);
	if (count < 0)
		return wrong(errors, target->uri, why);
	target->address_count = (unsigned)count;
	return 0;
}

static int
parse_flag(const char *text, bool *flag)
{
	static const char *const words[] = { "false", "true", "no", "yes", "off", "on", "0", "1" };

	for (unsigned i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcmp(text, words[i]) == 0) {
			*flag = i % 2 == 1;
			return 0;
		}
	}
	return -EINVAL;
}

/* What is there for TLS.  Only hosts of the Internet have names that a certificate could be for. */
static int
load_credentials(const UriUriA *parts, const struct scheme *scheme, const struct query *query,
		 struct target *target, FILE *errors)
{
	struct credentials_files files = { .directory = query->certificates,
					   .psk_file = query->psk_file,
					   .host = query->host,
					   .verify = true };
	char *user = decoded(&parts->userInfo), *host = decoded(&parts->hostText);
	int error;

	if (user == NULL || host == NULL)
		error = wrong(errors, target->uri, "no memory");
	else if (query->certificates != NULL && query->psk_file != NULL)
		error = wrong(errors, target->uri,
			      "has both tls-certificates and tls-psk-file; say one of them");
	else if (query->verify_peer != NULL && parse_flag(query->verify_peer, &files.verify) < 0)
		error = wrong(errors, target->uri, "tls-verify-peer is neither true nor false");
	else {
		files.identity = *user == '\0' ? NULL : user;
		if (files.host == NULL && scheme->transport == TRANSPORT_INET)
			files.host = host;
		error = credentials_create(&files, &target->credentials, errors);
	}
	free(user);
	free(host);
	return error;
}

/* ---- the whole ---- */

static int
parse_parts(const UriUriA *parts, struct target *target, FILE *errors)
{
	const struct scheme *scheme = scheme_of(parts);
	struct query query;
	int error;

	if (scheme == NULL)
		return wrong(errors, target->uri,
			     "is not of a kind that is known; nbd, nbd+unix and nbd+vsock are, and "
			     "inside TLS "
			     "nbds, nbds+unix and nbds+vsock");
	target->export_name = export_name_of(parts);
	if (target->export_name == NULL)
		return wrong(errors, target->uri, "no memory");
	if (strlen(target->export_name) > NBD_STRING_BYTES_MAX)
		return wrong(errors, target->uri, "the export's name has more than 4096 bytes");
	query_read(&query, parts);
	error = parse_address(parts, scheme, &query, target, errors);
	if (error == 0 && scheme->secure)
		error = load_credentials(parts, scheme, &query, target, errors);
	query_fini(&query);
	return error;
}

int
target_parse(const char *uri, struct target *target, FILE *errors)
{
	UriUriA parts;
	int error;

	*target = (struct target){ .uri = uri };
	/* It would end the name, and another export would be meant. */
	if (strstr(uri, "%00") != NULL)
		return wrong(errors, uri, "has a NUL (%00) in it");
	if (uriParseSingleUriA(&parts, uri, NULL) != URI_SUCCESS)
		return wrong(errors, uri,
			     "is not a URI; expected nbd://HOST[:PORT]/EXPORT or "
			     "nbd+unix:///EXPORT?socket=PATH");
	if (parts.scheme.first == NULL)
		error = wrong(errors, uri, "says no kind; expected nbd://... or nbd+unix://...");
	else
		error = parse_parts(&parts, target, errors);
	uriFreeUriMembersA(&parts);
	if (error < 0)
		target_fini(target);
	return error;
}

void
target_fini(struct target *target)
{
	free(target->export_name);
	credentials_destroy(target->credentials);
}
