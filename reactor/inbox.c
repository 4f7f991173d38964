/* The inbox: senders push onto a stack, the consumer takes the whole of it and turns it round. */
#include "reactor/inbox.h"

void
inbox_post(struct inbox *inbox, struct message *message)
{
	struct message *newest = __atomic_load_n(&inbox->newest, __ATOMIC_RELAXED);

	/* Sequentially consistent: it also orders this store before the sender's look at the receiver's
	 * `sleeping` flag (reactor.c, partner in rest.c). */
	do
		message->next = newest;
	while (!__atomic_compare_exchange_n(&inbox->newest, &newest, message, true,
					    __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
}

/* Turn the stack round, behind nothing: all that was taken before is delivered. */
static void
take(struct inbox *inbox)
{
	/* Partner: inbox_post; acquire makes what the senders wrote before visible. */
	struct message *stack = __atomic_exchange_n(&inbox->newest, NULL, __ATOMIC_ACQUIRE);

	while (stack != NULL) {
		struct message *older = stack->next;

		stack->next = inbox->taken;
		inbox->taken = stack;
		stack = older;
	}
}

unsigned
inbox_deliver(struct inbox *inbox, unsigned max)
{
	unsigned count = 0;

	if (inbox_empty(inbox))
		return 0;
	if (inbox->taken == NULL)
		take(inbox);
	while (inbox->taken != NULL && count < max) {
		struct message *message = inbox->taken;

		/* deliver may reuse or free it */
		inbox->taken = message->next;
		message->deliver(message);
		count++;
	}
	return count;
}
