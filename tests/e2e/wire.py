"""A small NBD client on raw sockets that can also break the rules.

Written from the protocol's rules (fixed newstyle handshake, simple replies); every field is checked as it arrives.
"""

import socket
import struct

from harness import Failure, check, equal

NBDMAGIC = 0x4E42444D41474943
IHAVEOPT = 0x49484156454F5054
OPTION_REPLY_MAGIC = 0x3E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698

FLAG_FIXED_NEWSTYLE = 1
FLAG_NO_ZEROES = 2

OPT_EXPORT_NAME = 1
OPT_ABORT = 2
OPT_LIST = 3
OPT_STARTTLS = 5
OPT_INFO = 6
OPT_GO = 7
OPT_STRUCTURED_REPLY = 8

REP_ACK = 1
REP_SERVER = 2
REP_INFO = 3
REP_ERR = 1 << 31
REP_ERR_UNSUP = REP_ERR + 1
REP_ERR_POLICY = REP_ERR + 2
REP_ERR_INVALID = REP_ERR + 3
REP_ERR_TLS_REQD = REP_ERR + 5
REP_ERR_UNKNOWN = REP_ERR + 6

INFO_EXPORT = 0
INFO_NAME = 1
INFO_DESCRIPTION = 2
INFO_BLOCK_SIZE = 3

TRANSMIT_HAS_FLAGS = 1 << 0
TRANSMIT_READ_ONLY = 1 << 1
TRANSMIT_SEND_FLUSH = 1 << 2
TRANSMIT_SEND_FUA = 1 << 3
TRANSMIT_MULTI_CONN = 1 << 8

CMD_READ = 0
CMD_WRITE = 1
CMD_DISC = 2
CMD_FLUSH = 3

CMD_FLAG_FUA = 1

EPERM = 1
EINVAL = 22
ENOSPC = 28
EOVERFLOW = 75

OPTION_REPLY_BYTES_MAX = 1 << 20


def pack_option(number, data=b"", magic=IHAVEOPT):
    return struct.pack(">QII", magic, number, len(data)) + data


def pack_info_request(name, infos=()):
    """The data of OPT_GO and OPT_INFO."""
    encoded = name.encode()
    head = struct.pack(">I", len(encoded)) + encoded
    return head + struct.pack(f">H{len(infos)}H", len(infos), *infos)


def pack_request(command, offset=0, length=0, flags=0, cookie=0, magic=REQUEST_MAGIC):
    return struct.pack(">IHHQQI", magic, flags, command, cookie, offset, length)


class Closed(Failure):
    """The server has closed the connection."""


class Wire:
    """One connection, from before its greeting on."""

    def __init__(self, address, seconds=30):
        self.sock = address.connect(seconds)
        self.cookie = 0
        self.read_lengths = {}

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

    def go(self, name, infos=()):
        """Greet and enter transmission; returns (size, flags)."""
        self.greet()
        return struct.unpack(">QH", self.ask_info(OPT_GO, name, infos)[INFO_EXPORT])

    def export_name(self, name, zeroes):
        """Enter transmission the old way, after greet; returns (size, flags)."""
        self.send(pack_option(OPT_EXPORT_NAME, name.encode()))
        data = self.receive(10 + (124 if zeroes else 0))
        equal(data[10:].strip(b"\0"), b"", "the 124 zeros")
        return struct.unpack_from(">QH", data)

    # Transmission.

    def request(self, command, offset=0, length=0, payload=b"", flags=0):
        """Send a request; returns its cookie."""
        self.cookie += 1
        if command == CMD_READ:
            self.read_lengths[self.cookie] = length
        self.send(pack_request(command, offset, length, flags, self.cookie) + payload)
        return self.cookie

    def reply(self):
        """The next reply, whichever request it belongs to: (cookie, error, data)."""
        magic, error, cookie = struct.unpack(">IIQ", self.receive(16))
        equal(magic, SIMPLE_REPLY_MAGIC, "magic of a reply")
        length = self.read_lengths.pop(cookie, 0)
        return cookie, error, self.receive(length) if error == 0 else b""

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
        self.send(pack_request(CMD_DISC))
