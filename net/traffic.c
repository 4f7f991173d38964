/* Sums of requests, and how they read. */
#include "net/traffic.h"

#include <inttypes.h>
#include <stdio.h>

#define SIZE_TEXT_BYTES 32u

void
traffic_add(struct traffic *sum, const struct traffic *part)
{
	sum->reads += part->reads;
	sum->writes += part->writes;
	sum->others += part->others;
	sum->read_bytes += part->read_bytes;
	sum->written_bytes += part->written_bytes;
}

/* BYTES in the largest unit of which there is one, as "1.5 GiB". */
static const char *
format_size(uint64_t bytes, char text[SIZE_TEXT_BYTES])
{
	static const char *const units[] = { "bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	unsigned unit = 0;
	double size = (double)bytes;

	while (size >= 1024) {
		size /= 1024;
		unit++;
	}
	(void)snprintf(text, SIZE_TEXT_BYTES, unit == 0 ? "%.0f %s" : "%.1f %s", size, units[unit]);
	return text;
}

void
traffic_format(const struct traffic *traffic, char *text, size_t text_bytes)
{
	char read[SIZE_TEXT_BYTES], written[SIZE_TEXT_BYTES];

	(void)snprintf(text, text_bytes,
		       "%" PRIu64 " reads of %s, %" PRIu64 " writes of %s, %" PRIu64 " others",
		       traffic->reads, format_size(traffic->read_bytes, read), traffic->writes,
		       format_size(traffic->written_bytes, written), traffic->others);
}
