/* Coalescing: only the one who raises the first bit posts. */
#include "reactor/notice.h"

static void
deliver_bits(struct message *message)
{
	struct notice *notice = container_of(message, struct notice, message);
	/* Partner: notice_raise.  Acquire: what was written before a bit was raised is seen here.  From here on whoever raises a
	 * bit posts again, so the message must no longer be in use: inbox_deliver has unlinked it. */
	uint32_t bits = __atomic_exchange_n(&notice->raised, 0, __ATOMIC_ACQ_REL);

	notice->deliver(notice, bits);
}

void
notice_init(struct notice *notice, void (*deliver)(struct notice *notice, uint32_t bits))
{
	notice->deliver = deliver;
	notice->raised = 0;
	notice->message.deliver = deliver_bits;
}

bool
notice_raise(struct notice *notice, struct inbox *inbox, uint32_t bits)
{
	CHECK(bits != 0); /* or it would be posted twice */
	/* Partner: deliver_bits.  Release: what was written before is seen by whoever takes the bit. */
	if (__atomic_fetch_or(&notice->raised, bits, __ATOMIC_ACQ_REL) != 0)
		return false;
	inbox_post(inbox, &notice->message);
	return true;
}
