/* Making requests and counting answers on one core. */
#include "bench/load/worker.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NS_PER_S ((uint64_t)1000000000)

/* The wheel's timers are too coarse for the last part of a wait: that is spun. */
#define PACE_SPIN_NS  ((uint64_t)300000)
#define PACE_YIELD_NS ((uint64_t)20000) /* others on this CPU wait no longer meanwhile */

/* For requests that are due and not made when the time is over. */
#define CATCH_UP_NS NS_PER_S

struct worker_request {
	struct client_request io;
	struct worker_connection *connection;
	struct list_node node; /* in connection->unused */
	enum load_kind kind;
	uint64_t intended_ns;
	bool under_way;
};

static void start(struct message *message);
static void stop(struct message *message);
static void take_arrivals(struct worker *worker, uint64_t until_ns);
static void pace(struct task *task);
static void pace_again(struct timer *timer);
static void time_is_over(struct timer *timer);
static void watch(struct timer *timer);

/* ---- setting up ---- */

static int
make_connections(struct worker *worker, struct target_session *sessions, unsigned first,
		 uint64_t region_start, uint64_t region_bytes)
{
	const struct load_options *options = worker->options;
	unsigned depth = options->depth;

	worker->connections = calloc(worker->connection_count, sizeof(worker->connections[0]));
	worker->requests =
		calloc((size_t)worker->connection_count * depth, sizeof(worker->requests[0]));
	if (worker->connections == NULL || worker->requests == NULL)
		return -ENOMEM;
	for (unsigned i = 0; i < worker->connection_count; i++) {
		struct worker_connection *connection = &worker->connections[i];

		connection->worker = worker;
		connection->session = &sessions[i];
		list_init(&connection->unused);
		/* Sequential connections begin at parts of their own. */
		pattern_init(&connection->pattern, &options->mix, region_start, region_bytes,
			     options->seed + first + i);
		pattern_skip(&connection->pattern, first + i, options->connections);
		for (unsigned j = 0; j < depth; j++) {
			struct worker_request *request = &worker->requests[i * depth + j];

			request->connection = connection;
			list_init(&request->io.node);
			list_append(&connection->unused, &request->node);
		}
	}
	return 0;
}

/* Bytes that do not compress and are not zero. */
static int
make_payload(struct worker *worker)
{
	size_t bytes = pattern_length_max(&worker->options->mix);
	uint64_t state = worker->options->seed;

	worker->payload = malloc(bytes);
	if (worker->payload == NULL)
		return -ENOMEM;
	for (size_t i = 0; i < bytes; i++)
		worker->payload[i] = (uint8_t)pattern_random(&state, 256);
	return 0;
}

/* What falls to COUNT connections from FIRST on of the requests in all. */
static uint64_t
share_of(const struct load_options *options, unsigned first, unsigned count)
{
	unsigned __int128 max = options->requests_max;

	return (uint64_t)(max * (first + count) / options->connections -
			  max * first / options->connections);
}

int
worker_init(struct worker *worker, const struct load_options *options, struct core *core,
	    struct target_session *sessions, unsigned first, unsigned connection_count,
	    uint64_t region_start, uint64_t region_bytes, sem_t *stopped)
{
	*worker = (struct worker){
		.options = options,
		.core = core,
		.connection_count = connection_count,
		.stopped = stopped,
		.requests_left = UINT64_MAX,
	};
	if (options->requests_max > 0)
		worker->requests_left = share_of(options, first, connection_count);
	for (unsigned kind = 0; kind < LOAD_KIND_COUNT; kind++)
		histogram_init(&worker->latency[kind]);
	worker->start.deliver = start;
	worker->stop.deliver = stop;
	task_init(&worker->pace, pace);
	timer_init(&worker->pace_later, pace_again);
	timer_init(&worker->end, time_is_over);
	timer_init(&worker->watch, watch);
	worker->intervals = calloc(LOAD_INTERVALS_MAX, sizeof(worker->intervals[0]));
	if (worker->intervals == NULL || make_payload(worker) < 0)
		return -ENOMEM;
	return make_connections(worker, sessions, first, region_start, region_bytes);
}

void
worker_fini(struct worker *worker)
{
	free(worker->connections);
	free(worker->requests);
	free(worker->payload);
	free(worker->intervals);
}

/* ---- ending ---- */

static void
parking_stopped(struct stream_parking *parking)
{
	struct worker *worker = container_of(parking, struct worker, parking);

	sem_post(worker->stopped);
}

static void
on_closed(struct client *client)
{
	struct worker_connection *connection =
		container_of(client, struct worker_connection, client);
	struct worker *worker = connection->worker;

	worker->hole_bytes += client->hole_bytes;
	client_fini(client);
	if (--worker->open_count == 0)
		stream_parking_stop(&worker->parking, parking_stopped);
}

