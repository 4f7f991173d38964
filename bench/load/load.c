/* Running a load: connections first, so that a server that is not there is found before anything else; then cores and workers; then waiting. */
#include "bench/load/load.h"

#include <errno.h>
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench/load/crowd.h"
#include "bench/load/interrupt.h"
#include "bench/load/worker.h"
#include "reactor/core.h"

#define NS_PER_S ((uint64_t)1000000000)

#define POLL_SLOTS_MAX 1024u
#define DISK_SLOTS     16u

/* Not used, but cores have them. */
#define BUFFER_BYTES ((size_t)1 << 20)

/* Rows of the picture over time. */
#define INTERVALS_WANTED 200u
#define INTERVAL_NS_MIN	 (NS_PER_S / 20)

struct load {
	const struct load_options *options;
	FILE *errors;
	struct target_session *sessions; /* [connections] */
	unsigned session_count;		 /* that are not a worker's yet */
	struct cores cores;
	struct worker *workers; /* [cores.count] */
	sem_t stopped;
	struct worker_schedule schedule;
	bool interrupted; /* the workers were stopped for that */
};

const char *
load_kind_name(enum load_kind kind)
{
	static const char *const names[] = {
		[LOAD_KIND_READ] = "read",   [LOAD_KIND_WRITE] = "write",
		[LOAD_KIND_TRIM] = "trim",   [LOAD_KIND_ZEROES] = "zeroes",
		[LOAD_KIND_FLUSH] = "flush",
	};

	return names[kind];
}

/* ---- connecting ---- */

static int
connect_all(struct load *load)
{
	const struct load_options *options = load->options;
	int error;

	load->sessions = calloc(options->connections, sizeof(load->sessions[0]));
	if (load->sessions == NULL)
		return -ENOMEM;
	error = crowd_connect(options->target, options->connections, &options->cores,
			      load->sessions, load->errors);
	if (error == 0)
		load->session_count = options->connections;
	return error;
}

static void
close_all(struct load *load)
{
	for (unsigned i = 0; i < load->session_count; i++)
		target_disconnect(&load->sessions[i]);
	free(load->sessions);
}

/* ---- can it be done? ---- */

static int
refuse(const struct load *load, const char *what)
{
	fprintf(load->errors, "%s: %s\n", load->options->target->uri, what);
	return -EINVAL;
}

/* Does the export take what the mix holds? */
static int
check_mix(const struct load *load)
{
	const struct pattern_mix *mix = &load->options->mix;
	uint16_t flags = load->sessions[0].flags;
	bool writes = mix->write_share + mix->trim_share + mix->zeroes_share > 0;

	if (writes && (flags & NBD_FLAG_READ_ONLY) != 0)
		return refuse(load, "the export is read-only; load it with reads");
	if (mix->trim_share > 0 && (flags & NBD_FLAG_SEND_TRIM) == 0)
		return refuse(load, "the export takes no trims");
	if (mix->zeroes_share > 0 && (flags & NBD_FLAG_SEND_WRITE_ZEROES) == 0)
		return refuse(load, "the export takes no writes of zeros");
	if (mix->flush_share > 0 && (flags & NBD_FLAG_SEND_FLUSH) == 0)
		return refuse(load, "the export takes no flushes");
	if (mix->fua_percent > 0 && (flags & NBD_FLAG_SEND_FUA) == 0)
		return refuse(load, "the export takes no FUA");
	return 0;
}

/* Does the region lie in the export, with blocks that it takes?  Finds its length. */
static int
check_region(const struct load *load, uint64_t *region_bytes)
{
	const struct load_options *options = load->options;
	const struct target_session *session = &load->sessions[0];
	uint32_t length_max = pattern_length_max(&options->mix);
	char text[160];

	*region_bytes = options->region_bytes;
	if (*region_bytes == 0 && options->region_start < session->size_bytes)
		*region_bytes = session->size_bytes - options->region_start;
	if (options->region_start > session->size_bytes ||
	    *region_bytes > session->size_bytes - options->region_start ||
	    *region_bytes < length_max) {
		snprintf(text, sizeof(text),
			 "has %llu bytes; the region must lie within, and hold a block of %u",
			 (unsigned long long)session->size_bytes, length_max);
		return refuse(load, text);
	}
	if (length_max > session->block_bytes_max) {
		snprintf(text, sizeof(text), "takes requests of at most %u bytes; lower --bs",
			 session->block_bytes_max);
		return refuse(load, text);
	}
	if (options->mix.align_bytes % session->block_bytes_min != 0 ||
	    options->region_start % session->block_bytes_min != 0) {
		snprintf(text, sizeof(text),
			 "takes multiples of %u bytes only; change --bs or --offset",
			 session->block_bytes_min);
		return refuse(load, text);
	}
	return check_mix(load);
}

/* ---- cores and workers ---- */

