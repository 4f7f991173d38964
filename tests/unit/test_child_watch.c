/* reactor/child_watch.h with real children: how each ended is told once. */
#include "tests/unit/reactor_fixture.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "reactor/child_watch.h"

TestSuite(child_watch, .init = reactor_fixture_init, .fini = reactor_fixture_fini, .timeout = 60);

/* A child, and how it was told to have ended. */
struct child {
	struct child_watch watch;
	struct child_end end;
	unsigned exit_count, stopped_count;
	pid_t pid;
};

static unsigned exit_total, stopped_total;

/* After either of the two the watch is the owner's again: whatever still used it would see rubbish. */
static void
note_exit(struct child_watch *watch, const struct child_end *end)
{
	struct child *child = container_of(watch, struct child, watch);

	cr_assert_not(submitting);
	child->end = *end;
	child->exit_count++;
	memset(watch, 0xff, sizeof(*watch));
	exit_total++;
}

static void
note_stopped(struct child_watch *watch)
{
	cr_assert_not(submitting);
	container_of(watch, struct child, watch)->stopped_count++;
	memset(watch, 0xff, sizeof(*watch));
	stopped_total++;
}

/* Exits with CODE when it is sent SIGUSR1, or at once if NOW. */
static pid_t
fork_child(int code, bool now)
{
	sigset_t set;
	pid_t pid;
	int number;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	cr_assert_eq(pthread_sigmask(SIG_BLOCK, &set, NULL), 0);
	pid = fork();
	cr_assert_geq(pid, 0);
	if (pid > 0)
		return pid;
	if (!now)
		sigwait(&set, &number);
	_exit(code);
}

static void
watch_child(struct child *child, pid_t pid)
{
	*child = (struct child){ .pid = pid };
	submitting = true;
	cr_assert_eq(child_watch_start(&child->watch, reactor, pid, note_exit), 0);
	submitting = false;
	cr_assert_eq(child->watch.pid, pid);
}

static void
turn_until_exit(unsigned total)
{
	uint64_t until_ns = kernel_clock_ns() + PATIENCE_NS;

	while (exit_total < total) {
		cr_assert_lt(kernel_clock_ns(), until_ns);
		if (!reactor_turn(reactor))
			usleep(100);
	}
	cr_assert_eq(exit_total, total);
}

static void
assert_end(const struct child *child, enum child_end_kind kind, int code)
{
	cr_assert_eq(child->exit_count, 1);
	cr_assert_eq(child->end.kind, kind);
	cr_assert_eq(child->end.code, code);
}

/* Nothing of it is left: no zombie. */
static void
assert_waited_for(pid_t pid)
{
	cr_assert_eq(waitpid(pid, NULL, WNOHANG), -1);
	cr_assert_eq(errno, ECHILD);
}

Test(child_watch, exit_code_is_told)
{
	struct child child;
	unsigned fds = process_fds();

	watch_child(&child, fork_child(7, false));
	turn_for_a_while();
	cr_assert_eq(exit_total, 0);
	cr_assert_eq(kill(child.pid, SIGUSR1), 0);
	turn_until_exit(1);
	assert_end(&child, CHILD_END_EXITED, 7);
	cr_assert_not(child.end.core_dumped);
	assert_waited_for(child.pid);
	cr_assert_eq(process_fds(), fds);
}

Test(child_watch, exit_codes_0_and_255_are_told)
{
	struct child children[2];

	watch_child(&children[0], fork_child(0, true));
	watch_child(&children[1], fork_child(255, true));
	turn_until_exit(2);
	assert_end(&children[0], CHILD_END_EXITED, 0);
	assert_end(&children[1], CHILD_END_EXITED, 255);
}

Test(child_watch, signal_that_killed_is_told)
{
	struct child child;

	watch_child(&child, fork_child(0, false));
	cr_assert_eq(kill(child.pid, SIGKILL), 0);
	turn_until_exit(1);
	assert_end(&child, CHILD_END_KILLED, SIGKILL);
	assert_waited_for(child.pid);
}

