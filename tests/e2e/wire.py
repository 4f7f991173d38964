"""A small NBD client on raw sockets that can also break the rules.

Written from the protocol's specification, not from any server: fixed newstyle handshake with all options, simple, structured
and extended replies.  Every field is checked as it arrives; what replies may hold is in wire_replies.py.
"""

import socket
import struct

import wire_replies
from harness import Failure, check, equal
from wire_replies import *  # noqa: F403  the numbers of the transmission phase are wire's too
from wire_replies import Answer, check_text
from wire_replies import CMD_BLOCK_STATUS, CMD_DISC, CMD_FLAG_PAYLOAD_LEN, CMD_FLUSH, CMD_READ, CMD_WRITE
from wire_replies import EXTENDED, SIMPLE, STRUCTURED

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
REP_ERR_PLATFORM = REP_ERR + 4
REP_ERR_TLS_REQD = REP_ERR + 5
REP_ERR_UNKNOWN = REP_ERR + 6
REP_ERR_SHUTDOWN = REP_ERR + 7
REP_ERR_BLOCK_SIZE_REQD = REP_ERR + 8
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
TRANSMIT_ROTATIONAL = 1 << 4
TRANSMIT_SEND_TRIM = 1 << 5
TRANSMIT_SEND_WRITE_ZEROES = 1 << 6
TRANSMIT_SEND_DF = 1 << 7
TRANSMIT_MULTI_CONN = 1 << 8
TRANSMIT_SEND_CACHE = 1 << 10
TRANSMIT_SEND_FAST_ZERO = 1 << 11
TRANSMIT_BLOCK_STATUS_PAYLOAD = 1 << 12
TRANSMIT_CHANGES = TRANSMIT_SEND_TRIM | TRANSMIT_SEND_WRITE_ZEROES | TRANSMIT_SEND_FAST_ZERO

OPTION_REPLY_BYTES_MAX = 1 << 20


def pack_option(number, data=b"", magic=IHAVEOPT):
    return struct.pack(">QII", magic, number, len(data)) + data


def pack_info_request(name, infos=()):
    """The data of OPT_GO and OPT_INFO."""
    encoded = name.encode()
    head = struct.pack(">I", len(encoded)) + encoded
    return head + struct.pack(f">H{len(infos)}H", len(infos), *infos)


def pack_queries(name, queries):
    """The data of OPT_LIST_META_CONTEXT and OPT_SET_META_CONTEXT."""
    strings = [name.encode(), *(query.encode() for query in queries)]
    packed = [struct.pack(">I", len(string)) + string for string in strings]
    return packed[0] + struct.pack(">I", len(queries)) + b"".join(packed[1:])


def pack_request(command, offset=0, length=0, flags=0, cookie=0, magic=REQUEST_MAGIC):
    return struct.pack(">IHHQQI", magic, flags, command, cookie, offset, length)


def pack_extended_request(command, offset=0, length=0, flags=0, cookie=0, magic=EXTENDED_REQUEST_MAGIC):
    return struct.pack(">IHHQQQ", magic, flags, command, cookie, offset, length)


class Closed(Failure):
    """The server has closed the connection."""


