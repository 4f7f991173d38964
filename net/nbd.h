/* The NBD protocol's numbers and fixed-size messages.  All integers on the wire are big-endian.
 * Source: the protocol specification, doc/proto.md of the reference implementation, and its branch extension-ext-header. */
#ifndef NET_NBD_H
#define NET_NBD_H

#include <stdint.h>

/* Handshake */
#define NBD_MAGIC	       0x4e42444d41474943ull /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC       0x49484156454f5054ull /* "IHAVEOPT" */
#define NBD_OPTION_REPLY_MAGIC 0x0003e889045565a9ull

#define NBD_FLAG_FIXED_NEWSTYLE (1u << 0) /* both directions */
#define NBD_FLAG_NO_ZEROES	(1u << 1)

#define NBD_STRING_BYTES_MAX	  4096u
#define NBD_EXPORT_NAME_PAD_BYTES 124u

enum nbd_option {
	NBD_OPT_EXPORT_NAME = 1,
	NBD_OPT_ABORT = 2,
	NBD_OPT_LIST = 3,
	NBD_OPT_STARTTLS = 5,
	NBD_OPT_INFO = 6,
	NBD_OPT_GO = 7,
	NBD_OPT_STRUCTURED_REPLY = 8,
	NBD_OPT_LIST_META_CONTEXT = 9,
	NBD_OPT_SET_META_CONTEXT = 10,
	NBD_OPT_EXTENDED_HEADERS = 11,
};

enum nbd_option_reply {
	NBD_REP_ACK = 1,
	NBD_REP_SERVER = 2,
	NBD_REP_INFO = 3,
	NBD_REP_META_CONTEXT = 4,
};

#define NBD_REP_ERROR		    (1u << 31)
#define NBD_REP_ERR_UNSUP	    (NBD_REP_ERROR + 1)
#define NBD_REP_ERR_POLICY	    (NBD_REP_ERROR + 2)
#define NBD_REP_ERR_INVALID	    (NBD_REP_ERROR + 3)
#define NBD_REP_ERR_TLS_REQD	    (NBD_REP_ERROR + 5)
#define NBD_REP_ERR_UNKNOWN	    (NBD_REP_ERROR + 6)
#define NBD_REP_ERR_SHUTDOWN	    (NBD_REP_ERROR + 7)
#define NBD_REP_ERR_TOO_BIG	    (NBD_REP_ERROR + 9)
#define NBD_REP_ERR_EXT_HEADER_REQD (NBD_REP_ERROR + 10)

enum nbd_info {
	NBD_INFO_EXPORT = 0,
	NBD_INFO_NAME = 1,
	NBD_INFO_DESCRIPTION = 2,
	NBD_INFO_BLOCK_SIZE = 3,
};

/* What BLOCK_STATUS reports, and the number that we give it. */
#define NBD_CONTEXT_ALLOCATION	  "base:allocation"
#define NBD_CONTEXT_ALLOCATION_ID 1u

#define NBD_STATE_HOLE (1u << 0)
#define NBD_STATE_ZERO (1u << 1)

/* Transmission */
#define NBD_REQUEST_MAGIC	   0x25609513u
#define NBD_EXTENDED_REQUEST_MAGIC 0x21e41c71u
#define NBD_SIMPLE_REPLY_MAGIC	   0x67446698u
#define NBD_STRUCTURED_REPLY_MAGIC 0x668e33efu
#define NBD_EXTENDED_REPLY_MAGIC   0x6e8a278cu

#define NBD_FLAG_HAS_FLAGS	      (1u << 0)
#define NBD_FLAG_READ_ONLY	      (1u << 1)
#define NBD_FLAG_SEND_FLUSH	      (1u << 2)
#define NBD_FLAG_SEND_FUA	      (1u << 3)
#define NBD_FLAG_SEND_TRIM	      (1u << 5)
#define NBD_FLAG_SEND_WRITE_ZEROES    (1u << 6)
#define NBD_FLAG_SEND_DF	      (1u << 7)
#define NBD_FLAG_CAN_MULTI_CONN	      (1u << 8)
#define NBD_FLAG_SEND_CACHE	      (1u << 10)
#define NBD_FLAG_SEND_FAST_ZERO	      (1u << 11)
#define NBD_FLAG_BLOCK_STATUS_PAYLOAD (1u << 12)

enum nbd_command {
	NBD_CMD_READ = 0,
	NBD_CMD_WRITE = 1,
	NBD_CMD_DISC = 2,
	NBD_CMD_FLUSH = 3,
	NBD_CMD_TRIM = 4,
	NBD_CMD_CACHE = 5,
	NBD_CMD_WRITE_ZEROES = 6,
	NBD_CMD_BLOCK_STATUS = 7,
};

