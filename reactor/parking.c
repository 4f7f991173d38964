/* The epoll set and its harvest.
 *
 * The poll on the ring is one-shot, and reports at once what was ready before it was armed.  So: harvest, then arm; or,
 * when a batch was full, harvest again at the end of this turn or in the next and arm when one was not. */
#include "reactor/parking.h"

#include <errno.h>
#include <poll.h>

enum parked_state {
	PARKED_STATE_OUT,     /* not in the set */
	PARKED_STATE_PARKED,  /* in the set, armed */
	PARKED_STATE_FETCHED, /* in the batch: reported by the kernel, ready not called yet */
	PARKED_STATE_AWAKE,   /* in the set, disarmed */
};

static void
arm(struct parking *parking)
{
	op_poll_reserved(&parking->poll, parking->epoll_fd, POLLIN);
	reactor_start(parking->reactor, &parking->poll);
}

/* Take one batch from the kernel.  Returns how many; each knows its place, so that parking_remove can clear it. */
static unsigned
fetch(struct parking *parking)
{
	struct epoll_event events[PARKING_BATCH];
	int count = kernel_epoll_wait(parking->epoll_fd, events, PARKING_BATCH);

	for (int i = 0; i < count; i++) {
		struct parked *parked = events[i].data.ptr;

		DCHECK(parked->state == PARKED_STATE_PARKED && parked->parking == parking);
		parked->state = PARKED_STATE_FETCHED;
		parked->batch_index = (uint8_t)i;
		parking->batch[i] = parked;
	}
	return count > 0 ? (unsigned)count : 0; /* -EINTR: the poll will tell again */
}

static void
harvest(struct parking *parking)
{
	unsigned count = fetch(parking);

	for (unsigned i = 0; i < count; i++) {
		struct parked *parked = parking->batch[i];

		if (parked == NULL)
			continue; /* removed by the ready of one before it */
		parking->batch[i] = NULL;
		parked->state = PARKED_STATE_AWAKE;
		parked->ready(parked);
	}
	if (parking->stopping)
		return;
	if (count == PARKING_BATCH)
		reactor_defer(parking->reactor, &parking->more);
	else
		arm(parking);
}

static void
poll_done(struct op *op, long result)
{
	struct parking *parking = container_of(op, struct parking, poll);

	/* An error is the kernel's want of something: the set is looked at and polled again, it must not go deaf. */
	(void)result;
	if (!parking->stopping) {
		harvest(parking);
		return;
	}
	kernel_close(parking->epoll_fd);
	parking->on_stopped(parking);
}

static void
harvest_more(struct task *task)
{
	harvest(container_of(task, struct parking, more));
}

int
parking_start(struct parking *parking, struct reactor *reactor, unsigned events)
{
	int fd;

	if (parking == NULL || reactor == NULL || events == 0 ||
	    (events & ~(unsigned)(POLLIN | POLLOUT)) != 0)
		return -EINVAL;
	fd = kernel_epoll_create();
	if (fd < 0)
		return fd;
	*parking = (struct parking){ .reactor = reactor, .epoll_fd = fd, .events = events };
	op_init(&parking->poll, poll_done);
	task_init(&parking->more, harvest_more);
	arm(parking);
	return 0;
}

void
parking_discard(struct parking *parking)
{
	/* The poll waits for the turn's end, so nothing of it is with the kernel. */
	CHECK(parking->poll.state == OP_STATE_QUEUED && parking->registered_count == 0);
	reactor_abandon(parking->reactor, &parking->poll);
	kernel_close(parking->epoll_fd);
}

void
parking_stop(struct parking *parking, void (*on_stopped)(struct parking *parking))
{
	CHECK(!parking->stopping && parking->registered_count == 0);
	parking->stopping = true;
	parking->on_stopped = on_stopped;
	task_cancel(&parking->more);
	if (op_idle(&parking->poll))
		reactor_complete(parking->reactor, &parking->poll, 0);
	else
		reactor_cancel_poll(parking->reactor, &parking->poll);
}

void
parked_init(struct parked *parked, void (*ready)(struct parked *parked))
{
	*parked = (struct parked){ .ready = ready, .fd = -1, .state = PARKED_STATE_OUT };
}

bool
parked_is_parked(const struct parked *parked)
{
	return parked->state == PARKED_STATE_PARKED || parked->state == PARKED_STATE_FETCHED;
}

/* Park again what is in the set already. */
static int
add_again(struct parking *parking, struct parked *parked, int fd)
{
	int error;

	if (parked->parking != parking || parked->fd != fd)
		return -EINVAL;
	error = kernel_epoll_rearm(parking->epoll_fd, fd, parking->events, parked);
	if (error == 0)
		parked->state = PARKED_STATE_PARKED;
	return error;
}

int
parking_add(struct parking *parking, struct parked *parked, int fd)
{
	int error;

	if (parking == NULL || parked == NULL || parked->ready == NULL || fd < 0 ||
	    parking->stopping || parked_is_parked(parked))
		return -EINVAL;
	if (parked->state == PARKED_STATE_AWAKE)
		return add_again(parking, parked, fd);
	error = kernel_epoll_add(parking->epoll_fd, fd, parking->events, parked);
	if (error < 0)
		return error == -EPERM ? -EOPNOTSUPP : error;
	parked->state = PARKED_STATE_PARKED;
	parked->parking = parking;
	parked->fd = fd;
	parking->registered_count++;
	return 0;
}

void
parking_remove(struct parked *parked)
{
	struct parking *parking = parked->parking;

	if (parked->state == PARKED_STATE_OUT)
		return;
	if (parked->state == PARKED_STATE_FETCHED)
		parking->batch[parked->batch_index] = NULL;
	/* An error means that the descriptor was closed before: the kernel might call for a parked that is gone. */
	CHECK(kernel_epoll_remove(parking->epoll_fd, parked->fd) == 0);
	parking->registered_count--;
	parked->state = PARKED_STATE_OUT;
	parked->parking = NULL;
	parked->fd = -1;
}
