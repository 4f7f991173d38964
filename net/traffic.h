/* What a client asked for, counted where it is served. */
#ifndef NET_TRAFFIC_H
#define NET_TRAFFIC_H

#include "net/nbd_wire.h"
#include <stddef.h>
#include <stdint.h>

/* Enough for any traffic_format. */
#define TRAFFIC_TEXT_BYTES 160u

/* Valid requests, and the bytes that they are to move.  Zeroed: none. */
struct traffic {
	uint64_t reads;
	uint64_t writes;
	uint64_t others;
	uint64_t read_bytes;
	uint64_t written_bytes;
};

/* Count the request of HEADER. */
static inline void
traffic_count(struct traffic *traffic, const struct nbd_header *header)
{
	if (header->command == NBD_CMD_READ) {
		traffic->reads++;
		traffic->read_bytes += header->length;
	} else if (header->command == NBD_CMD_WRITE) {
		traffic->writes++;
		traffic->written_bytes += header->length;
	} else {
		traffic->others++;
	}
}

/* Add PART to SUM. */
void traffic_add(struct traffic *sum, const struct traffic *part);

/* TRAFFIC as "12 reads of 48.0 KiB, 3 writes of 1.5 GiB, 1 other" into TEXT of TEXT_BYTES. */
void traffic_format(const struct traffic *traffic, char *text, size_t text_bytes);

#endif
