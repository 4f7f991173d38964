/* reactor/signal_watch.h with real signals: each is told once, also to a reactor that sleeps or is busy. */
#include "tests/unit/reactor_fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "reactor/signal_watch.h"

#define NOTED_MAX 4096

static struct signal_watch watch;
static struct signalfd_siginfo noted[NOTED_MAX];
static unsigned noted_count; /* atomic */
static unsigned stopped_count;

static const int usual[] = { SIGUSR1, SIGUSR2, SIGTERM };

static void
note_signal(struct signal_watch *of, const struct signalfd_siginfo *info)
{
	unsigned index = __atomic_load_n(&noted_count, __ATOMIC_RELAXED);

	cr_assert_eq(of, &watch);
	cr_assert_not(submitting);
	noted[index % NOTED_MAX] = *info;
	__atomic_store_n(&noted_count, index + 1, __ATOMIC_RELEASE);
}

/* It is the owner's again: whatever still used it would see rubbish. */
static void
note_stopped(struct signal_watch *of)
{
	cr_assert_eq(of, &watch);
	cr_assert_not(submitting);
	memset(of, 0xff, sizeof(*of));
	stopped_count++;
}

/* A test's process has no other thread that they would have to be blocked in. */
static void
fixture_init(void)
{
	reactor_fixture_init();
	cr_assert_eq(signal_watch_block(usual, ARRAY_COUNT(usual)), 0);
}

TestSuite(signal_watch, .init = fixture_init, .fini = reactor_fixture_fini, .timeout = 60);

static void
start(const int *signals, unsigned count)
{
	submitting = true;
	cr_assert_eq(signal_watch_start(&watch, reactor, signals, count, note_signal), 0);
	submitting = false;
}

static void
start_usual(void)
{
	start(usual, ARRAY_COUNT(usual));
}

static void
turn_until_noted(unsigned count)
{
	uint64_t until_ns = kernel_clock_ns() + PATIENCE_NS;

	while (noted_count < count) {
		cr_assert_lt(kernel_clock_ns(), until_ns, "%u signals", noted_count);
		if (!reactor_turn(reactor))
			usleep(100);
	}
	cr_assert_eq(noted_count, count);
}

static void
stop(void)
{
	uint64_t until_ns = kernel_clock_ns() + PATIENCE_NS;

	submitting = true;
	signal_watch_stop(&watch, note_stopped);
	submitting = false;
	cr_assert_eq(stopped_count, 0);
	while (stopped_count == 0) {
		cr_assert_lt(kernel_clock_ns(), until_ns);
		reactor_turn(reactor);
	}
	turn_for_a_while();
	cr_assert_eq(stopped_count, 1);
}

/* Any thread. */
static void
raise_signal(int number)
{
	CHECK(kill(getpid(), number) == 0);
}

static bool
is_pending(int number)
{
	sigset_t set;

	cr_assert_eq(sigpending(&set), 0);
	return sigismember(&set, number) == 1;
}

/* ---- signals ---- */

Test(signal_watch, signal_is_told_with_its_sender)
{
	start_usual();
	turn_for_a_while();
	cr_assert_eq(noted_count, 0);
	raise_signal(SIGUSR1);
	turn_until_noted(1);
	cr_assert_eq(noted[0].ssi_signo, SIGUSR1);
	cr_assert_eq((pid_t)noted[0].ssi_pid, getpid());
	cr_assert_eq(noted[0].ssi_uid, getuid());
	stop();
}

Test(signal_watch, signal_that_is_pending_already_is_told)
{
	raise_signal(SIGTERM);
	start_usual();
	cr_assert_eq(noted_count, 0);
	turn_until_noted(1);
	cr_assert_eq(noted[0].ssi_signo, SIGTERM);
	stop();
}

Test(signal_watch, several_signals_are_each_told)
{
	unsigned seen = 0;

	start_usual();
	for (unsigned i = 0; i < ARRAY_COUNT(usual); i++)
		raise_signal(usual[i]);
	turn_until_noted(ARRAY_COUNT(usual));
	for (unsigned i = 0; i < ARRAY_COUNT(usual); i++)
		seen |= 1u << noted[i].ssi_signo;
	cr_assert_eq(seen, 1u << SIGUSR1 | 1u << SIGUSR2 | 1u << SIGTERM);
	stop();
}

Test(signal_watch, one_after_the_other_is_told)
{
	start_usual();
	for (unsigned i = 0; i < 200; i++) {
		raise_signal(usual[i % ARRAY_COUNT(usual)]);
		turn_until_noted(i + 1);
		cr_assert_eq((int)noted[i].ssi_signo, usual[i % ARRAY_COUNT(usual)]);
	}
	stop();
}

Test(signal_watch, equal_signals_that_are_pending_are_one)
{
	start_usual();
	turn_for_a_while();
	for (unsigned i = 0; i < 10; i++)
		raise_signal(SIGUSR1);
	turn_until_noted(1);
	turn_for_a_while();
	cr_assert_eq(noted_count, 1);
	stop();
}