Test(child_watch, child_that_has_ended_before_is_told)
{
	struct child child;
	pid_t pid = fork_child(3, true);
	siginfo_t info;

	cr_assert_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	watch_child(&child, pid);
	cr_assert_eq(exit_total, 0);
	turn_until_exit(1);
	assert_end(&child, CHILD_END_EXITED, 3);
	assert_waited_for(pid);
}

Test(child_watch, usage_is_told)
{
	struct child child;
	pid_t pid = fork();

	cr_assert_geq(pid, 0);
	if (pid == 0) {
		while (thread_cpu_ns() < 50 * MS)
			;
		_exit(0);
	}
	watch_child(&child, pid);
	turn_until_exit(1);
	cr_assert_geq(
		(uint64_t)(child.end.usage.ru_utime.tv_sec + child.end.usage.ru_stime.tv_sec) *
				1000 * MS +
			(uint64_t)(child.end.usage.ru_utime.tv_usec +
				   child.end.usage.ru_stime.tv_usec) *
				1000,
		50 * MS);
}

#define CHILDREN 100

Test(child_watch, many_children_at_once)
{
	static struct child children[CHILDREN];

	/* More than there are poll slots: those that have none wait for one. */
	for (int i = 0; i < CHILDREN; i++)
		watch_child(&children[i], fork_child(i, i % 2 == 0));
	for (int i = 0; i < CHILDREN; i++) {
		if (i % 4 == 3)
			cr_assert_eq(kill(children[i].pid, SIGKILL), 0);
		else
			cr_assert_eq(kill(children[i].pid, SIGUSR1), 0);
	}
	turn_until_exit(CHILDREN);
	for (int i = 0; i < CHILDREN; i++) {
		if (i % 4 == 3)
			assert_end(&children[i], CHILD_END_KILLED, SIGKILL);
		else
			assert_end(&children[i], CHILD_END_EXITED, i);
	}
	turn_for_a_while();
	cr_assert_eq(exit_total, CHILDREN);
}

static void
start_next(struct child_watch *watch, const struct child_end *end)
{
	note_exit(watch, end);
	if (exit_total < 5)
		cr_assert_eq(child_watch_start(watch, reactor, fork_child((int)exit_total, true),
					       start_next),
			     0);
}

Test(child_watch, watch_may_be_started_again_by_on_exit)
{
	struct child child = { 0 };

	cr_assert_eq(child_watch_start(&child.watch, reactor, fork_child(0, true), start_next), 0);
	turn_until_exit(5);
	cr_assert_eq(child.end.code, 4);
}

/* On the thread that is no reactor: a child ends while the reactor sleeps. */
static void *
end_when_asleep(void *argument)
{
	wait_for_sleep(0);
	CHECK(kill(*(pid_t *)argument, SIGUSR1) == 0);
	return NULL;
}

static void
stop_running(struct child_watch *watch, const struct child_end *end)
{
	note_exit(watch, end);
	reactor_stop(reactor);
}

Test(child_watch, end_wakes_a_sleeping_reactor)
{
	struct child child = { .pid = fork_child(9, false) };
	pthread_t thread;

	cr_assert_eq(child_watch_start(&child.watch, reactor, child.pid, stop_running), 0);
	cr_assert_eq(pthread_create(&thread, NULL, end_when_asleep, &child.pid), 0);
	reactor_run(reactor);
	cr_assert_eq(pthread_join(thread, NULL), 0);
	assert_end(&child, CHILD_END_EXITED, 9);
}

/* ---- stop ---- */

