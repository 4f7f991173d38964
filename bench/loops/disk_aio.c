/* Linux AIO beside epoll. */
#include "bench/loops/disk_aio.h"

#include <sys/eventfd.h>
#include <unistd.h>

void
disk_aio_open(struct disk_aio *disk, struct server *server)
{
	unsigned slots = server->read_slots;

	*disk = (struct disk_aio){ .event_fd = -1, .server = server };
	if (slots == 0)
		return;
	disk->event_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	server_check("eventfd", disk->event_fd);
	server_check("io_setup", io_setup((int)slots, &disk->context));
	disk->iocbs = server_allocate(slots, sizeof(disk->iocbs[0]));
	disk->batch = server_allocate(slots, sizeof(disk->batch[0]));
	disk->events = server_allocate(slots, sizeof(disk->events[0]));
	if (server->fetch)
		return;
	for (unsigned i = 0; i < slots; i++)
		disk_aio_read(disk, i);
}

void
disk_aio_read(struct disk_aio *disk, unsigned slot)
{
	struct iocb *iocb = &disk->iocbs[slot];

	io_prep_pread(iocb, disk->server->disk_fd, server_block(disk->server, slot), BLOCK_BYTES,
		      (long long)server_next_offset(disk->server));
	io_set_eventfd(iocb, disk->event_fd);
	disk->batch[disk->batch_count++] = iocb;
}

void
disk_aio_submit(struct disk_aio *disk)
{
	unsigned done = 0;

	while (done < disk->batch_count) {
		int taken = io_submit(disk->context, (long)(disk->batch_count - done),
				      disk->batch + done);

		server_check("io_submit", taken);
		done += (unsigned)taken;
	}
	disk->batch_count = 0;
}

void
disk_aio_reap(struct disk_aio *disk, void (*send)(void *context, const struct reply *reply),
	      void *context)
{
	struct timespec at_once = { 0 };
	int count;

	/* Level-triggered, the eventfd has to be cleared; edge-triggered, the next one is told anyway. */
	if (!disk->server->edge_triggered) {
		uint64_t value;

		if (read(disk->event_fd, &value, sizeof(value)) < 0)
			return;
	}
	count = io_getevents(disk->context, 0, (long)disk->server->read_slots, disk->events,
			     &at_once);
	server_check("io_getevents", count);
	for (int i = 0; i < count; i++) {
		unsigned slot = (unsigned)(disk->events[i].obj - disk->iocbs);
		const struct reply *reply =
			server_read_done(disk->server, slot, (long)disk->events[i].res);

		if (reply == NULL)
			disk_aio_read(disk, slot);
		else
			send(context, reply);
	}
}
