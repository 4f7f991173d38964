/* A list for each core: it has few exports whose clients are at work, and is searched when one of these begins. */
#include "net/export_share.h"

#include <errno.h>
#include <stdlib.h>

#include "net/connection.h"

static struct export_share *
find(struct service_core *home, const struct volume *volume)
{
	struct list_node *node;

	list_for_each(node, &home->shares) {
		struct export_share *share = container_of(node, struct export_share, node);

		if (share->volume == volume)
			return share;
	}
	return NULL;
}

static struct export_share *
create(struct service_core *home, const struct volume *volume)
{
	struct export_share *share = calloc(1, sizeof(*share));

	if (share == NULL)
		return NULL; /* UNTESTED: no fault for malloc */
	share->volume = volume;
	list_init(&share->node);
	list_init(&share->hungry);
	list_init(&share->starved);
	list_init(&share->starved_for_much);
	list_append(&home->shares, &share->node);
	home->share_count++;
	return share;
}

int
export_share_join(struct connection *connection)
{
	struct service_core *home = connection->home;
	const struct volume *volume = connection->session.export->volume;
	struct export_share *share = find(home, volume);

	CHECK(connection->share == NULL);
	if (share == NULL)
		share = create(home, volume);
	if (share == NULL)
		return -ENOMEM;
	share->connection_count++;
	connection->share = share;
	return 0;
}

/* Its last connection is gone. */
static void
destroy(struct service_core *home, struct export_share *share)
{
	CHECK(share->buffer_bytes == 0 && !export_share_starves(share));
	list_remove(&share->node);
	list_remove(&share->hungry);
	free(share);
	home->share_count--;
	/* One that is alone now may have all. */
	service_feed(home);
}

void
export_share_leave(struct connection *connection)
{
	struct export_share *share = connection->share;

	if (share == NULL)
		return;
	connection->share = NULL;
	if (--share->connection_count == 0)
		destroy(connection->home, share);
}

bool
export_share_starves(const struct export_share *share)
{
	return !list_empty(&share->starved) || !list_empty(&share->starved_for_much);
}