#define NBD_CMD_FLAG_FUA	 (1u << 0)
#define NBD_CMD_FLAG_NO_HOLE	 (1u << 1)
#define NBD_CMD_FLAG_DF		 (1u << 2)
#define NBD_CMD_FLAG_REQ_ONE	 (1u << 3)
#define NBD_CMD_FLAG_FAST_ZERO	 (1u << 4)
#define NBD_CMD_FLAG_PAYLOAD_LEN (1u << 5)

#define NBD_REPLY_FLAG_DONE (1u << 0)

enum nbd_chunk {
	NBD_CHUNK_NONE = 0,
	NBD_CHUNK_OFFSET_DATA = 1,
	NBD_CHUNK_OFFSET_HOLE = 2,
	NBD_CHUNK_BLOCK_STATUS = 5,
	NBD_CHUNK_BLOCK_STATUS_EXT = 6,
	NBD_CHUNK_ERROR = (1 << 15) + 1,
	NBD_CHUNK_ERROR_OFFSET = (1 << 15) + 2,
};

enum nbd_error {
	NBD_SUCCESS = 0,
	NBD_EPERM = 1,
	NBD_EIO = 5,
	NBD_ENOMEM = 12,
	NBD_EINVAL = 22,
	NBD_ENOSPC = 28,
	NBD_EOVERFLOW = 75,
	NBD_ENOTSUP = 95,
	NBD_ESHUTDOWN = 108,
};

/* The messages as they are on the wire. */
struct nbd_wire_option {
	uint64_t magic;
	uint32_t option;
	uint32_t data_bytes;
} __attribute__((packed));

struct nbd_wire_option_reply {
	uint64_t magic;
	uint32_t option;
	uint32_t reply;
	uint32_t data_bytes;
} __attribute__((packed));

struct nbd_wire_request {
	uint32_t magic;
	uint16_t flags;
	uint16_t command;
	uint64_t cookie;
	uint64_t offset;
	uint32_t length;
} __attribute__((packed));

struct nbd_wire_extended_request {
	uint32_t magic;
	uint16_t flags;
	uint16_t command;
	uint64_t cookie;
	uint64_t offset;
	/* With NBD_CMD_FLAG_PAYLOAD_LEN, and of WRITE, the payload's, else the effect's. */
	uint64_t length;
} __attribute__((packed));

/* The payload of a BLOCK_STATUS that asks for one context. */
struct nbd_wire_status_payload {
	uint64_t length;
	uint32_t context;
} __attribute__((packed));

struct nbd_wire_simple_reply {
	uint32_t magic;
	uint32_t error;
	uint64_t cookie;
} __attribute__((packed));

struct nbd_wire_chunk {
	uint32_t magic;
	uint16_t flags;
	uint16_t type;
	uint64_t cookie;
	uint32_t payload_bytes;
} __attribute__((packed));

struct nbd_wire_extended_chunk {
	uint32_t magic;
	uint16_t flags;
	uint16_t type;
	uint64_t cookie;
	uint64_t offset; /* of the request */
	uint64_t payload_bytes;
} __attribute__((packed));

/* One descriptor of BLOCK_STATUS, and of BLOCK_STATUS_EXT. */
struct nbd_wire_extent {
	uint32_t length;
	uint32_t flags;
} __attribute__((packed));

struct nbd_wire_extended_extent {
	uint64_t length;
	uint64_t flags;
} __attribute__((packed));

_Static_assert(sizeof(struct nbd_wire_option) == 16, "size on the wire");
_Static_assert(sizeof(struct nbd_wire_option_reply) == 20, "size on the wire");
_Static_assert(sizeof(struct nbd_wire_request) == 28, "size on the wire");
_Static_assert(sizeof(struct nbd_wire_extended_request) == 32, "size on the wire");
_Static_assert(sizeof(struct nbd_wire_status_payload) == 12, "size on the wire");
_Static_assert(sizeof(struct nbd_wire_simple_reply) == 16, "size on the wire");
_Static_assert(sizeof(struct nbd_wire_chunk) == 20, "size on the wire");
_Static_assert(sizeof(struct nbd_wire_extended_chunk) == 32, "size on the wire");
_Static_assert(sizeof(struct nbd_wire_extent) == 8, "size on the wire");
_Static_assert(sizeof(struct nbd_wire_extended_extent) == 16, "size on the wire");

#endif