static enum load_kind
kind_of(enum nbd_command command)
{
	switch (command) {
	case NBD_CMD_WRITE:
		return LOAD_KIND_WRITE;
	case NBD_CMD_TRIM:
		return LOAD_KIND_TRIM;
	case NBD_CMD_WRITE_ZEROES:
		return LOAD_KIND_ZEROES;
	case NBD_CMD_FLUSH:
		return LOAD_KIND_FLUSH;
	default:
		return LOAD_KIND_READ;
	}
}

static bool
is_measured(const struct worker *worker, uint64_t intended_ns)
{
	return intended_ns >= worker->schedule.measure_ns && intended_ns < worker->schedule.end_ns;
}

/* Open loop: what is owed is given up.  It counts with how long it has waited: without it a server that stands still at the end would look
 * as if it had been asked for nothing.  With no request left to make it is nobody's loss. */
static void
give_up_owed(struct worker *worker)
{
	uint64_t now_ns = kernel_clock_ns();

	for (unsigned i = 0; worker->requests_left > 0 && i < worker->connection_count; i++) {
		struct worker_connection *connection = &worker->connections[i];

		worker->rate_missed += connection->owed;
		for (; connection->owed > 0; connection->owed--) {
			enum load_kind kind = kind_of(pattern_next(&connection->pattern).command);

			if (is_measured(worker, connection->due_ns))
				histogram_add(&worker->latency[kind], now_ns - connection->due_ns);
			connection->due_ns += worker->gap_ns * worker->connection_count;
		}
	}
}

/* What was asked for and not answered counts with how long it has waited, too: else a server that stops would look as fast as before. */
static void
give_up_under_way(struct worker *worker)
{
	for (size_t i = 0; i < (size_t)worker->connection_count * worker->options->depth; i++) {
		struct worker_request *request = &worker->requests[i];

		if (!request->under_way)
			continue;
		request->under_way = false;
		if (!is_measured(worker, request->intended_ns))
			continue;
		worker->unanswered++;
		histogram_add(&worker->latency[request->kind],
			      worker->ended_ns - request->intended_ns);
	}
}

static void
close_all(struct worker *worker)
{
	struct reactor *reactor = worker->core->reactor;

	worker->catching_up = false;
	if (worker->ended_ns == 0)
		worker->ended_ns = kernel_clock_ns();
	give_up_owed(worker);
	give_up_under_way(worker);
	reactor_timer_stop(reactor, &worker->end);
	reactor_timer_stop(reactor, &worker->watch);
	reactor_timer_stop(reactor, &worker->pace_later);
	task_cancel(&worker->pace);
	for (unsigned i = 0; i < worker->connection_count; i++) {
		struct worker_connection *connection = &worker->connections[i];

		if (!connection->open)
			continue;
		connection->open = false;
		client_close(&connection->client);
	}
}

/* Nothing more comes due; make what already is, for a while, and close when the last answer is here: slow servers have a deep queue, and only
 * silence says that there are no more to come. */
static void
finish(struct worker *worker)
{
	if (worker->stopping)
		return;
	take_arrivals(worker, worker->schedule.end_ns);
	worker->stopping = true;
	for (unsigned i = 0; i < worker->connection_count; i++)
		worker->catching_up |= worker->connections[i].owed > 0;
	if (worker->in_flight == 0)
		close_all(worker);
	else if (worker->catching_up)
		reactor_timer_start(worker->core->reactor, &worker->end, CATCH_UP_NS);
}

static void
fail(struct worker *worker, const char *why)
{
	if (!worker->failed) {
		snprintf(worker->why, sizeof(worker->why), "%s", why);
		/* Release: whoever sees it reads `why`. */
		__atomic_store_n(&worker->failed, true, __ATOMIC_RELEASE);
	}
	worker->stopping = true;
	close_all(worker);
}

static void
time_is_over(struct timer *timer)
{
	struct worker *worker = container_of(timer, struct worker, end);

	if (!worker->stopping)
		finish(worker);
	else
		worker->catching_up = false;
}

static void
stop(struct message *message)
{
	struct worker *worker = container_of(message, struct worker, stop);

	if (worker->open_count == 0)
		return;
	worker->stopping = true;
	close_all(worker);
}

static void
watch(struct timer *timer)
{
	struct worker *worker = container_of(timer, struct worker, watch);
	uint64_t silent_ns = kernel_clock_ns() - worker->watched_ns;
	char why[80];

	if (worker->in_flight > 0 && silent_ns > worker->options->silence_ns) {
		snprintf(why, sizeof(why), "the server has not answered for %llu s",
			 (unsigned long long)(silent_ns / NS_PER_S));
		fail(worker, why);
		return;
	}
	reactor_timer_start(worker->core->reactor, timer, NS_PER_S / 4);
}

