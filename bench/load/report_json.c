/* JSON, written and compared.  Latencies are in microseconds, rates per second. */
#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "bench/load/report.h"

#define FORMAT 1 /* of the file; raised when a field changes its meaning */

static const struct {
	const char *name;
	unsigned per_million;
} percentiles[] = {
	{ "p50", 500000 },   { "p90", 900000 },	   { "p95", 950000 },	  { "p99", 990000 },
	{ "p99.9", 999000 }, { "p99.99", 999900 }, { "p99.999", 999990 },
};

#define PERCENTILE_COUNT (sizeof(percentiles) / sizeof(percentiles[0]))

static json_t *
latency_json(const struct histogram *latency)
{
	json_t *object = json_object();

	json_object_set_new(object, "count", json_integer((json_int_t)latency->count));
	json_object_set_new(object, "min", json_real((double)latency->min_ns / 1000));
	json_object_set_new(object, "mean", json_real(histogram_mean_ns(latency) / 1000));
	for (size_t i = 0; i < PERCENTILE_COUNT; i++)
		json_object_set_new(object, percentiles[i].name,
				    json_real((double)histogram_percentile_ns(
						      latency, percentiles[i].per_million) /
					      1000));
	json_object_set_new(object, "max", json_real((double)latency->max_ns / 1000));
	return object;
}

static json_t *
figures_json(const struct histogram *latency, uint64_t requests, uint64_t bytes, double seconds)
{
	json_t *object = json_object();

	json_object_set_new(object, "requests", json_integer((json_int_t)requests));
	json_object_set_new(object, "iops",
			    json_real(seconds > 0 ? (double)requests / seconds : 0));
	json_object_set_new(object, "bytes_per_second",
			    json_real(seconds > 0 ? (double)bytes / seconds : 0));
	json_object_set_new(object, "latency_us", latency_json(latency));
	return object;
}

static json_t *
load_json(const struct bench_options *options, const struct load_result *result)
{
	const struct load_options *load = &options->load;
	char cores[64];

	cpu_list_format(&load->cores, cores, sizeof(cores));
	return json_pack(
		"{s:s s:s s:s* s:s s:i s:i s:f s:f s:f s:I s:I s:I s:I s:i s:f s:i s:s s:I}", "uri",
		options->uri, "rw", options->rw, "mix", options->mix, "bs", options->sizes, "depth",
		(int)load->depth, "connections", (int)load->connections, "rate", load->rate,
		"warmup_s", (double)load->warmup_ns * 1e-9, "time_s",
		(double)load->duration_ns * 1e-9, "requests_max", (json_int_t)load->requests_max,
		"offset", (json_int_t)load->region_start, "size", (json_int_t)load->region_bytes,
		"seed", (json_int_t)load->seed, "fua_percent", (int)load->mix.fua_percent,
		"zipf_theta", load->mix.zipf_theta, "poll_us", (int)load->poll_us, "cores", cores,
		"export_bytes", (json_int_t)result->export_bytes);
}

static json_t *
series_json(const struct load_result *result)
{
	json_t *array = json_array();

	for (unsigned i = 0; i < result->interval_count; i++)
		json_array_append_new(array,
				      json_pack("[I, I]", (json_int_t)result->intervals[i].requests,
						(json_int_t)result->intervals[i].bytes));
	return array;
}