#define QUEUED 100

Test(signal_watch, real_time_signals_are_each_told_in_order_some_a_turn)
{
	const int signals[] = { SIGRTMIN + 1 };
	unsigned before, most = 0;

	cr_assert_eq(signal_watch_block(signals, 1), 0);
	for (int i = 0; i < QUEUED; i++)
		cr_assert_eq(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){ .sival_int = i }), 0);
	start(signals, 1);
	while (noted_count < QUEUED) {
		before = noted_count;
		reactor_turn(reactor);
		most = noted_count - before > most ? noted_count - before : most;
	}
	cr_assert_leq(most, 32); /* a message's and a task's share */
	for (int i = 0; i < QUEUED; i++)
		cr_assert_eq(noted[i].ssi_int, i);
	stop();
}

Test(signal_watch, signals_that_are_not_asked_for_stay_pending)
{
	const int signals[] = { SIGUSR1 };

	start(signals, 1);
	raise_signal(SIGUSR2);
	turn_for_a_while();
	cr_assert_eq(noted_count, 0);
	cr_assert(is_pending(SIGUSR2));
	stop();
}

/* ---- waking ---- */

#define WAKES 50

static void *
send_when_asleep(void *argument)
{
	for (unsigned i = 0; i < WAKES; i++) {
		wait_for_sleep(i);
		raise_signal(usual[i % ARRAY_COUNT(usual)]);
		while (__atomic_load_n(&noted_count, __ATOMIC_ACQUIRE) == i)
			usleep(100);
	}
	reactor_stop(reactor);
	return argument;
}

Test(signal_watch, signal_wakes_a_sleeping_reactor)
{
	pthread_t thread;

	start_usual();
	cr_assert_eq(pthread_create(&thread, NULL, send_when_asleep, NULL), 0);
	reactor_run(reactor);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(noted_count, WAKES);
}

#define SENT_WHILE_BUSY 5000

static bool all_sent; /* atomic */

/* Each is sent when the one before was told: one that is lost is missed for good. */
static void *
send_while_busy(void *argument)
{
	for (unsigned i = 0; i < SENT_WHILE_BUSY; i++) {
		raise_signal(SIGUSR1);
		while (__atomic_load_n(&noted_count, __ATOMIC_ACQUIRE) == i)
			;
	}
	__atomic_store_n(&all_sent, true, __ATOMIC_RELEASE);
	return argument;
}

/* What loses signals where a signalfd is polled on the ring: many polls being armed when one comes. */
Test(signal_watch, no_signal_is_lost_while_polls_are_armed)
{
	struct test_op polls[POLL_SLOTS];
	uint64_t until_ns = kernel_clock_ns() + PATIENCE_NS;
	int fd = eventfd(1, EFD_CLOEXEC);
	pthread_t thread;

	for (unsigned i = 0; i < POLL_SLOTS; i++)
		test_op_init(&polls[i]);
	start_usual();
	cr_assert_eq(pthread_create(&thread, NULL, send_while_busy, NULL), 0);
	while (!__atomic_load_n(&all_sent, __ATOMIC_ACQUIRE)) {
		cr_assert_lt(kernel_clock_ns(), until_ns, "lost after %u", noted_count);
		for (unsigned i = 0; i < POLL_SLOTS; i++) {
			if (!op_idle(&polls[i].op))
				continue;
			op_poll(&polls[i].op, fd, POLLIN);
			submit(&polls[i]);
		}
		reactor_turn(reactor);
	}
	cr_assert_eq(pthread_join(thread, NULL), 0);
	cr_assert_eq(noted_count, SENT_WHILE_BUSY);
	turn_until_idle();
	stop();
	close(fd);
}

/* ---- stop ---- */

Test(signal_watch, stopped_gives_all_back_and_can_start_again)
{
	unsigned fds = process_fds();

	for (unsigned i = 0; i < 5; i++) {
		start_usual();
		cr_assert_eq(process_fds(), fds + 2);
		if (i % 2 == 0)
			turn_for_a_while();
		stop();
		stopped_count = 0;
		cr_assert_eq(process_fds(), fds);
	}
}

Test(signal_watch, stopped_leaves_signals_pending)
{
	start_usual();
	turn_for_a_while();
	raise_signal(SIGUSR1);
	usleep(20000); /* the helper has sent its message */
	stop();
	cr_assert_eq(noted_count, 0);
	cr_assert(is_pending(SIGUSR1));
	raise_signal(SIGUSR2);
	turn_for_a_while();
	cr_assert_eq(noted_count, 0);
	cr_assert(is_pending(SIGUSR2));
}

static void
stop_at_once(struct signal_watch *of, const struct signalfd_siginfo *info)
{
	note_signal(of, info);
	signal_watch_stop(of, note_stopped);
}

