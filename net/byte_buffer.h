/* A growing run of bytes, for what is not on the data path: the handshake's replies.
 * Running out of memory is remembered, not reported at each step: check byte_buffer_failed at the end. */
#ifndef NET_BYTE_BUFFER_H
#define NET_BYTE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct byte_buffer {
	uint8_t *bytes; /* owned */
	size_t used;
	/* Private. */
	size_t capacity;
	bool failed;
};

void byte_buffer_init(struct byte_buffer *buffer);
void byte_buffer_fini(struct byte_buffer *buffer);

/* Append; integers in network order. */
void byte_buffer_add(struct byte_buffer *buffer, const void *bytes, size_t count);
void byte_buffer_add_zeros(struct byte_buffer *buffer, size_t count);
void byte_buffer_add_u16(struct byte_buffer *buffer, uint16_t value);
void byte_buffer_add_u32(struct byte_buffer *buffer, uint32_t value);
void byte_buffer_add_u64(struct byte_buffer *buffer, uint64_t value);

/* True if something did not fit into memory: the content is incomplete. */
bool byte_buffer_failed(const struct byte_buffer *buffer);

/* Drop the content, keep the memory. */
void byte_buffer_clear(struct byte_buffer *buffer);

#endif