static void
stop_child(struct child *child)
{
	unsigned expected = stopped_total + 1;
	uint64_t until_ns = kernel_clock_ns() + PATIENCE_NS;

	submitting = true;
	child_watch_stop(&child->watch, note_stopped);
	submitting = false;
	cr_assert_eq(child->stopped_count, 0);
	while (stopped_total < expected) {
		cr_assert_lt(kernel_clock_ns(), until_ns);
		reactor_turn(reactor);
	}
	turn_for_a_while();
	cr_assert_eq(child->stopped_count, 1);
	cr_assert_eq(child->exit_count, 0);
}

/* It is still there to be waited for. */
static void
assert_ends_with(pid_t pid, int code)
{
	int status;

	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == code);
}

Test(child_watch, stopped_leaves_the_child_to_the_caller)
{
	struct child child;
	unsigned fds = process_fds();

	watch_child(&child, fork_child(5, false));
	turn_for_a_while();
	stop_child(&child);
	cr_assert_eq(process_fds(), fds);
	cr_assert_eq(kill(child.pid, SIGUSR1), 0);
	assert_ends_with(child.pid, 5);
}

Test(child_watch, stopped_before_the_first_turn)
{
	struct child child;

	watch_child(&child, fork_child(6, true));
	stop_child(&child);
	assert_ends_with(child.pid, 6);
}

Test(child_watch, stopped_after_the_end_was_seen_is_stopped)
{
	struct child child;
	siginfo_t info;

	watch_child(&child, fork_child(8, false));
	turn_for_a_while();
	cr_assert_eq(kill(child.pid, SIGUSR1), 0);
	cr_assert_eq(waitid(P_PID, (id_t)child.pid, &info, WEXITED | WNOWAIT), 0);
	usleep(20000); /* its event is in the ring */
	stop_child(&child);
	assert_ends_with(child.pid, 8);
}

/* ---- what is refused, or not known ---- */

Test(child_watch, somebody_else_waited)
{
	struct child child;

	watch_child(&child, fork_child(4, false));
	turn_for_a_while();
	cr_assert_eq(kill(child.pid, SIGUSR1), 0);
	assert_ends_with(child.pid, 4);
	turn_until_exit(1);
	assert_end(&child, CHILD_END_UNKNOWN, 0);
	cr_assert_eq(child.end.usage.ru_maxrss, 0);
}

Test(child_watch, sigchld_ignored)
{
	struct child child;

	cr_assert_neq(signal(SIGCHLD, SIG_IGN), SIG_ERR);
	watch_child(&child, fork_child(4, false));
	cr_assert_eq(kill(child.pid, SIGUSR1), 0);
	turn_until_exit(1);
	assert_end(&child, CHILD_END_UNKNOWN, 0);
}

static pid_t thread_id; /* atomic: of a thread that lives until it is 0 again */

