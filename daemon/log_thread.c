/* A ring of slots, each with a turn: a number that says who may use it next.  Whoever logs claims the slot at the head when it is that
 * turn's writer's, copies its line, and passes the slot on to the log's thread, which passes it on to who comes a round later.
 * Nobody waits for anybody: a slot that is not free means that the ring is full.
 * Source of the idea: D. Vyukov, "Bounded MPMC queue". */
#include "daemon/log_thread.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STOP_S 1

static_assert((LOG_THREAD_LINES & (LOG_THREAD_LINES - 1)) == 0, "turns wrap around with slots");

struct slot {
	/* Atomic.  Of the slot's index i: i + n * LINES: free for the line of that number; that + 1: the line is there.
	 * Released by who passes it on, acquired by who takes it. */
	unsigned turn;
	struct log_entry entry; /* with text and values that point into what follows */
	char text[LOG_LINE_BYTES_MAX];
	char values[LOG_THREAD_VALUE_BYTES + LOG_FIELDS_MAX]; /* with a NUL each */
};

struct log_thread {
	struct slot slots[LOG_THREAD_LINES];
	unsigned head;	   /* atomic: the number of the next line */
	unsigned tail;	   /* of the next line to be written; the log's thread only */
	unsigned lost;	   /* atomic: lines that are not told of yet */
	unsigned lost_at;  /* atomic, relaxed: the number of the line behind the first of these */
	log_writer writer; /* atomic, relaxed */
	bool stopping;	   /* atomic; before the last post of filled */
	sem_t filled;	   /* posted after each line */
	sem_t ended;
	pthread_t thread;
};

/* ---- whoever logs ---- */

/* Copy the values of SLOT's fields, so that they stay. */
static void
copy_values(struct slot *slot)
{
	size_t left_bytes = LOG_THREAD_VALUE_BYTES;
	char *at = slot->values;

	for (unsigned i = 0; i < slot->entry.fields.count; i++) {
		struct log_field *field = &slot->entry.fields.fields[i];
		size_t bytes;

		if (field->value == NULL)
			continue;
		bytes = strnlen(field->value, left_bytes);
		memcpy(at, field->value, bytes);
		at[bytes] = '\0';
		field->value = at;
		at += bytes + 1;
		left_bytes -= bytes;
	}
}

static void
fill(struct slot *slot, const struct log_entry *entry)
{
	slot->entry = *entry;
	(void)snprintf(slot->text, sizeof(slot->text), "%s", entry->text);
	slot->entry.text = slot->text;
	copy_values(slot);
}

