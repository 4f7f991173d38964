/* One message for each core, which is with its reactor or here. */
#include "daemon/heartbeat.h"

#include <errno.h>
#include <stdlib.h>

struct pulse {
	struct message message;
	bool asked; /* atomic; cleared by the core, whose other use of the message ends before that: release and acquire */
};

struct heartbeat {
	struct cores *cores;
	struct pulse pulses[]; /* [cores->count] */
};

static void
answer(struct message *message)
{
	struct pulse *pulse = container_of(message, struct pulse, message);

	__atomic_store_n(&pulse->asked, false, __ATOMIC_RELEASE);
}

int
heartbeat_create(struct cores *cores, struct heartbeat **result)
{
	struct heartbeat *heartbeat =
		calloc(1, sizeof(*heartbeat) + cores->count * sizeof(heartbeat->pulses[0]));

	if (heartbeat == NULL)
		return -ENOMEM;
	heartbeat->cores = cores;
	for (unsigned i = 0; i < cores->count; i++)
		heartbeat->pulses[i].message.deliver = answer;
	*result = heartbeat;
	return 0;
}

void
heartbeat_destroy(struct heartbeat *heartbeat)
{
	free(heartbeat);
}

bool
heartbeat_beat(struct heartbeat *heartbeat)
{
	bool all_answered = true;

	for (unsigned i = 0; i < heartbeat->cores->count; i++) {
		struct pulse *pulse = &heartbeat->pulses[i];

		if (__atomic_load_n(&pulse->asked, __ATOMIC_ACQUIRE)) {
			all_answered = false;
			continue;
		}
		__atomic_store_n(&pulse->asked, true, __ATOMIC_RELAXED);
		reactor_send(heartbeat->cores->cores[i].reactor, &pulse->message);
	}
	return all_answered;
}
