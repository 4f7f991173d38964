/* One read of the inotify descriptor in a turn; what it leaves, the poll reports at once when it is armed again, so
 * that a flood of changes leaves the others their share. */
#include "reactor/file_watch.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

#define READ_BYTES 8192 /* 30 events with the longest names, 512 without */

static void
arm(struct file_watch *watch)
{
	op_poll(&watch->poll, watch->fd, POLLIN);
	reactor_start_always(watch->reactor, &watch->poll);
}

/* Tell the events in the BYTES at BUFFER, until told to stop.  The kernel gives whole ones, each name padded with
 * zeros so that the next one is aligned, and a name of no bytes where there is none. */
static void
tell(struct file_watch *watch, const char *buffer, size_t bytes)
{
	const struct inotify_event *raw;
	struct file_event event;

	for (size_t at = 0; at < bytes && !watch->stopping; at += sizeof(*raw) + raw->len) {
		raw = (const void *)(buffer + at);
		event.wd = raw->wd;
		event.mask = raw->mask;
		event.cookie = raw->cookie;
		event.name = raw->len > 0 ? raw->name : "";
		watch->on_event(watch, &event);
	}
}

static void
poll_done(struct op *op, long result)
{
	struct file_watch *watch = container_of(op, struct file_watch, poll);
	char buffer[READ_BYTES] __attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t bytes;

	(void)result;
	if (watch->stopping) {
		kernel_close(watch->fd);
		watch->on_stopped(watch);
		return;
	}
	/* -EAGAIN: woken for nothing. */
	bytes = read(watch->fd, buffer, sizeof(buffer));
	if (bytes > 0)
		tell(watch, buffer, (size_t)bytes);
	if (!watch->stopping)
		arm(watch);
}

int
file_watch_start(struct file_watch *watch, struct reactor *reactor,
		 void (*on_event)(struct file_watch *watch, const struct file_event *event))
{
	int fd;

	if (watch == NULL || reactor == NULL || on_event == NULL)
		return -EINVAL;
	fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (fd < 0)
		return -errno;
	*watch = (struct file_watch){ .on_event = on_event, .reactor = reactor, .fd = fd };
	op_init(&watch->poll, poll_done);
	arm(watch);
	return 0;
}

int
file_watch_add(struct file_watch *watch, const char *path, uint32_t mask)
{
	int wd;

	if (watch == NULL || path == NULL || (mask & IN_ALL_EVENTS) == 0 || watch->stopping)
		return -EINVAL;
	wd = inotify_add_watch(watch->fd, path, mask);
	return wd < 0 ? -errno : wd;
}

int
file_watch_remove(struct file_watch *watch, int wd)
{
	if (watch == NULL || watch->stopping)
		return -EINVAL;
	return inotify_rm_watch(watch->fd, wd) < 0 ? -errno : 0;
}

void
file_watch_stop(struct file_watch *watch, void (*on_stopped)(struct file_watch *watch))
{
	CHECK(!watch->stopping);
	watch->stopping = true;
	watch->on_stopped = on_stopped;
	if (op_idle(&watch->poll))
		reactor_complete(watch->reactor, &watch->poll, 0);
	else
		reactor_cancel_poll(watch->reactor, &watch->poll);
}
