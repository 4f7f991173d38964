/* What is offered to a client. */
#include "net/session.h"

#include "net/nbd.h"

/* What a client that may write is offered beside writing. */
static unsigned
writer_flags(const struct volume *volume)
{
	unsigned flags = NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;

	if (volume->trims)
		flags |= NBD_FLAG_SEND_TRIM;
	return flags;
}

uint16_t
session_flags(const struct nbd_session *session)
{
	/* All cores write the same file, and a flush covers the whole of it: connections may be mixed. */
	unsigned flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
			 NBD_FLAG_CAN_MULTI_CONN;

	/* Where it would do nothing it is accepted, but not asked for. */
	if (session->export->volume->prefetches)
		flags |= NBD_FLAG_SEND_CACHE;
	if (session->export->read_only)
		flags |= NBD_FLAG_READ_ONLY;
	else
		flags |= writer_flags(session->export->volume);
	if (session->style >= NBD_STYLE_STRUCTURED)
		flags |= NBD_FLAG_SEND_DF;
	if (session->style == NBD_STYLE_EXTENDED && session->allocation)
		flags |= NBD_FLAG_BLOCK_STATUS_PAYLOAD;
	return (uint16_t)flags;
}
