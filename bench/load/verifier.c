/* In a pass that writes, block b is connection b modulo their number's, so that at most one request is under way on it and what may be found is
 * known.  In a pass that reads, another connection than the one that wrote it reads each. */
#include "bench/load/verifier.h"

#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/load/client.h"
#include "bench/load/crowd.h"
#include "bench/load/interrupt.h"
#include "bench/load/pattern.h"
#include "reactor/core.h"

#define NS_PER_S ((uint64_t)1000000000)

#define DISK_SLOTS   16u
#define POLL_SLOTS   1024u
#define BUFFER_BYTES ((size_t)1 << 20)

#define POISON 0xa5

/* A connection flushes what it has written after so many writes, or so long. */
#define FLUSH_WRITES_MAX 1024u
#define FLUSH_NS	 NS_PER_S

struct verifier;

struct verifier_request {
	struct client_request io;
	struct verifier_connection *connection;
	uint64_t block;
	uint32_t generation; /* of a WRITE */
};

/* Writes that were acknowledged before a flush was asked for, or are to be. */
struct verifier_batch {
	unsigned count;
	struct {
		uint64_t block;
		uint32_t generation;
	} writes[FLUSH_WRITES_MAX];
};

struct verifier_connection {
	struct verifier *verifier;
	struct client client;
	unsigned index;
	uint64_t random;
	uint64_t next_block; /* of a reading pass */
	unsigned in_flight;
	bool flushes; /* the server has flushes; one that has none must keep what it has answered */
	bool flushing;
	bool last_flush; /* that one is behind the last write */
	bool open;
	struct verifier_request flush;
	uint64_t flushed_ns; /* when it was asked for */
	/* Behind that flush, and covered by it; the first FLUSH_WRITES_MAX of each. */
	struct verifier_batch *next, *covered;
	struct verifier_request *requests; /* [depth] */
};

struct verifier {
	const struct load_options *options;
	enum verifier_pass pass;
	struct ledger *ledger;
	struct verifier_report *report;
	bool *busy; /* [block_count]: a request is under way */
	uint8_t *buffers;
	struct cores cores;
	struct reactor *reactor;
	struct stream_parking parking;
	struct verifier_connection *connections;
	struct verifier_request *requests;
	struct verifier_batch *batches;	 /* [2 * connections] */
	struct target_session *sessions; /* [connections] */
	unsigned open_count;
	bool stopping;
	uint64_t answered_ns;
	struct timer end, watch;
	struct message start, interrupt;
	sem_t stopped;
};

/* ---- findings ---- */

static void
note(struct verifier *verifier, const struct verifier_request *request, enum stamp_finding finding,
     uint64_t found)
{
	struct verifier_report *report = verifier->report;
	const struct ledger_block *block = &verifier->ledger->blocks[request->block];

	report->findings[finding]++;
	if (finding == STAMP_RIGHT || report->text_count == VERIFIER_TEXTS_MAX)
		return;
	snprintf(report->texts[report->text_count++], VERIFIER_TEXT_BYTES,
		 "%u bytes at offset %llu are %s: found write %llu; write %u was acknowledged, %u "
		 "sent",
		 request->io.length, (unsigned long long)request->io.offset,
		 stamp_finding_name(finding), (unsigned long long)found, block->acknowledged,
		 block->issued);
}

static void
check_block(struct verifier *verifier, struct verifier_request *request)
{
	struct ledger *ledger = verifier->ledger;
	struct ledger_block *block = &ledger->blocks[request->block];
	uint64_t found;
	enum stamp_finding finding =
		stamp_check(request->io.buffer, ledger->block_bytes, ledger->run,
			    request->io.offset, block->acknowledged, block->issued, &found);

	verifier->report->read++;
	note(verifier, request, finding, found);
	/* Of a write that was never answered: from now on it is there, or it is not. */
	if (finding == STAMP_RIGHT)
		block->acknowledged = (uint32_t)found;
}

