/* reactor/reactor.h: what a turn does besides operations of the kernel (completion by hand, tasks, the counters), and
 * what is left of a reactor that could not be created or was destroyed. */
#include "tests/unit/reactor_fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

TestSuite(reactor, .init = reactor_fixture_init, .fini = reactor_fixture_fini, .timeout = 60);
/* These make the reactor they need, and end it. */
TestSuite(reactor_create, .timeout = 60);

/* ---- completion by hand, tasks, turns, counters ---- */

Test(reactor, complete_is_done_in_the_next_turn)
{
	struct test_op test_op;

	test_op_init(&test_op);
	submitting = true;
	reactor_complete(reactor, &test_op.op, -EIO);
	submitting = false;
	cr_assert_eq(test_op.done_count, 0);
	cr_assert(reactor_turn(reactor));
	assert_done(&test_op, -EIO);
	turn_until_idle();
	cr_assert_eq(test_op.done_count, 1);
}

static void
complete_again(struct op *op, long result)
{
	done_total++;
	reactor_complete(reactor, op, result + 1);
}

Test(reactor, completed_during_a_turn_waits_for_the_next)
{
	struct test_op test_op;

	test_op_init(&test_op);
	test_op.op.done = complete_again;
	reactor_complete(reactor, &test_op.op, 0);
	for (unsigned i = 1; i <= 3; i++) {
		reactor_turn(reactor);
		cr_assert_eq(done_total, i);
	}
}

/* Appends a letter to what has happened so far. */
static char story[64];

static void
tell(char letter)
{
	size_t length = strlen(story);

	cr_assert_lt(length + 1, sizeof(story));
	story[length] = letter;
}

static void
tell_task(struct task *task)
{
	(void)task;
	tell('t');
}

static struct task task, second_task;

static void
defer_from_done(struct op *op, long result)
{
	(void)op;
	(void)result;
	reactor_defer(reactor, &task);
	reactor_defer(reactor, &task);
	tell('d');
}

static void
defer_from_message(struct message *message)
{
	(void)message;
	reactor_defer(reactor, &task);
	tell('m');
}

static void
defer_from_timer(struct timer *timer)
{
	(void)timer;
	reactor_defer(reactor, &task);
	tell('e');
}

Test(reactor, task_runs_once_at_the_end_of_the_turn)
{
	struct message message = { .deliver = defer_from_message };
	struct timer timer;
	struct op op;

	task_init(&task, tell_task);
	timer_init(&timer, defer_from_timer);
	reactor_timer_start(reactor, &timer, 0);
	op_init(&op, defer_from_done);
	reactor_complete(reactor, &op, 0);
	reactor_send(reactor, &message);
	usleep(1000); /* a timer's tick */
	cr_assert(reactor_turn(reactor));
	cr_assert_str_eq(story, "dmet");
	turn_until_idle();
	cr_assert_eq(strchr(story, 't'), strrchr(story, 't'));
}

Test(reactor, task_deferred_outside_of_a_turn_runs_in_the_next)
{
	task_init(&task, tell_task);
	reactor_defer(reactor, &task);
	cr_assert_str_eq(story, "");
	cr_assert(reactor_turn(reactor));
	cr_assert_str_eq(story, "t");
	cr_assert_not(reactor_turn(reactor));
}

static void
defer_itself(struct task *deferred)
{
	tell('t');
	reactor_defer(reactor, deferred);
}

Test(reactor, task_that_defers_itself_waits_for_the_next_turn)
{
	task_init(&task, defer_itself);
	reactor_defer(reactor, &task);
	for (size_t i = 1; i <= 3; i++) {
		cr_assert(reactor_turn(reactor));
		cr_assert_eq(strlen(story), i);
	}
	task_cancel(&task);
}

Test(reactor, cancelled_task_does_not_run)
{
	task_init(&task, tell_task);
	task_cancel(&task);
	reactor_defer(reactor, &task);
	task_cancel(&task);
	task_cancel(&task);
	cr_assert_not(reactor_turn(reactor));
	cr_assert_str_eq(story, "");
}

static void
cancel_second(struct task *first)
{
	(void)first;
	task_cancel(&second_task);
}

Test(reactor, task_can_cancel_another_of_its_turn)
{
	task_init(&task, cancel_second);
	task_init(&second_task, tell_task);
	reactor_defer(reactor, &task);
	reactor_defer(reactor, &second_task);
	turn_until_idle();
	cr_assert_str_eq(story, "");
}

Test(reactor, turn_with_nothing_to_do_says_so)
{
	cr_assert_not(reactor_turn(reactor));
	cr_assert_not(reactor_turn(reactor));
}

static void
tell_message(struct message *message)
{
	(void)message;
	tell('m');
}

