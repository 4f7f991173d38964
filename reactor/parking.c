/* The epoll set and its harvest.
 *
 * The poll on the ring is one-shot, and reports at once what was ready before it was armed.  So: harvest, then arm; or,
 * when a batch was full, harvest again at the end of this turn or in the next and arm when one was not. */
#include "reactor/parking.h"

#include <errno.h>
#include <poll.h>

enum parked_state {
	PARKED_STATE_OUT,     /* not in the set */
	PARKED_STATE_PARKED,  /* in the set, armed for once */
	PARKED_STATE_WATCHED, /* in the set, armed for each time */
	PARKED_STATE_AWAKE,   /* in the set, disarmed */
};

#define NOT_FETCHED UINT8_MAX

_Static_assert(PARKING_BATCH <= NOT_FETCHED, "parked.batch_index holds any place in a batch");

static void
arm(struct parking *parking)
{
	parking->armed_rests = reactor_rests(parking->reactor);
	op_poll_reserved(&parking->poll, parking->epoll_fd, POLLIN);
	reactor_start_always(parking->reactor, &parking->poll);
}

/* Take one batch from the kernel; each knows its place, so that it can be taken out. */
static void
fetch(struct parking *parking)
{
	struct epoll_event events[PARKING_BATCH];
	int count = kernel_epoll_wait(parking->epoll_fd, events, PARKING_BATCH);

	parking->batch_next = 0;
	parking->batch_count =
		count > 0 ? (unsigned)count : 0; /* -EINTR: the poll will tell again */
	for (unsigned i = 0; i < parking->batch_count; i++) {
		struct parked *parked = events[i].data.ptr;

		parking->batch[i] = NULL;
		if (parked->state == PARKED_STATE_AWAKE)
			continue; /* the end and errors are told even of what is disarmed */
		parked->events = events[i].events;
		parked->batch_index = (uint8_t)i;
		parking->batch[i] = parked;
	}
}

/* PARKED was fetched, and is not to be told any more. */
static void
take_out(struct parked *parked)
{
	if (parked->batch_index == NOT_FETCHED)
		return;
	parked->parking->batch[parked->batch_index] = NULL;
	parked->batch_index = NOT_FETCHED;
}

static void
tell(struct parking *parking)
{
	while (parking->batch_next < parking->batch_count) {
		struct parked *parked = parking->batch[parking->batch_next++];

		if (parked == NULL)
			continue; /* taken out by the ready of one before it */
		take_out(parked);
		if (parked->state == PARKED_STATE_PARKED)
			parked->state = PARKED_STATE_AWAKE;
		parked->ready(parked);
	}
}

static void
harvest(struct parking *parking)
{
	fetch(parking);
	tell(parking);
	if (parking->stopping)
		return;
	/* If the reactor had enough to do since the poll was armed, looking again is cheaper than arming it. */
	if (parking->batch_count == PARKING_BATCH ||
	    (parking->batch_count > 0 && reactor_rests(parking->reactor) == parking->armed_rests))
		reactor_defer(parking->reactor, &parking->more);
	else
		arm(parking);
}

/* The poll is nobody's any more. */
static void
give_back(struct parking *parking)
{
	kernel_close(parking->epoll_fd);
	reactor_unreserve(parking->reactor);
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
	give_back(parking);
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
	int fd, error;

	if (parking == NULL || reactor == NULL || events == 0 ||
	    (events & ~(unsigned)(POLLIN | POLLOUT)) != 0)
		return -EINVAL;
	error = reactor_reserve(reactor);
	if (error < 0)
		return error;
	fd = kernel_epoll_create();
	if (fd < 0) {
		reactor_unreserve(reactor);
		return fd;
	}
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
	give_back(parking);
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
	*parked = (struct parked){
		.ready = ready, .fd = -1, .state = PARKED_STATE_OUT, .batch_index = NOT_FETCHED
	};
}

bool
parked_is_parked(const struct parked *parked)
{
	return parked->state == PARKED_STATE_PARKED || parked->state == PARKED_STATE_WATCHED;
}

/* Put PARKED, which is not in the set, there. */
static int
add_first(struct parking *parking, struct parked *parked, int fd, unsigned events)
{
	int error = kernel_epoll_add(parking->epoll_fd, fd, events, parked);

	if (error < 0)
		return error == -EPERM ? -EOPNOTSUPP : error;
	parked->parking = parking;
	parked->fd = fd;
	parking->registered_count++;
	return 0;
}

/* Have PARKED, in the set or not, in STATE, for EVENTS. */
static int
add(struct parking *parking, struct parked *parked, int fd, unsigned events,
    enum parked_state state)
{
	int error;

	if (parking == NULL || parked == NULL || parked->ready == NULL || fd < 0 ||
	    parking->stopping || parked_is_parked(parked))
		return -EINVAL;
	if (parked->state == PARKED_STATE_OUT)
		error = add_first(parking, parked, fd, parking->events | events);
	else if (parked->parking != parking || parked->fd != fd)
		error = -EINVAL;
	else
		error = kernel_epoll_rearm(parking->epoll_fd, fd, parking->events | events, parked);
	if (error == 0)
		parked->state = (uint8_t)state;
	return error;
}

int
parking_add(struct parking *parking, struct parked *parked, int fd)
{
	return add(parking, parked, fd, EPOLLONESHOT, PARKED_STATE_PARKED);
}

int
parking_watch(struct parking *parking, struct parked *parked, int fd)
{
	if (parked != NULL && parked->state == PARKED_STATE_WATCHED && parked->parking == parking &&
	    parked->fd == fd)
		return 0;
	return add(parking, parked, fd, EPOLLET | EPOLLRDHUP | EPOLLPRI, PARKED_STATE_WATCHED);
}

void
parking_mute(struct parked *parked)
{
	if (parked->state != PARKED_STATE_WATCHED)
		return;
	take_out(parked);
	/* An error means that the descriptor was closed before, as in parking_remove. */
	CHECK(kernel_epoll_rearm(parked->parking->epoll_fd, parked->fd, EPOLLET, parked) == 0);
	parked->state = PARKED_STATE_AWAKE;
}

void
parking_remove(struct parked *parked)
{
	struct parking *parking = parked->parking;

	if (parked->state == PARKED_STATE_OUT)
		return;
	take_out(parked);
	/* An error means that the descriptor was closed before: the kernel might call for a parked that is gone. */
	CHECK(kernel_epoll_remove(parking->epoll_fd, parked->fd) == 0);
	parking->registered_count--;
	parked->state = PARKED_STATE_OUT;
	parked->parking = NULL;
	parked->fd = -1;
	parked->events = 0;
}
