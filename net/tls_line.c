/* One step, then a pause: none while nobody asks the core for anything else. */
#include "net/tls_line.h"

/* A step of T is followed by a pause of so many T. */
#define PAUSE_STEPS 3u

static void take_step(struct task *task);
static void pause_over(struct timer *timer);

void
tls_line_init(struct tls_line *line, struct reactor *reactor)
{
	*line = (struct tls_line){ .reactor = reactor };
	list_init(&line->waiting);
	task_init(&line->next, take_step);
	timer_init(&line->pause, pause_over);
}

void
tls_line_fini(struct tls_line *line)
{
	CHECK(list_empty(&line->waiting));
	task_cancel(&line->next);
	reactor_timer_stop(line->reactor, &line->pause);
}

void
tls_line_join(struct tls_line *line, struct tls_line_place *place)
{
	if (!list_empty(&place->node))
		return;
	list_append(&line->waiting, &place->node);
	if (!timer_running(&line->pause))
		reactor_defer_idle(line->reactor, &line->next);
}

static void
pause_over(struct timer *timer)
{
	struct tls_line *line = container_of(timer, struct tls_line, pause);

	reactor_defer_idle(line->reactor, &line->next);
}

/* Whether the core does something else, and handshakes have had their share of its time. */
static bool
must_pause(const struct tls_line *line, uint64_t now_ns)
{
	return line->requests != line->requests_seen && now_ns < line->free_ns;
}

static void
take_step(struct task *task)
{
	struct tls_line *line = container_of(task, struct tls_line, next);
	uint64_t begin_ns = kernel_clock_ns(), end_ns;
	struct tls_line_place *place;

	if (list_empty(&line->waiting))
		return; /* all have left */
	if (must_pause(line, begin_ns)) {
		reactor_timer_start(line->reactor, &line->pause, line->free_ns - begin_ns);
		return;
	}
	place = container_of(list_take_first(&line->waiting), struct tls_line_place, node);
	place->step(place);
	end_ns = kernel_clock_ns();
	line->requests_seen = line->requests;
	line->free_ns = end_ns + PAUSE_STEPS * (end_ns - begin_ns);
	if (!list_empty(&line->waiting))
		reactor_defer_idle(line->reactor, &line->next);
}
