/* LIST_META_CONTEXT and SET_META_CONTEXT: which facts about extents a client may ask for with BLOCK_STATUS.  There is one,
 * base:allocation. */
#ifndef NET_META_CONTEXT_H
#define NET_META_CONTEXT_H

#include "net/option_data.h"
#include <stdbool.h>
#include <stdint.h>

/* The data of either option, taken apart. */
struct meta_context_query {
	const uint8_t *name; /* of the export; the sender's bytes */
	uint32_t name_bytes;
	uint32_t query_count;
	bool exact;    /* one of the queries is base:allocation */
	bool wildcard; /* one of them is base: */
};

/* Read all of DATA.  Returns 0, or the NBD_REP_ERR_ to answer with; then *why (static text) is for a person. */
uint32_t meta_context_parse(struct option_data data, struct meta_context_query *query,
			    const char **why);

#endif
