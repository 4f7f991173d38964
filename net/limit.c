/* Turns between a connection and its export's throttle. */
#include "net/limit.h"

#include "net/connection.h"

static void
on_granted(struct throttle_wait *wait)
{
	struct connection *connection = container_of(wait, struct connection, limit.wait);

	connection->limit.has_turn = true;
	connection->throttled = false;
	connection_resume(connection);
}

void
limit_init(struct limit *limit)
{
	throttle_wait_init(&limit->wait, on_granted);
	limit->has_turn = false;
}

bool
limit_take(struct connection *connection, uint64_t bytes)
{
	struct limit *limit = &connection->limit;
	struct throttle *throttle = connection->session.export->throttle;

	if (throttle == NULL || limit->has_turn)
		return true;
	if (!throttle_waiting(&limit->wait))
		limit->has_turn =
			throttle_take(throttle, connection->home->core, &limit->wait, bytes);
	connection->throttled |= !limit->has_turn;
	return limit->has_turn;
}

void
limit_used(struct connection *connection)
{
	connection->limit.has_turn = false;
}

void
limit_cancel(struct connection *connection)
{
	throttle_cancel(&connection->limit.wait);
	connection->limit.has_turn = false;
}