/* The slot for the next line, and its number; or NULL: the ring is full, and the number is that of the next that has room. */
static struct slot *
claim(struct log_thread *thread, unsigned *number)
{
	unsigned head = __atomic_load_n(&thread->head, __ATOMIC_RELAXED);

	for (;;) {
		struct slot *slot = &thread->slots[head % LOG_THREAD_LINES];
		unsigned turn = __atomic_load_n(&slot->turn, __ATOMIC_ACQUIRE);

		if (turn != head) {
			unsigned now = __atomic_load_n(&thread->head, __ATOMIC_RELAXED);

			if (now == head) {
				*number = head;
				return NULL;
			}
			head = now; /* somebody else took it */
		} else if (__atomic_compare_exchange_n(&thread->head, &head, head + 1, true,
						       __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
			*number = head;
			return slot;
		}
	}
}

static void
take(void *context, const struct log_entry *entry)
{
	struct log_thread *thread = context;
	unsigned number;
	struct slot *slot = claim(thread, &number);

	if (slot == NULL) {
		/* Of the first only: where more are lost all the time it is told, too.  Who sees it too late says it early. */
		if (__atomic_fetch_add(&thread->lost, 1, __ATOMIC_RELAXED) == 0)
			__atomic_store_n(&thread->lost_at, number, __ATOMIC_RELAXED);
		return;
	}
	fill(slot, entry);
	__atomic_store_n(&slot->turn, number + 1, __ATOMIC_RELEASE);
	(void)sem_post(&thread->filled);
}

/* ---- the log's thread ---- */

static void
write_lost(log_writer writer, unsigned count, uint64_t time_ns)
{
	char text[128];
	struct log_entry entry = { .level = LOG_LEVEL_WARNING, .time_ns = time_ns, .text = text };

	(void)snprintf(text, sizeof(text),
		       "%u lines of the log were lost here: its reader was too slow", count);
	writer(&entry);
}

/* Say how many were lost before the line that is next, which is there or not. */
static void
tell_lost(struct log_thread *thread, log_writer writer, uint64_t time_ns)
{
	unsigned lost;

	if (__atomic_load_n(&thread->lost, __ATOMIC_RELAXED) == 0 ||
	    (int)(thread->tail - __atomic_load_n(&thread->lost_at, __ATOMIC_RELAXED)) < 0)
		return;
	lost = __atomic_exchange_n(&thread->lost, 0, __ATOMIC_RELAXED);
	write_lost(writer, lost, time_ns);
}

/* Write what is there. */
static void
drain(struct log_thread *thread)
{
	for (;;) {
		struct slot *slot = &thread->slots[thread->tail % LOG_THREAD_LINES];
		log_writer writer = __atomic_load_n(&thread->writer, __ATOMIC_RELAXED);
		uint64_t time_ns;

		if (__atomic_load_n(&slot->turn, __ATOMIC_ACQUIRE) != thread->tail + 1)
			return;
		writer(&slot->entry);
		time_ns = slot->entry.time_ns;
		__atomic_store_n(&slot->turn, thread->tail + LOG_THREAD_LINES, __ATOMIC_RELEASE);
		thread->tail++;
		tell_lost(thread, writer, time_ns);
	}
}

static void *
run(void *argument)
{
	struct log_thread *thread = argument;

	while (!__atomic_load_n(&thread->stopping, __ATOMIC_ACQUIRE)) {
		while (sem_wait(&thread->filled) != 0)
			;
		drain(thread);
	}
	/* What came between its last look and the end. */
	drain(thread);
	sem_post(&thread->ended);
	return NULL;
}

/* ---- starting and stopping ---- */

int
log_thread_start(log_writer writer, struct log_thread **result)
{
	struct log_thread *thread = calloc(1, sizeof(*thread));
	int error;

	if (thread == NULL)
		return -ENOMEM;
	for (unsigned i = 0; i < LOG_THREAD_LINES; i++)
		thread->slots[i].turn = i;
	thread->writer = writer;
	sem_init(&thread->filled, 0, 0);
	sem_init(&thread->ended, 0, 0);
	error = -pthread_create(&thread->thread, NULL, run, thread);
	if (error < 0) {
		sem_destroy(&thread->filled);
		sem_destroy(&thread->ended);
		free(thread);
		return error;
	}
	(void)pthread_setname_np(thread->thread, "log");
	log_set_sink(take, thread);
	*result = thread;
	return 0;
}

void
log_thread_set_writer(struct log_thread *thread, log_writer writer)
{
	__atomic_store_n(&thread->writer, writer, __ATOMIC_RELAXED);
}

void
log_thread_stop(struct log_thread *thread)
{
	struct timespec deadline;
	int waited;

	__atomic_store_n(&thread->stopping, true, __ATOMIC_RELEASE);
	(void)sem_post(&thread->filled);
	clock_gettime(CLOCK_MONOTONIC, &deadline);
	deadline.tv_sec += STOP_S;
	do
		waited = sem_clockwait(&thread->ended, CLOCK_MONOTONIC, &deadline);
	while (waited != 0 && errno == EINTR);
	if (waited != 0) {
		/* It waits for a reader that does not read, and ends with the process: what it uses must stay. */
		(void)pthread_detach(thread->thread);
		return;
	}
	log_set_sink(NULL, NULL);
	(void)pthread_join(thread->thread, NULL);
	sem_destroy(&thread->filled);
	sem_destroy(&thread->ended);
	free(thread);
}
