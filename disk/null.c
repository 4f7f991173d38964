/* Volumes of nothing: reads are zeros, writes are forgotten, and everything is done at once.  For measuring all the rest. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "disk/volume.h"
#include "disk/volume_kinds.h"

static int
null_check(const struct volume_options *options, uint64_t *size_bytes)
{
	*size_bytes = options->size_bytes;
	return 0;
}

static int
null_open(const struct volume_options *options, struct volume **result)
{
	struct volume *volume = malloc(sizeof(*volume));
	char *path = strdup("null");

	if (volume == NULL || path == NULL) {
		free(path);
		free(volume);
		return -ENOMEM;
	}
	*volume = (struct volume){
		.ops = &null_volume_ops,
		.path = path,
		.size_bytes = options->size_bytes,
		.block_bytes = 1,
		.read_only = options->read_only,
		.trims = true,
	};
	*result = volume;
	return 0;
}

static int
null_close(struct volume *volume)
{
	free(volume->path);
	free(volume);
	return 0;
}

static void
null_done(struct op *op, long result)
{
	struct volume_request *request = container_of(op, struct volume_request, op);

	volume_finish(request, (int)result);
}

static void
null_submit(struct volume *volume, struct volume_request *request)
{
	(void)volume;
	if (request->command == VOLUME_COMMAND_READ) {
		memset(request->buffer, 0, request->length);
	} else if (request->command == VOLUME_COMMAND_EXTENTS) {
		request->extents[0] =
			(struct volume_extent){ .length = request->length,
						.flags = VOLUME_EXTENT_HOLE | VOLUME_EXTENT_ZERO };
		request->extent_count = 1;
	}
	op_init(&request->op, null_done);
	request->op.priority = request->priority;
	reactor_complete(request->core->reactor, &request->op, 0);
}

static enum volume_peek
null_peek(const struct volume *volume, uint64_t offset, uint64_t length)
{
	(void)volume;
	(void)offset;
	(void)length;
	return VOLUME_PEEK_ZERO;
}

const struct volume_ops null_volume_ops = {
	.kind = "null",
	.open = null_open,
	.check = null_check,
	.submit = null_submit,
	.peek = null_peek,
	.close = null_close,
};
