/* Messages, notices and wakes, from other threads: in order, and a core that sleeps wakes up. */
#include "tests/sim/sim_run.h"

#include <inttypes.h>

void
messages_on_deliver(struct message *message)
{
	struct sim_message *sim_message = container_of(message, struct sim_message, message);
	uint64_t slept_ns = kernel_sim_slept_ns() - sim_message->posted_slept_ns;
	uint64_t slept_ns_max = WAKE_NS_MAX;

	turns_enter(PLACE_CALLBACK);
	SIM_CHECK(sim_message->posted);
	SIM_CHECK(sim_message->order == ++run.delivered); /* oldest first, whoever sent it */
	SIM_CHECK(run.turn - sim_message->posted_turn <= 1);
	if (run.config.manner.no_slot > 0) /* the wake-up may be one that found none */
		slept_ns_max +=
			(KERNEL_SIM_NO_SLOT_RUN + 1) * (KERNEL_SIM_NO_SLOT_NS + KERNEL_SIM_LATE_NS);
	if (slept_ns > slept_ns_max)
		kernel_sim_fail("a message waited %" PRIu64 " ns for a core that slept", slept_ns);
	sim_message->posted = false;
	run.idle_messages[run.idle_message_count++] = sim_message;
	if (sim_message->pump) {
		polls_cancel_dead();
		ops_start_some(&run.disk, (unsigned)kernel_sim_below(8));
		ops_start_some(&run.polls, (unsigned)kernel_sim_below(4));
	}
	turns_leave();
}

void
messages_on_notice(struct notice *notice, uint32_t bits)
{
	struct sim_notice *sim_notice = container_of(notice, struct sim_notice, notice);
	uint64_t slept_ns_max = WAKE_NS_MAX;

	turns_enter(PLACE_CALLBACK);
	SIM_CHECK(bits != 0 && bits == sim_notice->pending);
	SIM_CHECK(run.turn - sim_notice->posted_turn <= 1);
	if (run.config.manner.no_slot > 0)
		slept_ns_max +=
			(KERNEL_SIM_NO_SLOT_RUN + 1) * (KERNEL_SIM_NO_SLOT_NS + KERNEL_SIM_LATE_NS);
	SIM_CHECK(kernel_sim_slept_ns() - sim_notice->posted_slept_ns <= slept_ns_max);
	sim_notice->pending = 0;
	run.noticed++;
	polls_cancel_dead();
	ops_start_some(&run.disk, (unsigned)kernel_sim_below(8));
	turns_leave();
}

void
messages_notify(void)
{
	struct sim_notice *sim_notice = &run.notices[kernel_sim_below(NOTICES)];
	uint32_t bits = (uint32_t)1 << kernel_sim_below(32) | (uint32_t)1 << kernel_sim_below(32);

	if (sim_notice->pending == 0) {
		sim_notice->posted_turn = run.counters->turns;
		sim_notice->posted_slept_ns = kernel_sim_slept_ns();
		run.notified++;
	}
	sim_notice->pending |= bits;
	run.calling = true;
	reactor_notify(run.reactor, &sim_notice->notice, bits);
	run.calling = false;
}

void
messages_wake(void)
{
	run.wakes++;
	run.wake_sure = run.wake_maybe = true;
	run.wake_turn = run.counters->turns;
	run.wake_slept_ns = kernel_sim_slept_ns();
	run.calling = true;
	reactor_wake(run.reactor);
	run.calling = false;
}

void
messages_send(bool acts_pump)
{
	struct sim_message *sim_message;

	if (run.idle_message_count == 0)
		return;
	sim_message = run.idle_messages[--run.idle_message_count];
	sim_message->pump = acts_pump;
	sim_message->posted = true;
	sim_message->order = ++run.sent;
	sim_message->posted_turn = run.counters->turns;
	sim_message->posted_slept_ns = kernel_sim_slept_ns();
	run.calling = true;
	reactor_send(run.reactor, &sim_message->message);
	run.calling = false;
}
