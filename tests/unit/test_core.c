/* reactor/core.h: pinned threads come up, take messages, and go, leaving nothing behind; also when one fails. */
#include "reactor/core.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/kernel_faults.h"
#include "tests/unit/reactor_fixture.h"

#define MIB	     ((size_t)1 << 20)
#define BUFFER_BYTES (4 * MIB)

static const struct reactor_config config = { .disk_slots = 8, .poll_slots = 8 };
static struct cpu_list list;
static struct cores cores;

static void
setup(void)
{
	cr_assert_eq(cpu_list_auto(&list), 0);
}

TestSuite(core, .init = setup, .timeout = 60);

/* Threads that were joined may be listed for another moment. */
static void
assert_threads(unsigned count)
{
	for (unsigned i = 0; i < 1000 && process_threads() != count; i++)
		usleep(1000);
	cr_assert_eq(process_threads(), count);
}

/* A failure is logged, which is not for the eyes of who runs the tests. */
static void
silence_stderr(void)
{
	int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);

	cr_assert_geq(fd, 0);
	cr_assert_geq(dup2(fd, STDERR_FILENO), 0);
	close(fd);
}

/* Asks a core where it is.  Written on the core's thread, read after sem_wait. */
struct question {
	struct message message;
	struct core *core;
	sem_t answered;
	int cpu;
	cpu_set_t cpus;
	char name[16];
	bool buffers_work;
};

static void
answer(struct message *message)
{
	struct question *question = container_of(message, struct question, message);
	void *buffer = buffer_pool_get(question->core->buffers, MIB);

	question->cpu = sched_getcpu();
	if (sched_getaffinity(0, sizeof(question->cpus), &question->cpus) != 0)
		CPU_ZERO(&question->cpus);
	pthread_getname_np(pthread_self(), question->name, sizeof(question->name));
	if (buffer != NULL) {
		memset(buffer, 1, MIB);
		buffer_pool_put(question->core->buffers, buffer, MIB);
		question->buffers_work = true;
	}
	sem_post(&question->answered);
}

static void
ask(struct core *core, struct question *question)
{
	*question = (struct question){ .message.deliver = answer, .core = core };
	sem_init(&question->answered, 0, 0);
	reactor_send(core->reactor, &question->message);
	while (sem_wait(&question->answered) != 0)
		;
	sem_destroy(&question->answered);
}

Test(core, each_thread_runs_on_its_cpu_only)
{
	cr_assert_eq(cores_start(&cores, &list, &config, BUFFER_BYTES, MIB), 0);
	cr_assert_eq(cores.count, list.count);
	for (unsigned i = 0; i < cores.count; i++) {
		struct question question;

		ask(&cores.cores[i], &question);
		cr_assert_eq(cores.cores[i].index, i);
		cr_assert_eq(cores.cores[i].cpu, list.cpus[i]);
		cr_assert_eq(question.cpu, (int)list.cpus[i]);
		cr_assert_eq(CPU_COUNT(&question.cpus), 1);
	}
	cores_stop(&cores);
}

Test(core, each_thread_is_named_for_its_cpu)
{
	cr_assert_eq(cores_start(&cores, &list, &config, BUFFER_BYTES, MIB), 0);
	for (unsigned i = 0; i < cores.count; i++) {
		struct question question;
		char name[32];

		ask(&cores.cores[i], &question);
		(void)snprintf(name, sizeof(name), "core-%u", list.cpus[i]);
		cr_assert_str_eq(question.name, name);
	}
	cores_stop(&cores);
}

Test(core, each_has_buffers_of_its_own)
{
	cr_assert_eq(cores_start(&cores, &list, &config, BUFFER_BYTES, MIB), 0);
	for (unsigned i = 0; i < cores.count; i++) {
		struct question question;

		cr_assert_eq(buffer_pool_total_bytes(cores.cores[i].buffers), BUFFER_BYTES);
		for (unsigned j = 0; j < i; j++)
			cr_assert_neq(cores.cores[i].buffers, cores.cores[j].buffers);
		ask(&cores.cores[i], &question);
		cr_assert(question.buffers_work);
	}
	cores_stop(&cores);
}

/* A core asks the next one, as connections are handed over: the answers come while all of them sleep and wake. */

#define PASSES 20000

struct token {
	struct message message;
	unsigned at; /* index of the core that has it */
	unsigned passes;
	unsigned wrong;
	sem_t finished;
};

static void
pass_on(struct message *message)
{
	struct token *token = container_of(message, struct token, message);

	token->wrong += sched_getcpu() != (int)cores.cores[token->at].cpu;
	if (++token->passes == PASSES) {
		sem_post(&token->finished);
		return;
	}
	token->at = (token->at + 1) % cores.count;
	reactor_send(cores.cores[token->at].reactor, message);
}

Test(core, cores_send_each_other_messages)
{
	struct token token = { .message.deliver = pass_on };

	sem_init(&token.finished, 0, 0);
	cr_assert_eq(cores_start(&cores, &list, &config, BUFFER_BYTES, MIB), 0);
	reactor_send(cores.cores[0].reactor, &token.message);
	while (sem_wait(&token.finished) != 0)
		;
	cr_assert_eq(token.passes, PASSES);
	cr_assert_eq(token.wrong, 0);
	cores_stop(&cores);
}

/* A core that always has something to do, for a while. */
struct toil {
	struct message message;
	struct core *core;
	uint64_t until_ns, waited_ns, rest_ns; /* the last two: what became more */
	sem_t finished;
};

