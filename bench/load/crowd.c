/* Each thread takes the next index, until there is none or one has failed. */
#include "bench/load/crowd.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/resource.h>

/* With the caller's 8 at a time: nbd-server listens with a backlog of 10, and whoever comes on top is kept waiting by the kernel for
 * seconds, until a try of his is not dropped. */
#define THREADS_MAX	       7u
#define CONNECTIONS_PER_THREAD 4u /* below that a thread is not worth it */

struct crowd {
	const struct target *target;
	unsigned count;
	const struct cpu_list *cpus;
	struct target_session *sessions; /* fd -1: not there */
	unsigned next;			 /* atomic */
	bool failed;			 /* atomic */
	pthread_mutex_t lock;		 /* of error and errors */
	int error;
	FILE *errors;
};

static void
raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* Of those that fail only the first is told of. */
static void
fail(struct crowd *crowd, int error, const char *text)
{
	pthread_mutex_lock(&crowd->lock);
	if (crowd->error == 0) {
		crowd->error = error;
		fputs(text, crowd->errors);
	}
	pthread_mutex_unlock(&crowd->lock);
	/* Relaxed: it only saves the others the trouble. */
	__atomic_store_n(&crowd->failed, true, __ATOMIC_RELAXED);
}

/* If that fails the connection is made all the same. */
static void
move_to_the_cpu_of(const struct crowd *crowd, unsigned index)
{
	unsigned part = 0;
	cpu_set_t set;

	/* As load.c shares them. */
	while (index >= crowd->count * (part + 1) / crowd->cpus->count)
		part++;
	CPU_ZERO(&set);
	CPU_SET(crowd->cpus->cpus[part], &set);
	(void)sched_setaffinity(0, sizeof(set), &set);
}

static void
connect_one(struct crowd *crowd, unsigned index)
{
	char *text = NULL;
	size_t bytes;
	FILE *errors = open_memstream(&text, &bytes);
	int error = errors == NULL ? -ENOMEM
				   : target_connect(crowd->target, &crowd->sessions[index], errors);

	if (errors != NULL)
		(void)fclose(errors);
	if (error < 0)
		fail(crowd, error, text == NULL ? "no memory\n" : text);
	free(text);
}

static void *
work(void *argument)
{
	struct crowd *crowd = argument;

	while (!__atomic_load_n(&crowd->failed, __ATOMIC_RELAXED)) {
		unsigned index = __atomic_fetch_add(&crowd->next, 1, __ATOMIC_RELAXED);

		if (index >= crowd->count)
			break;
		move_to_the_cpu_of(crowd, index);
		connect_one(crowd, index);
	}
	return NULL;
}

static void
work_together(struct crowd *crowd)
{
	unsigned wanted = crowd->count / CONNECTIONS_PER_THREAD, helpers = 0;
	pthread_t threads[THREADS_MAX];
	cpu_set_t before;
	bool moves = sched_getaffinity(0, sizeof(before), &before) == 0;

	if (wanted > THREADS_MAX)
		wanted = THREADS_MAX;
	while (helpers < wanted && pthread_create(&threads[helpers], NULL, work, crowd) == 0)
		helpers++;
	/* This thread too: there may be no other. */
	work(crowd);
	if (moves)
		(void)sched_setaffinity(0, sizeof(before), &before);
	while (helpers > 0)
		(void)pthread_join(threads[--helpers], NULL);
}

int
crowd_connect(const struct target *target, unsigned count, const struct cpu_list *cpus,
	      struct target_session *sessions, FILE *errors)
{
	struct crowd crowd = { .target = target,
			       .count = count,
			       .cpus = cpus,
			       .sessions = sessions,
			       .lock = PTHREAD_MUTEX_INITIALIZER,
			       .errors = errors };
	unsigned made = 0;

	raise_descriptor_limit();
	for (unsigned i = 0; i < count; i++)
		sessions[i].link.fd = -1;
	work_together(&crowd);
	if (crowd.error == 0)
		return 0;
	for (unsigned i = 0; i < count; i++) {
		if (sessions[i].link.fd < 0)
			continue;
		made++;
		target_disconnect(&sessions[i]);
	}
	if (made > 0)
		fprintf(errors, "%s: %u of %u connections were made\n", target->uri, made, count);
	return crowd.error;
}