static void
on_failed(struct client *client, const char *why)
{
	struct worker_connection *connection =
		container_of(client, struct worker_connection, client);

	fail(connection->worker, why);
}

/* ---- making requests ---- */

/* Make CONNECTION's next request, if it may have one more.  Returns whether it was made. */
static bool
make_request(struct worker_connection *connection, uint64_t intended_ns)
{
	struct worker *worker = connection->worker;
	struct pattern_request next;
	struct worker_request *request;
	struct list_node *node;

	if (worker->requests_left == 0)
		return false;
	node = list_take_first(&connection->unused);
	if (node == NULL)
		return false;
	if (worker->requests_left != UINT64_MAX && intended_ns >= worker->schedule.measure_ns)
		worker->requests_left--;
	next = pattern_next(&connection->pattern);
	request = container_of(node, struct worker_request, node);
	request->kind = kind_of(next.command);
	request->intended_ns = intended_ns;
	request->under_way = true;
	request->io.command = next.command;
	request->io.flags = next.flags;
	request->io.offset = next.offset;
	request->io.length = next.length;
	request->io.buffer = next.command == NBD_CMD_WRITE ? worker->payload : NULL;
	/* The silence begins with it: what was not asked for is not waited for. */
	if (worker->in_flight++ == 0 && intended_ns > worker->watched_ns)
		worker->watched_ns = intended_ns;
	client_submit(&connection->client, &request->io);
	return true;
}

/* Open loop: make what is due on CONNECTION. */
static void
pay(struct worker_connection *connection)
{
	struct worker *worker = connection->worker;
	uint64_t gap_ns = worker->gap_ns * worker->connection_count;

	while (connection->owed > 0 && make_request(connection, connection->due_ns)) {
		connection->owed--;
		connection->due_ns += gap_ns;
	}
}

/* Take another turn at once.  The server may want this CPU. */
static void
spin_on(struct worker *worker, uint64_t now_ns)
{
	if (now_ns >= worker->yield_ns) {
		kernel_yield();
		worker->yield_ns = now_ns + PACE_YIELD_NS;
	}
	reactor_defer(worker->core->reactor, &worker->pace);
}

/* Open loop: hand what has come due until UNTIL_NS to the connections, in turn. */
static void
take_arrivals(struct worker *worker, uint64_t until_ns)
{
	while (worker->gap_ns > 0 && worker->arrival_ns <= until_ns) {
		struct worker_connection *connection =
			&worker->connections[worker->arrival_connection];

		connection->owed++;
		pay(connection);
		worker->arrival_ns += worker->gap_ns;
		worker->arrival_connection =
			(worker->arrival_connection + 1) % worker->connection_count;
	}
}

static void
pace(struct task *task)
{
	struct worker *worker = container_of(task, struct worker, pace);
	uint64_t now_ns = kernel_clock_ns();

	if (worker->stopping)
		return;
	take_arrivals(worker, now_ns);
	if (worker->arrival_ns > now_ns + PACE_SPIN_NS)
		reactor_timer_start(worker->core->reactor, &worker->pace_later,
				    worker->arrival_ns - now_ns - PACE_SPIN_NS);
	else
		spin_on(worker, now_ns);
}

static void
pace_again(struct timer *timer)
{
	struct worker *worker = container_of(timer, struct worker, pace_later);

	reactor_defer(worker->core->reactor, &worker->pace);
}

static void
make_first_requests(struct worker *worker, uint64_t now_ns)
{
	double rate = worker->options->rate;

	if (rate > 0) {
		double share = rate * worker->connection_count / worker->options->connections;

		worker->gap_ns = (uint64_t)((double)NS_PER_S / share);
		if (worker->gap_ns == 0)
			worker->gap_ns = 1;
		worker->arrival_ns = now_ns;
		for (unsigned i = 0; i < worker->connection_count; i++)
			worker->connections[i].due_ns = now_ns + i * worker->gap_ns;
		reactor_defer(worker->core->reactor, &worker->pace);
		return;
	}
	for (unsigned i = 0; i < worker->connection_count; i++) {
		/* Each when it is made: a thousand connections take their time. */
		now_ns = kernel_clock_ns();
		while (make_request(&worker->connections[i], now_ns))
			;
	}
}

/* ---- counting answers ---- */

