/* Taking queries apart.
 * Source: the protocol specification, sections "Metadata querying" and "Option types". */
#include "net/meta_context.h"

#include <string.h>

#include "net/nbd.h"

#define NAMESPACE_WILDCARD "base:"

static bool
is_text(const uint8_t *bytes, uint32_t count, const char *text)
{
	return count == strlen(text) && memcmp(bytes, text, count) == 0;
}

static uint32_t
refuse(uint32_t error, const char *text, const char **why)
{
	*why = text;
	return error;
}

/* Take one string.  Returns 0 or the error. */
static uint32_t
take_string(struct option_data *data, const uint8_t **bytes, uint32_t *count, const char **why)
{
	if (!option_data_take_string(data, bytes, count))
		return refuse(NBD_REP_ERR_INVALID, "the lengths do not add up", why);
	if (*count > NBD_STRING_BYTES_MAX)
		return refuse(NBD_REP_ERR_TOO_BIG, "a name or query has at most 4096 bytes", why);
	return 0;
}

uint32_t
meta_context_parse(struct option_data data, struct meta_context_query *query, const char **why)
{
	uint32_t error;

	*query = (struct meta_context_query){ .query_count = 0 };
	error = take_string(&data, &query->name, &query->name_bytes, why);
	if (error != 0)
		return error;
	if (!option_data_take_u32(&data, &query->query_count))
		return refuse(NBD_REP_ERR_INVALID, "the number of queries is missing", why);
	for (uint32_t i = 0; i < query->query_count; i++) {
		const uint8_t *text;
		uint32_t text_bytes;

		error = take_string(&data, &text, &text_bytes, why);
		if (error != 0)
			return error;
		/* What is unknown is ignored, as the specification wants. */
		if (is_text(text, text_bytes, NBD_CONTEXT_ALLOCATION))
			query->exact = true;
		if (is_text(text, text_bytes, NAMESPACE_WILDCARD))
			query->wildcard = true;
	}
	if (data.left > 0)
		return refuse(NBD_REP_ERR_INVALID, "there is data behind the queries", why);
	return 0;
}
