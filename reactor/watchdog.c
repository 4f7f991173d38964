/* Heartbeats, read from outside. */
#include "reactor/watchdog.h"

#include <errno.h>
#include <execinfo.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "reactor/log.h"

#define STALL_MS_MIN	10
#define STALL_MS_MAX	3600000
#define LOOKS_PER_STALL 2 /* a look each half stall-ms */
#define FRAMES_MAX	32
#define ANSWER_MS	50 /* a core that can't answer within this is in the kernel */
#define NS_PER_MS	1000000
#define NS_PER_S	1000000000
#define LOG_MINUTE_NS	((uint64_t)60 * NS_PER_S)

/* What the watchdog remembers of a core. */
struct heartbeat {
	uint64_t turns;
	unsigned looks; /* without a turn in between */
};

/* Where a stalled core is: filled in by its signal handler. */
struct whereabouts {
	void *frames[FRAMES_MAX];
	int frame_count;
	sem_t answered;
};

struct watchdog {
	struct cores *cores;
	unsigned stall_ms;
	struct heartbeat *heartbeats; /* [cores->count] */
	struct whereabouts whereabouts;
	bool answer_missing;	/* a core may still write to whereabouts: don't ask another */
	struct message came_on; /* sent to that core */
	sem_t has_come_on;
	uint64_t stall_count;			      /* atomic */
	uint64_t logged_ns[WATCHDOG_LOGS_PER_MINUTE]; /* when it last logged so many; 0: never */
	unsigned logged_next;			      /* of these, the one that is longest ago */
	pthread_t thread;
	pthread_mutex_t lock; /* for stopping */
	pthread_cond_t wake;
	bool stopping;
};

/* ---- asking a core where it is ---- */

/* On the stalled core.  Only functions that are safe in signal handlers: backtrace is, once it has been called. */
static void
on_question(int number, siginfo_t *info, void *context)
{
	struct whereabouts *whereabouts = info->si_value.sival_ptr;
	int saved_errno = errno;

	(void)number;
	(void)context;
	if (info->si_code != SI_QUEUE || whereabouts == NULL)
		return; /* somebody else's */
	whereabouts->frame_count = backtrace(whereabouts->frames, FRAMES_MAX);
	sem_post(&whereabouts->answered);
	errno = saved_errno;
}

static void
deadline_after_ms(unsigned ms, struct timespec *deadline)
{
	clock_gettime(CLOCK_MONOTONIC, deadline);
	deadline->tv_nsec += (long)(ms % 1000) * NS_PER_MS;
	deadline->tv_sec += (time_t)(ms / 1000) + deadline->tv_nsec / NS_PER_S;
	deadline->tv_nsec %= NS_PER_S;
}

static void
on_came_on(struct message *message)
{
	sem_post(&container_of(message, struct watchdog, came_on)->has_come_on);
}

/* CORE has not answered in time.  When it takes messages again the question is behind it: answered, or lost, as it is where
 * RLIMIT_SIGPENDING has no room for what comes with a signal. */
static void
expect_later(struct watchdog *watchdog, const struct core *core)
{
	watchdog->answer_missing = true;
	watchdog->came_on.deliver = on_came_on;
	reactor_send(core->reactor, &watchdog->came_on);
}

/* Whether no core has a question any more. */
static bool
may_ask(struct watchdog *watchdog)
{
	if (watchdog->answer_missing && sem_trywait(&watchdog->has_come_on) != 0)
		return false;
	watchdog->answer_missing = false;
	while (sem_trywait(&watchdog->whereabouts.answered) == 0)
		; /* too late */
	return true;
}

static bool
take_answer(struct watchdog *watchdog, const struct core *core)
{
	struct timespec deadline;

	deadline_after_ms(ANSWER_MS, &deadline);
	if (sem_clockwait(&watchdog->whereabouts.answered, CLOCK_MONOTONIC, &deadline) == 0)
		return true;
	expect_later(watchdog, core);
	return false;
}

/* A line about CORE, whose thread does not log it itself; FORMAT as printf(3). */
static void PRINTF_LIKE(2, 3) warn_of(const struct core *core, const char *format, ...)
{
	struct log_fields fields = { .count = 0 };
	char line[LOG_LINE_BYTES_MAX];
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	log_fields_add_number(&fields, "core", core->cpu);
	log_line_about(LOG_LEVEL_WARNING, &fields, "core %u: %s", core->cpu, line);
}

static void
log_whereabouts(struct watchdog *watchdog, const struct core *core)
{
	union sigval question = { .sival_ptr = &watchdog->whereabouts };
	char **symbols;

	if (!may_ask(watchdog)) {
		warn_of(core, "another core has not answered yet: no backtrace");
		return;
	}
	if (pthread_sigqueue(core->thread, SIGURG, question) != 0)
		return;
	if (!take_answer(watchdog, core)) {
		warn_of(core, "is in a system call that can't be interrupted");
		return;
	}
	symbols =
		backtrace_symbols(watchdog->whereabouts.frames, watchdog->whereabouts.frame_count);
	/* The first two frames are the handler's. */
	for (int i = 2; symbols != NULL && i < watchdog->whereabouts.frame_count; i++)
		warn_of(core, "  %s", symbols[i]);
	free(symbols);
}

