/* What is offered to a client. */
#include <criterion/criterion.h>

#include "net/nbd.h"
#include "net/session.h"

static struct volume volume;
static const struct export writable = { .name = "disk", .volume = &volume };
static const struct export read_only = { .name = "rom", .volume = &volume, .read_only = true };

static unsigned
flags_of(const struct export *export, enum nbd_style style)
{
	struct nbd_session session = { .export = export, .style = style };

	return session_flags(&session);
}

Test(session, flags_tell_what_the_server_does)
{
	unsigned common = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
			  NBD_FLAG_CAN_MULTI_CONN;

	cr_assert_eq(flags_of(&writable, NBD_STYLE_SIMPLE), common);
	cr_assert_eq(flags_of(&read_only, NBD_STYLE_SIMPLE), common | NBD_FLAG_READ_ONLY);
}