static int
start_cores(struct load *load)
{
	const struct load_options *options = load->options;
	unsigned count = options->cores.count;
	unsigned per_core = (options->connections + count - 1) / count;
	struct reactor_config config = {
		.disk_slots = DISK_SLOTS,
		.poll_slots = 2 * per_core < POLL_SLOTS_MAX ? 2 * per_core : POLL_SLOTS_MAX,
		.poll_us = options->poll_us,
	};
	int error = cores_start(&load->cores, &options->cores, &config, BUFFER_BYTES, BUFFER_BYTES);

	if (error < 0)
		fprintf(load->errors, "the cores cannot be started: %s%s\n", strerror(-error),
			error == -EAGAIN ? "; raise the sysctl fs.aio-max-nr" : "");
	return error;
}

/* Share the connections among the cores.  Returns how many workers were begun with, for fini, in *count. */
static int
make_workers(struct load *load, uint64_t region_bytes, unsigned *count)
{
	const struct load_options *options = load->options;
	unsigned cores = load->cores.count;

	load->workers = calloc(cores, sizeof(load->workers[0]));
	*count = 0;
	if (load->workers == NULL)
		return -ENOMEM;
	for (unsigned i = 0; i < cores; i++) {
		unsigned first = options->connections * i / cores;
		unsigned end = options->connections * (i + 1) / cores;
		int error = worker_init(&load->workers[i], options, &load->cores.cores[i],
					load->sessions + first, first, end - first,
					options->region_start, region_bytes, &load->stopped);

		++*count;
		if (error < 0)
			return error;
	}
	return 0;
}

static void
plan(struct load *load)
{
	const struct load_options *options = load->options;
	struct worker_schedule *schedule = &load->schedule;

	schedule->start_ns = kernel_clock_ns();
	schedule->measure_ns = schedule->start_ns + options->warmup_ns;
	schedule->end_ns = schedule->measure_ns + options->duration_ns;
	schedule->interval_ns = options->duration_ns / INTERVALS_WANTED;
	if (schedule->interval_ns < INTERVAL_NS_MIN)
		schedule->interval_ns = INTERVAL_NS_MIN;
}

/* ---- waiting ---- */

static void
report(const struct load *load, struct load_progress *progress)
{
	const struct worker_schedule *schedule = &load->schedule;
	uint64_t requests = 0, bytes = 0;

	if (progress == NULL)
		return;
	for (unsigned i = 0; i < load->cores.count; i++) {
		/* Relaxed: for the eye. */
		requests += __atomic_load_n(&load->workers[i].live_requests, __ATOMIC_RELAXED);
		bytes += __atomic_load_n(&load->workers[i].live_bytes, __ATOMIC_RELAXED);
	}
	progress->report(progress, (double)(kernel_clock_ns() - schedule->start_ns) * 1e-9,
			 (double)(schedule->end_ns - schedule->start_ns) * 1e-9, requests, bytes);
}

/* If one worker has failed there is no point in the others; nor if nobody wants to wait for them. */
static bool
stop_if_over(struct load *load)
{
	bool over = interrupt_asked();

	load->interrupted = over;
	for (unsigned i = 0; i < load->cores.count; i++)
		/* Acquire: `why` was set before. */
		over |= __atomic_load_n(&load->workers[i].failed, __ATOMIC_ACQUIRE);
	for (unsigned i = 0; over && i < load->cores.count; i++)
		worker_stop(&load->workers[i]);
	return over;
}

static void
wait_for_workers(struct load *load, struct load_progress *progress)
{
	unsigned running = load->cores.count;
	bool stopping = false;
	struct timespec until;

	(void)clock_gettime(CLOCK_REALTIME, &until);
	while (running > 0) {
		until.tv_sec++;
		while (running > 0) {
			if (sem_timedwait(&load->stopped, &until) == 0)
				running--;
			else if (errno != EINTR)
				break;
			if (!stopping)
				stopping = stop_if_over(load);
		}
		if (running == 0)
			break;
		report(load, progress);
		if (!stopping)
			stopping = stop_if_over(load);
	}
}

static uint64_t
process_cpu_ns(void)
{
	struct timespec now;

	return clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now) == 0
		       ? (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec
		       : 0;
}

/* ---- adding up ---- */

static void
add_intervals(const struct worker *worker, struct load_result *result)
{
	for (unsigned i = 0; i < LOAD_INTERVALS_MAX; i++) {
		const struct load_interval *from = &worker->intervals[i];
		struct load_interval *to = &result->intervals[i];

		if (from->requests == 0)
			continue;
		if (i >= result->interval_count)
			result->interval_count = i + 1;
		to->requests += from->requests;
		to->bytes += from->bytes;
		for (unsigned row = 0; row < LOAD_ROW_COUNT; row++)
			to->rows[row] += from->rows[row];
	}
}

static void
add_worker(const struct worker *worker, struct load_result *result)
{
	for (unsigned kind = 0; kind < LOAD_KIND_COUNT; kind++) {
		histogram_merge(&result->latency[kind], &worker->latency[kind]);
		result->requests[kind] += worker->done[kind];
		result->bytes[kind] += worker->bytes[kind];
	}
	if (result->errors == 0 && worker->errors > 0) {
		result->first_error = worker->first_error;
		memcpy(result->first_message, worker->first_message, sizeof(result->first_message));
	}
	result->read_bytes += worker->read_bytes;
	result->hole_bytes += worker->hole_bytes;
	result->errors += worker->errors;
	result->requests_made += worker->live_requests;
	result->rate_missed += worker->rate_missed;
	result->unanswered += worker->unanswered;
	if (worker->failed && !result->partial) {
		result->partial = true;
		memcpy(result->why, worker->why, sizeof(result->why));
	}
	add_intervals(worker, result);
}