Test(reactor, counters_move)
{
	const struct reactor_counters *counters = reactor_counters(reactor);
	struct reactor_counters before = *counters;
	struct message message = { .deliver = tell_message };
	struct test_op test_op, bad;
	int fd = open_file();

	submit_read(&test_op, fd, buffers[0], BLOCK, 0);
	submit_read(&bad, -1, buffers[1], BLOCK, 0);
	reactor_send(reactor, &message);
	turn_until_done(2);
	cr_assert_gt(counters->turns, before.turns);
	cr_assert_eq(counters->submit_calls, before.submit_calls + 2);
	cr_assert_eq(counters->ops_submitted, before.ops_submitted + 1);
	cr_assert_eq(counters->ops_refused, before.ops_refused + 1);
	cr_assert_eq(counters->events, before.events + 1);
	cr_assert_eq(counters->messages, before.messages + 1);
	cr_assert_eq(counters->sleeps, before.sleeps);
	close(fd);
}

Test(reactor, one_call_submits_all_that_is_queued)
{
	const struct reactor_counters *counters = reactor_counters(reactor);
	uint64_t before = counters->submit_calls;
	struct test_op reads[DISK_SLOTS], polls[POLL_SLOTS];
	int fd = open_file(), fds[2];

	make_pipe(fds);
	for (unsigned i = 0; i < DISK_SLOTS; i++)
		submit_read(&reads[i], fd, buffers[i], BLOCK, 0);
	for (unsigned i = 0; i < POLL_SLOTS; i++)
		submit_poll(&polls[i], fds[1], POLLOUT);
	reactor_turn(reactor);
	cr_assert_eq(counters->submit_calls, before + 1);
	turn_until_done(DISK_SLOTS + POLL_SLOTS);
	close_pipe(fds);
	close(fd);
}

/* ---- creation ---- */

Test(reactor_create, without_slots_is_refused)
{
	struct reactor_config config = { .disk_slots = 0, .poll_slots = 8 };

	assert_create_fails(&config, -EINVAL);
	config = (struct reactor_config){ .disk_slots = 8, .poll_slots = 0 };
	assert_create_fails(&config, -EINVAL);
}

/* The sum of these is a small number in an unsigned. */
Test(reactor_create, more_slots_than_there_can_be_are_refused)
{
	static const unsigned too_many[] = { REACTOR_SLOTS_MAX + 1, 1u << 31, UINT_MAX - 100,
					     UINT_MAX };

	for (unsigned i = 0; i < ARRAY_COUNT(too_many); i++) {
		struct reactor_config config = { .disk_slots = too_many[i], .poll_slots = 8 };

		assert_create_fails(&config, -EINVAL);
		config.poll_slots = too_many[i];
		assert_create_fails(&config, -EINVAL);
		config.disk_slots = 8;
		assert_create_fails(&config, -EINVAL);
	}
}

Test(reactor_create, nothing_is_refused)
{
	const struct reactor_config config = { .disk_slots = 8, .poll_slots = 8 };

	assert_create_fails(NULL, -EINVAL);
	cr_assert_eq(reactor_create(&config, NULL), -EINVAL);
	cr_assert_eq(process_contexts(), 0);
}

Test(reactor_create, without_a_file_descriptor_is_refused)
{
	const struct reactor_config config = { .disk_slots = 8, .poll_slots = 8 };
	struct reactor *unchanged = (struct reactor *)&unchanged, *result = unchanged;
	struct rlimit limit, none;

	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
	none = limit;
	none.rlim_cur = 0;
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &none), 0);
	cr_assert_eq(reactor_create(&config, &result), -EMFILE);
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
	cr_assert_eq(result, unchanged);
	cr_assert_eq(process_contexts(), 0);
}

Test(reactor_create, destroy_leaves_nothing)
{
	unsigned fds = process_fds();

	for (unsigned i = 0; i < 5; i++) {
		reactor_fixture_init();
		reactor_turn(reactor);
		reactor_destroy(reactor);
	}
	cr_assert_eq(process_fds(), fds);
	cr_assert_eq(process_contexts(), 0);
}

Test(reactor_create, destroy_drops_polls_and_messages)
{
	struct message message = { .deliver = tell_message };
	struct test_op armed, queued;
	int fds[2];

	reactor_fixture_init();
	make_pipe(fds);
	submit_poll(&armed, fds[0], POLLIN);
	turn_for_a_while();
	submit_poll(&queued, fds[0], POLLIN);
	reactor_send(reactor, &message);
	reactor_destroy(reactor);
	write_byte(fds[1]);
	cr_assert_eq(done_total, 0);
	cr_assert_str_eq(story, "");
	cr_assert_eq(process_contexts(), 0);
	close_pipe(fds);
}
