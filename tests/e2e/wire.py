"""A small NBD client on raw sockets that can also break the rules.

Written from the protocol's rules (fixed newstyle handshake; simple, structured and extended replies); every field is checked as
it arrives.
"""

import socket
import struct

from harness import Failure, check, equal

NBDMAGIC = 0x4E42444D41474943
IHAVEOPT = 0x49484156454F5054
OPTION_REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
STRUCTURED_REPLY_MAGIC = 0x668E33EF
EXTENDED_REQUEST_MAGIC = 0x21E41C71
EXTENDED_REPLY_MAGIC = 0x6E8A278C

FLAG_FIXED_NEWSTYLE = 1
FLAG_NO_ZEROES = 2

OPT_EXPORT_NAME = 1
OPT_ABORT = 2
OPT_LIST = 3
OPT_STARTTLS = 5
OPT_INFO = 6
OPT_GO = 7
OPT_STRUCTURED_REPLY = 8
OPT_LIST_META_CONTEXT = 9
OPT_SET_META_CONTEXT = 10
OPT_EXTENDED_HEADERS = 11

REP_ACK = 1
REP_SERVER = 2
REP_INFO = 3
REP_META_CONTEXT = 4
REP_ERR = 1 << 31
REP_ERR_UNSUP = REP_ERR + 1
REP_ERR_POLICY = REP_ERR + 2
REP_ERR_INVALID = REP_ERR + 3
REP_ERR_TLS_REQD = REP_ERR + 5
REP_ERR_UNKNOWN = REP_ERR + 6
REP_ERR_SHUTDOWN = REP_ERR + 7
REP_ERR_TOO_BIG = REP_ERR + 9
REP_ERR_EXT_HEADER_REQD = REP_ERR + 10

INFO_EXPORT = 0
INFO_NAME = 1
INFO_DESCRIPTION = 2
INFO_BLOCK_SIZE = 3

TRANSMIT_HAS_FLAGS = 1 << 0
TRANSMIT_READ_ONLY = 1 << 1
TRANSMIT_SEND_FLUSH = 1 << 2
TRANSMIT_SEND_FUA = 1 << 3
TRANSMIT_SEND_TRIM = 1 << 5
TRANSMIT_SEND_WRITE_ZEROES = 1 << 6
TRANSMIT_SEND_DF = 1 << 7
TRANSMIT_MULTI_CONN = 1 << 8
TRANSMIT_SEND_CACHE = 1 << 10
TRANSMIT_SEND_FAST_ZERO = 1 << 11
TRANSMIT_BLOCK_STATUS_PAYLOAD = 1 << 12
TRANSMIT_CHANGES = TRANSMIT_SEND_TRIM | TRANSMIT_SEND_WRITE_ZEROES | TRANSMIT_SEND_FAST_ZERO

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

REPLY_FLAG_DONE = 1

CHUNK_NONE = 0
CHUNK_OFFSET_DATA = 1
CHUNK_OFFSET_HOLE = 2
CHUNK_BLOCK_STATUS = 5
CHUNK_BLOCK_STATUS_EXT = 6
CHUNK_ERROR_BIT = 1 << 15
CHUNK_ERROR = CHUNK_ERROR_BIT + 1
CHUNK_ERROR_OFFSET = CHUNK_ERROR_BIT + 2

STATE_HOLE = 1
STATE_ZERO = 2

# The form of a session's headers.
SIMPLE = "simple"
STRUCTURED = "structured"
EXTENDED = "extended"
STYLES = (SIMPLE, STRUCTURED, EXTENDED)

EPERM = 1
EIO = 5
EINVAL = 22
ENOSPC = 28
EOVERFLOW = 75
ENOTSUP = 95

OPTION_REPLY_BYTES_MAX = 1 << 20
MESSAGE_BYTES_MAX = 4096
EXTENTS_MAX = 1 << 20


def pack_option(number, data=b"", magic=IHAVEOPT):
    return struct.pack(">QII", magic, number, len(data)) + data


def pack_info_request(name, infos=()):
    """The data of OPT_GO and OPT_INFO."""
    encoded = name.encode()
    head = struct.pack(">I", len(encoded)) + encoded
    return head + struct.pack(f">H{len(infos)}H", len(infos), *infos)


def pack_request(command, offset=0, length=0, flags=0, cookie=0, magic=REQUEST_MAGIC):
    return struct.pack(">IHHQQI", magic, flags, command, cookie, offset, length)


def pack_extended_request(command, offset=0, length=0, flags=0, cookie=0, magic=EXTENDED_REQUEST_MAGIC):
    return struct.pack(">IHHQQQ", magic, flags, command, cookie, offset, length)


