/* Replies as bytes, in each of the three styles.  Pure functions.
 * What a header announces (data, descriptors) is not in OUT, but sent behind it. */
#ifndef NET_NBD_REPLY_H
#define NET_NBD_REPLY_H

#include "disk/volume.h"
#include "net/nbd.h"
#include "net/nbd_wire.h"
#include <stdbool.h>
#include <stdint.h>

/* Room for every header, and for an error with its message, which is cut if need be. */
#define NBD_REPLY_BYTES_MAX	    192u
#define NBD_REPLY_MESSAGE_BYTES_MAX 128u

/* Each writes to OUT, which has room for NBD_REPLY_BYTES_MAX, the reply to the request of HEADER,
 * or a chunk of it, and returns how many bytes it has.
 * last: nothing follows but what it announces. */

/* It is done, and there is no more to say. */
unsigned nbd_reply_done(uint8_t *out, enum nbd_style style, const struct nbd_header *header);

/* It failed.  MESSAGE is for a person; simple replies have none. */
unsigned nbd_reply_error(uint8_t *out, enum nbd_style style, const struct nbd_header *header,
			 enum nbd_error error, const char *message);

/* The same, but what comes before OFFSET, which is in the request's range, is as it should be. */
unsigned nbd_reply_error_at(uint8_t *out, enum nbd_style style, const struct nbd_header *header,
			    enum nbd_error error, uint64_t offset, const char *message);

/* LENGTH bytes (at most 2^32 - 9) of the volume from OFFSET on follow.  A simple reply announces all that was asked for, whatever LENGTH is. */
unsigned nbd_reply_data(uint8_t *out, enum nbd_style style, const struct nbd_header *header,
			uint64_t offset, uint32_t length, bool last);

/* LENGTH bytes from OFFSET on are zeros.  Not for simple replies. */
unsigned nbd_reply_hole(uint8_t *out, enum nbd_style style, const struct nbd_header *header,
			uint64_t offset, uint32_t length, bool last);

/* COUNT descriptors of base:allocation follow.  Not for simple replies. */
unsigned nbd_reply_status(uint8_t *out, enum nbd_style style, const struct nbd_header *header,
			  uint32_t count);

/* Make COUNT extents into descriptors, in place.  With structured replies none may be longer than 2^32 - 1.  Returns how many bytes they
 * have. */
size_t nbd_reply_descriptors(struct volume_extent *extents, uint32_t count, enum nbd_style style);

#endif
