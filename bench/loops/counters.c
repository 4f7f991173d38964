/* The shared counters. */
#include "bench/loops/counters.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

struct counters *
counters_map(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	void *mapped = MAP_FAILED;

	if (fd >= 0)
		mapped = mmap(NULL, sizeof(struct counters), PROT_READ | PROT_WRITE, MAP_SHARED, fd,
			      0);
	if (mapped == MAP_FAILED) {
		perror(path);
		exit(1);
	}
	(void)close(fd);
	return mapped;
}