def pack_queries(name, queries):
    """The data of OPT_LIST_META_CONTEXT and OPT_SET_META_CONTEXT."""
    data = pack_string(name) + struct.pack(">I", len(queries))
    return data + b"".join(pack_string(query) for query in queries)


def pack_string(text):
    encoded = text.encode()
    return struct.pack(">I", len(encoded)) + encoded


class Answer:
    """What came for one request, chunk by chunk, each judged as it comes."""

    def __init__(self, command, offset, length, flags):
        self.command = command
        self.offset = offset
        self.length = length
        self.flags = flags
        self.error = 0
        self.message = ""
        self.error_offset = None
        self.kinds = []  # of the chunks, in order
        self.pieces = []  # of a READ: (offset, length, data, or None for a hole)
        self.extents = None  # of BLOCK_STATUS: [(length, flags)]

    def add(self, kind, payload, style):
        self.kinds.append(kind)
        if kind & CHUNK_ERROR_BIT:
            self.add_error(kind, payload)
        elif kind == CHUNK_OFFSET_DATA:
            check(len(payload) > 8, "a data chunk without data")
            self.add_piece(struct.unpack_from(">Q", payload)[0], len(payload) - 8, payload[8:])
        elif kind == CHUNK_OFFSET_HOLE:
            offset, length = struct.unpack(">QI", payload)
            check(length > 0, "a hole of nothing")
            self.add_piece(offset, length, None)
        elif kind in (CHUNK_BLOCK_STATUS, CHUNK_BLOCK_STATUS_EXT):
            self.add_status(kind, payload, style)
        else:
            equal((kind, payload), (CHUNK_NONE, b""), "a chunk")

    def add_error(self, kind, payload):
        error, message_bytes = struct.unpack_from(">IH", payload)
        check(error != 0, "an error chunk without an error")
        check(message_bytes <= MESSAGE_BYTES_MAX, f"a message of {message_bytes} bytes")
        rest = payload[6 + message_bytes :]
        self.error = error
        self.message = payload[6 : 6 + message_bytes].decode()
        if kind == CHUNK_ERROR_OFFSET:
            (self.error_offset,) = struct.unpack(">Q", rest)
            check(self.offset <= self.error_offset < self.offset + self.length, "an error outside of the request")
        else:
            equal((kind, rest), (CHUNK_ERROR, b""), "an error chunk")

    def add_piece(self, offset, length, data):
        equal(self.command, CMD_READ, "command that content came for")
        check(self.offset <= offset and offset + length <= self.offset + self.length, "content outside of the request")
        for other, other_length, _ in self.pieces:
            check(offset + length <= other or other + other_length <= offset, "content that overlaps")
        check(not self.pieces or not self.flags & CMD_FLAG_DF, "a second content chunk in spite of DF")
        self.pieces.append((offset, length, data))

    def add_status(self, kind, payload, style):
        equal(self.command, CMD_BLOCK_STATUS, "command that a status came for")
        check(self.extents is None, "a second status chunk of the same context")
        if style == EXTENDED:
            equal(kind, CHUNK_BLOCK_STATUS_EXT, "kind of status with extended headers")
            context, count = struct.unpack_from(">II", payload)
            equal(len(payload), 8 + 16 * count, "bytes of a status")
            self.extents = list(struct.iter_unpack(">QQ", payload[8:]))
        else:
            equal(kind, CHUNK_BLOCK_STATUS, "kind of status")
            (context,) = struct.unpack_from(">I", payload)
            self.extents = list(struct.iter_unpack(">II", payload[4:]))
        self.context = context
        check(0 < len(self.extents) <= EXTENTS_MAX, f"{len(self.extents)} extents")
        check(all(length > 0 for length, _ in self.extents), "an extent of nothing")
        before_last = sum(length for length, _ in self.extents[:-1])
        check(before_last < self.length, "an extent that begins behind the request")
        if self.flags & CMD_FLAG_REQ_ONE:
            equal(len(self.extents), 1, "extents with REQ_ONE")
            check(self.extents[0][0] <= self.length, "an extent with REQ_ONE beyond the request")

    def data(self):
        """All that was read, holes as zeros.  Complete, or there must be an error."""
        if self.command != CMD_READ or self.error:
            return b""
        result = bytearray(self.length)
        for offset, length, data in self.pieces:
            if data is not None:
                start = offset - self.offset
                result[start : start + length] = data
        equal(sum(length for _, length, _ in self.pieces), self.length, "bytes of content")
        return bytes(result)


