/* daemon/log_thread.h: lines arrive in order, and nobody waits for a reader that does not read. */
#include "daemon/log_thread.h"

#include <criterion/criterion.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define LINES_MAX 8192u

/* What the writer was given; it waits for a post of may_write before each line while it is gated. */
static char lines[LINES_MAX][64];
static char values[LINES_MAX][2 * LOG_THREAD_VALUE_BYTES];
static unsigned line_count;
static bool gated;
static sem_t has_begun, may_write;

static void
write_down(const struct log_entry *entry)
{
	if (gated) {
		sem_post(&has_begun);
		sem_wait(&may_write);
	}
	cr_assert_lt(line_count, LINES_MAX);
	snprintf(lines[line_count], sizeof(lines[0]), "%s", entry->text);
	for (unsigned i = 0; i < entry->fields.count; i++) {
		if (entry->fields.fields[i].value != NULL)
			strcat(values[line_count], entry->fields.fields[i].value);
	}
	line_count++;
}

static void
begin(void)
{
	sem_init(&has_begun, 0, 0);
	sem_init(&may_write, 0, 0);
}

TestSuite(log_thread, .init = begin);

static struct log_thread *
start(void)
{
	struct log_thread *thread;

	cr_assert_eq(log_thread_start(write_down, &thread), 0);
	return thread;
}

Test(log_thread, lines_are_written_in_order_before_it_stops)
{
	struct log_thread *thread = start();

	for (unsigned i = 0; i < LOG_THREAD_LINES; i++)
		log_info("line %u", i);
	log_thread_stop(thread);
	cr_assert_eq(line_count, LOG_THREAD_LINES);
	for (unsigned i = 0; i < line_count; i++) {
		char wanted[64];

		snprintf(wanted, sizeof(wanted), "line %u", i);
		cr_assert_str_eq(lines[i], wanted);
	}
}

Test(log_thread, values_are_copied_and_long_ones_cut)
{
	static char name[2 * LOG_THREAD_VALUE_BYTES];
	struct log_thread *thread = start();
	struct log_fields fields = { .count = 0 };

	memset(name, 'n', sizeof(name) - 1);
	log_fields_add(&fields, "client", "ab");
	log_fields_add_number(&fields, "core", 1);
	log_fields_add(&fields, "export", name);
	log_fields_add(&fields, "volume", "no room");
	log_line_about(LOG_LEVEL_INFO, &fields, "x");
	log_thread_stop(thread);
	cr_assert_eq(line_count, 1);
	cr_assert_eq(strlen(values[0]), LOG_THREAD_VALUE_BYTES);
	cr_assert_eq(strncmp(values[0], "abnnn", 5), 0);
}

Test(log_thread, full_queue_loses_lines_and_says_how_many)
{
	struct log_thread *thread;

	gated = true;
	thread = start();
	log_info("first");
	sem_wait(&has_begun); /* and waits; its slot is not free */
	for (unsigned i = 1; i < LOG_THREAD_LINES + 5; i++)
		log_info("line %u", i);
	gated = false;
	sem_post(&may_write);
	log_thread_stop(thread);
	cr_assert_eq(line_count, LOG_THREAD_LINES + 1);
	cr_assert_str_eq(lines[0], "first");
	cr_assert_str_eq(lines[1], "line 1");
	/* Behind the last that had room. */
	cr_assert_str_eq(lines[LOG_THREAD_LINES],
			 "5 lines of the log were lost here: its reader was too slow");
}

Test(log_thread, lines_are_lost_where_it_is_said)
{
	struct log_thread *thread;

	gated = true;
	thread = start();
	log_info("first");
	sem_wait(&has_begun);
	for (unsigned i = 1; i < LOG_THREAD_LINES + 5; i++)
		log_info("line %u", i);
	/* The first is written, and the second begun: there is room for one. */
	sem_post(&may_write);
	sem_wait(&has_begun);
	log_info("next");
	gated = false;
	sem_post(&may_write);
	log_thread_stop(thread);
	cr_assert_eq(line_count, LOG_THREAD_LINES + 2);
	cr_assert_str_eq(lines[LOG_THREAD_LINES],
			 "5 lines of the log were lost here: its reader was too slow");
	cr_assert_str_eq(lines[LOG_THREAD_LINES + 1], "next");
}

Test(log_thread, stop_does_not_wait_for_ever)
{
	struct log_thread *thread;

	gated = true;
	thread = start();
	log_info("first");
	sem_wait(&has_begun);
	log_thread_stop(thread);
	log_info("lost, but nobody waits");
	cr_assert_eq(line_count, 0);
}

Test(log_thread, writer_can_be_changed)
{
	struct log_thread *thread;

	cr_assert_eq(log_thread_start(log_write_text, &thread), 0);
	log_thread_set_writer(thread, write_down);
	log_info("new");
	log_thread_stop(thread);
	cr_assert_eq(line_count, 1);
}

#define WRITERS		 4
#define LINES_PER_WRITER 2000u

static void *
log_many(void *argument)
{
	const char *name = argument;

	for (unsigned i = 0; i < LINES_PER_WRITER; i++)
		log_info("%s %u", name, i);
	return NULL;
}

/* Each thread's lines are there in order, but for those that are counted as lost. */
Test(log_thread, many_threads_lose_nothing_uncounted)
{
	static char names[WRITERS][2] = { "a", "b", "c", "d" };
	unsigned next[WRITERS] = { 0 }, written = 0, lost = 0;
	struct log_thread *thread = start();
	pthread_t writers[WRITERS];

	for (unsigned i = 0; i < WRITERS; i++)
		pthread_create(&writers[i], NULL, log_many, names[i]);
	for (unsigned i = 0; i < WRITERS; i++)
		pthread_join(writers[i], NULL);
	log_thread_stop(thread);
	for (unsigned i = 0; i < line_count; i++) {
		unsigned number;
		char name;

		if (sscanf(lines[i], "%u lines of the log", &number) == 1) {
			lost += number;
			continue;
		}
		cr_assert_eq(sscanf(lines[i], "%c %u", &name, &number), 2, "%s", lines[i]);
		cr_assert_geq(number, next[name - 'a']);
		next[name - 'a'] = number + 1;
		written++;
	}
	cr_assert_eq(written + lost, WRITERS * LINES_PER_WRITER);
}
