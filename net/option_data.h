/* The data of an option, taken apart from the front.  Each step returns false, and takes nothing, if there is not so much. */
#ifndef NET_OPTION_DATA_H
#define NET_OPTION_DATA_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct option_data {
	const uint8_t *bytes; /* the sender's */
	size_t left;
};

static inline bool
option_data_take_bytes(struct option_data *data, size_t count, const uint8_t **bytes)
{
	if (data->left < count)
		return false;
	*bytes = data->bytes;
	data->bytes += count;
	data->left -= count;
	return true;
}

static inline bool
option_data_take_u16(struct option_data *data, uint16_t *value)
{
	const uint8_t *bytes;

	if (!option_data_take_bytes(data, sizeof(*value), &bytes))
		return false;
	memcpy(value, bytes, sizeof(*value));
	*value = be16toh(*value);
	return true;
}

static inline bool
option_data_take_u32(struct option_data *data, uint32_t *value)
{
	const uint8_t *bytes;

	if (!option_data_take_bytes(data, sizeof(*value), &bytes))
		return false;
	memcpy(value, bytes, sizeof(*value));
	*value = be32toh(*value);
	return true;
}

/* A length and so many bytes: a string. */
static inline bool
option_data_take_string(struct option_data *data, const uint8_t **bytes, uint32_t *count)
{
	struct option_data rest = *data;

	if (!option_data_take_u32(&rest, count) || !option_data_take_bytes(&rest, *count, bytes))
		return false;
	*data = rest;
	return true;
}

#endif