class Closed(Failure):
    """The server has closed the connection."""


class Wire:
    """One connection, from before its greeting on."""

    def __init__(self, address, seconds=30):
        self.sock = address.connect(seconds)
        self.cookie = 0
        self.style = SIMPLE
        self.read_lengths = {}
        self.answers = {}  # by cookie, of a style other than simple

    def close(self):
        self.sock.close()

    # Bytes.

    def send(self, data):
        self.sock.sendall(data)

    def receive(self, count):
        buffer = bytearray(count)
        view = memoryview(buffer)
        while view:
            try:
                got = self.sock.recv_into(view)
            except ConnectionError:
                got = 0
            except TimeoutError:
                raise Failure(f"no answer: {len(view)} of {count} bytes are missing") from None
            if got == 0:
                raise Closed(f"closed with {len(view)} of {count} bytes missing")
            view = view[got:]
        return bytes(buffer)

    def expect_closed(self):
        """The server closes without another byte (one it sent before may not be left over either)."""
        try:
            data = self.receive(1)
        except Closed:
            return
        raise Failure(f"expected the end of the connection, got byte {data.hex()}")

    def has_more(self):
        """Wait for another byte, which stays unread; false at the end of the connection."""
        try:
            return len(self.sock.recv(1, socket.MSG_PEEK)) > 0
        except ConnectionError:
            return False

    # Handshake.

    def receive_greeting(self):
        magic, option_magic, flags = struct.unpack(">QQH", self.receive(18))
        equal(magic, NBDMAGIC, "magic of the greeting")
        equal(option_magic, IHAVEOPT, "second magic of the greeting")
        return flags

    def greet(self, flags=FLAG_FIXED_NEWSTYLE | FLAG_NO_ZEROES):
        offered = self.receive_greeting()
        check(offered & FLAG_FIXED_NEWSTYLE, "the server is not fixed newstyle")
        self.send(struct.pack(">I", flags))
        return offered

    def option_replies(self, number):
        """All replies to option NUMBER up to the ACK or error that ends them: [(type, data)]."""
        replies = []
        while True:
            magic, option, kind, length = struct.unpack(">QIII", self.receive(20))
            equal(magic, OPTION_REPLY_MAGIC, "magic of an option reply")
            equal(option, number, "option of an option reply")
            check(length <= OPTION_REPLY_BYTES_MAX, f"option reply of {length} bytes")
            replies.append((kind, self.receive(length)))
            if kind == REP_ACK or kind & REP_ERR:
                return replies

    def ask(self, number, data=b""):
        self.send(pack_option(number, data))
        return self.option_replies(number)

    def answer_kind(self, number, data=b""):
        """The type of the reply that ends the answer to an option."""
        return self.ask(number, data)[-1][0]

    def ask_info(self, number, name, infos=()):
        """OPT_INFO or OPT_GO that must succeed: {info type: data}."""
        replies = self.ask(number, pack_info_request(name, infos))
        equal(replies[-1], (REP_ACK, b""), f"end of option {number}")
        found = {}
        for kind, data in replies[:-1]:
            equal(kind, REP_INFO, f"reply to option {number}")
            (info,) = struct.unpack_from(">H", data)
            check(info not in found, f"information {info} came twice")
            found[info] = data[2:]
        check(INFO_EXPORT in found, "no NBD_INFO_EXPORT")
        equal(len(found[INFO_EXPORT]), 10, "bytes of NBD_INFO_EXPORT after its type")
        return found

    def negotiate(self, style):
        """Ask for a style of headers, after greet."""
        option = {STRUCTURED: OPT_STRUCTURED_REPLY, EXTENDED: OPT_EXTENDED_HEADERS}.get(style)
        if option:
            equal(self.ask(option), [(REP_ACK, b"")], f"answer to option {option}")
        self.style = style

    def ask_contexts(self, option, name, queries):
        """LIST_META_CONTEXT or SET_META_CONTEXT that must succeed: {context: id}."""
        replies = self.ask(option, pack_queries(name, queries))
        equal(replies[-1], (REP_ACK, b""), f"end of option {option}")
        found = {}
        for kind, data in replies[:-1]:
            equal(kind, REP_META_CONTEXT, f"reply to option {option}")
            found[data[4:].decode()] = struct.unpack_from(">I", data)[0]
        equal(len(found), len(replies) - 1, "contexts, each once")
        return found

    def go(self, name, infos=(), style=SIMPLE, contexts=()):
        """Greet and enter transmission; returns (size, flags)."""
        self.greet()
        self.negotiate(style)
        if contexts:
            equal(set(self.ask_contexts(OPT_SET_META_CONTEXT, name, contexts)), set(contexts), "contexts that were set")
        return struct.unpack(">QH", self.ask_info(OPT_GO, name, infos)[INFO_EXPORT])

    def export_name(self, name, zeroes):
        """Enter transmission the old way, after greet; returns (size, flags)."""
        self.send(pack_option(OPT_EXPORT_NAME, name.encode()))
        data = self.receive(10 + (124 if zeroes else 0))
        equal(data[10:].strip(b"\0"), b"", "the 124 zeros")
        return struct.unpack_from(">QH", data)

    # Transmission.

    def pack(self, command, offset, length, flags, cookie):
        """A request's header in the session's style; a WRITE's flag for its payload is added."""
        if self.style != EXTENDED:
            return pack_request(command, offset, length, flags, cookie)
        if command == CMD_WRITE:
            flags |= CMD_FLAG_PAYLOAD_LEN
        return pack_extended_request(command, offset, length, flags, cookie)

    def request(self, command, offset=0, length=0, payload=b"", flags=0):
        """Send a request; returns its cookie."""
        self.cookie += 1
        self.expect(self.cookie, command, offset, length, flags)
        self.send(self.pack(command, offset, length, flags, self.cookie) + payload)
        return self.cookie

    def expect(self, cookie, command, offset, length, flags=0):
        """A request with that cookie is about to be sent."""
        if self.style != SIMPLE:
            self.answers[cookie] = Answer(command, offset, length, flags)
        elif command == CMD_READ:
            self.read_lengths[cookie] = length

    def reply(self):
        """The next reply, whichever request it belongs to: (cookie, error, data)."""
        if self.style != SIMPLE:
            cookie, answer = self.answer()
            return cookie, answer.error, answer.data()
        magic, error, cookie = struct.unpack(">IIQ", self.receive(16))
        equal(magic, SIMPLE_REPLY_MAGIC, "magic of a reply")
        length = self.read_lengths.pop(cookie, 0)
        return cookie, error, self.receive(length) if error == 0 else b""

    def answer(self):
        """The next request that is answered in full, in chunks: (cookie, Answer)."""
        while True:
            cookie, flags, kind, payload = self.chunk()
            check(cookie in self.answers, f"a reply to {cookie}, which was not asked or is done")
            answer = self.answers[cookie]
            answer.add(kind, payload, self.style)
            if flags & REPLY_FLAG_DONE:
                return cookie, self.answers.pop(cookie)

    def chunk(self):
        """The next chunk: (cookie, flags, kind, payload)."""
        if self.style == EXTENDED:
            magic, flags, kind, cookie, offset, length = struct.unpack(">IHHQQQ", self.receive(32))
            equal(magic, EXTENDED_REPLY_MAGIC, "magic of an extended reply")
            check(cookie in self.answers, f"a reply to {cookie}, which was not asked or is done")
            equal(offset, self.answers[cookie].offset, "offset in an extended reply")
        else:
            magic, flags, kind, cookie, length = struct.unpack(">IHHQI", self.receive(20))
            equal(magic, STRUCTURED_REPLY_MAGIC, "magic of a structured reply")
        equal(flags & ~REPLY_FLAG_DONE, 0, "flags of a chunk")
        check(kind != CHUNK_NONE or flags & REPLY_FLAG_DONE, "a chunk NONE that is not the last")
        return cookie, flags, kind, self.receive(length)

    def ask_for(self, command, offset=0, length=0, payload=b"", flags=0):
        """One request with nothing else in flight, not in simple style: its Answer."""
        cookie = self.request(command, offset, length, payload, flags)
        answered, answer = self.answer()
        equal(answered, cookie, "cookie of the reply")
        return answer

    def call(self, command, offset=0, length=0, payload=b"", flags=0):
        """One request and its reply, with nothing else in flight: (error, data)."""
        cookie = self.request(command, offset, length, payload, flags)
        answered, error, data = self.reply()
        equal(answered, cookie, "cookie of the reply")
        return error, data

    def read(self, offset, length):
        error, data = self.call(CMD_READ, offset, length)
        equal(error, 0, f"error of reading {length} bytes at {offset}")
        return data

    def write(self, offset, payload, flags=0):
        error, _ = self.call(CMD_WRITE, offset, len(payload), payload, flags)
        equal(error, 0, f"error of writing {len(payload)} bytes at {offset}")

    def disconnect(self):
        self.send(self.pack(CMD_DISC, 0, 0, 0, 0))
