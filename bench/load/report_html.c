/* One file with pictures, drawn as SVG here, so that it needs no network and no script: the percentile curve, the throughput over time, and a
 * heat map of the latencies over time. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench/load/report.h"

#define WIDTH  900
#define HEIGHT 260
#define LEFT   80
#define BOTTOM 40
#define TOP    10

/* The curve's right end: one in a million. */
#define NINES_MAX 6.0

struct axis {
	double min, max; /* of the values; on a logarithmic one above 0 */
	bool logarithmic;
};

static double
fraction(const struct axis *axis, double value)
{
	if (axis->logarithmic)
		return (log(value) - log(axis->min)) / (log(axis->max) - log(axis->min));
	return (value - axis->min) / (axis->max - axis->min);
}

static double
x_of(const struct axis *axis, double value)
{
	return LEFT + fraction(axis, value) * (WIDTH - LEFT);
}

static double
y_of(const struct axis *axis, double value)
{
	return HEIGHT - BOTTOM - fraction(axis, value) * (HEIGHT - BOTTOM - TOP);
}

static double
within(const struct axis *axis, double value)
{
	return value < axis->min ? axis->min : value > axis->max ? axis->max : value;
}

static void
escape(const char *text, FILE *out)
{
	for (; *text != '\0'; text++) {
		switch (*text) {
		case '&':
			fputs("&amp;", out);
			break;
		case '<':
			fputs("&lt;", out);
			break;
		case '>':
			fputs("&gt;", out);
			break;
		case '"':
			fputs("&quot;", out);
			break;
		default:
			fputc(*text, out);
		}
	}
}

static void
begin_picture(const char *title, FILE *out)
{
	fprintf(out, "<h2>%s</h2>\n<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\">\n",
		title, WIDTH, HEIGHT, title);
}

static void
label_y(const struct axis *axis, double value, const char *format, FILE *out)
{
	double y = y_of(axis, value);

	fprintf(out,
		"<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>"
		"<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">",
		LEFT, WIDTH, y, y, LEFT - 6, y + 4);
	fprintf(out, format, value);
	fputs("</text>\n", out);
}

static void
label_x(const struct axis *axis, double value, const char *text, FILE *out)
{
	fprintf(out, "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%s</text>\n",
		x_of(axis, value), HEIGHT - BOTTOM + 18, text);
}

static double
decade_of(double value)
{
	return pow(10, floor(log10(value) + 1e-9));
}

/* Steps are 1, 2 and 5 times powers of ten: the last one up to VALUE, and the one behind STEP. */
static double
step_of(double value)
{
	double decade = decade_of(value);

	return value >= 5 * decade ? 5 * decade : value >= 2 * decade ? 2 * decade : decade;
}

static double
next_step(double step)
{
	double decade = decade_of(step), lead = step / decade;

	return decade * (lead < 1.5 ? 2 : lead < 3 ? 5 : 10);
}

/* All steps on a logarithmic axis of microseconds; only the powers of ten if there are many. */
static void
label_us(const struct axis *axis, FILE *out)
{
	bool many = axis->max / axis->min >= 1000;

	for (double value = step_of(axis->min); value <= axis->max * 1.001;
	     value = next_step(value)) {
		if (!many || value / decade_of(value) < 1.5)
			label_y(axis, value, value < 0.9 ? "%.1f us" : "%.0f us", out);
	}
}

/* From step to step, so that at least both ends can be labelled. */
static struct axis
latency_axis(const struct histogram *latency)
{
	double min = (double)latency->min_ns / 1000, max = (double)latency->max_ns / 1000;
	struct axis axis = { .min = step_of(min < 0.1 ? 0.1 : min), .logarithmic = true };

	axis.max = next_step(axis.min);
	while (axis.max < max)
		axis.max = next_step(axis.max);
	return axis;
}

/* ---- the percentile curve ---- */

