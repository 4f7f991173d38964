/* libnbd with its strict mode off, sending what no client should: each request must come back with the error that the
 * specification says, and the connection go on.
 *
 *	libnbd-requests URI simple|structured|extended
 *
 * Each table of requests is sent twice, one by one, and all at once with good ones between them.  The first PATTERN_BYTES of
 * the export are written before (not of one that is read-only: they must be zeros) and must be the same afterwards.
 * One line for each mistake on standard error.  Exits 0, 1 if there was one, 77 if this libnbd lacks the style.
 * tests/e2e/test_rules_clients.py runs it. */
#include <errno.h>
#include <libnbd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Off, but that a write says that it has a payload, where libnbd knows of that: without it what follows is no request. */
#ifdef LIBNBD_STRICT_AUTO_FLAG
#define STRICT_MODE LIBNBD_STRICT_AUTO_FLAG
#else
#define STRICT_MODE 0
#endif

#define EXIT_SKIP	 77
#define PATTERN_BYTES	 65536u
#define BUFFER_BYTES	 (1u << 20)
#define MIB		 ((uint64_t)1 << 20)
#define UNKNOWN_FLAG	 (1u << 9)
#define FROM_END	 ((uint64_t)1 << 63) /* an offset that counts from the end of the export */
#define END_MINUS(bytes) (FROM_END | (bytes))

enum command {
	READ,
	WRITE,
	FLUSH,
	TRIM,
	CACHE,
	ZERO,
	STATUS,
};

struct request {
	const char *what;
	enum command command;
	uint32_t flags;
	uint64_t offset; /* or END_MINUS */
	uint64_t length;
	int error; /* 0: it is a good one */
};

/* Good ones touch what is behind the pattern, or read. */
static const struct request requests[] = {
	{ "a read", READ, 0, 0, 4096, 0 },
	{ "an unaligned read", READ, 0, 13, 1001, 0 },
	{ "a read of the last byte", READ, 0, END_MINUS(1), 1, 0 },
	{ "a read past the end", READ, 0, END_MINUS(4095), 4096, EINVAL },
	{ "a read far beyond", READ, 0, (uint64_t)1 << 62, 4096, EINVAL },
	{ "a read of nothing", READ, 0, 0, 0, EINVAL },
	{ "a read of nothing at the end", READ, 0, END_MINUS(0), 0, EINVAL },
	{ "a read with an unknown flag", READ, UNKNOWN_FLAG, 0, 4096, EINVAL },
	{ "a read with REQ_ONE", READ, LIBNBD_CMD_FLAG_REQ_ONE, 0, 4096, EINVAL },
	{ "a read with FUA", READ, LIBNBD_CMD_FLAG_FUA, 0, 4096, 0 },
	{ "a flush", FLUSH, 0, 0, 0, 0 },
	{ "a flush with FUA", FLUSH, LIBNBD_CMD_FLAG_FUA, 0, 0, 0 },
	{ "a flush with an unknown flag", FLUSH, UNKNOWN_FLAG, 0, 0, EINVAL },
	{ "a cache", CACHE, 0, 0, 4096, 0 },
	{ "a cache past the end", CACHE, 0, END_MINUS(4095), 4096, EINVAL },
	{ "a cache of nothing", CACHE, 0, 0, 0, EINVAL },
	{ "a cache of 4 GiB", CACHE, 0, 0, 0xffffffff, EINVAL },
};