/* ---- ending ---- */

static void
parking_stopped(struct stream_parking *parking)
{
	struct verifier *verifier = container_of(parking, struct verifier, parking);

	sem_post(&verifier->stopped);
}

static void
on_closed(struct client *client)
{
	struct verifier_connection *connection =
		container_of(client, struct verifier_connection, client);
	struct verifier *verifier = connection->verifier;

	client_fini(client);
	if (--verifier->open_count == 0)
		stream_parking_stop(&verifier->parking, parking_stopped);
}

static void
close_connection(struct verifier_connection *connection)
{
	if (!connection->open)
		return;
	connection->open = false;
	client_close(&connection->client);
	if (connection->verifier->open_count > 1)
		return;
	/* The last one. */
	reactor_timer_stop(connection->verifier->reactor, &connection->verifier->end);
	reactor_timer_stop(connection->verifier->reactor, &connection->verifier->watch);
}

static void
fail(struct verifier *verifier, const char *why)
{
	if (!verifier->report->failed) {
		verifier->report->failed = true;
		snprintf(verifier->report->why, sizeof(verifier->report->why), "%s", why);
	}
	verifier->stopping = true;
	reactor_timer_stop(verifier->reactor, &verifier->end);
	reactor_timer_stop(verifier->reactor, &verifier->watch);
	for (unsigned i = 0; i < verifier->options->connections; i++)
		close_connection(&verifier->connections[i]);
}

static void
on_failed(struct client *client, const char *why)
{
	fail(container_of(client, struct verifier_connection, client)->verifier, why);
}

static void
watch(struct timer *timer)
{
	struct verifier *verifier = container_of(timer, struct verifier, watch);
	uint64_t silent_ns = kernel_clock_ns() - verifier->answered_ns;

	if (silent_ns > verifier->options->silence_ns) {
		char why[80];

		snprintf(why, sizeof(why), "the server has not answered for %llu s",
			 (unsigned long long)(silent_ns / NS_PER_S));
		fail(verifier, why);
		return;
	}
	reactor_timer_start(verifier->reactor, timer, NS_PER_S / 4);
}

/* ---- requests ---- */

static void
submit(struct verifier_request *request, uint64_t block)
{
	struct verifier_connection *connection = request->connection;
	const struct ledger *ledger = connection->verifier->ledger;

	request->block = block;
	request->io.flags = 0;
	request->io.offset = ledger->region_start + block * ledger->block_bytes;
	request->io.length = ledger->block_bytes;
	connection->verifier->busy[block] = true;
	/* What the server does not send must not be found. */
	if (request->io.command == NBD_CMD_READ)
		memset(request->io.buffer, POISON, ledger->block_bytes);
	connection->in_flight++;
	client_submit(&connection->client, &request->io);
}

/* A block of CONNECTION's that no request is under way on.  There are more blocks than requests: see verifier_run. */
static uint64_t
draw_block(struct verifier_connection *connection)
{
	const struct verifier *verifier = connection->verifier;
	unsigned count = verifier->options->connections;
	uint64_t own = (verifier->ledger->block_count - connection->index + count - 1) / count;
	uint64_t block;

	do
		block = pattern_random(&connection->random, own) * count + connection->index;
	while (verifier->busy[block]);
	return block;
}

/* A write, or a read of what was written. */
static void
make_random_request(struct verifier_request *request)
{
	struct verifier_connection *connection = request->connection;
	struct ledger *ledger = connection->verifier->ledger;
	uint64_t block = draw_block(connection);

	request->io.command = NBD_CMD_READ;
	if (pattern_random(&connection->random, 2) == 0 || ledger->blocks[block].issued == 0) {
		request->io.command = NBD_CMD_WRITE;
		request->generation = ++ledger->blocks[block].issued;
		stamp_fill(request->io.buffer, ledger->block_bytes, ledger->run,
			   ledger->region_start + block * ledger->block_bytes, request->generation);
	}
	submit(request, block);
}

