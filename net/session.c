/* What is offered to a client. */
#include "net/session.h"

#include "net/nbd.h"

uint16_t
session_flags(const struct nbd_session *session)
{
	/* All cores write the same file, and a flush covers the whole of it: connections may be mixed. */
	unsigned flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
			 NBD_FLAG_CAN_MULTI_CONN;

	if (session->export->read_only)
		flags |= NBD_FLAG_READ_ONLY;
	return (uint16_t)flags;
}