static const struct request changes[] = {
	{ "a write", WRITE, 0, MIB, 4096, 0 },
	{ "an unaligned write", WRITE, 0, MIB + 13, 1001, 0 },
	{ "a durable write", WRITE, LIBNBD_CMD_FLAG_FUA, MIB, 4096, 0 },
	{ "a write past the end", WRITE, 0, END_MINUS(4095), 4096, ENOSPC },
	{ "a write far beyond", WRITE, 0, (uint64_t)1 << 62, 4096, ENOSPC },
	{ "a long write past the end", WRITE, 0, END_MINUS(4096), BUFFER_BYTES, ENOSPC },
	{ "a write of nothing", WRITE, 0, 0, 0, EINVAL },
	{ "a write with DF", WRITE, LIBNBD_CMD_FLAG_DF, 0, 4096, EINVAL },
	{ "a write with an unknown flag", WRITE, UNKNOWN_FLAG, 0, 4096, EINVAL },
	{ "a trim", TRIM, 0, 2 * MIB, MIB, 0 },
	{ "an unaligned trim", TRIM, 0, 2 * MIB + 13, 1001, 0 },
	{ "a trim past the end", TRIM, 0, END_MINUS(4095), 4096, EINVAL },
	{ "a trim of 4 GiB", TRIM, 0, 0, 0xffffffff, EINVAL },
	{ "a trim of nothing", TRIM, 0, 0, 0, EINVAL },
	{ "a trim with NO_HOLE", TRIM, LIBNBD_CMD_FLAG_NO_HOLE, 0, 4096, EINVAL },
	{ "a trim with an unknown flag", TRIM, UNKNOWN_FLAG, 0, 4096, EINVAL },
	{ "zeroes", ZERO, 0, 3 * MIB, MIB, 0 },
	{ "zeroes that take room", ZERO, LIBNBD_CMD_FLAG_NO_HOLE, 3 * MIB, 4096, 0 },
	{ "zeroes past the end", ZERO, 0, END_MINUS(4095), 4096, ENOSPC },
	{ "zeroes of 4 GiB", ZERO, 0, 0, 0xffffffff, ENOSPC },
	{ "zeroes of nothing", ZERO, 0, 0, 0, EINVAL },
	{ "zeroes with REQ_ONE", ZERO, LIBNBD_CMD_FLAG_REQ_ONE, 0, 4096, EINVAL },
	{ "zeroes with an unknown flag", ZERO, UNKNOWN_FLAG, 0, 4096, EINVAL },
};

static const struct request refused_changes[] = {
	{ "a read", READ, 0, 0, 4096, 0 },
	{ "a write", WRITE, 0, 0, 4096, EPERM },
	{ "a durable write", WRITE, LIBNBD_CMD_FLAG_FUA, 0, 4096, EPERM },
	{ "a trim", TRIM, 0, 0, 4096, EPERM },
	{ "zeroes", ZERO, 0, 0, 4096, EPERM },
	{ "zeroes past the end", ZERO, 0, END_MINUS(4095), 4096, EPERM },
};

/* With structured replies and base:allocation. */
static const struct request chunked[] = {
	{ "a read in one chunk", READ, LIBNBD_CMD_FLAG_DF, 0, PATTERN_BYTES, 0 },
	{ "a status", STATUS, 0, 0, MIB, 0 },
	{ "a status of one extent", STATUS, LIBNBD_CMD_FLAG_REQ_ONE, 0, MIB, 0 },
	{ "a status past the end", STATUS, 0, END_MINUS(4095), 4096, EINVAL },
	{ "a status of nothing", STATUS, 0, 0, 0, EINVAL },
	{ "a status with DF", STATUS, LIBNBD_CMD_FLAG_DF, 0, 4096, EINVAL },
	{ "a status with an unknown flag", STATUS, UNKNOWN_FLAG, 0, 4096, EINVAL },
};

static const struct request simple[] = {
	{ "a read with DF", READ, LIBNBD_CMD_FLAG_DF, 0, 4096, EINVAL },
};

#define COUNT(array)  (sizeof(array) / sizeof((array)[0]))
#define IN_FLIGHT_MAX 64

static struct nbd_handle *nbd;
static uint64_t size_bytes;
static const char *style;
static char pattern[PATTERN_BYTES], buffer[BUFFER_BYTES];
static unsigned mistakes;

static void
must(bool good, const char *what)
{
	if (good)
		return;
	fprintf(stderr, "%s: %s: %s\n", style, what, nbd_get_error());
	exit(1);
}

static int
take_extents(void *data, const char *context, uint64_t offset, uint32_t *entries, size_t count,
	     int *error)
{
	(void)data, (void)context, (void)offset, (void)entries, (void)count, (void)error;
	return 0;
}

/* Returns its cookie, or -1 if libnbd refuses to send it. */
static int64_t
submit(const struct request *request)
{
	uint64_t offset = (request->offset & FROM_END) == 0
				  ? request->offset
				  : size_bytes - (request->offset & ~FROM_END);
	nbd_extent_callback on_extents = { .callback = take_extents };

	switch (request->command) {
	case READ:
		return nbd_aio_pread(nbd, buffer, request->length, offset, NBD_NULL_COMPLETION,
				     request->flags);
	case WRITE:
		return nbd_aio_pwrite(nbd, buffer, request->length, offset, NBD_NULL_COMPLETION,
				      request->flags);
	case FLUSH:
		return nbd_aio_flush(nbd, NBD_NULL_COMPLETION, request->flags);
	case TRIM:
		return nbd_aio_trim(nbd, request->length, offset, NBD_NULL_COMPLETION,
				    request->flags);
	case CACHE:
		return nbd_aio_cache(nbd, request->length, offset, NBD_NULL_COMPLETION,
				     request->flags);
	case ZERO:
		return nbd_aio_zero(nbd, request->length, offset, NBD_NULL_COMPLETION,
				    request->flags);
	case STATUS:
		return nbd_aio_block_status(nbd, request->length, offset, on_extents,
					    NBD_NULL_COMPLETION, request->flags);
	}
	return -1;
}

