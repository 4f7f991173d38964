"""What a server answers in the transmission phase, checked against the specification chunk by chunk.

An Answer gathers the replies to one request.  It refuses whatever no server may send: content outside of the request, twice or
missing; a chunk after the last; a type that does not belong to the command; an extent of nothing; a message that is no text.
"""

import struct

from harness import check, equal

SIMPLE = "simple"
STRUCTURED = "structured"
EXTENDED = "extended"
STYLES = (SIMPLE, STRUCTURED, EXTENDED)

CMD_READ = 0
CMD_WRITE = 1
CMD_DISC = 2
CMD_FLUSH = 3
CMD_TRIM = 4
CMD_CACHE = 5
CMD_WRITE_ZEROES = 6
CMD_BLOCK_STATUS = 7

CMD_FLAG_FUA = 1 << 0
CMD_FLAG_NO_HOLE = 1 << 1
CMD_FLAG_DF = 1 << 2
CMD_FLAG_REQ_ONE = 1 << 3
CMD_FLAG_FAST_ZERO = 1 << 4
CMD_FLAG_PAYLOAD_LEN = 1 << 5

CHUNK_NONE = 0
CHUNK_OFFSET_DATA = 1
CHUNK_OFFSET_HOLE = 2
CHUNK_BLOCK_STATUS = 5
CHUNK_BLOCK_STATUS_EXT = 6
CHUNK_ERROR_BIT = 1 << 15
CHUNK_ERROR = CHUNK_ERROR_BIT + 1
CHUNK_ERROR_OFFSET = CHUNK_ERROR_BIT + 2
REPLY_FLAG_DONE = 1

STATE_HOLE = 1
STATE_ZERO = 2

EPERM = 1
EIO = 5
ENOMEM = 12
EINVAL = 22
ENOSPC = 28
EOVERFLOW = 75
ENOTSUP = 95
ESHUTDOWN = 108
ERRORS = (EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN)

STRING_BYTES_MAX = 4096
EXTENTS_MAX = 1 << 20
DF_BYTES_SURE = 65536  # a READ with DF of so many bytes must work
PAYLOAD_BYTES_MAX = 65 << 20  # of one chunk; nothing here asks for more


def check_text(data, what):
    """A string of the protocol: UTF-8, no NUL, at most 4096 bytes (rule 1)."""
    check(len(data) <= STRING_BYTES_MAX, f"{what}: {len(data)} bytes")
    check(b"\0" not in data, f"{what} has a NUL: {data!r}")
    try:
        return data.decode()
    except UnicodeDecodeError:
        check(False, f"{what} is not UTF-8: {data!r}")


class Extent:
    def __init__(self, offset, length, flags):
        self.offset = offset
        self.length = length
        self.flags = flags

    @property
    def end(self):
        return self.offset + self.length

    def __repr__(self):
        return f"{self.offset}+{self.length}:{self.flags}"