/* The next block of a reading pass.  Returns false if there is none. */
static bool
read_next_block(struct verifier_request *request)
{
	struct verifier_connection *connection = request->connection;
	const struct verifier *verifier = connection->verifier;
	uint64_t block = connection->next_block;

	if (block >= verifier->ledger->block_count)
		return false;
	connection->next_block += verifier->options->connections;
	request->io.command = NBD_CMD_READ;
	submit(request, block);
	return true;
}

/* What CONNECTION was told is written, and not covered by its flush yet, is from the end of the next one on. */
static void
flush(struct verifier_connection *connection)
{
	struct verifier_batch *covered = connection->next;

	connection->next = connection->covered;
	connection->next->count = 0;
	connection->covered = covered;
	connection->flushing = true;
	connection->flushed_ns = kernel_clock_ns();
	connection->flush.io.command = NBD_CMD_FLUSH;
	connection->in_flight++;
	client_submit(&connection->client, &connection->flush.io);
}

static void
flush_if_due(struct verifier_connection *connection)
{
	if (connection->flushes && !connection->flushing && connection->next->count > 0 &&
	    (connection->next->count == FLUSH_WRITES_MAX ||
	     connection->verifier->answered_ns - connection->flushed_ns >= FLUSH_NS))
		flush(connection);
}

/* CONNECTION's flush has succeeded. */
static void
note_flushed(struct verifier_connection *connection)
{
	const struct verifier_batch *covered = connection->covered;

	for (unsigned i = 0; i < covered->count; i++)
		connection->verifier->ledger->blocks[covered->writes[i].block].durable =
			covered->writes[i].generation;
}

static void
note_written(const struct verifier_request *request)
{
	struct verifier_connection *connection = request->connection;
	struct verifier *verifier = connection->verifier;
	struct verifier_batch *next = connection->next;

	verifier->ledger->blocks[request->block].acknowledged = request->generation;
	verifier->report->written++;
	if (next->count == FLUSH_WRITES_MAX)
		return; /* the flush takes long: the last one will cover it */
	next->writes[next->count].block = request->block;
	next->writes[next->count++].generation = request->generation;
}

static void
make_request(struct verifier_request *request)
{
	struct verifier_connection *connection = request->connection;
	struct verifier *verifier = connection->verifier;

	if (verifier->pass == VERIFIER_PASS_WRITE && !verifier->stopping)
		make_random_request(request);
	else if (verifier->pass == VERIFIER_PASS_READ && read_next_block(request))
		return;
	else if (connection->in_flight > 0)
		return;
	else if (verifier->pass == VERIFIER_PASS_WRITE && connection->flushes &&
		 !connection->last_flush) {
		connection->last_flush = true;
		flush(connection);
	} else {
		close_connection(connection);
	}
}

static void
request_failed(struct verifier *verifier, const struct verifier_request *request, uint32_t error,
	       const char *message)
{
	struct verifier_report *report = verifier->report;

	report->errors++;
	if (report->text_count < VERIFIER_TEXTS_MAX)
		snprintf(report->texts[report->text_count++], VERIFIER_TEXT_BYTES,
			 "%s of %u bytes at offset %llu failed with NBD error %u%s%s",
			 request->io.command == NBD_CMD_READ	? "a read"
			 : request->io.command == NBD_CMD_WRITE ? "a write"
								: "a flush",
			 request->io.length, (unsigned long long)request->io.offset, error,
			 *message == '\0' ? "" : ": ", message);
}

static void
request_done(struct verifier_request *request)
{
	struct verifier_connection *connection = request->connection;

	connection->verifier->busy[request->block] = false;
	if (!connection->verifier->stopping)
		flush_if_due(connection);
	make_request(request);
}