/* ---- looking ---- */

/* Never more than so many in any minute, whenever it begins. */
static bool
may_log(struct watchdog *watchdog)
{
	uint64_t now_ns = kernel_clock_ns(), *oldest = &watchdog->logged_ns[watchdog->logged_next];

	if (*oldest != 0 && now_ns - *oldest < LOG_MINUTE_NS)
		return false;
	*oldest = now_ns;
	watchdog->logged_next = (watchdog->logged_next + 1) % WATCHDOG_LOGS_PER_MINUTE;
	return true;
}

static void
look_at(struct watchdog *watchdog, const struct core *core, struct heartbeat *heartbeat)
{
	uint64_t turns = reactor_turns(core->reactor);

	if (turns != heartbeat->turns || reactor_sleeping(core->reactor)) {
		heartbeat->turns = turns;
		heartbeat->looks = 0;
		return;
	}
	/* The first look may have come at the turn's very end; LOOKS_PER_STALL more make the time.  Once for each stall. */
	if (++heartbeat->looks != LOOKS_PER_STALL + 1)
		return;
	__atomic_add_fetch(&watchdog->stall_count, 1, __ATOMIC_RELAXED);
	if (!may_log(watchdog))
		return;
	warn_of(core, "has been busy with one turn for more than %u ms", watchdog->stall_ms);
	log_whereabouts(watchdog, core);
}

static void *
watchdog_main(void *argument)
{
	struct watchdog *watchdog = argument;

	pthread_mutex_lock(&watchdog->lock);
	while (!watchdog->stopping) {
		struct timespec next;

		deadline_after_ms(watchdog->stall_ms / LOOKS_PER_STALL, &next);
		(void)pthread_cond_timedwait(&watchdog->wake, &watchdog->lock, &next);
		for (unsigned i = 0; i < watchdog->cores->count && !watchdog->stopping; i++)
			look_at(watchdog, &watchdog->cores->cores[i], &watchdog->heartbeats[i]);
	}
	pthread_mutex_unlock(&watchdog->lock);
	return NULL;
}

/* ---- starting and stopping ---- */

static void
catch_questions(void)
{
	struct sigaction action = { .sa_sigaction = on_question,
				    .sa_flags = SA_SIGINFO | SA_RESTART };
	void *frame;

	/* The first call loads a library, which a signal handler must not. */
	(void)backtrace(&frame, 1);
	sigemptyset(&action.sa_mask);
	(void)sigaction(SIGURG, &action, NULL);
}

int
watchdog_start(struct cores *cores, unsigned stall_ms, struct watchdog **result)
{
	struct watchdog *watchdog;
	pthread_condattr_t clock;
	int error;

	if (cores == NULL || result == NULL || stall_ms < STALL_MS_MIN || stall_ms > STALL_MS_MAX)
		return -EINVAL;
	watchdog = calloc(1, sizeof(*watchdog));
	if (watchdog == NULL)
		return -ENOMEM;
	watchdog->cores = cores;
	watchdog->stall_ms = stall_ms;
	watchdog->heartbeats = calloc(cores->count, sizeof(watchdog->heartbeats[0]));
	if (watchdog->heartbeats == NULL) {
		free(watchdog);
		return -ENOMEM;
	}
	sem_init(&watchdog->whereabouts.answered, 0, 0);
	sem_init(&watchdog->has_come_on, 0, 0);
	pthread_condattr_init(&clock);
	pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
	pthread_mutex_init(&watchdog->lock, NULL);
	pthread_cond_init(&watchdog->wake, &clock);
	pthread_condattr_destroy(&clock);
	catch_questions();
	error = -pthread_create(&watchdog->thread, NULL, watchdog_main, watchdog);
	if (error < 0) {
		free(watchdog->heartbeats);
		free(watchdog);
		return error;
	}
	*result = watchdog;
	return 0;
}

void
watchdog_stop(struct watchdog *watchdog)
{
	pthread_mutex_lock(&watchdog->lock);
	watchdog->stopping = true;
	pthread_cond_signal(&watchdog->wake);
	pthread_mutex_unlock(&watchdog->lock);
	pthread_join(watchdog->thread, NULL);
	/* A core that was asked and is still in the kernel may answer into this memory when it comes back. */
	if (watchdog->answer_missing)
		while (sem_wait(&watchdog->has_come_on) != 0)
			;
	sem_destroy(&watchdog->has_come_on);
	sem_destroy(&watchdog->whereabouts.answered);
	pthread_cond_destroy(&watchdog->wake);
	pthread_mutex_destroy(&watchdog->lock);
	free(watchdog->heartbeats);
	free(watchdog);
}

uint64_t
watchdog_stall_count(const struct watchdog *watchdog)
{
	return __atomic_load_n(&watchdog->stall_count, __ATOMIC_RELAXED);
}
