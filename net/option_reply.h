/* Replies to options, as bytes. */
#ifndef NET_OPTION_REPLY_H
#define NET_OPTION_REPLY_H

#include "net/byte_buffer.h"
#include "net/session.h"
#include <stdint.h>

/* The header of a reply with DATA_BYTES of data, which the caller adds behind it. */
void option_reply_add(struct byte_buffer *out, uint32_t option, uint32_t reply,
		      uint32_t data_bytes);

void option_reply_ack(struct byte_buffer *out, uint32_t option);

/* ERROR (NBD_REP_ERR_), with MESSAGE for a person. */
void option_reply_error(struct byte_buffer *out, uint32_t option, uint32_t error,
			const char *message);

/* One of LIST's. */
void option_reply_server(struct byte_buffer *out, const struct export *export);

/* One of LIST_META_CONTEXT's and SET_META_CONTEXT's. */
void option_reply_meta_context(struct byte_buffer *out, uint32_t option, uint32_t id,
			       const char *name);

/* NBD_REP_INFO: what a client of SESSION is told about its export, and what it asked for by its number INFO; nothing, if that is
 * unknown, not given, or told in any case. */
void option_reply_info_export(struct byte_buffer *out, uint32_t option,
			      const struct nbd_session *session);
void option_reply_info(struct byte_buffer *out, uint32_t option, uint16_t info,
		       const struct export *export);

#endif
