/* Requests of one core that follow each other in the file, and wait for the same submit, go to the kernel as one: that of the first, their
 * leader, which gets a part for each.  It costs no waiting: what the kernel has already is joined by nobody.
 *
 * When the one is not done whole, each is submitted again by itself, so that it gets its own error. */
#include "disk/file_volume.h"

#define MERGE_BYTES_MAX ((uint64_t)128 << 10)

static bool
is_write(const struct volume_request *request)
{
	return request->command == VOLUME_COMMAND_WRITE;
}

/* The next part of LEADER's is REQUEST's. */
static void
add_part(struct volume_request *leader, const struct volume_request *request)
{
	leader->merge.parts[leader->merge.count++] = (struct iovec){
		.iov_base = request->buffer,
		.iov_len = request->length,
	};
	leader->merge.bytes += request->length;
}

static void
merged_done(struct op *op, long result)
{
	struct volume_request *leader = container_of(op, struct volume_request, op);
	struct volume_request **current = &file_core_of(leader)->leaders[is_write(leader)];
	bool alone = leader->merge.count == 1, whole = result == (long)leader->merge.bytes;
	struct volume_request *next = leader;

	if (*current == leader)
		*current = NULL;
	op->done = leader->merge.done;
	if (alone) {
		op->done(op, result);
		return;
	}
	while (next != NULL) {
		struct volume_request *request = next;

		/* Once it is done it is its owner's. */
		next = request->merge.next;
		if (whole)
			request->op.done(&request->op, (long)request->length);
		else
			file_submit_rest(request, is_write(request), request->buffer,
					 request->offset, request->offset + request->length);
	}
}

bool
file_merge_join(struct volume_request *request)
{
	struct volume_request *leader = file_core_of(request)->leaders[is_write(request)];

	if (leader == NULL || !op_waits(&leader->op) || request->durable ||
	    leader->merge.count == ARRAY_COUNT(leader->merge.parts) ||
	    leader->offset + leader->merge.bytes != request->offset ||
	    leader->merge.bytes + request->length > MERGE_BYTES_MAX ||
	    leader->priority != request->priority)
		return false;
	request->merge.next = NULL;
	leader->merge.last->merge.next = request;
	leader->merge.last = request;
	add_part(leader, request);
	op_set_parts(&leader->op, leader->merge.parts, leader->merge.count);
	return true;
}

void
file_merge_lead(struct volume_request *request)
{
	request->merge.next = NULL;
	request->merge.last = request;
	request->merge.count = 0;
	request->merge.bytes = 0;
	request->merge.done = request->op.done;
	add_part(request, request);
	request->op.done = merged_done;
	/* A durable one would make those that join it so. */
	if (!request->durable)
		file_core_of(request)->leaders[is_write(request)] = request;
}
