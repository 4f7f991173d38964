/* The plan of a seed: how bad the kernel is, the reactor's sizes, when which phase begins; and the world of it. */
#include "tests/sim/sim_run.h"

static unsigned
rate(unsigned most)
{
	return kernel_sim_below(3) == 0 ? 0 : (unsigned)kernel_sim_below(most);
}

static unsigned
random_slots(void)
{
	static const unsigned sizes[] = { 1, 2, 3, 8, 33, 64, SLOTS_MAX };

	return 1 + (unsigned)kernel_sim_below(sizes[kernel_sim_below(ARRAY_COUNT(sizes))]);
}

static void
plan_manner(struct kernel_sim_manner *manner)
{
	*manner = (struct kernel_sim_manner){
		.short_submit = rate(20000),
		.no_slot = rate(10000),
		.refused = rate(2000),
		.interrupted = rate(10000),
		.spurious = rate(5000),
		.short_result = rate(10000),
		.error_result = rate(5000),
		.at_once = rate(20000),
		.preempted = rate(3000),
		.cancel_race = rate(30000),
		.echo = rate(1000),
		.disk_ns_max = (uint64_t)1 << (8 + kernel_sim_below(14)),
		.poll_ns_max = (uint64_t)1 << (8 + kernel_sim_below(14)),
	};
	manner->disk_ns_min = kernel_sim_below(manner->disk_ns_max);
}

/* One of four runs has nothing but normal operations, whose done is called at once. */
static void
plan_priorities(void)
{
	run.mixed = kernel_sim_below(4) != 0;
	run.weights[PRIORITY_NORMAL] = 1;
	for (unsigned i = 0; i < PRIORITY_COUNT; i++) {
		if (run.mixed)
			run.weights[i] = (unsigned)kernel_sim_below(8);
		run.sizes.shares[i] =
			1 + (unsigned)kernel_sim_below(kernel_sim_below(2) == 0 ? 4 : 64);
	}
	if (kernel_sim_below(8) == 0)
		run.sizes.waiting_max = 1 + (unsigned)kernel_sim_below(100);
}

void
plan_run(uint64_t seed, uint64_t ops)
{
	static const unsigned spins_us[] = { 0, 0, 5, 20, 60 };

	run.config.seed = seed;
	run.config.ring_spare = (unsigned)kernel_sim_below(kernel_sim_below(2) == 0 ? 2 : 200);
	run.config.ring_unknown = kernel_sim_below(5) == 0;
	plan_manner(&run.config.manner);
	run.sizes.disk_slots = random_slots();
	run.sizes.poll_slots = random_slots();
	run.sizes.socket_batch_min =
		1 + (unsigned)kernel_sim_below(kernel_sim_below(2) == 0 ? 5 : 200);
	plan_priorities();
	run.sizes.poll_us = spins_us[kernel_sim_below(ARRAY_COUNT(spins_us))];
	run.ops_max = ops;
	run.turns_until = kernel_sim_below(ops / 2);
	run.waits_until = run.turns_until + kernel_sim_below((ops - run.turns_until) / 2);
	run.stop_from = run.waits_until + kernel_sim_below(ops - run.waits_until);
	run.stopper = (enum stopper)kernel_sim_below(STOPPER_THREAD + 1);
	run.eagerness = 2 + (unsigned)kernel_sim_below(3);
	run.pump_ns = (uint64_t)1 << (14 + kernel_sim_below(8));
	run.spends = kernel_sim_below(2) == 0;
	run.stream_count = kernel_sim_below(2) == 0 ? 0 : 1 + (unsigned)kernel_sim_below(8);
	if (run.stream_count > 0)
		run.sizes.waiting_max =
			0; /* the model would have to know how many of theirs wait */
	if (kernel_sim_below(2) == 0)
		run.sizes.socket_batch_min = 0; /* never */
}

static void
objects_init(struct objects *objects, struct sim_op *ops, enum kernel_sim_kind kind, unsigned slots,
	     unsigned count)
{
	uint64_t rounds;

	objects->ops = ops;
	objects->slots = slots;
	objects->kind = kind;
	objects->background_slots = (slots + 3) / 4;
	objects->count = 1 + (unsigned)kernel_sim_below(count);
	rounds = objects->count / slots + 1;
	/* Lower classes wait until higher ones leave them a slot. */
	if (run.mixed)
		rounds = objects->count / objects->background_slots * 8 + 8;
	/* A round of all slots takes the slowest operation, a kernel worker, a refusal for want of slots, and the
	 * callbacks of a turn or two. */
	objects->age_ns_max = 100 * MS + rounds * 35 * MS;
	for (unsigned i = 0; i < objects->count; i++) {
		ops[i].objects = objects;
		ops[i].fd = FIRST_FD;
		op_init(&ops[i].op, ops_on_done);
		objects->idle[objects->idle_count++] = &ops[i];
	}
}

void
plan_world(void)
{
	for (unsigned i = 0; i < FILES; i++) {
		run.file_fds[i] = kernel_sim_file(run.files[i], FILE_BYTES);
		for (unsigned j = 0; j < FILE_BYTES; j++)
			run.files[i][j] = disk_content(run.file_fds[i], j);
	}
	for (unsigned i = 0; i < LIVE_FDS; i++)
		run.live_fds[i] = kernel_sim_pollable(true);
	for (unsigned i = 0; i < DEAD_FDS; i++)
		run.dead_fds[i] = kernel_sim_pollable(false);
	for (unsigned i = 0; i < SOCKETS; i++)
		run.connections[i].fd = kernel_sim_socket(SOCKET_ROOM);
	objects_init(&run.disk, run.disk_ops, KERNEL_SIM_KIND_DISK, run.sizes.disk_slots,
		     2 * run.sizes.disk_slots + 8);
	objects_init(&run.polls, run.poll_ops, KERNEL_SIM_KIND_POLL, run.sizes.poll_slots,
		     2 * run.sizes.poll_slots + 8);
	objects_init(&run.sockets, run.socket_ops, KERNEL_SIM_KIND_SOCKET, SOCKET_SLOTS,
		     kernel_sim_below(4) == 0 ? 2 * SOCKET_SLOTS : 16);
	for (unsigned i = 0; i < NOTICES; i++)
		notice_init(&run.notices[i].notice, messages_on_notice);
	for (unsigned i = 0; i < TIMERS; i++)
		timer_init(&run.timers[i].timer, timers_on_expired);
	for (unsigned i = 0; i < TASKS; i++)
		task_init(&run.tasks[i].task, tasks_on_run);
	for (unsigned i = 0; i < MESSAGES; i++) {
		run.messages[i].message.deliver = messages_on_deliver;
		run.idle_messages[run.idle_message_count++] = &run.messages[i];
	}
}
