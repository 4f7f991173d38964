/* Operations of all kinds, from submission to done: each goes through its stages once, in order within its class, and ends with what the
 * kernel said. */
#include "tests/sim/sim_run.h"

#include <errno.h>

#define UNKNOWN_OPCODE 99
#define STRANGER       ((uint64_t)1 << 63) /* the cookie of what the model does not know */
#define OWN_POLLS      4		   /* the wake-up's, and of three parkings */

/* As reactor/op_queue.c has it. */
#define BACKGROUND_PASSED_MAX 8

void
ops_set_stage(struct sim_op *sim_op, enum stage stage)
{
	struct objects *objects = sim_op->objects;

	enum priority class = sim_op->op.priority;

	if (class == PRIORITY_BACKGROUND &&
	    (sim_op->stage == STAGE_QUEUED || objects->queued[class] == 0))
		objects->passed = 0;
	objects->passed += class == PRIORITY_NORMAL && sim_op->stage == STAGE_QUEUED;
	objects->queued[class] += (stage == STAGE_QUEUED);
	objects->queued[class] -= (sim_op->stage == STAGE_QUEUED);
	run.ready[class] += stage_local(stage) || stage == STAGE_EVENT;
	run.ready[class] -= stage_local(sim_op->stage) || sim_op->stage == STAGE_EVENT;
	if (class == PRIORITY_LATENCY) {
		run.latency += stage != STAGE_IDLE;
		run.latency -= sim_op->stage != STAGE_IDLE;
		run.latency_seen = true;
	}
	run.local += stage_local(stage);
	run.local -= stage_local(sim_op->stage);
	sim_op->stage = stage;
	sim_op->stage_turn = run.counters == NULL ? 0 : run.counters->turns;
	sim_op->stage_slept_ns = kernel_sim_slept_ns();
}

/* ---- what the kernel tells ---- */

/* NULL: the reactor's own. */
static struct sim_op *
op_of(struct iocb *iocb)
{
	struct op *op = container_of(iocb, struct op, iocb);
	struct sim_op *sim_op = container_of(op, struct sim_op, op);
	uintptr_t address = (uintptr_t)sim_op, start = (uintptr_t)&run;

	return address >= start && address < start + sizeof(run) ? sim_op : NULL;
}

void
ops_leave_queue(struct sim_op *sim_op, enum stage stage)
{
	struct objects *objects = sim_op->objects;
	enum priority class = sim_op->op.priority;

	SIM_CHECK(sim_op->stage == STAGE_QUEUED);
	SIM_CHECK(sim_op->order > objects->order_taken[class]);
	/* A queued poll may have been cancelled; nothing else goes missing. */
	SIM_CHECK(objects == &run.polls || sim_op->order == objects->order_taken[class] + 1);
	objects->order_taken[class] = sim_op->order;
	/* Higher classes first, and all of them; the latency class's receives and sends also later in the turn.  But of the background one
	 * goes before the normal ones that are left when so many of those have; those of streams are not known here. */
	SIM_CHECK(class >= objects->lowest ||
		  (class == PRIORITY_LATENCY && objects == &run.sockets));
	if (class == PRIORITY_BACKGROUND &&
	    (objects->passed >= BACKGROUND_PASSED_MAX || run.stream_count > 0))
		class = PRIORITY_NORMAL;
	if (class > objects->lowest)
		objects->lowest = class;
	for (unsigned i = 0; i < class; i++)
		SIM_CHECK(objects->queued[i] == 0);
	objects->seen++;
	ops_set_stage(sim_op, stage);
}

/* What the kernel calls it: which operation, which fd and class, and which of its submissions. */
static uint64_t
cookie_make(const struct sim_op *sim_op)
{
	unsigned kind = sim_op->objects->kind, index = (unsigned)(sim_op - sim_op->objects->ops);
	unsigned fd = (unsigned)(sim_op->fd - FIRST_FD);

	return ++run.cookies << 20 | (uint64_t)kind << 18 | (uint64_t)index << 8 |
	       (uint64_t)fd << 2 | sim_op->op.priority;
}

static struct sim_op *
cookie_op(uint64_t cookie)
{
	struct objects *kinds[] = {
		[KERNEL_SIM_KIND_DISK] = &run.disk,
		[KERNEL_SIM_KIND_POLL] = &run.polls,
		[KERNEL_SIM_KIND_SOCKET] = &run.sockets,
	};

	return &kinds[cookie >> 18 & 3]->ops[cookie >> 8 & 1023];
}

uint64_t
ops_on_taken(struct iocb *iocb)
{
	struct sim_op *sim_op = op_of(iocb);
	const struct objects *objects;

	if (sim_op == NULL) {
		SIM_CHECK(kernel_sim_slots_used(KERNEL_SIM_KIND_OWN) <= OWN_POLLS);
		return STRANGER | container_of(iocb, struct op, iocb)->priority;
	}
	objects = sim_op->objects;
	SIM_CHECK(kernel_sim_slots_used(objects->kind) < objects->slots);
	SIM_CHECK(sim_op->op.priority != PRIORITY_BACKGROUND ||
		  kernel_sim_slots_used_by(objects->kind, PRIORITY_BACKGROUND) <
			  objects->background_slots);
	turns_check_batch(sim_op->objects, sim_op->op.priority);
	ops_leave_queue(sim_op, STAGE_KERNEL);
	sim_op->cookie = cookie_make(sim_op);
	return sim_op->cookie;
}

void
ops_on_refused(struct iocb *iocb, int error)
{
	struct sim_op *sim_op = op_of(iocb);

	if (sim_op == NULL)
		return;
	ops_leave_queue(sim_op, STAGE_REFUSED);
	/* The reactor's word for something that can't be polled. */
	sim_op->expected = sim_op->objects == &run.polls && error == -EINVAL ? -EOPNOTSUPP : error;
}