/* Behind the last request it was waited for. */
static void
flush_done(struct verifier_connection *connection)
{
	connection->flushing = false;
	if (connection->in_flight == 0)
		make_request(&connection->flush);
}

static void
on_done(struct client *client, struct client_request *io, uint32_t error, const char *message)
{
	struct verifier_request *request = container_of(io, struct verifier_request, io);
	struct verifier_connection *connection = request->connection;
	struct verifier *verifier = connection->verifier;

	(void)client;
	verifier->answered_ns = kernel_clock_ns();
	connection->in_flight--;
	if (error != 0)
		request_failed(verifier, request, error, message);
	else if (io->command == NBD_CMD_READ)
		check_block(verifier, request);
	else if (io->command == NBD_CMD_WRITE)
		note_written(request);
	else
		note_flushed(connection);
	if (io->command == NBD_CMD_FLUSH)
		flush_done(connection);
	else
		request_done(request);
}

/* ---- starting ---- */

static void
time_is_over(struct timer *timer)
{
	container_of(timer, struct verifier, end)->stopping = true;
}

static void
end_early(struct message *message)
{
	struct verifier *verifier = container_of(message, struct verifier, interrupt);

	if (verifier->open_count > 0)
		fail(verifier, "interrupted");
}

static int
open_connection(struct verifier_connection *connection, struct target_session *session)
{
	struct verifier *verifier = connection->verifier;
	int error;

	connection->client.on_done = on_done;
	connection->client.on_failed = on_failed;
	connection->client.on_closed = on_closed;
	error = client_init(&connection->client, verifier->reactor, &verifier->parking, session,
			    verifier->options->depth + 1, verifier->ledger->block_bytes);
	if (error < 0) {
		target_disconnect(session);
		return error;
	}
	connection->flushes = (session->flags & NBD_FLAG_SEND_FLUSH) != 0;
	connection->open = true;
	verifier->open_count++;
	return 0;
}

static void
start(struct message *message)
{
	struct verifier *verifier = container_of(message, struct verifier, start);
	unsigned depth = verifier->options->depth, count = verifier->options->connections;
	int error = stream_parking_start(&verifier->parking, verifier->reactor);

	if (error < 0) {
		fail(verifier, strerror(-error));
		sem_post(&verifier->stopped);
		return;
	}
	for (unsigned i = 0; i < count && error == 0; i++)
		error = open_connection(&verifier->connections[i], &verifier->sessions[i]);
	if (error < 0) {
		fail(verifier, strerror(-error));
		if (verifier->open_count == 0)
			stream_parking_stop(&verifier->parking, parking_stopped);
		return;
	}
	verifier->answered_ns = kernel_clock_ns();
	for (unsigned i = 0; i < count; i++)
		verifier->connections[i].flushed_ns = verifier->answered_ns;
	reactor_timer_start(verifier->reactor, &verifier->watch, NS_PER_S / 4);
	if (verifier->pass == VERIFIER_PASS_WRITE)
		reactor_timer_start(verifier->reactor, &verifier->end,
				    verifier->options->duration_ns);
	for (unsigned i = 0; i < count; i++) {
		for (unsigned j = 0; j < depth; j++)
			make_request(&verifier->connections[i].requests[j]);
	}
}