/* The last moments belong to the result though nothing was answered in them. */
static void
show_silence(struct load_result *result)
{
	uint64_t count = (result->measured_ns + result->interval_ns - 1) / result->interval_ns;

	if (count > LOAD_INTERVALS_MAX)
		count = LOAD_INTERVALS_MAX;
	if (count > result->interval_count)
		result->interval_count = (unsigned)count;
}

static uint64_t
ns_since(uint64_t begin_ns, uint64_t end_ns)
{
	return end_ns > begin_ns ? end_ns - begin_ns : 0;
}

static void
add_up(const struct load *load, struct load_result *result)
{
	uint64_t last_ns = 0, ended_ns = 0;
	bool all_made = true;

	for (unsigned i = 0; i < load->cores.count; i++) {
		add_worker(&load->workers[i], result);
		all_made &= load->workers[i].requests_left == 0;
		if (load->workers[i].last_done_ns > last_ns)
			last_ns = load->workers[i].last_done_ns;
		if (load->workers[i].ended_ns > ended_ns)
			ended_ns = load->workers[i].ended_ns;
	}
	if (load->interrupted && !result->partial) {
		result->partial = true;
		snprintf(result->why, sizeof(result->why), "interrupted");
	}
	result->measured_ns = load->options->duration_ns;
	/* Ended by the number of requests; or, before its time, by a failure or a signal: then what passed since the last answer is part of it. */
	if (all_made && result->unanswered == 0)
		result->measured_ns = ns_since(load->schedule.measure_ns, last_ns);
	else if (result->partial && ended_ns < load->schedule.end_ns)
		result->measured_ns = ns_since(load->schedule.measure_ns, ended_ns);
	result->interval_ns = load->schedule.interval_ns;
	show_silence(result);
	result->style = load->sessions[0].style;
	result->export_bytes = load->sessions[0].size_bytes;
}

/* ---- the whole ---- */

/* Run all workers to their end, and stop the cores.  Only then are the workers no longer used: a core may still have had a message to
 * deliver to one. */
static int
run_workers(struct load *load, uint64_t region_bytes, struct load_progress *progress,
	    struct load_result *result)
{
	unsigned worker_count;
	uint64_t cpu_ns;
	int error = make_workers(load, region_bytes, &worker_count);

	if (error == 0) {
		plan(load);
		cpu_ns = process_cpu_ns();
		/* The workers' from here on. */
		load->session_count = 0;
		for (unsigned i = 0; i < worker_count; i++)
			worker_start(&load->workers[i], &load->schedule);
		wait_for_workers(load, progress);
		result->cpu_ns = process_cpu_ns() - cpu_ns;
		add_up(load, result);
	} else {
		fprintf(load->errors, "no memory for so many connections and requests\n");
	}
	cores_stop(&load->cores);
	for (unsigned i = 0; i < worker_count; i++)
		worker_fini(&load->workers[i]);
	free(load->workers);
	return error;
}

int
load_run(const struct load_options *options, struct load_progress *progress,
	 struct load_result *result, FILE *errors)
{
	struct load load = { .options = options, .errors = errors };
	uint64_t region_bytes;
	int error;

	*result = (struct load_result){ 0 };
	result->intervals = calloc(LOAD_INTERVALS_MAX, sizeof(result->intervals[0]));
	if (result->intervals == NULL)
		return -ENOMEM;
	(void)sem_init(&load.stopped, 0, 0);
	error = connect_all(&load);
	if (error == 0)
		error = check_region(&load, &region_bytes);
	if (error == 0)
		error = start_cores(&load);
	if (error == 0)
		error = run_workers(&load, region_bytes, progress, result);
	close_all(&load);
	(void)sem_destroy(&load.stopped);
	if (error < 0)
		load_result_fini(result);
	return error;
}

void
load_result_fini(struct load_result *result)
{
	free(result->intervals);
	result->intervals = NULL;
}

uint64_t
load_result_requests(const struct load_result *result)
{
	uint64_t sum = 0;

	for (unsigned kind = 0; kind < LOAD_KIND_COUNT; kind++)
		sum += result->requests[kind];
	return sum;
}

uint64_t
load_result_bytes(const struct load_result *result)
{
	uint64_t sum = 0;

	for (unsigned kind = 0; kind < LOAD_KIND_COUNT; kind++)
		sum += result->bytes[kind];
	return sum;
}

void
load_result_latency(const struct load_result *result, struct histogram *all)
{
	histogram_init(all);
	for (unsigned kind = 0; kind < LOAD_KIND_COUNT; kind++)
		histogram_merge(all, &result->latency[kind]);
}
