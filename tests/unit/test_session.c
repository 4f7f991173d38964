/* What is offered to a client. */
#include <criterion/criterion.h>

#include "net/nbd.h"
#include "net/session.h"

static struct volume volume;
static struct volume volume_trims = { .trims = true };
static const struct export writable = { .name = "disk", .volume = &volume };
static const struct export trimming = { .name = "thin", .volume = &volume_trims };
static const struct export read_only = { .name = "rom",
					 .volume = &volume_trims,
					 .read_only = true };

static unsigned
flags_of(const struct export *export, enum nbd_style style)
{
	struct nbd_session session = { .export = export, .style = style };

	return session_flags(&session);
}

#define COMMON \
	(NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA | NBD_FLAG_CAN_MULTI_CONN)

Test(session, flags_tell_what_the_server_does)
{
	cr_assert_eq(flags_of(&writable, NBD_STYLE_SIMPLE),
		     COMMON | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO);
	cr_assert_eq(flags_of(&trimming, NBD_STYLE_SIMPLE), COMMON | NBD_FLAG_SEND_WRITE_ZEROES |
								    NBD_FLAG_SEND_FAST_ZERO |
								    NBD_FLAG_SEND_TRIM);
}

Test(session, prefetching_is_offered_where_it_helps)
{
	struct volume caching = { .prefetches = true };
	struct export cached = { .name = "cached", .volume = &caching, .read_only = true };

	cr_assert_eq(flags_of(&cached, NBD_STYLE_SIMPLE),
		     COMMON | NBD_FLAG_READ_ONLY | NBD_FLAG_SEND_CACHE);
}

Test(session, read_only_exports_offer_no_command_that_writes)
{
	cr_assert_eq(flags_of(&read_only, NBD_STYLE_SIMPLE), COMMON | NBD_FLAG_READ_ONLY);
}

Test(session, flags_that_need_more_than_simple_replies_come_with_them)
{
	unsigned simple = flags_of(&writable, NBD_STYLE_SIMPLE);

	cr_assert_eq(flags_of(&writable, NBD_STYLE_STRUCTURED), simple | NBD_FLAG_SEND_DF);
	cr_assert_eq(flags_of(&writable, NBD_STYLE_EXTENDED), simple | NBD_FLAG_SEND_DF);
	cr_assert_eq(session_flags(&(struct nbd_session){ .export = &writable,
							  .style = NBD_STYLE_EXTENDED,
							  .allocation = true }),
		     simple | NBD_FLAG_SEND_DF | NBD_FLAG_BLOCK_STATUS_PAYLOAD);
}
