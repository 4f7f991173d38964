/* What people see: the live line and the table at the end. */
#include <string.h>
#include <unistd.h>

#include "bench/load/report.h"

#define BAR_WIDTH 20

/* ---- the live line ---- */

static void
show(struct load_progress *progress, double elapsed_s, double total_s, uint64_t requests,
     uint64_t bytes)
{
	struct report_live *live = container_of(progress, struct report_live, progress);
	double past_s = elapsed_s - live->last_s;
	char bar[BAR_WIDTH + 1];
	int filled;

	if (past_s <= 0)
		return;
	if (elapsed_s > total_s)
		elapsed_s = total_s;
	filled = (int)(BAR_WIDTH * elapsed_s / total_s);
	memset(bar, '.', BAR_WIDTH);
	memset(bar, '#', (size_t)filled);
	bar[BAR_WIDTH] = '\0';
	fprintf(live->out, "%s[%s] %.0f/%.0f s  %.0f requests/s  %.1f MiB/s%s",
		live->on_terminal ? "\r" : "", bar, elapsed_s, total_s,
		(double)(requests - live->last_requests) / past_s,
		(double)(bytes - live->last_bytes) / past_s / (1 << 20),
		live->on_terminal ? "\033[K" : "\n");
	fflush(live->out);
	live->last_s += past_s;
	live->last_requests = requests;
	live->last_bytes = bytes;
}

void
report_live_init(struct report_live *live, FILE *out)
{
	*live = (struct report_live){
		.progress.report = show,
		.out = out,
		.on_terminal = isatty(fileno(out)) == 1,
	};
}

void
report_live_end(struct report_live *live)
{
	if (live->on_terminal && live->last_s > 0)
		fputs("\r\033[K", live->out);
	fflush(live->out);
}

/* ---- the table ---- */

static void
print_latency(const char *name, const struct histogram *latency, double requests, double bytes,
	      double seconds, FILE *out)
{
	static const unsigned percentiles[] = { 500000, 900000, 990000, 999000, 999900 };

	if (latency->count == 0 && requests == 0)
		return;
	fprintf(out, "%-8s %12.0f %10.1f", name, seconds > 0 ? requests / seconds : 0,
		seconds > 0 ? bytes / seconds / (1 << 20) : 0);
	for (size_t i = 0; i < sizeof(percentiles) / sizeof(percentiles[0]); i++)
		fprintf(out, " %9.1f",
			(double)histogram_percentile_ns(latency, percentiles[i]) / 1000);
	fprintf(out, " %9.1f\n", (double)latency->max_ns / 1000);
}

static void
print_notes(const struct bench_options *options, const struct load_result *result, FILE *out)
{
	uint64_t requests = load_result_requests(result);

	if (requests > 0)
		fprintf(out, "this client took %.2f us of CPU per request%s\n",
			(double)result->cpu_ns / 1000 / (double)result->requests_made,
			options->load.rate > 0 ? ", waiting for their times included" : "");
	if (result->rate_missed > 0)
		fprintf(out,
			"%llu requests were due and never made: the server did not keep up with "
			"%.0f a second; they count with what they had waited\n",
			(unsigned long long)result->rate_missed, options->load.rate);
	if (result->unanswered > 0)
		fprintf(out,
			"%llu requests were not answered by the end; they count with what they had "
			"waited\n",
			(unsigned long long)result->unanswered);
	if (result->hole_bytes > 0)
		fprintf(out, "%.1f MiB of what was read were holes, which no data was sent for\n",
			(double)result->hole_bytes / (1 << 20));
	if (result->errors > 0)
		fprintf(out, "%llu requests failed; the first with NBD error %u%s%s\n",
			(unsigned long long)result->errors, result->first_error,
			*result->first_message == '\0' ? "" : ": ", result->first_message);
	if (result->partial)
		fprintf(out, "PARTIAL, after %.2f s: %s: %s\n", (double)result->measured_ns * 1e-9,
			options->uri, result->why);
}

const char *
report_style_name(enum nbd_style style)
{
	static const char *const names[] = {
		[NBD_STYLE_SIMPLE] = "simple replies",
		[NBD_STYLE_STRUCTURED] = "structured replies",
		[NBD_STYLE_EXTENDED] = "extended headers",
	};

	return names[style];
}

void
report_table(const struct bench_options *options, const struct load_result *result, FILE *out)
{
	const struct load_options *load = &options->load;
	double seconds = (double)result->measured_ns * 1e-9;
	struct histogram all;
	unsigned kinds = 0;

	fprintf(out, "%s: %s, ", options->uri, options->rw);
	if (options->mix != NULL)
		fprintf(out, "%s, ", options->mix);
	fprintf(out, "%s bytes, depth %u x %u connections, ", options->sizes, load->depth,
		load->connections);
	if (load->rate > 0)
		fprintf(out, "%.0f requests/s, ", load->rate);
	fprintf(out, "%s, %.1f s\n", report_style_name(result->style), seconds);
	fprintf(out, "%-8s %12s %10s %9s %9s %9s %9s %9s %9s\n", "", "requests/s", "MiB/s",
		"p50 us", "p90", "p99", "p99.9", "p99.99", "max");
	for (unsigned kind = 0; kind < LOAD_KIND_COUNT; kind++) {
		kinds += result->latency[kind].count > 0;
		print_latency(load_kind_name(kind), &result->latency[kind],
			      (double)result->requests[kind], (double)result->bytes[kind], seconds,
			      out);
	}
	load_result_latency(result, &all);
	if (kinds != 1)
		print_latency("all", &all, (double)load_result_requests(result),
			      (double)load_result_bytes(result), seconds, out);
	print_notes(options, result, out);
}