static json_t *
result_json(const struct bench_options *options, const struct load_result *result)
{
	double seconds = (double)result->measured_ns * 1e-9;
	json_t *root = json_object(), *kinds = json_object();
	struct histogram all;

	for (unsigned kind = 0; kind < LOAD_KIND_COUNT; kind++) {
		if (result->latency[kind].count > 0)
			json_object_set_new(kinds, load_kind_name(kind),
					    figures_json(&result->latency[kind],
							 result->requests[kind],
							 result->bytes[kind], seconds));
	}
	load_result_latency(result, &all);
	json_object_set_new(root, "format", json_integer(FORMAT));
	json_object_set_new(root, "load", load_json(options, result));
	json_object_set_new(root, "partial", json_boolean(result->partial));
	if (result->partial)
		json_object_set_new(root, "why", json_string(result->why));
	json_object_set_new(root, "measured_s", json_real(seconds));
	json_object_set_new(root, "replies", json_string(report_style_name(result->style)));
	json_object_set_new(root, "read_bytes", json_integer((json_int_t)result->read_bytes));
	json_object_set_new(root, "hole_bytes", json_integer((json_int_t)result->hole_bytes));
	json_object_set_new(root, "errors", json_integer((json_int_t)result->errors));
	if (result->errors > 0) {
		json_object_set_new(root, "first_error", json_integer(result->first_error));
		json_object_set_new(root, "first_message", json_string(result->first_message));
	}
	json_object_set_new(root, "rate_missed", json_integer((json_int_t)result->rate_missed));
	json_object_set_new(root, "unanswered", json_integer((json_int_t)result->unanswered));
	json_object_set_new(
		root, "client_cpu_us_per_request",
		json_real(result->requests_made == 0
				  ? 0
				  : (double)result->cpu_ns / 1000 / (double)result->requests_made));
	json_object_set_new(root, "all",
			    figures_json(&all, load_result_requests(result),
					 load_result_bytes(result), seconds));
	json_object_set_new(root, "kinds", kinds);
	json_object_set_new(root, "interval_s", json_real((double)result->interval_ns * 1e-9));
	json_object_set_new(root, "series", series_json(result));
	return root;
}

int
report_json(const struct bench_options *options, const struct load_result *result, const char *path,
	    FILE *errors)
{
	json_t *root = result_json(options, result);
	FILE *file = strcmp(path, "-") == 0 ? stdout : fopen(path, "we");
	int error = 0;

	if (file == NULL || json_dumpf(root, file, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) != 0 ||
	    fputc('\n', file) == EOF || fflush(file) != 0)
		error = errno != 0 ? -errno : -ENOMEM;
	if (file != NULL && file != stdout && fclose(file) != 0)
		error = -errno;
	json_decref(root);
	if (error < 0)
		fprintf(errors, "%s: cannot be written: %s\n", path, strerror(-error));
	return error;
}

/* ---- comparing ---- */

static json_t *
read_result(const char *path, FILE *errors)
{
	json_error_t where;
	json_t *root = json_load_file(path, 0, &where);

	if (root == NULL) {
		if (where.line > 0)
			fprintf(errors, "%s:%d: %s\n", path, where.line, where.text);
		else
			fprintf(errors, "%s\n", where.text);
		return NULL;
	}
	if (json_integer_value(json_object_get(root, "format")) == FORMAT)
		return root;
	fprintf(errors, "%s: is not a result of millrace-bench run --json\n", path);
	json_decref(root);
	return NULL;
}

static double
figure(const json_t *root, const char *kind, const char *name)
{
	const json_t *all = strcmp(kind, "all") == 0
				    ? json_object_get(root, "all")
				    : json_object_get(json_object_get(root, "kinds"), kind);
	const json_t *value = json_object_get(all, name);

	if (value == NULL)
		value = json_object_get(json_object_get(all, "latency_us"), name);
	return json_number_value(value);
}

static void
compare_row(const json_t *a, const json_t *b, const char *kind, const char *label, const char *name,
	    double unit, FILE *out)
{
	double left = figure(a, kind, name) / unit, right = figure(b, kind, name) / unit;

	if (left == 0 && right == 0)
		return;
	fprintf(out, "%-8s %-12s %14.1f %14.1f", kind, label, left, right);
	if (left > 0)
		fprintf(out, " %8.3f", right / left);
	fputc('\n', out);
}

