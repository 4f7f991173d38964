/* Growing by doubling. */
#include "net/byte_buffer.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#define CAPACITY_FIRST 256

void
byte_buffer_init(struct byte_buffer *buffer)
{
	*buffer = (struct byte_buffer){ .bytes = NULL };
}

void
byte_buffer_fini(struct byte_buffer *buffer)
{
	free(buffer->bytes);
	byte_buffer_init(buffer);
}

/* Room for COUNT more bytes, counted as used; NULL if there is none. */
static uint8_t *
extend(struct byte_buffer *buffer, size_t count)
{
	uint8_t *room;

	if (buffer->failed)
		return NULL;
	if (count > buffer->capacity - buffer->used) {
		size_t capacity = buffer->capacity == 0 ? CAPACITY_FIRST : buffer->capacity;
		uint8_t *bytes;

		while (capacity - buffer->used < count)
			capacity *= 2;
		bytes = realloc(buffer->bytes, capacity);
		if (bytes == NULL) {
			buffer->failed = true;
			return NULL;
		}
		buffer->bytes = bytes;
		buffer->capacity = capacity;
	}
	room = buffer->bytes + buffer->used;
	buffer->used += count;
	return room;
}

void
byte_buffer_add(struct byte_buffer *buffer, const void *bytes, size_t count)
{
	uint8_t *room;

	if (count == 0)
		return;
	room = extend(buffer, count);
	if (room != NULL)
		memcpy(room, bytes, count);
}

void
byte_buffer_add_zeros(struct byte_buffer *buffer, size_t count)
{
	uint8_t *room = extend(buffer, count);

	if (room != NULL)
		memset(room, 0, count);
}

void
byte_buffer_add_u16(struct byte_buffer *buffer, uint16_t value)
{
	value = htobe16(value);
	byte_buffer_add(buffer, &value, sizeof(value));
}

void
byte_buffer_add_u32(struct byte_buffer *buffer, uint32_t value)
{
	value = htobe32(value);
	byte_buffer_add(buffer, &value, sizeof(value));
}

void
byte_buffer_add_u64(struct byte_buffer *buffer, uint64_t value)
{
	value = htobe64(value);
	byte_buffer_add(buffer, &value, sizeof(value));
}

bool
byte_buffer_failed(const struct byte_buffer *buffer)
{
	return buffer->failed;
}

void
byte_buffer_clear(struct byte_buffer *buffer)
{
	buffer->used = 0;
}
