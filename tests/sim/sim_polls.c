/* Polls: of what becomes ready, of what never does, and of sockets; cancelled and abandoned. */
#include "tests/sim/sim_run.h"

#include <errno.h>
#include <poll.h>

#define REVIVE_NS_MAX \
	(2 * MS) /* until a dead fd is ready for once, when a poll of it was abandoned */
#define CANCEL_AGE_NS (3 * MS) /* a poll of a dead fd is cancelled at the next pump */

void
polls_prepare(struct sim_op *sim_op)
{
	if (kernel_sim_below(4) == 0) {
		/* Its peer may be silent for ever, as a dead fd is. */
		sim_op->dead = true;
		sim_op->socket = &run.connections[kernel_sim_below(SOCKETS)];
		sim_op->fd = sim_op->socket->fd;
		op_poll(&sim_op->op, sim_op->fd, kernel_sim_below(2) == 0 ? POLLIN : POLLOUT);
		return;
	}
	sim_op->dead = kernel_sim_below(4) == 0;
	sim_op->fd = sim_op->dead ? run.dead_fds[kernel_sim_below(DEAD_FDS)]
				  : run.live_fds[kernel_sim_below(LIVE_FDS)];
	op_poll(&sim_op->op, sim_op->fd, kernel_sim_below(2) == 0 ? POLLIN : POLLOUT);
}

void
polls_cancel(struct sim_op *sim_op)
{
	if (sim_op->stage == STAGE_QUEUED) {
		sim_op->expected = -ECANCELED;
		ops_set_stage(sim_op, STAGE_LOCAL);
	}
	sim_op->cancelled = true;
	run.calling = true;
	reactor_cancel_poll(run.reactor, &sim_op->op);
	run.calling = false;
}

/* A dead fd is ready until nothing abandoned is armed on it. */
static void
revive(void *context)
{
	unsigned i = (unsigned)(uintptr_t)context;
	int fd = FIRST_FD + (int)i;

	if (run.reactor == NULL)
		return;
	kernel_sim_set_ready(fd, run.stale_on[i] > 0 ? POLLIN | POLLOUT : 0);
	if (run.stale_on[i] > 0)
		kernel_sim_at(KERNEL_SIM_WORKER_NS, revive, context);
}

void
polls_abandon(struct sim_op *sim_op)
{
	enum stage stage = sim_op->stage;
	unsigned fd = (unsigned)(sim_op->fd - FIRST_FD);

	if (stage == STAGE_KERNEL) {
		run.stale_to_come++;
		run.stale_on[fd]++;
		if (sim_op->dead && sim_op->socket == NULL)
			kernel_sim_at(kernel_sim_below(REVIVE_NS_MAX), revive,
				      (void *)(uintptr_t)fd);
	} else if (stage == STAGE_EVENT && sim_op->op.state == OP_STATE_SUBMITTED) {
		run.stale++; /* the event is in the ring, and the reactor has not looked */
	}
	if (sim_op->stage_turn < run.turn && (stage == STAGE_EVENT || stage_local(stage))) {
		run.ready_start[sim_op->op.priority] -= run.ready_start[sim_op->op.priority] > 0;
		run.due -= run.due > 0;
	}
	if (stage == STAGE_EVENT || stage_local(stage))
		run.forgotten_turn = run.counters->turns;
	run.calling = true;
	reactor_abandon(run.reactor, &sim_op->op);
	run.calling = false;
	SIM_CHECK(op_idle(&sim_op->op));
	if (stage == STAGE_IDLE)
		return;
	run.abandoned++;
	ops_become_idle(sim_op);
}

void
polls_cancel_dead(void)
{
	for (unsigned i = 0; i < run.polls.count; i++) {
		struct sim_op *sim_op = &run.polls.ops[i];

		if (sim_op->stage != STAGE_IDLE && sim_op->dead && !sim_op->cancelled &&
		    (run.over || kernel_sim_now_ns() - sim_op->submitted_ns > CANCEL_AGE_NS))
			polls_cancel(sim_op);
	}
}
