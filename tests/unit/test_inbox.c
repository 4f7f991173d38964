/* reactor/inbox.h: order, what is posted during a delivery, and many senders at once. */
#include "reactor/inbox.h"

#include <criterion/criterion.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

static struct inbox inbox;

static void
setup(void)
{
	inbox_init(&inbox);
}

TestSuite(inbox, .init = setup, .timeout = 60);

struct numbered {
	struct message message;
	unsigned sender, number;
};

static unsigned delivered[16];
static unsigned delivered_count;

static void
note_number(struct message *message)
{
	struct numbered *numbered = container_of(message, struct numbered, message);

	cr_assert_lt(delivered_count, ARRAY_COUNT(delivered));
	delivered[delivered_count++] = numbered->number;
}

static void
post_number(struct numbered *numbered, unsigned number)
{
	*numbered = (struct numbered){ .message.deliver = note_number, .number = number };
	inbox_post(&inbox, &numbered->message);
}

Test(inbox, is_empty_at_first)
{
	cr_assert(inbox_empty(&inbox));
	cr_assert_eq(inbox_deliver(&inbox, UINT_MAX), 0);
}

Test(inbox, delivers_in_the_order_of_posts)
{
	struct numbered numbered[8];

	for (unsigned i = 0; i < ARRAY_COUNT(numbered); i++)
		post_number(&numbered[i], i);
	cr_assert_not(inbox_empty(&inbox));
	cr_assert_eq(delivered_count, 0);
	cr_assert_eq(inbox_deliver(&inbox, UINT_MAX), ARRAY_COUNT(numbered));
	cr_assert_eq(delivered_count, ARRAY_COUNT(numbered));
	for (unsigned i = 0; i < ARRAY_COUNT(numbered); i++)
		cr_assert_eq(delivered[i], i);
}

Test(inbox, delivers_once)
{
	struct numbered numbered;

	post_number(&numbered, 0);
	cr_assert_eq(inbox_deliver(&inbox, UINT_MAX), 1);
	cr_assert(inbox_empty(&inbox));
	cr_assert_eq(inbox_deliver(&inbox, UINT_MAX), 0);
	cr_assert_eq(delivered_count, 1);
}

static unsigned posted_again;

static void
post_itself_again(struct message *message)
{
	posted_again++;
	inbox_post(&inbox, message);
}

Test(inbox, posted_during_a_delivery_waits_for_the_next)
{
	struct message message = { .deliver = post_itself_again };

	inbox_post(&inbox, &message);
	for (unsigned i = 1; i <= 3; i++) {
		cr_assert_eq(inbox_deliver(&inbox, UINT_MAX), 1);
		cr_assert_eq(posted_again, i);
		cr_assert_not(inbox_empty(&inbox));
	}
}

static struct numbered later[2];

static void
post_later(struct message *message)
{
	(void)message;
	post_number(&later[0], 10);
	post_number(&later[1], 11);
}

Test(inbox, posted_during_a_delivery_comes_behind_the_rest_of_it)
{
	struct message first = { .deliver = post_later };
	struct numbered second;

	inbox_post(&inbox, &first);
	post_number(&second, 0);
	cr_assert_eq(inbox_deliver(&inbox, UINT_MAX), 2);
	cr_assert_eq(inbox_deliver(&inbox, UINT_MAX), 2);
	cr_assert_eq(delivered_count, 3);
	cr_assert_eq(delivered[0], 0);
	cr_assert_eq(delivered[1], 10);
	cr_assert_eq(delivered[2], 11);
}

static void
free_itself(struct message *message)
{
	delivered_count++;
	free(container_of(message, struct numbered, message));
}

Test(inbox, message_can_be_freed_by_its_delivery)
{
	for (unsigned i = 0; i < 3; i++) {
		struct numbered *numbered = malloc(sizeof(*numbered));

		cr_assert_not_null(numbered);
		numbered->message.deliver = free_itself;
		inbox_post(&inbox, &numbered->message);
	}
	cr_assert_eq(inbox_deliver(&inbox, UINT_MAX), 3);
	cr_assert_eq(delivered_count, 3);
}

/* Many senders.  Assertions are for the test's own thread, which is the consumer. */

#define SENDERS		 4
#define SENDER_MESSAGES	 50000
#define MESSAGES_IN_POST 16 /* messages of one sender that are posted and not delivered yet */

static unsigned next_number[SENDERS];

struct sender {
	unsigned index;
	struct numbered numbered[MESSAGES_IN_POST];
	unsigned free_count; /* atomic */
};

static struct sender senders[SENDERS];

static void
expect_next_number(struct message *message)
{
	struct numbered *numbered = container_of(message, struct numbered, message);

	cr_assert_eq(numbered->number, next_number[numbered->sender]);
	next_number[numbered->sender]++;
	/* From here on the message is its sender's, who may post it at once. */
	__atomic_fetch_add(&senders[numbered->sender].free_count, 1, __ATOMIC_RELEASE);
}

static void *
send_all(void *argument)
{
	struct sender *sender = argument;

	for (unsigned i = 0; i < SENDER_MESSAGES; i++) {
		struct numbered *numbered = &sender->numbered[i % MESSAGES_IN_POST];

		while (__atomic_load_n(&sender->free_count, __ATOMIC_ACQUIRE) == 0)
			sched_yield();
		__atomic_fetch_sub(&sender->free_count, 1, __ATOMIC_RELAXED);
		*numbered = (struct numbered){
			.message.deliver = expect_next_number,
			.sender = sender->index,
			.number = i,
		};
		inbox_post(&inbox, &numbered->message);
	}
	return NULL;
}

Test(inbox, many_senders_lose_nothing_and_keep_their_order)
{
	pthread_t threads[SENDERS];
	unsigned count = 0;

	for (unsigned i = 0; i < SENDERS; i++) {
		senders[i] = (struct sender){ .index = i, .free_count = MESSAGES_IN_POST };
		cr_assert_eq(pthread_create(&threads[i], NULL, send_all, &senders[i]), 0);
	}
	while (count < SENDERS * SENDER_MESSAGES) {
		unsigned delivered_now = inbox_deliver(&inbox, UINT_MAX);

		count += delivered_now;
		if (delivered_now == 0)
			sched_yield();
	}
	for (unsigned i = 0; i < SENDERS; i++)
		cr_assert_eq(pthread_join(threads[i], NULL), 0);
	cr_assert_eq(count, SENDERS * SENDER_MESSAGES);
	cr_assert(inbox_empty(&inbox));
}