static int
allocate(struct verifier *verifier)
{
	unsigned depth = verifier->options->depth, count = verifier->options->connections;
	struct ledger *ledger = verifier->ledger;

	verifier->busy = calloc(ledger->block_count, sizeof(verifier->busy[0]));
	verifier->sessions = calloc(count, sizeof(verifier->sessions[0]));
	verifier->connections = calloc(count, sizeof(verifier->connections[0]));
	verifier->requests = calloc((size_t)count * depth, sizeof(verifier->requests[0]));
	verifier->buffers = malloc((size_t)count * depth * ledger->block_bytes);
	verifier->batches = calloc(2 * (size_t)count, sizeof(verifier->batches[0]));
	if (verifier->busy == NULL || verifier->sessions == NULL || verifier->connections == NULL ||
	    verifier->requests == NULL || verifier->buffers == NULL || verifier->batches == NULL)
		return -ENOMEM;
	for (unsigned i = 0; i < count; i++) {
		struct verifier_connection *connection = &verifier->connections[i];

		connection->verifier = verifier;
		connection->index = i;
		connection->random = verifier->options->seed * count + i;
		connection->next_block = (i + 1) % count;
		connection->requests = &verifier->requests[i * depth];
		connection->flush.connection = connection;
		connection->next = &verifier->batches[2 * i];
		connection->covered = &verifier->batches[2 * i + 1];
		for (unsigned j = 0; j < depth; j++) {
			connection->requests[j].connection = connection;
			connection->requests[j].io.buffer =
				verifier->buffers + (size_t)(i * depth + j) * ledger->block_bytes;
		}
	}
	return 0;
}

/* Each connection needs more blocks of its own than it has requests under way. */
static int
check_blocks(const struct verifier *verifier, FILE *errors)
{
	uint64_t own = verifier->ledger->block_count / verifier->options->connections;

	if (own > verifier->options->depth)
		return 0;
	fprintf(errors, "%llu blocks are too few for %u connections of depth %u\n",
		(unsigned long long)verifier->ledger->block_count, verifier->options->connections,
		verifier->options->depth);
	return -EINVAL;
}

/* Wait until the pass has ended; stop it early if the user interrupts. */
static void
wait_for_end(struct verifier *verifier)
{
	bool stopping = false;
	struct timespec until;

	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec++;
	while (sem_timedwait(&verifier->stopped, &until) != 0) {
		if (errno == ETIMEDOUT)
			until.tv_sec++;
		if (!stopping && interrupt_asked()) {
			stopping = true;
			reactor_send(verifier->reactor, &verifier->interrupt);
		}
	}
}

static int
run_on_core(struct verifier *verifier, FILE *errors)
{
	const struct reactor_config config = { .disk_slots = DISK_SLOTS,
					       .poll_slots = POLL_SLOTS,
					       .poll_us = verifier->options->poll_us };
	struct cpu_list first = verifier->options->cores;
	int error;

	first.count = 1;
	error = cores_start(&verifier->cores, &first, &config, BUFFER_BYTES, BUFFER_BYTES);
	if (error < 0) {
		fprintf(errors, "the core cannot be started: %s\n", strerror(-error));
		return error;
	}
	verifier->reactor = verifier->cores.cores[0].reactor;
	reactor_send(verifier->reactor, &verifier->start);
	wait_for_end(verifier);
	cores_stop(&verifier->cores);
	return 0;
}

int
verifier_run(const struct load_options *options, enum verifier_pass pass, struct ledger *ledger,
	     struct verifier_report *report, FILE *errors)
{
	struct verifier verifier = {
		.options = options, .pass = pass, .ledger = ledger, .report = report
	};
	int error = check_blocks(&verifier, errors);

	if (error < 0)
		return error;
	verifier.start.deliver = start;
	verifier.interrupt.deliver = end_early;
	timer_init(&verifier.end, time_is_over);
	timer_init(&verifier.watch, watch);
	(void)sem_init(&verifier.stopped, 0, 0);
	error = allocate(&verifier);
	if (error == 0)
		error = crowd_connect(options->target, options->connections, &options->cores,
				      verifier.sessions, errors);
	if (error == 0)
		error = run_on_core(&verifier, errors);
	if (error == 0 && pass == VERIFIER_PASS_WRITE && !report->failed && report->errors == 0)
		ledger_flushed(ledger);
	free(verifier.busy);
	free(verifier.sessions);
	free(verifier.connections);
	free(verifier.requests);
	free(verifier.buffers);
	free(verifier.batches);
	(void)sem_destroy(&verifier.stopped);
	return error;
}
