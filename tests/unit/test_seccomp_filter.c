/* daemon/seccomp_filter.h: what is taken away, in threads that ran before too, and what must be left. */
#include "daemon/seccomp_filter.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Threads and processes begin in the namespaces of who begins them. */
static void
assert_no_namespace(void)
{
	struct clone_args arguments = { .flags = CLONE_NEWUSER, .exit_signal = SIGCHLD };
	long child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL);

	if (child == 0)
		_exit(0);
	cr_assert_eq(child, -1);
	cr_assert_eq(errno, EPERM);
	child = syscall(SYS_clone3, &arguments, sizeof(arguments));
	if (child == 0)
		_exit(0);
	cr_assert_eq(child, -1);
	cr_assert_eq(errno, ENOSYS);
}

static void
assert_filtered(void)
{
	char *arguments[] = { NULL };
	struct sched_param first = { .sched_priority = 1 };

	cr_assert_eq(execve("/bin/true", arguments, arguments), -1);
	cr_assert_eq(errno, EPERM);
	cr_assert_eq(ptrace(PTRACE_TRACEME, 0, NULL, NULL), -1);
	cr_assert_eq(errno, EPERM);
	cr_assert_eq(process_vm_readv(getpid(), NULL, 0, NULL, 0, 0), -1);
	cr_assert_eq(errno, EPERM);
	cr_assert_eq(setuid(getuid()), -1);
	cr_assert_eq(errno, EPERM);
	cr_assert_eq(sched_setscheduler(0, SCHED_FIFO, &first), -1);
	cr_assert_eq(errno, EPERM);
	cr_assert_eq(socket(AF_PACKET, SOCK_DGRAM, 0), -1);
	cr_assert_eq(errno, EPERM);
	assert_no_namespace();
}

static void *
thread_main(void *argument)
{
	sem_t *loaded = argument;

	while (sem_wait(loaded) != 0)
		;
	assert_filtered();
	return NULL;
}

static void *
idle_main(void *argument)
{
	return argument;
}

Test(seccomp_filter, takes_calls_away_from_all_threads_and_leaves_the_others)
{
	pthread_t before, after;
	struct sched_param ordinary = { 0 };
	sem_t loaded;
	int fd;
	void *memory;

#ifdef MILLRACE_DEBUG
	cr_skip_test("the leak sanitizer traces the process, which the filter forbids");
#endif
	sem_init(&loaded, 0, 0);
	cr_assert_eq(pthread_create(&before, NULL, thread_main, &loaded), 0);
	cr_assert_eq(seccomp_filter_load(), 0);
	sem_post(&loaded);
	cr_assert_eq(pthread_join(before, NULL), 0);
	assert_filtered();
	cr_assert_eq(pthread_create(&after, NULL, idle_main, NULL), 0);
	cr_assert_eq(pthread_join(after, NULL), 0);
	cr_assert_eq(sched_setscheduler(0, SCHED_BATCH, &ordinary), 0);
	cr_assert_eq(sched_setscheduler(0, SCHED_OTHER, &ordinary), 0);
	fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert(fd >= 0 || errno == EAFNOSUPPORT);
	close(fd);
	memory = malloc((size_t)64 << 20);
	cr_assert_not_null(memory);
	memset(memory, 1, (size_t)64 << 20);
	free(memory);
}