static void
count_interval(struct worker *worker, uint64_t now_ns, uint64_t latency_ns, uint32_t bytes)
{
	struct load_interval *interval = worker->interval;

	if (now_ns >= worker->interval_end_ns) {
		const struct worker_schedule *schedule = &worker->schedule;
		uint64_t index = (now_ns - schedule->measure_ns) / schedule->interval_ns;

		worker->interval_end_ns =
			schedule->measure_ns + (index + 1) * schedule->interval_ns;
		if (index >= LOAD_INTERVALS_MAX)
			index = LOAD_INTERVALS_MAX - 1;
		worker->interval = interval = &worker->intervals[index];
	}

	interval->requests++;
	interval->bytes += bytes;
	interval->rows[histogram_bucket(latency_ns) / LOAD_ROW_BUCKETS]++;
}

static void
count(struct worker *worker, const struct worker_request *request, uint64_t now_ns, uint32_t error,
      const char *message)
{
	const struct worker_schedule *schedule = &worker->schedule;
	uint64_t latency_ns = now_ns - request->intended_ns;

	worker->watched_ns = now_ns;
	/* Relaxed: for the eye. */
	__atomic_store_n(&worker->live_requests, worker->live_requests + 1, __ATOMIC_RELAXED);
	__atomic_store_n(&worker->live_bytes, worker->live_bytes + request->io.length,
			 __ATOMIC_RELAXED);
	if (error != 0) {
		if (worker->errors++ > 0)
			return;
		worker->first_error = error;
		snprintf(worker->first_message, sizeof(worker->first_message), "%s", message);
		return;
	}
	if (request->kind == LOAD_KIND_READ)
		worker->read_bytes += request->io.length;
	if (is_measured(worker, request->intended_ns))
		histogram_add(&worker->latency[request->kind], latency_ns);
	if (now_ns < schedule->measure_ns || now_ns >= schedule->end_ns)
		return;
	worker->done[request->kind]++;
	worker->bytes[request->kind] += request->io.length;
	worker->last_done_ns = now_ns;
	count_interval(worker, now_ns, latency_ns, request->io.length);
}

static void
on_done(struct client *client, struct client_request *io, uint32_t error, const char *message)
{
	struct worker_connection *connection =
		container_of(client, struct worker_connection, client);
	struct worker_request *request = container_of(io, struct worker_request, io);
	struct worker *worker = connection->worker;
	uint64_t now_ns = client->received_ns;

	worker->in_flight--;
	request->under_way = false;
	count(worker, request, now_ns, error, message);
	list_prepend(&connection->unused, &request->node);
	if (worker->gap_ns > 0 && (!worker->stopping || worker->catching_up))
		pay(connection);
	else if (!worker->stopping)
		(void)make_request(connection, now_ns);
	if (worker->in_flight == 0 && (worker->stopping || worker->requests_left == 0)) {
		worker->stopping = true;
		close_all(worker);
	}
}

/* ---- starting ---- */

static int
open_clients(struct worker *worker)
{
	for (unsigned i = 0; i < worker->connection_count; i++) {
		struct worker_connection *connection = &worker->connections[i];
		int error;

		connection->client.on_done = on_done;
		connection->client.on_failed = on_failed;
		connection->client.on_closed = on_closed;
		error = client_init(&connection->client, worker->core->reactor, &worker->parking,
				    connection->session, worker->options->depth,
				    pattern_length_max(&worker->options->mix));
		if (error < 0)
			return error;
		connection->open = true;
		worker->open_count++;
	}
	return 0;
}

static void
start(struct message *message)
{
	struct worker *worker = container_of(message, struct worker, start);
	struct reactor *reactor = worker->core->reactor;
	uint64_t now_ns = kernel_clock_ns();
	int error = stream_parking_start(&worker->parking, reactor);

	if (error < 0) {
		fail(worker, strerror(-error));
		sem_post(worker->stopped);
		return;
	}
	error = open_clients(worker);
	if (error < 0) {
		fail(worker, strerror(-error));
		if (worker->open_count == 0)
			stream_parking_stop(&worker->parking, parking_stopped);
		return;
	}
	worker->watched_ns = now_ns;
	reactor_timer_start(reactor, &worker->watch, NS_PER_S / 4);
	reactor_timer_start(reactor, &worker->end,
			    worker->schedule.end_ns > now_ns ? worker->schedule.end_ns - now_ns
							     : 0);
	make_first_requests(worker, now_ns);
	/* Of few requests in all none may have been left for this core. */
	if (worker->requests_left == 0 && worker->in_flight == 0)
		finish(worker);
}

void
worker_start(struct worker *worker, const struct worker_schedule *schedule)
{
	worker->schedule = *schedule;
	reactor_send(worker->core->reactor, &worker->start);
}

void
worker_stop(struct worker *worker)
{
	reactor_send(worker->core->reactor, &worker->stop);
}
