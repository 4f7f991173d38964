/* Disk reads for a loop on epoll: Linux AIO, whose completions an eventfd tells. */
#ifndef BENCH_LOOPS_DISK_AIO_H
#define BENCH_LOOPS_DISK_AIO_H

#include "bench/loops/server.h"
#include <libaio.h>

struct disk_aio {
	int event_fd; /* readable: reads are done; -1: the server has no disk */
	/* Private. */
	struct server *server;
	io_context_t context;
	struct iocb *iocbs;	 /* [read_slots] */
	struct iocb **batch;	 /* [read_slots] */
	struct io_event *events; /* [read_slots] */
	unsigned batch_count;
};

/* Prepare DISK for SERVER's slots; without `fetch`, queue a read in each. */
void disk_aio_open(struct disk_aio *disk, struct server *server);

/* Have a block read in SLOT, which is free: disk_aio_submit starts it. */
void disk_aio_read(struct disk_aio *disk, unsigned slot);

/* Start what is queued, with one system call.  Once per turn of the loop. */
void disk_aio_submit(struct disk_aio *disk);

/* Take what is done.  send: called with each reply that it allows; CONTEXT goes to it. */
void disk_aio_reap(struct disk_aio *disk, void (*send)(void *context, const struct reply *reply),
		   void *context);

#endif