static void *
tell_thread_id(void *argument)
{
	__atomic_store_n(&thread_id, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
	while (__atomic_load_n(&thread_id, __ATOMIC_ACQUIRE) != 0)
		usleep(1000);
	return argument;
}

Test(child_watch, thread_is_refused)
{
	struct child_watch watch;
	pthread_t thread;

	cr_assert_eq(pthread_create(&thread, NULL, tell_thread_id, NULL), 0);
	while (__atomic_load_n(&thread_id, __ATOMIC_ACQUIRE) == 0)
		usleep(1000);
	cr_assert_eq(child_watch_start(&watch, reactor, thread_id, note_exit), -EINVAL);
	__atomic_store_n(&thread_id, 0, __ATOMIC_RELEASE);
	cr_assert_eq(pthread_join(thread, NULL), 0);
}

Test(child_watch, invalid_arguments_are_refused)
{
	struct child_watch watch = { .pid = 42 };
	pid_t pid = fork_child(1, true);
	unsigned fds = process_fds();

	cr_assert_eq(child_watch_start(NULL, reactor, pid, note_exit), -EINVAL);
	cr_assert_eq(child_watch_start(&watch, NULL, pid, note_exit), -EINVAL);
	cr_assert_eq(child_watch_start(&watch, reactor, pid, NULL), -EINVAL);
	cr_assert_eq(child_watch_start(&watch, reactor, 0, note_exit), -EINVAL);
	cr_assert_eq(child_watch_start(&watch, reactor, -1, note_exit), -EINVAL);
	cr_assert_eq(child_watch_start(&watch, reactor, getppid(), note_exit), -ECHILD);
	cr_assert_eq(child_watch_start(&watch, reactor, getpid(), note_exit), -ECHILD);
	assert_ends_with(pid, 1);
	cr_assert_eq(child_watch_start(&watch, reactor, pid, note_exit), -ESRCH);
	cr_assert_eq(watch.pid, 42);
	cr_assert_eq(process_fds(), fds);
	turn_for_a_while();
	cr_assert_eq(exit_total, 0);
}

Test(child_watch, no_descriptor_is_an_error)
{
	struct child child = { .pid = fork_child(2, true) };

	limit_fds(0);
	cr_assert_eq(child_watch_start(&child.watch, reactor, child.pid, note_exit), -EMFILE);
	limit_fds(1);
	watch_child(&child, child.pid);
	turn_until_exit(1);
	assert_end(&child, CHILD_END_EXITED, 2);
}

/* A process that traces PID, and takes no notice of its end before it is sent SIGUSR1. */
static pid_t
fork_tracer(pid_t pid)
{
	int ready[2], number;
	char answer = 0;
	sigset_t set;
	pid_t tracer;

	cr_assert_eq(pipe(ready), 0);
	tracer = fork();
	cr_assert_geq(tracer, 0);
	if (tracer == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* of a test that fails */
		sigemptyset(&set);
		sigaddset(&set, SIGUSR1);
		if (ptrace(PTRACE_SEIZE, pid, NULL, NULL) == 0 && write(ready[1], "y", 1) == 1)
			sigwait(&set, &number);
		_exit(0); /* which lets it go */
	}
	(void)close(ready[1]);
	(void)read(ready[0], &answer, 1);
	(void)close(ready[0]);
	if (answer == 'y')
		return tracer;
	cr_assert_eq(waitpid(tracer, NULL, 0), tracer);
	cr_skip("processes may not be traced here");
	return -1;
}

static void
let_go(pid_t tracer)
{
	cr_assert_eq(kill(tracer, SIGUSR1), 0);
	cr_assert_eq(waitpid(tracer, NULL, 0), tracer);
}

/* Turns that did something in 100 ms. */
static unsigned
turns_at_work(void)
{
	uint64_t until_ns = kernel_clock_ns() + 100 * (uint64_t)1000000;
	unsigned turns = 0;

	while (kernel_clock_ns() < until_ns)
		turns += reactor_turn(reactor);
	return turns;
}

Test(child_watch, end_that_a_debugger_keeps_is_told_when_it_lets_go)
{
	pid_t pid = fork_child(7, false), tracer = fork_tracer(pid);
	struct child child;

	watch_child(&child, pid);
	cr_assert_eq(kill(pid, SIGUSR1), 0);
	turn_for_a_while();
	cr_assert_lt(turns_at_work(), 100);
	cr_assert_eq(exit_total, 0);
	let_go(tracer);
	turn_until_exit(1);
	assert_end(&child, CHILD_END_EXITED, 7);
	assert_waited_for(pid);
}

Test(child_watch, end_that_a_debugger_keeps_need_not_be_waited_for)
{
	pid_t pid = fork_child(7, false), tracer = fork_tracer(pid);
	unsigned fds = process_fds();
	struct child child;

	watch_child(&child, pid);
	cr_assert_eq(kill(pid, SIGUSR1), 0);
	turn_for_a_while();
	child_watch_stop(&child.watch, note_stopped);
	cr_assert_eq(stopped_total, 0);
	turn_for_a_while();
	cr_assert_eq(stopped_total, 1);
	cr_assert_eq(process_fds(), fds);
	let_go(tracer);
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
}