/* Wait for COOKIE's end, which must be as REQUEST says. */
static void
judge(const struct request *request, int64_t cookie)
{
	int done = 0, error = 0;

	if (cookie < 0) {
		fprintf(stderr, "%s: %s was not sent: %s\n", style, request->what, nbd_get_error());
		mistakes++;
		return;
	}
	while ((done = nbd_aio_command_completed(nbd, (uint64_t)cookie)) == 0)
		must(nbd_poll(nbd, -1) >= 0, request->what);
	if (done < 0)
		error = nbd_get_errno();
	if (error == request->error)
		return;
	fprintf(stderr, "%s: %s: got \"%s\", expected \"%s\"\n", style, request->what,
		strerror(error), strerror(request->error));
	mistakes++;
}

static void
check_pattern(const char *when)
{
	static char found[PATTERN_BYTES];

	must(nbd_pread(nbd, found, PATTERN_BYTES, 0, 0) == 0, when);
	if (memcmp(found, pattern, PATTERN_BYTES) == 0)
		return;
	fprintf(stderr, "%s: %s the export's first bytes are not what they were\n", style, when);
	mistakes++;
}

static void
try_all(const struct request *tried, size_t count)
{
	int64_t cookies[IN_FLIGHT_MAX];

	for (size_t i = 0; i < count; i++)
		judge(&tried[i], submit(&tried[i]));
	check_pattern("after requests one by one");
	for (size_t i = 0; i < count; i++)
		cookies[i] = submit(&tried[i]);
	for (size_t i = 0; i < count; i++)
		judge(&tried[i], cookies[i]);
	check_pattern("after requests at once");
}

/* Returns false if this libnbd does not have the style. */
static bool
choose_style(void)
{
	bool chunks = strcmp(style, "simple") != 0;

	must(nbd_set_request_structured_replies(nbd, chunks) == 0, "structured replies");
	if (chunks)
		must(nbd_add_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION) == 0, "context");
#ifdef LIBNBD_HAVE_NBD_SET_REQUEST_EXTENDED_HEADERS
	must(nbd_set_request_extended_headers(nbd, strcmp(style, "extended") == 0) == 0,
	     "extended headers");
	return true;
#else
	return strcmp(style, "extended") != 0;
#endif
}

static void
connect_to(const char *uri)
{
	must(nbd_set_strict_mode(nbd, STRICT_MODE) == 0, "strict mode off");
	must(nbd_set_uri_allow_local_file(nbd, true) == 0, "files in URIs");
	must(nbd_connect_uri(nbd, uri) == 0, uri);
	size_bytes = (uint64_t)nbd_get_size(nbd);
	must(strcmp(nbd_get_protocol(nbd), "newstyle-fixed") == 0, "protocol");
	must(nbd_get_structured_replies_negotiated(nbd) == (strcmp(style, "simple") != 0),
	     "style that was negotiated");
}

int
main(int argc, char **argv)
{
	bool read_only;

	if (argc != 3) {
		fprintf(stderr, "Usage: %s URI simple|structured|extended\n", argv[0]);
		return 2;
	}
	style = argv[2];
	nbd = nbd_create();
	must(nbd != NULL, "nbd_create");
	if (!choose_style())
		return EXIT_SKIP;
	connect_to(argv[1]);
	read_only = nbd_is_read_only(nbd) == 1;
	for (size_t i = 0; !read_only && i < PATTERN_BYTES; i++)
		pattern[i] = (char)(i * 7 + i / 256);
	if (!read_only)
		must(nbd_pwrite(nbd, pattern, PATTERN_BYTES, 0, 0) == 0, "writing");
	try_all(requests, COUNT(requests));
	if (read_only)
		try_all(refused_changes, COUNT(refused_changes));
	else
		try_all(changes, COUNT(changes));
	if (strcmp(style, "simple") == 0)
		try_all(simple, COUNT(simple));
	else
		try_all(chunked, COUNT(chunked));
	must(nbd_shutdown(nbd, 0) == 0, "shutdown");
	nbd_close(nbd);
	printf("%u mistakes\n", mistakes);
	return mistakes == 0 ? 0 : 1;
}