static void
compare_kind(const json_t *a, const json_t *b, const char *kind, FILE *out)
{
	compare_row(a, b, kind, "requests/s", "iops", 1, out);
	compare_row(a, b, kind, "MiB/s", "bytes_per_second", 1 << 20, out);
	for (size_t i = 0; i < PERCENTILE_COUNT; i++) {
		char label[24];

		snprintf(label, sizeof(label), "%s us", percentiles[i].name);
		compare_row(a, b, kind, label, percentiles[i].name, 1, out);
	}
}

/* Say so if the loads were not the same. */
static void
compare_loads(const json_t *a, const json_t *b, FILE *out)
{
	json_t *left = json_object_get(a, "load"), *right = json_object_get(b, "load");
	const char *key;
	json_t *value;

	json_object_foreach(left, key, value)
	{
		if (strcmp(key, "uri") != 0 && !json_equal(value, json_object_get(right, key)))
			fprintf(out, "note: the loads differ in %s\n", key);
	}
	json_object_foreach(right, key, value)
	{
		if (json_object_get(left, key) == NULL)
			fprintf(out, "note: the loads differ in %s\n", key);
	}
	if (!json_equal(json_object_get(a, "replies"), json_object_get(b, "replies")))
		fprintf(out, "note: the loads differ in replies\n");
}

/* Say what is to be held against the figures of RESULT, which is called NAME. */
static void
compare_flaws(const json_t *result, const char *name, FILE *out)
{
	json_int_t errors = json_integer_value(json_object_get(result, "errors"));
	json_int_t missed = json_integer_value(json_object_get(result, "rate_missed"));
	json_int_t unanswered = json_integer_value(json_object_get(result, "unanswered"));

	if (json_is_true(json_object_get(result, "partial")))
		fprintf(out, "note: %s is partial\n", name);
	if (errors > 0)
		fprintf(out, "note: of %s %lld requests failed, which no figure shows\n", name,
			(long long)errors);
	if (missed > 0)
		fprintf(out, "note: %s has not kept its rate: %lld requests were never made\n",
			name, (long long)missed);
	if (unanswered > 0)
		fprintf(out, "note: of %s %lld requests were not answered by the end\n", name,
			(long long)unanswered);
}

/* How much of what RESULT's run read were holes; -1 if it does not say. */
static double
hole_share(const json_t *result)
{
	double read = json_number_value(json_object_get(result, "read_bytes"));
	double share = json_number_value(json_object_get(result, "hole_bytes")) / read;

	/* What was cut off at the end may have begun with holes. */
	return read <= 0 ? -1 : share > 1 ? 1 : share;
}

/* Say so if one had much less to read than the other: holes cost a server next to nothing. */
static void
compare_holes(const json_t *a, const json_t *b, FILE *out)
{
	double left = hole_share(a), right = hole_share(b);

	if (left >= 0 && right >= 0 && (left - right > 0.01 || right - left > 0.01))
		fprintf(out, "note: of what A read, %.1f %% were holes, of B %.1f %%\n", left * 100,
			right * 100);
}

int
report_compare(const char *path_a, const char *path_b, FILE *out, FILE *errors)
{
	json_t *a = read_result(path_a, errors);
	json_t *b = a == NULL ? NULL : read_result(path_b, errors);
	int error = -EINVAL;

	if (b != NULL) {
		fprintf(out, "A: %s, %s\nB: %s, %s\n", path_a,
			json_string_value(json_object_get(json_object_get(a, "load"), "uri")),
			path_b,
			json_string_value(json_object_get(json_object_get(b, "load"), "uri")));
		compare_loads(a, b, out);
		compare_flaws(a, "A", out);
		compare_flaws(b, "B", out);
		compare_holes(a, b, out);
		fprintf(out, "%-8s %-12s %14s %14s %8s\n", "", "", "A", "B", "B / A");
		compare_kind(a, b, "all", out);
		for (unsigned kind = 0; kind < LOAD_KIND_COUNT; kind++)
			compare_kind(a, b, load_kind_name(kind), out);
		error = 0;
	}
	json_decref(a);
	json_decref(b);
	return error;
}