class Wire:
    """One connection, from before its greeting on."""

    def __init__(self, address, seconds=30):
        self.sock = address.connect(seconds)
        self.cookie = 0
        self.read_lengths = {}  # by cookie; for requests that were sent without request()
        self.style = SIMPLE
        self.contexts = ()  # the ids of those that SET_META_CONTEXT chose
        self.answers = {}  # cookie: Answer, of requests that are not answered in full

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
            data = self.receive(length)
            replies.append((kind, data))
            if kind == REP_ACK:
                equal(data, b"", "data of an ACK")
            if kind & REP_ERR:
                check_text(data, f"message of error {kind:#x}")
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
        """Ask for that style of replies, which the server must have."""
        if style == STRUCTURED:
            equal(self.ask(OPT_STRUCTURED_REPLY), [(REP_ACK, b"")], "answer to STRUCTURED_REPLY")
        if style == EXTENDED:
            equal(self.ask(OPT_EXTENDED_HEADERS), [(REP_ACK, b"")], "answer to EXTENDED_HEADERS")
        self.style = style

    def ask_contexts(self, option, name, queries):
        """LIST or SET_META_CONTEXT that must succeed: {name: id}."""
        replies = self.ask(option, pack_queries(name, queries))
        equal(replies[-1], (REP_ACK, b""), f"end of option {option} for {queries}")
        found = {}
        for kind, data in replies[:-1]:
            equal(kind, REP_META_CONTEXT, f"reply to option {option}")
            check(len(data) > 4, "a meta context without a name")
            context = check_text(data[4:], "a meta context's name")
            check(context not in found, f"meta context {context} came twice")
            (found[context],) = struct.unpack_from(">I", data)
        if option == OPT_SET_META_CONTEXT:
            equal(len(set(found.values())), len(found), f"different ids of {found}")
            self.contexts = tuple(found.values())
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

    def pack(self, command, offset=0, length=0, flags=0, cookie=0):
        """A request's header in the style that was agreed on; a WRITE's flag for its payload is added."""
        if self.style != EXTENDED:
            return pack_request(command, offset, length, flags, cookie)
        if command == CMD_WRITE:
            flags |= CMD_FLAG_PAYLOAD_LEN
        return pack_extended_request(command, offset, length, flags, cookie)

    def expect(self, cookie, command, offset=0, length=0, flags=0):
        """A request of COOKIE is sent by other means: know its answer when it comes."""
        self.answers[cookie] = Answer(cookie, command, offset, length, flags, self.contexts)

    def request(self, command, offset=0, length=0, payload=b"", flags=0):
        """Send a request; returns its cookie."""
        self.cookie += 1
        self.expect(self.cookie, command, offset, length, flags)
        self.send(self.pack(command, offset, length, flags, self.cookie) + payload)
        return self.cookie

    def answer(self):
        """The next request that is answered in full: (cookie, Answer)."""
        answer = self.next_answer()
        return answer.cookie, answer

    def next_answer(self):
        """The next Answer that is complete, whichever request it belongs to."""
        while True:
            answer = self.receive_reply()
            if answer.done:
                del self.answers[answer.cookie]
                return answer

    def receive_reply(self):
        """A simple reply or a chunk, added to its Answer."""
        (magic,) = struct.unpack(">I", self.receive(4))
        if magic == SIMPLE_REPLY_MAGIC and self.style != EXTENDED:
            return self.receive_simple_reply()
        extended = self.style == EXTENDED
        check(self.style != SIMPLE, f"magic of a simple reply: got {magic:#x}")
        equal(magic, EXTENDED_REPLY_MAGIC if extended else STRUCTURED_REPLY_MAGIC, "magic of a chunk")
        flags, kind, cookie = struct.unpack(">HHQ", self.receive(12))
        answer = self.answer_of(cookie)
        if extended:
            offset, length = struct.unpack(">QQ", self.receive(16))
            equal(offset, answer.offset, f"{answer}: offset in the reply's header")
        else:
            (length,) = struct.unpack(">I", self.receive(4))
        check(length <= wire_replies.PAYLOAD_BYTES_MAX, f"{answer}: a chunk of {length} bytes")
        answer.take_chunk(kind, flags, self.receive(length), extended)
        return answer

    def receive_simple_reply(self):
        error, cookie = struct.unpack(">IQ", self.receive(12))
        if cookie in self.read_lengths:
            self.expect(cookie, CMD_READ, 0, self.read_lengths.pop(cookie))
        elif cookie not in self.answers and self.style == SIMPLE:
            self.expect(cookie, CMD_FLUSH)
        answer = self.answer_of(cookie)
        if self.style != SIMPLE:
            check(answer.command != CMD_READ, f"{answer}: a simple reply to READ")
            check(answer.command != CMD_BLOCK_STATUS or error, f"{answer}: a simple reply to BLOCK_STATUS")
        has_data = error == 0 and answer.command == CMD_READ
        answer.take_simple(error, self.receive(answer.length) if has_data else b"")
        return answer

    def answer_of(self, cookie):
        check(cookie in self.answers, f"a reply with cookie {cookie:#x}, which no request has")
        return self.answers[cookie]

    def reply(self):
        """The next answer that is complete, whichever request it belongs to: (cookie, error, data)."""
        answer = self.next_answer()
        return answer.cookie, answer.error, answer.data()

    def ask_for(self, command, offset=0, length=0, payload=b"", flags=0):
        """One request and all of its answer, with nothing else in flight."""
        cookie = self.request(command, offset, length, payload, flags)
        answer = self.next_answer()
        equal(answer.cookie, cookie, "cookie of the reply")
        return answer

    def call(self, command, offset=0, length=0, payload=b"", flags=0):
        """One request and its reply, with nothing else in flight: (error, data)."""
        answer = self.ask_for(command, offset, length, payload, flags)
        return answer.error, answer.data()

    def must(self, command, offset=0, length=0, payload=b"", flags=0):
        """One request that succeeds."""
        answer = self.ask_for(command, offset, length, payload, flags)
        equal(answer.error, 0, f"{answer}: {answer.message or 'error'}")
        return answer

    def status(self, offset, length, flags=0):
        """The extents of the only meta context that was chosen."""
        (extents,) = self.must(CMD_BLOCK_STATUS, offset, length, flags=flags).told.values()
        return extents

    def read(self, offset, length):
        error, data = self.call(CMD_READ, offset, length)
        equal(error, 0, f"error of reading {length} bytes at {offset}")
        return data

    def write(self, offset, payload, flags=0):
        error, _ = self.call(CMD_WRITE, offset, len(payload), payload, flags)
        equal(error, 0, f"error of writing {len(payload)} bytes at {offset}")

    def disconnect(self):
        self.send(self.pack(CMD_DISC))