class Answer:
    """The replies to one request.  CONTEXTS: ids of the meta contexts that BLOCK_STATUS must tell about."""

    def __init__(self, cookie, command, offset=0, length=0, flags=0, contexts=()):
        self.cookie = cookie
        self.command = command
        self.offset = offset
        self.length = length
        self.flags = flags
        self.contexts = contexts
        self.done = False
        self.error = 0  # the first
        self.message = ""
        self.error_offset = None  # of the first error, where it was told
        self.pieces = []  # of a READ: (offset, length, data, or None for a hole)
        self.told = {}  # context id: [Extent]
        self.kinds = []  # of the chunks, in order

    def __repr__(self):
        return f"command {self.command} (offset {self.offset}, length {self.length}, flags {self.flags:#x})"

    # Simple replies.

    def take_simple(self, error, data):
        check(error == 0 or error in ERRORS, f"{self}: error {error} is not one of the protocol")
        self.error = error
        self.pieces = [(self.offset, len(data), data)]
        self.done = True

    # Chunks.

    def take_chunk(self, kind, flags, payload, extended):
        check(not self.done, f"{self}: a chunk after the last")
        equal(flags & ~REPLY_FLAG_DONE, 0, f"{self}: flags of a chunk of type {kind}")
        self.kinds.append(kind)
        if kind == CHUNK_NONE:
            equal(len(payload), 0, f"{self}: bytes of a chunk of type NONE")
            check(flags & REPLY_FLAG_DONE, f"{self}: type NONE must be the last")
        elif kind == CHUNK_OFFSET_DATA:
            self.take_data(payload)
        elif kind == CHUNK_OFFSET_HOLE:
            self.take_hole(payload)
        elif kind in (CHUNK_BLOCK_STATUS, CHUNK_BLOCK_STATUS_EXT):
            self.take_status(kind, payload, extended)
        elif kind in (CHUNK_ERROR, CHUNK_ERROR_OFFSET):
            self.take_error(kind, payload)
        else:
            check(False, f"{self}: a chunk of type {kind:#x}")
        if flags & REPLY_FLAG_DONE:
            self.done = True
            self.check_complete()

    def take_data(self, payload):
        check(len(payload) >= 9, f"{self}: a data chunk of {len(payload)} bytes")
        (offset,) = struct.unpack_from(">Q", payload)
        self.take_content(offset, len(payload) - 8, payload[8:])

    def take_hole(self, payload):
        equal(len(payload), 12, f"{self}: bytes of a hole chunk")
        offset, length = struct.unpack(">QI", payload)
        check(length > 0, f"{self}: a hole of no bytes")
        self.take_content(offset, length, None)

    def take_content(self, offset, length, data):
        equal(self.command, CMD_READ, f"{self}: command that content came for")
        check(
            self.offset <= offset and offset + length <= self.offset + self.length,
            f"{self}: content at {offset}, {length} bytes, is outside of the request",
        )
        for other, count, _ in self.pieces:
            check(offset + length <= other or other + count <= offset, f"{self}: content at {offset} came twice")
        self.pieces.append((offset, length, data))
        if self.flags & CMD_FLAG_DF:
            equal(len(self.pieces), 1, f"{self}: content chunks with DF")

    def take_error(self, kind, payload):
        fixed = 6 if kind == CHUNK_ERROR else 14
        check(len(payload) >= fixed, f"{self}: an error chunk of {len(payload)} bytes")
        error, count = struct.unpack_from(">IH", payload)
        equal(len(payload), fixed + count, f"{self}: bytes of an error chunk")
        check(error in ERRORS, f"{self}: error {error} is not one of the protocol")
        message = check_text(payload[6 : 6 + count], f"{self}: message of an error")
        if kind == CHUNK_ERROR_OFFSET:
            (offset,) = struct.unpack(">Q", payload[-8:])
            inside = self.offset <= offset < self.offset + self.length
            check(inside, f"{self}: an error at {offset}, outside of the request")
            self.error_offset = offset if self.error == 0 else self.error_offset
        if self.error == 0:
            self.error, self.message = error, message

    def take_status(self, kind, payload, extended):
        equal(self.command, CMD_BLOCK_STATUS, f"{self}: command that extents came for")
        equal(kind, CHUNK_BLOCK_STATUS_EXT if extended else CHUNK_BLOCK_STATUS, f"{self}: type of the extents")
        head, one = (8, 16) if extended else (4, 8)
        check(len(payload) >= head + one, f"{self}: {len(payload)} bytes of extents")
        equal((len(payload) - head) % one, 0, f"{self}: bytes over after the extents")
        count = (len(payload) - head) // one
        (context,) = struct.unpack_from(">I", payload)
        if extended:
            equal(struct.unpack_from(">I", payload, 4)[0], count, f"{self}: number of extents")
        check(context in self.contexts, f"{self}: extents of context {context}, which was not chosen")
        check(context not in self.told, f"{self}: extents of context {context} came twice")
        check(count <= EXTENTS_MAX, f"{self}: {count} extents")
        extents, offset = [], self.offset
        for length, flags in struct.iter_unpack(">QQ" if extended else ">II", payload[head:]):
            check(length > 0, f"{self}: an extent of no bytes")
            extents.append(Extent(offset, length, flags))
            offset += length
        self.told[context] = extents
        self.check_extents(extents)

    def check_extents(self, extents):
        end = self.offset + self.length
        late = [extent for extent in extents[:-1] if extent.end >= end]
        check(not late, f"{self}: extents past the request that are not the last: {late}")
        if self.flags & CMD_FLAG_REQ_ONE:
            equal(len(extents), 1, f"{self}: extents with REQ_ONE")
            check(extents[0].end <= end, f"{self}: past the request with REQ_ONE: {extents}")

    def check_complete(self):
        if self.error:
            return
        if self.command == CMD_READ:
            covered = sum(length for _, length, _ in self.pieces)
            equal(covered, self.length, f"{self}: bytes of content")
        if self.command == CMD_BLOCK_STATUS:
            equal(sorted(self.told), sorted(self.contexts), f"{self}: contexts told about")

    # What came, once it is complete.

    def data(self):
        """All that was read, holes as zeros; nothing after an error."""
        if self.command != CMD_READ or self.error:
            return b""
        if len(self.pieces) == 1 and self.pieces[0][2] is not None:
            return self.pieces[0][2]
        result = bytearray(self.length)
        for offset, length, data in self.pieces:
            if data is not None:
                result[offset - self.offset : offset - self.offset + length] = data
        return bytes(result)

    @property
    def context(self):
        """The id of the only context that was told about."""
        (context,) = self.told
        return context

    @property
    def extents(self):
        """Of the only context: [(length, flags)]; None if there are none."""
        for extents in self.told.values():
            return [(extent.length, extent.flags) for extent in extents]
        return None
