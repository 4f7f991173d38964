/* Counting system calls. */
#include "bench/loops/system_calls.h"

#include <dirent.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int
tracepoint_id(uint64_t *id)
{
	static const char *const paths[] = {
		"/sys/kernel/tracing/events/raw_syscalls/sys_enter/id",
		"/sys/kernel/debug/tracing/events/raw_syscalls/sys_enter/id",
	};
	int error = -ENOENT;

	for (unsigned i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		FILE *file = fopen(paths[i], "r");
		unsigned long value;

		if (file == NULL) {
			error = -errno;
			continue;
		}
		error = fscanf(file, "%lu", &value) == 1 ? 0 : -EINVAL;
		(void)fclose(file);
		if (error == 0) {
			*id = value;
			return 0;
		}
	}
	return error;
}

static int
count_thread(struct system_calls *calls, uint64_t id, pid_t thread)
{
	struct perf_event_attr attributes = {
		.type = PERF_TYPE_TRACEPOINT,
		.size = sizeof(attributes),
		.config = id,
	};
	long fd = syscall(SYS_perf_event_open, &attributes, thread, -1, -1, PERF_FLAG_FD_CLOEXEC);

	if (fd < 0)
		return -errno;
	calls->fds[calls->thread_count++] = (int)fd;
	return 0;
}

int
system_calls_start(struct system_calls *calls, pid_t pid)
{
	struct dirent *entry;
	char path[64];
	uint64_t id = 0;
	DIR *tasks;
	int error = tracepoint_id(&id);

	calls->thread_count = 0;
	if (error != 0)
		return error;
	(void)snprintf(path, sizeof(path), "/proc/%d/task", pid);
	tasks = opendir(path);
	if (tasks == NULL)
		return -errno;
	while (error == 0 && (entry = readdir(tasks)) != NULL) {
		if (entry->d_name[0] == '.')
			continue;
		if (calls->thread_count == TRACED_THREADS_MAX)
			error = -E2BIG;
		else
			error = count_thread(calls, id, atoi(entry->d_name));
	}
	(void)closedir(tasks);
	return error;
}

uint64_t
system_calls_count(const struct system_calls *calls)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < calls->thread_count; i++) {
		uint64_t count;

		if (read(calls->fds[i], &count, sizeof(count)) == sizeof(count))
			total += count;
	}
	return total;
}
