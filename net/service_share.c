/* Feeding the starved: connections that wait for a request or a buffer of their core get it in the order in which they began to, with a line
 * for each export, and one more for those that need little; and those that let others starve lose what they hold. */
#include "net/connection.h"
#include "net/export_share.h"
#include "net/service_parts.h"
#include "net/transmission.h"

/* How often to look for those who let others starve, and how many looks without progress make one: that its socket moves so much
 * between two.  Less keeps a large buffer for minutes. */
#define HUNGER_NS	   ((uint64_t)500000000)
#define STALLED_LOOKS_MAX  4
#define PROGRESS_BYTES_MIN 16384u

static void feed_starved(struct task *task);
static void hunger_expired(struct timer *timer);

void
service_share_init(struct service_core *home)
{
	list_init(&home->shares);
	list_init(&home->hungry);
	task_init(&home->feed, feed_starved);
	timer_init(&home->hunger, hunger_expired);
}

static bool
nobody_starves(const struct service_core *home)
{
	struct list_node *node;

	list_for_each(node, &home->hungry) {
		if (export_share_starves(container_of(node, struct export_share, hungry)))
			return false;
	}
	return true;
}

void
service_feed(struct service_core *home)
{
	if (!list_empty(&home->hungry))
		reactor_defer(home->core->reactor, &home->feed);
}

/* Let those in STARVED try again, in the order in which they began to starve; MUCH: which list it is.  Returns whether any of them does not
 * starve any more. */
static bool
feed_list(struct list_node *starved, bool much)
{
	struct list_node now, *node;
	bool fed = false;

	list_init(&now);
	list_move_all(&now, starved);
	while ((node = list_take_first(&now)) != NULL) {
		struct connection *connection = container_of(node, struct connection, starved_node);

		connection_retry(connection);
		if (!list_empty(&connection->starved_node) && connection->starves_for_much == much)
			break; /* there is nothing left; it stays the first */
		fed = true;
	}
	if (node != NULL) {
		list_remove(node);
		list_prepend(&now, node);
	}
	list_move_all(&now, starved);
	list_move_all(starved, &now);
	return fed;
}

/* Those first who may not have the last part: it is left for the others. */
static bool
feed_share(struct export_share *share)
{
	bool fed = feed_list(&share->starved_for_much, true);

	return feed_list(&share->starved, false) || fed;
}

/* Exports that get something have their next turn behind those that do not. */
static void
feed_starved(struct task *task)
{
	struct service_core *home = container_of(task, struct service_core, feed);
	struct list_node now, fed, *node;

	list_init(&now);
	list_init(&fed);
	list_move_all(&now, &home->hungry);
	while ((node = list_take_first(&now)) != NULL) {
		struct export_share *share = container_of(node, struct export_share, hungry);
		bool was_fed = feed_share(share);

		list_remove(node);
		if (export_share_starves(share))
			list_append(was_fed ? &fed : &home->hungry, node);
	}
	list_move_all(&home->hungry, &fed);
}

/* Look at CONNECTION once more.  Returns whether it has held something for long without using it. */
static bool
is_stalled(struct connection *connection)
{
	unsigned own_hunger = connection->starved != NULL ? 1 : 0;
	/* Beside what is with the disk, which a client can make last; behind a piece of which everything else waits. */
	bool waits_for_peer = connection->request_count > own_hunger + connection->io_count &&
			      !transmission_awaits_piece(connection);
	uint64_t moved_bytes = connection->channel.moved_bytes - connection->moved_seen;

	if (!waits_for_peer || moved_bytes >= PROGRESS_BYTES_MIN)
		connection->stalled_looks = 0;
	else
		connection->stalled_looks++;
	connection->moved_seen = connection->channel.moved_bytes;
	return connection->stalled_looks >= STALLED_LOOKS_MAX;
}

/* Whether there is an export that gets nothing of HOME, which then is all taken; or no request. */
static bool
has_nothing_left(const struct service_core *home)
{
	struct list_node *node;

	list_for_each(node, &home->hungry) {
		const struct export_share *share = container_of(node, struct export_share, hungry);

		if (share->buffer_bytes == 0 && export_share_starves(share))
			return true;
	}
	return home->unused_request_count == 0;
}

/* Whether any wait for what CONNECTION's export has: its own connections, or, where it has more than is left for them, others. */
static bool
has_too_much(const struct connection *connection)
{
	const struct export_share *share = connection->share;
	size_t free_bytes = buffer_pool_free_bytes(connection->home->core->buffers);

	return share != NULL && (export_share_starves(share) || share->buffer_bytes > free_bytes);
}

static void
hunger_expired(struct timer *timer)
{
	struct service_core *home = container_of(timer, struct service_core, hunger);
	struct list_node *node, *after;
	bool nothing_left = has_nothing_left(home);

	if (nobody_starves(home))
		return;
	list_for_each_safe(node, after, &home->connections) {
		struct connection *connection = container_of(node, struct connection, node);

		if (is_stalled(connection) && (nothing_left || has_too_much(connection)))
			connection_drop(connection,
					"took hardly any reply, or sent hardly any payload, for "
					"2 s while others waited for the buffers it held");
	}
	service_hungry(home);
}

void
service_hungry(struct service_core *home)
{
	if (!timer_running(&home->hunger))
		reactor_timer_start(home->core->reactor, &home->hunger, HUNGER_NS);
}
