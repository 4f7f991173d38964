/* A file's share of a core's disk slots: a device that has stopped answering keeps what it has, so nobody may ever have all.
 * Where somebody has FREE_TIMES as many under way as there are free slots, the next is held until one of them is done.  So one file
 * alone gets three quarters of the slots, two get three sevenths each, and there are always some for one more.
 * Writes come here with their range locked: one that waits for a range would keep a place in which it does nothing.
 * Source: A. Choudhury, E. Hahne, "Dynamic queue length thresholds for shared-memory packet switches". */
#include "disk/file_volume.h"

#define FREE_TIMES 3u

void
file_share_init(struct file_core *home)
{
	for (unsigned i = 0; i < PRIORITY_COUNT; i++) {
		list_init(&home->held[i]);
		home->under_way[i] = 0;
	}
}

/* Whether one more like REQUEST may begin.  The first always may, so that there is an end for those behind it to wait for. */
static bool
has_room(const struct volume_request *request)
{
	return file_core_of(request)->under_way[request->priority] <=
	       FREE_TIMES * reactor_free_slots_of(request->core->reactor, OP_KIND_DISK,
						  request->priority);
}

void
file_share_enter(struct volume_request *request)
{
	struct file_core *home = file_core_of(request);
	struct list_node *held = &home->held[request->priority];

	if (!list_empty(held) || !has_room(request)) {
		list_append(held, &request->op.node);
		return;
	}
	home->under_way[request->priority]++;
	file_begin(request);
}

void
file_finish(struct volume_request *request, int error)
{
	struct file_core *home = file_core_of(request);
	enum priority priority = request->priority;
	struct list_node *held = &home->held[priority];

	home->under_way[priority]--;
	while (!list_empty(held) && has_room(request)) {
		struct list_node *node = list_take_first(held);

		home->under_way[priority]++;
		file_begin(container_of(node, struct volume_request, op.node));
	}
	volume_finish(request, error);
}
