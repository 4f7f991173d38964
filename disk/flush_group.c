/* Whoever finds no sync running starts one, on its own core, with the operation of one of the flushes that wait; and when that is
 * done the next, if more wait. */
#include "disk/flush_group.h"

static void start_sync(struct flush_group *group, int fd, struct core *core);

static void
on_answer(struct message *message)
{
	struct volume_request *request = container_of(message, struct volume_request, call.message);

	volume_finish(request, request->error);
}

/* The sync that served FIRST and those behind it ended on CORE. */
static void
answer(struct volume_request *first, const struct core *core, int error)
{
	while (first != NULL) {
		struct volume_request *request = first;

		first = request->flush_next;
		if (request->core == core) {
			volume_finish(request, error);
			continue;
		}
		request->error = error;
		request->call.message.deliver = on_answer;
		reactor_send(request->core->reactor, &request->call.message);
	}
}

static void
sync_done(struct op *op, long result)
{
	struct volume_request *first = container_of(op, struct volume_request, op);
	struct flush_group *group = first->flush_group;
	struct core *core = first->flush_core;

	/* The next sync, of any core, may succeed: what it says may not be believed. */
	if (result < 0)
		volume_sync_failed(first);
	__atomic_store_n(&group->running, false, __ATOMIC_SEQ_CST);
	start_sync(group, op->iocb.aio_fildes, core);
	answer(first, core, result < 0 ? (int)result : 0);
}

/* Of those that are served together the most urgent decides. */
static enum priority
priority_of(const struct volume_request *first)
{
	enum priority priority = first->priority;

	for (; first != NULL; first = first->flush_next) {
		if (first->priority < priority)
			priority = first->priority;
	}
	return priority;
}

/* Start a sync on CORE, the caller's, for those that wait, unless one runs or nobody waits. */
static void
start_sync(struct flush_group *group, int fd, struct core *core)
{
	struct volume_request *first;

	do {
		if (__atomic_exchange_n(&group->running, true, __ATOMIC_SEQ_CST))
			return;
		first = __atomic_exchange_n(&group->waiting, NULL, __ATOMIC_SEQ_CST);
		if (first != NULL)
			break;
		__atomic_store_n(&group->running, false, __ATOMIC_SEQ_CST);
	} while (__atomic_load_n(&group->waiting, __ATOMIC_SEQ_CST) != NULL);
	if (first == NULL)
		return;
	first->flush_group = group;
	first->flush_core = core;
	op_init(&first->op, sync_done);
	first->op.priority = priority_of(first);
	op_fdatasync(&first->op, fd);
	reactor_start(core->reactor, &first->op);
}

void
flush_group_submit(struct flush_group *group, int fd, struct volume_request *request)
{
	request->syncing = true;
	request->flush_next = __atomic_load_n(&group->waiting, __ATOMIC_RELAXED);
	while (!__atomic_compare_exchange_n(&group->waiting, &request->flush_next, request, true,
					    __ATOMIC_SEQ_CST, __ATOMIC_RELAXED))
		;
	start_sync(group, fd, request->core);
}