Test(signal_watch, stopped_by_a_signal_leaves_the_others_pending)
{
	raise_signal(SIGUSR1);
	raise_signal(SIGUSR2);
	cr_assert_eq(signal_watch_start(&watch, reactor, usual, ARRAY_COUNT(usual), stop_at_once),
		     0);
	while (stopped_count == 0)
		reactor_turn(reactor);
	turn_for_a_while();
	cr_assert_eq(noted_count, 1);
	cr_assert_eq(stopped_count, 1);
	cr_assert_neq(is_pending(SIGUSR1), is_pending(SIGUSR2));
}

Test(signal_watch, stopped_while_more_is_deferred)
{
	const int signals[] = { SIGRTMIN + 1 };
	unsigned told;

	cr_assert_eq(signal_watch_block(signals, 1), 0);
	for (int i = 0; i < QUEUED; i++)
		cr_assert_eq(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){ .sival_int = i }), 0);
	start(signals, 1);
	while (noted_count == 0)
		reactor_turn(reactor);
	told = noted_count;
	stop();
	cr_assert_lt(told, QUEUED);
	cr_assert_eq(noted_count, told);
	cr_assert(is_pending(SIGRTMIN + 1));
}

/* ---- what is refused ---- */

static void
assert_refused(const int *signals, unsigned count)
{
	cr_assert_eq(signal_watch_start(&watch, reactor, signals, count, note_signal), -EINVAL);
}

Test(signal_watch, invalid_arguments_are_refused)
{
	static const int no_signals[] = { 0, -1, 65, 1000, SIGKILL, SIGSTOP };
	int many[SIGNAL_WATCH_SIGNALS_MAX + 1];
	unsigned fds = process_fds();

	for (unsigned i = 0; i < ARRAY_COUNT(many); i++)
		many[i] = SIGUSR1;
	for (unsigned i = 0; i < ARRAY_COUNT(no_signals); i++) {
		cr_assert_eq(signal_watch_block(&no_signals[i], 1), -EINVAL);
		assert_refused(&no_signals[i], 1);
	}
	assert_refused(NULL, 1);
	assert_refused(usual, 0);
	assert_refused(many, ARRAY_COUNT(many));
	cr_assert_eq(signal_watch_block(NULL, 1), -EINVAL);
	cr_assert_eq(signal_watch_block(usual, 0), -EINVAL);
	cr_assert_eq(signal_watch_start(NULL, reactor, usual, 1, note_signal), -EINVAL);
	cr_assert_eq(signal_watch_start(&watch, NULL, usual, 1, note_signal), -EINVAL);
	cr_assert_eq(signal_watch_start(&watch, reactor, usual, 1, NULL), -EINVAL);
	cr_assert_eq(process_fds(), fds);
	start(many, SIGNAL_WATCH_SIGNALS_MAX);
	raise_signal(SIGUSR1);
	turn_until_noted(1);
	stop();
}

Test(signal_watch, signal_that_is_not_blocked_is_refused)
{
	const int signals[] = { SIGUSR1, SIGHUP };

	assert_refused(signals, 2);
	cr_assert_eq(signal_watch_block(&signals[1], 1), 0);
	start(signals, 2);
	raise_signal(SIGHUP);
	turn_until_noted(1);
	cr_assert_eq(noted[0].ssi_signo, SIGHUP);
	stop();
}

Test(signal_watch, block_of_a_bad_set_blocks_nothing)
{
	const int signals[] = { SIGHUP, SIGKILL };
	sigset_t blocked;

	cr_assert_eq(signal_watch_block(signals, 2), -EINVAL);
	cr_assert_eq(pthread_sigmask(SIG_BLOCK, NULL, &blocked), 0);
	cr_assert_eq(sigismember(&blocked, SIGHUP), 0);
}

Test(signal_watch, no_descriptor_is_an_error)
{
	for (unsigned more = 0; more < 2; more++) {
		limit_fds(more);
		cr_assert_eq(signal_watch_start(&watch, reactor, usual, 1, note_signal), -EMFILE);
	}
	limit_fds(2);
	start_usual();
	stop();
}

Test(signal_watch, no_thread_is_an_error)
{
	unsigned fds = process_fds();
	pthread_attr_t attributes;
	sigset_t blocked;

	cr_assert_eq(pthread_attr_init(&attributes), 0);
	cr_assert_eq(pthread_attr_setstacksize(&attributes, (size_t)1 << 47), 0);
	cr_assert_eq(pthread_setattr_default_np(&attributes), 0);
	cr_assert_eq(signal_watch_start(&watch, reactor, usual, 1, note_signal), -EAGAIN);
	cr_assert_eq(process_fds(), fds);
	cr_assert_eq(pthread_sigmask(SIG_BLOCK, NULL, &blocked), 0);
	cr_assert_eq(sigismember(&blocked, SIGHUP), 0, "the mask is as it was");
	pthread_attr_destroy(&attributes);
}