static void
draw_curve(const struct histogram *latency, const struct axis *nines, const struct axis *us,
	   const char *class, FILE *out)
{
	fprintf(out, "<polyline class=\"%s\" points=\"", class);
	for (double n = 0; n <= NINES_MAX; n += 0.05) {
		unsigned per_million = (unsigned)(1e6 * (1 - pow(10, -n)));
		double value = (double)histogram_percentile_ns(latency, per_million) / 1000;

		fprintf(out, "%.1f,%.1f ", x_of(nines, n), y_of(us, within(us, value)));
	}
	fputs("\"/>\n", out);
}

static void
draw_percentiles(const struct load_result *result, const struct histogram *all, FILE *out)
{
	static const char *const labels[] = {
		"0", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %"
	};
	struct axis nines = { .max = NINES_MAX }, us = latency_axis(all);

	begin_picture("Latency by percentile", out);
	label_us(&us, out);
	for (size_t i = 0; i < sizeof(labels) / sizeof(labels[0]); i++)
		label_x(&nines, (double)i, labels[i], out);
	for (unsigned kind = 0; kind < LOAD_KIND_COUNT; kind++) {
		if (result->latency[kind].count > 0)
			draw_curve(&result->latency[kind], &nines, &us, load_kind_name(kind), out);
	}
	fputs("</svg>\n<p class=\"key\">", out);
	for (unsigned kind = 0; kind < LOAD_KIND_COUNT; kind++) {
		if (result->latency[kind].count > 0)
			fprintf(out, "<span class=\"%s\">&#9644; %s</span> ", load_kind_name(kind),
				load_kind_name(kind));
	}
	fputs("</p>\n", out);
}

/* ---- over time ---- */

static double
interval_s(const struct load_result *result)
{
	return (double)result->interval_ns * 1e-9;
}

/* Seconds that interval INDEX has: the last one may be cut short. */
static double
span_s(const struct load_result *result, unsigned index)
{
	uint64_t begin_ns = index * result->interval_ns;

	if (result->measured_ns > begin_ns && result->measured_ns - begin_ns < result->interval_ns)
		return (double)(result->measured_ns - begin_ns) * 1e-9;
	return interval_s(result);
}

static double
rate_of(const struct load_result *result, unsigned index)
{
	return (double)result->intervals[index].requests / span_s(result, index);
}

static void
label_time(const struct axis *time, FILE *out)
{
	for (unsigned i = 0; i <= 5; i++) {
		char text[24];
		double second = time->max * i / 5;

		snprintf(text, sizeof(text), time->max < 2 ? "%.2f s" : "%.1f s", second);
		if (i < 5)
			label_x(time, second, text, out);
	}
}

static void
draw_throughput(const struct load_result *result, FILE *out)
{
	double step_s = interval_s(result);
	struct axis time = { .max = step_s * result->interval_count }, rate = { .max = 1 };

	for (unsigned i = 0; i < result->interval_count; i++) {
		if (rate_of(result, i) > rate.max)
			rate.max = rate_of(result, i);
	}
	begin_picture("Requests per second over time", out);
	for (unsigned i = 0; i <= 4; i++)
		label_y(&rate, rate.max * i / 4, "%.0f", out);
	label_time(&time, out);
	fputs("<polyline class=\"read\" points=\"", out);
	for (unsigned i = 0; i < result->interval_count; i++)
		fprintf(out, "%.1f,%.1f ", x_of(&time, (i + 0.5) * step_s),
			y_of(&rate, rate_of(result, i)));
	fputs("\"/>\n</svg>\n", out);
}

static uint32_t
most_in_a_row(const struct load_result *result)
{
	uint32_t most = 1;

	for (unsigned i = 0; i < result->interval_count; i++) {
		for (unsigned row = 0; row < LOAD_ROW_COUNT; row++) {
			if (result->intervals[i].rows[row] > most)
				most = result->intervals[i].rows[row];
		}
	}
	return most;
}