void
ops_on_completed(uint64_t cookie, long result)
{
	struct sim_op *sim_op;

	if ((cookie & STRANGER) != 0)
		return;
	sim_op = cookie_op(cookie);
	if (sim_op->cookie != cookie) {
		SIM_CHECK(run.stale_to_come > 0);
		run.stale++;
		run.stale_to_come--;
		run.stale_on[cookie >> 2 & 63]--;
		return;
	}
	SIM_CHECK(sim_op->stage == STAGE_KERNEL);
	ops_set_stage(sim_op, STAGE_EVENT);
	sim_op->expected = result;
	sim_op->event_order = ++run.event_order[sim_op->op.priority];
}

/* ---- done ---- */

void
ops_become_idle(struct sim_op *sim_op)
{
	struct objects *objects = sim_op->objects;

	run.done++;
	sim_op->cookie = 0;
	ops_set_stage(sim_op, STAGE_IDLE);
	objects->idle[objects->idle_count++] = sim_op;
}

void
ops_on_done(struct op *op, long result)
{
	struct sim_op *sim_op = container_of(op, struct sim_op, op);
	struct objects *objects = sim_op->objects;

	turns_enter(PLACE_CALLBACK);
	SIM_CHECK(op_idle(op));
	turns_check_prompt(sim_op);
	turns_check_shares(op->priority);
	if (op->priority == PRIORITY_LATENCY)
		run.latency_done_ns = kernel_sim_now_ns();
	SIM_CHECK(result == sim_op->expected);
	SIM_CHECK(kernel_sim_now_ns() - sim_op->submitted_ns <= objects->age_ns_max);
	if (objects == &run.disk && sim_op->stage == STAGE_EVENT &&
	    op->iocb.aio_lio_opcode == IO_CMD_PREAD)
		disk_check_read(sim_op, result);
	if (objects == &run.sockets)
		sockets_done(sim_op, result);
	/* A dead fd comes alive only by a cancel that is too late. */
	if (objects == &run.polls && sim_op->stage == STAGE_EVENT && sim_op->socket == NULL &&
	    (sim_op->dead || kernel_sim_below(2) == 0))
		kernel_sim_set_ready(sim_op->fd, 0);
	ops_become_idle(sim_op);
	turns_leave();
}

/* ---- submission ---- */

void
ops_submit(struct sim_op *sim_op)
{
	const unsigned *queued = sim_op->objects->queued;
	enum priority class = sim_op->op.priority;

	if (run.sizes.waiting_max != 0 &&
	    queued[PRIORITY_LATENCY] + queued[PRIORITY_NORMAL] + queued[PRIORITY_BACKGROUND] >=
		    run.sizes.waiting_max) {
		sim_op->expected = -ENOBUFS;
		if (sim_op->objects == &run.sockets) {
			sim_op->socket->in_use--;
			sim_op->socket->sending &= !sim_op->send;
		}
		ops_set_stage(sim_op, STAGE_LOCAL);
	} else {
		sim_op->order = ++sim_op->objects->order[class];
		ops_set_stage(sim_op, STAGE_QUEUED);
	}
	run.calling = true;
	reactor_start(run.reactor, &sim_op->op);
	run.calling = false;
}

enum priority
ops_random_priority(void)
{
	unsigned sum = 0, choice;

	for (unsigned i = 0; i < PRIORITY_COUNT; i++)
		sum += run.weights[i];
	choice = (unsigned)kernel_sim_below(sum);
	for (unsigned i = 0; i < PRIORITY_COUNT; i++) {
		if (choice < run.weights[i])
			return (enum priority)i;
		choice -= run.weights[i];
	}
	return PRIORITY_NORMAL;
}

struct sim_op *
ops_take_idle(struct objects *objects)
{
	unsigned i = (unsigned)kernel_sim_below(objects->idle_count);
	struct sim_op *sim_op = objects->idle[i];

	objects->idle[i] = objects->idle[--objects->idle_count];
	SIM_CHECK(sim_op->stage == STAGE_IDLE);
	sim_op->submitted_ns = kernel_sim_now_ns();
	sim_op->cancelled = sim_op->dead = false;
	sim_op->socket = NULL;
	sim_op->op.priority = ops_random_priority();
	run.started++;
	return sim_op;
}

static void
start_one(struct objects *objects)
{
	struct sim_op *sim_op = ops_take_idle(objects);

	if (objects == &run.disk)
		disk_prepare(sim_op);
	else if (objects == &run.polls)
		polls_prepare(sim_op);
	else
		sockets_prepare(sim_op);
	if (run.config.manner.refused > 0 && kernel_sim_below(128) == 0)
		sim_op->op.iocb.aio_fildes = -1;
	else if (run.config.manner.refused > 0 && objects == &run.disk &&
		 kernel_sim_below(128) == 0)
		sim_op->op.iocb.aio_lio_opcode = UNKNOWN_OPCODE;
	ops_submit(sim_op);
}

void
ops_start_some(struct objects *objects, unsigned count)
{
	while (count-- > 0 && !run.over && objects->idle_count > 0 && run.started < run.ops_max)
		start_one(objects);
}

void
ops_complete_one(struct objects *objects)
{
	struct sim_op *sim_op;

	if (run.over || objects->idle_count == 0)
		return;
	sim_op = ops_take_idle(objects);
	sim_op->expected = (long)kernel_sim_below(1000) - 500;
	ops_set_stage(sim_op, STAGE_LOCAL);
	run.calling = true;
	reactor_complete(run.reactor, &sim_op->op, sim_op->expected);
	run.calling = false;
}