static void
toil_on(struct message *message)
{
	struct toil *toil = container_of(message, struct toil, message);
	uint64_t now_ns = kernel_clock_ns(), pause_ns = now_ns + 100000;

	if (now_ns < toil->until_ns) {
		while (kernel_clock_ns() < pause_ns)
			;
		reactor_send(toil->core->reactor, message);
		return;
	}
	toil->waited_ns = core_times(toil->core).waited_ns - toil->waited_ns;
	toil->rest_ns = reactor_counters(toil->core->reactor)->rest_ns - toil->rest_ns;
	sem_post(&toil->finished);
}

static void
begin_toil(struct message *message)
{
	struct toil *toil = container_of(message, struct toil, message);

	toil->waited_ns = core_times(toil->core).waited_ns;
	toil->rest_ns = reactor_counters(toil->core->reactor)->rest_ns;
	toil->until_ns = kernel_clock_ns() + 300000000;
	message->deliver = toil_on;
	toil_on(message);
}

static void *
use_cpu(void *stop)
{
	while (!__atomic_load_n((bool *)stop, __ATOMIC_RELAXED))
		;
	return NULL;
}

Test(core, waiting_for_the_cpu_is_told_and_is_no_rest)
{
	struct toil toil = { .message.deliver = begin_toil };
	bool stop = false;
	cpu_set_t cpu;
	pthread_t other;

	if (access("/proc/thread-self/schedstat", R_OK) != 0)
		cr_skip_test("this kernel has no schedstat");
	cr_assert_eq(cores_start(&cores, &list, &config, BUFFER_BYTES, MIB), 0);
	toil.core = &cores.cores[0];
	sem_init(&toil.finished, 0, 0);
	cr_assert_eq(pthread_create(&other, NULL, use_cpu, &stop), 0);
	CPU_ZERO(&cpu);
	CPU_SET(toil.core->cpu, &cpu);
	cr_assert_eq(pthread_setaffinity_np(other, sizeof(cpu), &cpu), 0);
	reactor_send(toil.core->reactor, &toil.message);
	while (sem_wait(&toil.finished) != 0)
		;
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	pthread_join(other, NULL);
	/* Two want the CPU all the time: half would be 150 ms, and others may want it, too. */
	cr_assert_geq(toil.waited_ns, 30 * 1000000u);
	cr_assert_leq(toil.rest_ns, 30 * 1000000u);
	cores_stop(&cores);
}

Test(core, stop_leaves_nothing)
{
	unsigned threads = process_threads();
	unsigned fds = process_fds();

	cr_assert_eq(cores_start(&cores, &list, &config, BUFFER_BYTES, MIB), 0);
	assert_threads(threads + list.count);
	cr_assert_eq(process_contexts(), list.count);
	cores_stop(&cores);
	cr_assert_eq(cores.count, 0);
	assert_threads(threads);
	cr_assert_eq(process_fds(), fds);
	cr_assert_eq(process_contexts(), 0);
}

Test(core, can_start_again_after_stop)
{
	for (unsigned i = 0; i < 5; i++) {
		struct question question;

		cr_assert_eq(cores_start(&cores, &list, &config, BUFFER_BYTES, MIB), 0);
		ask(&cores.cores[cores.count - 1], &question);
		cores_stop(&cores);
	}
}

/* Start CPUS with CONFIG, which must fail with ERROR and leave nothing. */
static void
assert_start_fails(const struct cpu_list *cpus, const struct reactor_config *bad_config,
		   size_t buffer_bytes, int error)
{
	unsigned threads = process_threads();
	unsigned fds;

	silence_stderr();
	fds = process_fds();
	cr_assert_eq(cores_start(&cores, cpus, bad_config, buffer_bytes, MIB), error);
	assert_threads(threads);
	cr_assert_eq(process_fds(), fds);
	cr_assert_eq(process_contexts(), 0);
}

/* The first ones run already when the last one fails. */
Test(core, a_cpu_that_does_not_exist_fails)
{
	cr_assert_lt(list.count, CPU_LIST_MAX);
	list.cpus[list.count++] = 60000;
	assert_start_fails(&list, &config, BUFFER_BYTES, -EINVAL);
}

Test(core, the_first_cpu_can_be_the_one_that_does_not_exist)
{
	list.count = 1;
	list.cpus[0] = 60000;
	assert_start_fails(&list, &config, BUFFER_BYTES, -EINVAL);
}

Test(core, buffers_that_nothing_has_room_for_fail)
{
	assert_start_fails(&list, &config, (size_t)1 << 60, -ENOMEM);
}

Test(core, a_host_without_slots_fails)
{
	context_slots_max = 0;
	assert_start_fails(&list, &config, BUFFER_BYTES, -EAGAIN);
}

Test(core, nothing_is_refused)
{
	const struct cpu_list empty = { .count = 0 };

	assert_start_fails(&empty, &config, BUFFER_BYTES, -EINVAL);
	assert_start_fails(NULL, &config, BUFFER_BYTES, -EINVAL);
	assert_start_fails(&list, NULL, BUFFER_BYTES, -EINVAL);
	cr_assert_eq(cores_start(NULL, &list, &config, BUFFER_BYTES, MIB), -EINVAL);
}

Test(core, no_slots_fail)
{
	struct reactor_config none = config;

	none.disk_slots = 0;
	assert_start_fails(&list, &none, BUFFER_BYTES, -EINVAL);
}