/* One rectangle for each row of each moment in which anything ended; the darker, the more, on a logarithmic scale. */
static void
draw_heat(const struct load_result *result, const struct histogram *all, FILE *out)
{
	double step_s = interval_s(result), most = log1p((double)most_in_a_row(result));
	struct axis time = { .max = step_s * result->interval_count }, us = latency_axis(all);

	begin_picture("Latencies over time", out);
	for (unsigned i = 0; i < result->interval_count; i++) {
		for (unsigned row = 0; row < LOAD_ROW_COUNT; row++) {
			uint32_t number = result->intervals[i].rows[row];
			double low =
				(double)histogram_bucket_start_ns(row * LOAD_ROW_BUCKETS) / 1000;
			double high =
				(double)histogram_bucket_start_ns((row + 1) * LOAD_ROW_BUCKETS) /
				1000;

			if (number == 0)
				continue;
			/* Of the warm-up's last requests, which ended here, the axis knows nothing. */
			low = within(&us, low);
			high = within(&us, high);
			fprintf(out,
				"<rect class=\"heat\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" "
				"height=\"%.1f\" opacity=\"%.2f\"/>\n",
				x_of(&time, i * step_s), y_of(&us, high),
				x_of(&time, (i + 1) * step_s) - x_of(&time, i * step_s),
				y_of(&us, low) - y_of(&us, high), log1p(number) / most);
		}
	}
	label_us(&us, out);
	label_time(&time, out);
	fputs("</svg>\n", out);
}

/* ---- the page ---- */

static const char head[] =
	"<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n"
	"<meta name=\"viewport\" content=\"width=device-width\">\n"
	"<title>millrace-bench</title>\n<style>\n"
	":root { color-scheme: light dark; --text: #222; --page: #fff; --label: #555; --grid: "
	"#ddd; --heat: #b3261e;\n"
	" --read: #1f77b4; --write: #d62728; --trim: #2a8a2a; --zeroes: #8557b0; --flush: #b85a00; "
	"}\n"
	"@media (prefers-color-scheme: dark) { :root { --text: #ddd; --page: #16181b; --label: "
	"#aaa; --grid: #3a3d42;\n"
	" --heat: #ff8a7a; --read: #6bb5ea; --write: #ff7b72; --trim: #6fce6f; --zeroes: #c3a1e6; "
	"--flush: #ffab5e; } }\n"
	"body { font: 15px sans-serif; max-width: 960px; margin: 2em auto; color: var(--text); "
	"background: var(--page); }\n"
	"svg { width: 100%; } svg text { font-size: 12px; fill: var(--label); }\n"
	"pre { overflow-x: auto; } polyline { fill: none; stroke-width: 2; }\n"
	".grid { stroke: var(--grid); } .heat { fill: var(--heat); }\n"
	"polyline.read { stroke: var(--read); } span.read { color: var(--read); }\n"
	"polyline.write { stroke: var(--write); } span.write { color: var(--write); }\n"
	"polyline.trim { stroke: var(--trim); } span.trim { color: var(--trim); }\n"
	"polyline.zeroes { stroke: var(--zeroes); } span.zeroes { color: var(--zeroes); }\n"
	"polyline.flush { stroke: var(--flush); } span.flush { color: var(--flush); }\n"
	"</style>\n<h1>millrace-bench</h1>\n";

static void
write_table(const struct bench_options *options, const struct load_result *result, FILE *out)
{
	char *text = NULL;
	size_t bytes;
	FILE *table = open_memstream(&text, &bytes);

	if (table == NULL)
		return;
	report_table(options, result, table);
	if (fclose(table) == 0) {
		fputs("<pre>", out);
		escape(text, out);
		fputs("</pre>\n", out);
	}
	free(text);
}

int
report_html(const struct bench_options *options, const struct load_result *result, const char *path,
	    FILE *errors)
{
	FILE *out = fopen(path, "we");
	struct histogram all;
	int error = 0;

	if (out == NULL) {
		error = -errno;
	} else {
		load_result_latency(result, &all);
		fputs(head, out);
		write_table(options, result, out);
		if (all.count > 0 && result->interval_count > 0) {
			draw_percentiles(result, &all, out);
			draw_throughput(result, out);
			draw_heat(result, &all, out);
		}
		fputs("</html>\n", out);
		if (ferror(out) != 0)
			error = -EIO;
		if (fclose(out) != 0)
			error = -errno;
	}
	if (error < 0)
		fprintf(errors, "%s: cannot be written: %s\n", path, strerror(-error));
	return error;
}
