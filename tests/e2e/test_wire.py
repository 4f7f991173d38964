"""The protocol's rules on raw sockets, kept and broken.

Every test also has a well-behaved connection to the same daemon, which must see nothing of what goes on.
"""

import contextlib
import os
import socket
import struct
import time

import wire
from harness import FILE, MIB, TCP, UNIX
from harness import check, equal, random_bytes, same_bytes, test, two_cores, wait_until
from wire import OPT_ABORT, OPT_EXPORT_NAME, OPT_GO, OPT_INFO, OPT_LIST, OPT_STARTTLS, Wire

SIZE_BYTES = 8 * MIB
BYSTANDER_BYTES = MIB  # the first of the volume are the bystander's
CLOSE_SECONDS = 10
UNKNOWN_OPTION = 0x7777


class Scene:
    """A daemon with one export, a bystander on it, and what is needed to open more connections."""

    def __init__(self, env, transport=TCP, size_bytes=SIZE_BYTES):
        self.env = env
        self.content = random_bytes(SIZE_BYTES)
        self.image = env.image(FILE, size_bytes, self.content)
        self.daemon = env.serve_image(self.image, transport, two_cores())
        self.bystander = self.connect()
        self.bystander.go("disk")

    def connect(self):
        return self.env.keep(Wire(self.daemon.address))

    def greeted(self):
        client = self.connect()
        client.greet()
        return client

    def transmitting(self):
        client = self.connect()
        client.go("disk")
        return client

    def check_bystander(self):
        data = os.urandom(5000)
        self.bystander.write(1000, data)
        same_bytes(self.bystander.read(1000, 5000), data, "what the bystander wrote")
        equal(self.bystander.call(wire.CMD_FLUSH), (0, b""), "the bystander's flush")

    def check_content(self):
        """Beyond the bystander's part nothing has changed."""
        got = self.bystander.read(BYSTANDER_BYTES, SIZE_BYTES - BYSTANDER_BYTES)
        same_bytes(got, self.content[BYSTANDER_BYTES:], "the volume")

    def check_works(self, client):
        """CLIENT is in transmission and in step: no byte too much or too little was consumed."""
        same_bytes(client.read(4 * MIB + 1, 700), self.content[4 * MIB + 1 :][:700], "a read afterwards")


@contextlib.contextmanager
def scene(env, transport=TCP, size_bytes=SIZE_BYTES):
    setting = Scene(env, transport, size_bytes)
    yield setting
    setting.check_bystander()


# Handshake.


@test(over=[(TCP,), (UNIX,)], quick=[(UNIX,)])
def greeting_offers_fixed_newstyle_and_no_zeroes(env, transport):
    with scene(env, transport) as here:
        flags = here.connect().receive_greeting()
        equal(flags, wire.FLAG_FIXED_NEWSTYLE | wire.FLAG_NO_ZEROES, "handshake flags")


@test(over=[("bit2",), ("bit31",)], quick=[("bit2",)])
def unknown_client_flags_end_the_connection(env, bit):
    with scene(env) as here:
        client = here.connect()
        client.greet(1 << int(bit.removeprefix("bit")) | wire.FLAG_FIXED_NEWSTYLE | wire.FLAG_NO_ZEROES)
        client.expect_closed()


@test(quick=True)
def unknown_option_is_unsupported_and_its_payload_consumed(env):
    with scene(env) as here:
        client = here.greeted()
        for data in (b"", b"x", bytes(4096), wire.pack_option(OPT_ABORT)):
            equal(client.answer_kind(UNKNOWN_OPTION, data), wire.REP_ERR_UNSUP, f"answer with {len(data)} bytes")
        client.ask_info(OPT_GO, "disk")
        here.check_works(client)


@test()
def tls_is_refused_politely(env):
    """This server has none; TLS_REQD would be a lie."""
    with scene(env) as here:
        client = here.greeted()
        kind = client.answer_kind(OPT_STARTTLS)
        check(kind in (wire.REP_ERR_UNSUP, wire.REP_ERR_POLICY), f"answer to STARTTLS: {kind:#x}")
        client.ask_info(OPT_GO, "disk")
        here.check_works(client)


@test(quick=True)
def abort_is_acknowledged_and_ends_the_connection(env):
    with scene(env) as here:
        for data in (b"", b"goodbye"):
            client = here.greeted()
            equal(client.ask(OPT_ABORT, data), [(wire.REP_ACK, b"")], f"answer to ABORT with data {data}")
            client.expect_closed()


@test()
def wrong_option_magic_ends_the_connection(env):
    with scene(env) as here:
        client = here.greeted()
        client.send(wire.pack_option(OPT_LIST, magic=wire.IHAVEOPT ^ 1))
        client.expect_closed()


@test()
def garbage_instead_of_a_handshake_ends_the_connection(env):
    with scene(env) as here:
        client = here.connect()
        client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.receive_greeting()
        client.expect_closed()


@test(quick=True)
def list_names_the_exports(env):
    with scene(env) as here:
        replies = here.greeted().ask(OPT_LIST)
        equal([kind for kind, _ in replies], [wire.REP_SERVER, wire.REP_ACK], "replies to LIST")
        equal(replies[0][1][:8], struct.pack(">I", 4) + b"disk", "name")


@test(quick=True)
def list_with_data_is_invalid(env):
    with scene(env) as here:
        client = here.greeted()
        equal(client.answer_kind(OPT_LIST, b"data"), wire.REP_ERR_INVALID, "answer to LIST with data")
        equal(client.answer_kind(OPT_LIST), wire.REP_ACK, "answer to LIST afterwards")


@test(over=[("INFO",), ("GO",)], quick=True)
def unknown_export_is_answered_and_the_handshake_goes_on(env, option):
    with scene(env) as here:
        client = here.greeted()
        for name in ("nothing", "", "dis", "diskk", "Disk"):
            kind = client.answer_kind(OPT_GO if option == "GO" else OPT_INFO, wire.pack_info_request(name))
            equal(kind, wire.REP_ERR_UNKNOWN, f"answer for {name!r}")
        client.ask_info(OPT_GO, "disk")
        here.check_works(client)


@test(quick=True)
def info_and_then_go_say_the_same(env):
    infos = (wire.INFO_NAME, wire.INFO_DESCRIPTION, wire.INFO_BLOCK_SIZE)
    with scene(env) as here:
        client = here.greeted()
        first = client.ask_info(OPT_INFO, "disk", infos)
        again = client.ask_info(OPT_INFO, "disk", infos)
        final = client.ask_info(OPT_GO, "disk", infos)
        equal(again, first, "the second INFO")
        equal(final, first, "GO")
        check(wire.INFO_BLOCK_SIZE in first, "block sizes were asked for")
        here.check_works(client)


@test(quick=True)
def info_of_the_export_has_its_size_and_flags(env):
    with scene(env) as here:
        size, flags = here.connect().go("disk")
        equal(size, SIZE_BYTES, "size")
        wanted = wire.TRANSMIT_HAS_FLAGS | wire.TRANSMIT_SEND_FLUSH | wire.TRANSMIT_SEND_FUA
        wanted |= wire.TRANSMIT_MULTI_CONN
        equal(flags & ~wire.TRANSMIT_CHANGES, wanted, "transmission flags but for those of TRIM and WRITE_ZEROES")


@test()
def block_sizes_keep_the_rules(env):
    with scene(env) as here:
        found = here.greeted().ask_info(OPT_INFO, "disk", (wire.INFO_BLOCK_SIZE,))
        minimum, preferred, maximum = struct.unpack(">III", found[wire.INFO_BLOCK_SIZE])
        check(minimum & (minimum - 1) == 0 and 1 <= minimum <= 65536, f"minimum {minimum}")
        check(preferred & (preferred - 1) == 0 and preferred >= max(512, minimum), f"preferred {preferred}")
        check(maximum >= max(MIB, preferred), f"maximum {maximum}")


@test()
def unknown_information_requests_are_ignored(env):
    with scene(env) as here:
        client = here.greeted()
        found = client.ask_info(OPT_GO, "disk", (999, wire.INFO_BLOCK_SIZE, 1000, 999))
        check(wire.INFO_BLOCK_SIZE in found, "block sizes were asked for")
        here.check_works(client)


BAD_INFO_REQUESTS = {
    "empty": b"",
    "short": b"\0\0",
    "name overruns": struct.pack(">I", 100) + b"disk" + struct.pack(">H", 0),
    "name length near 2^32": struct.pack(">I", 0xFFFFFFFC) + b"disk" + struct.pack(">H", 0),
    "no count": struct.pack(">I", 4) + b"disk",
    "infos overrun": struct.pack(">I", 4) + b"disk" + struct.pack(">HH", 2, 3),
    "trailing data": wire.pack_info_request("disk", (3,)) + b"xx",
}


@test(over=[(name,) for name in BAD_INFO_REQUESTS], quick=[("name overruns",), ("infos overrun",)])
def malformed_go_is_invalid_and_the_handshake_goes_on(env, name):
    with scene(env) as here:
        client = here.greeted()
        for option in (OPT_INFO, OPT_GO):
            equal(client.answer_kind(option, BAD_INFO_REQUESTS[name]), wire.REP_ERR_INVALID, f"answer to {option}")
        client.ask_info(OPT_GO, "disk")
        here.check_works(client)


@test(over=[(5000,), (200_000,)])
def overlong_name_is_refused_or_ends_the_connection(env, count):
    with scene(env) as here:
        client = here.greeted()
        with contextlib.suppress(wire.Closed, ConnectionError):
            kind = client.answer_kind(OPT_GO, wire.pack_info_request("n" * count))
            check(kind & wire.REP_ERR, f"answer {kind:#x} to a name of {count} bytes")


@test()
def option_of_4_gib_does_not_take_memory(env):
    with scene(env) as here:
        before = here.daemon.rss_bytes()
        client = here.greeted()
        client.send(struct.pack(">QII", wire.IHAVEOPT, UNKNOWN_OPTION, 0xFFFFFFFF))
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                client.send(bytes(MIB))
        check(here.daemon.rss_bytes() - before < 32 * MIB, "the daemon keeps the option's payload")


@test(over=[("zeroes",), ("no-zeroes",)], quick=True)
def export_name_sends_the_zeros_unless_refused(env, wanted):
    with scene(env) as here:
        client = here.connect()
        client.greet(wire.FLAG_FIXED_NEWSTYLE | (0 if wanted == "zeroes" else wire.FLAG_NO_ZEROES))
        size, flags = client.export_name("disk", wanted == "zeroes")
        equal(size, SIZE_BYTES, "size")
        check(flags & wire.TRANSMIT_HAS_FLAGS, "HAS_FLAGS")
        here.check_works(client)


@test()
def go_sends_no_zeros_even_without_no_zeroes(env):
    with scene(env) as here:
        client = here.connect()
        client.greet(wire.FLAG_FIXED_NEWSTYLE)
        client.ask_info(OPT_GO, "disk")
        here.check_works(client)


@test(quick=True)
def export_name_of_an_unknown_export_ends_the_connection(env):
    with scene(env) as here:
        client = here.greeted()
        client.send(wire.pack_option(OPT_EXPORT_NAME, b"nothing"))
        client.expect_closed()


@test(quick=True)
def half_handshakes_leave_others_alone(env):
    with scene(env) as here:
        sent = (b"", struct.pack(">I", 3)[:2], struct.pack(">I", 3) + wire.pack_option(OPT_GO, bytes(9))[:20])
        clients = [here.connect() for _ in sent]
        for client, data in zip(clients, sent):
            client.receive_greeting()
            client.send(data)
        here.check_bystander()
        for client in clients:
            client.close()


@test(quick=True)
def handshake_and_requests_in_one_send_are_all_answered(env):
    """Nothing obliges a client to wait."""
    with scene(env) as here:
        client = here.connect()
        flags = struct.pack(">I", 3)
        options = wire.pack_option(UNKNOWN_OPTION, b"abc") + wire.pack_option(OPT_LIST)
        go = wire.pack_option(OPT_GO, wire.pack_info_request("disk"))
        client.send(flags + options + go + wire.pack_request(wire.CMD_READ, 2 * MIB, 600, cookie=77))
        client.receive_greeting()
        client.option_replies(UNKNOWN_OPTION)
        client.option_replies(OPT_LIST)
        equal(client.option_replies(OPT_GO)[-1][0], wire.REP_ACK, "GO")
        client.read_lengths[77] = 600
        cookie, error, data = client.reply()
        equal((cookie, error), (77, 0), "reply")
        same_bytes(data, here.content[2 * MIB :][:600], "data")


@test()
def handshake_byte_by_byte_works(env):
    with scene(env) as here:
        client = here.connect()
        client.receive_greeting()
        go = wire.pack_option(OPT_GO, wire.pack_info_request("disk", (3,)))
        send_slowly(client, struct.pack(">I", 3) + go)
        equal(client.option_replies(OPT_GO)[-1][0], wire.REP_ACK, "GO")
        here.check_works(client)


def send_slowly(client, data):
    for index in range(len(data)):
        client.send(data[index : index + 1])
        time.sleep(0.0005)


# Transmission.


@test(over=[(TCP,), (UNIX,)], quick=[(TCP,)])
def many_requests_in_one_send_are_all_answered(env, transport):
    with scene(env, transport) as here:
        client = here.transmitting()
        offsets = {cookie: BYSTANDER_BYTES + cookie * 5003 for cookie in range(1, 301)}
        client.read_lengths = {cookie: 900 for cookie in offsets}
        client.send(
            b"".join(wire.pack_request(wire.CMD_READ, offset, 900, cookie=cookie) for cookie, offset in offsets.items())
        )
        for _ in range(300):
            cookie, error, data = client.reply()
            equal(error, 0, f"error of request {cookie}")
            offset = offsets.pop(cookie)
            same_bytes(data, here.content[offset : offset + 900], f"data at {offset}")


@test(quick=True)
def writes_and_reads_mixed_in_one_send_are_all_answered(env):
    """Payloads and headers share segments; each write is followed by requests for other places."""
    with scene(env) as here:
        client = here.transmitting()
        stream, wanted = b"", bytearray(here.content)
        for index in range(60):
            offset, data = 2 * MIB + index * 9001, random_bytes(1 + index * 97, index)
            stream += wire.pack_request(wire.CMD_WRITE, offset, len(data), cookie=2 * index) + data
            stream += wire.pack_request(wire.CMD_READ, 6 * MIB + index, 50, cookie=2 * index + 1)
            client.read_lengths[2 * index + 1] = 50
            wanted[offset : offset + len(data)] = data
        client.send(stream)
        cookies = set()
        for _ in range(120):
            cookie, error, data = client.reply()
            equal(error, 0, f"error of request {cookie}")
            cookies.add(cookie)
            if cookie % 2:
                same_bytes(data, bytes(wanted[6 * MIB + cookie // 2 :][:50]), "read")
        equal(cookies, set(range(120)), "cookies answered")
        same_bytes(client.read(2 * MIB, 2 * MIB), bytes(wanted[2 * MIB : 4 * MIB]), "what was written")


@test(quick=True)
def requests_byte_by_byte_work(env):
    with scene(env) as here:
        client = here.transmitting()
        data = random_bytes(300)
        send_slowly(client, wire.pack_request(wire.CMD_WRITE, 3 * MIB + 5, 300, cookie=1) + data)
        equal(client.reply(), (1, 0, b""), "the write")
        client.read_lengths[2] = 300
        send_slowly(client, wire.pack_request(wire.CMD_READ, 3 * MIB + 5, 300, cookie=2))
        equal(client.reply(), (2, 0, data), "the read")


@test()
def large_write_in_odd_pieces_arrives_whole(env):
    with scene(env) as here:
        client = here.transmitting()
        data = random_bytes(3 * MIB + 77)
        stream = wire.pack_request(wire.CMD_WRITE, BYSTANDER_BYTES + 13, len(data), cookie=9) + data
        position, step = 0, 1
        while position < len(stream):
            client.send(stream[position : position + step])
            position, step = position + step, step * 3 % 65_521 + 1
        equal(client.reply(), (9, 0, b""), "the write")
        same_bytes(client.read(BYSTANDER_BYTES + 13, len(data)), data, "what was written")


@test()
def cookies_come_back_as_they_are(env):
    with scene(env) as here:
        client = here.transmitting()
        cookies = [0, 1, 0xFFFFFFFFFFFFFFFF, 0x8000000000000000, 0x0123456789ABCDEF]
        for cookie in cookies:
            client.send(wire.pack_request(wire.CMD_FLUSH, cookie=cookie))
        equal(sorted(client.reply()[0] for _ in cookies), sorted(cookies), "cookies")


@test(quick=True)
def wrong_request_magic_ends_that_connection_alone(env):
    with scene(env) as here:
        client, other = here.transmitting(), here.transmitting()
        client.send(wire.pack_request(wire.CMD_READ, 0, 512, magic=wire.REQUEST_MAGIC ^ 0x100))
        client.expect_closed()
        here.check_works(other)


# Requests that are refused: (command, flags, offset, length, payload bytes) and the errors allowed.

END = SIZE_BYTES
U64_MAX = (1 << 64) - 1
REFUSED = {
    "read past the end": (wire.CMD_READ, 0, END - 511, 512, 0, (wire.EINVAL,)),
    "read from the end": (wire.CMD_READ, 0, END, 1, 0, (wire.EINVAL,)),
    "read far beyond": (wire.CMD_READ, 0, 1 << 62, 4096, 0, (wire.EINVAL,)),
    "read that wraps": (wire.CMD_READ, 0, U64_MAX - 511, 4096, 0, (wire.EINVAL,)),
    "read of nothing": (wire.CMD_READ, 0, 4096, 0, 0, (wire.EINVAL,)),
    "read over 64 MiB": (wire.CMD_READ, 0, 0, 64 * MIB + 1, 0, (wire.EINVAL, wire.EOVERFLOW)),
    "read of 4 GiB": (wire.CMD_READ, 0, 0, 0xFFFFFFFF, 0, (wire.EINVAL, wire.EOVERFLOW)),
    "write past the end": (wire.CMD_WRITE, 0, END - 511, 512, 512, (wire.ENOSPC,)),
    "write from the end": (wire.CMD_WRITE, 0, END, 1, 1, (wire.ENOSPC,)),
    "write far beyond": (wire.CMD_WRITE, 0, 1 << 62, 4096, 4096, (wire.ENOSPC,)),
    "write that wraps": (wire.CMD_WRITE, 0, U64_MAX - 511, 4096, 4096, (wire.ENOSPC,)),
    "large write past the end": (wire.CMD_WRITE, wire.CMD_FLAG_FUA, END - MIB, 5 * MIB, 5 * MIB, (wire.ENOSPC,)),
    "write of nothing": (wire.CMD_WRITE, 0, 4096, 0, 0, (wire.EINVAL,)),
    "write with an unknown flag": (wire.CMD_WRITE, 1 << 9, 2 * MIB, 512, 512, (wire.EINVAL,)),
    "write with DF": (wire.CMD_WRITE, 1 << 2, 2 * MIB, 512, 512, (wire.EINVAL,)),
    "read with an unknown flag": (wire.CMD_READ, 1 << 15, 2 * MIB, 512, 0, (wire.EINVAL,)),
    "flush with an unknown flag": (wire.CMD_FLUSH, 1 << 9, 0, 0, 0, (wire.EINVAL,)),
    "block status without a context": (wire.CMD_BLOCK_STATUS, 0, 2 * MIB, 4096, 0, (wire.EINVAL,)),
    "unknown command": (77, 0, 2 * MIB, 4096, 0, (wire.EINVAL,)),
    "unknown command 65535": (0xFFFF, 0xFFFF, U64_MAX, 0xFFFFFFFF, 0, (wire.EINVAL,)),
}


@test(quick=True)
def bad_requests_are_refused_and_the_connection_goes_on(env):
    with scene(env) as here:
        client = here.transmitting()
        for name, (command, flags, offset, length, payload_bytes, errors) in REFUSED.items():
            # A payload that looks like requests: if it were not consumed, it would be answered.
            payload = (wire.pack_request(wire.CMD_FLUSH, cookie=1) * (payload_bytes // 28 + 1))[:payload_bytes]
            error, _ = client.call(command, offset, length, payload, flags)
            check(error in errors, f"{name}: error {error}, expected {errors}")
            here.check_works(client)
        here.check_content()


@test()
def bad_requests_all_at_once_are_each_answered(env):
    with scene(env) as here:
        client = here.transmitting()
        wanted, stream = {}, b""
        for cookie, (command, flags, offset, length, payload_bytes, errors) in enumerate(REFUSED.values()):
            wanted[cookie] = errors
            stream += wire.pack_request(command, offset, length, flags, cookie) + bytes(payload_bytes)
        client.send(stream)
        for _ in REFUSED:
            cookie, error, _ = client.reply()
            check(error in wanted.pop(cookie), f"{list(REFUSED)[cookie]}: error {error}")
        here.check_works(client)
        here.check_content()


@test(quick=True)
def refused_write_is_answered_behind_its_payload(env):
    """A client that is still sending, as libnbd, does not know the request that an early answer is about."""
    with scene(env) as here:
        client = here.transmitting()
        cookie = client.request(wire.CMD_WRITE, END, 2 * MIB, bytes(MIB))
        client.sock.settimeout(0.3)
        with contextlib.suppress(socket.timeout):
            check(not client.sock.recv(1), "an answer before the payload is there")
            check(False, "the connection ended")
        client.sock.settimeout(30)
        client.send(bytes(MIB))
        equal(client.reply()[:2], (cookie, wire.ENOSPC), "the answer")
        here.check_works(client)


@test(quick=True)
def oversized_write_is_refused_and_its_payload_consumed(env):
    """The volume is large enough: it is the payload that is too long."""
    with scene(env, size_bytes=256 * MIB) as here:
        before = here.daemon.rss_bytes()
        client = here.transmitting()
        for length in (64 * MIB + 1, 100 * MIB):
            cookie = client.request(wire.CMD_WRITE, BYSTANDER_BYTES, length)
            for _ in range(length // MIB):
                client.send(bytes(MIB))
            client.send(bytes(length % MIB))
            equal(client.reply(), (cookie, wire.EINVAL, b""), f"reply to a write of {length} bytes")
        here.check_works(client)
        here.check_content()
        if not env.quick:  # a sanitizer's shadow memory is its own affair
            check(here.daemon.rss_bytes() - before < 160 * MIB, "memory grew with the payload")


@test()
def dropped_connection_within_a_huge_payload_ends_alone(env):
    with scene(env) as here:
        client = here.transmitting()
        client.request(wire.CMD_WRITE, 0, 0xFFFFFFFF, bytes(100_000))
        client.close()
        here.check_content()


@test(quick=True)
def read_only_export_has_its_flag_and_refuses_writes(env):
    content = random_bytes(MIB)
    path = env.file(MIB, content)
    daemon = env.serve(
        "--config",
        env.config(f"[server]\nlisten = 127.0.0.1:0\n[export disk]\npath = {path}\nread-only = yes\n"),
    )
    client = env.keep(Wire(daemon.address))
    _, flags = client.go("disk")
    check(flags & wire.TRANSMIT_READ_ONLY, "READ_ONLY")
    for flags in (0, wire.CMD_FLAG_FUA):
        equal(client.call(wire.CMD_WRITE, 100, 5000, bytes(5000), flags), (wire.EPERM, b""), "a write")
    equal(client.call(wire.CMD_FLUSH), (0, b""), "a flush")
    same_bytes(client.read(0, MIB), content, "the image")


@test(quick=True)
def fua_is_accepted_on_every_command(env):
    with scene(env) as here:
        client = here.transmitting()
        client.write(2 * MIB + 3, b"durable", wire.CMD_FLAG_FUA)
        error, data = client.call(wire.CMD_READ, 2 * MIB + 3, 7, flags=wire.CMD_FLAG_FUA)
        equal((error, data), (0, b"durable"), "a read with FUA")
        equal(client.call(wire.CMD_FLUSH, flags=wire.CMD_FLAG_FUA), (0, b""), "a flush with FUA")


@test(quick=True)
def disconnect_finishes_what_is_outstanding(env):
    with scene(env) as here:
        client = here.transmitting()
        offsets = {}
        for index in range(64):
            offset = 2 * MIB + index * 20_000
            offsets[client.request(wire.CMD_WRITE, offset, 10_001, random_bytes(10_001, index))] = index
        client.disconnect()
        for _ in range(64):
            cookie, error, _ = client.reply()
            equal(error, 0, "error of a write before DISC")
            del offsets[cookie]
        client.expect_closed()
        for index in range(64):
            got = here.bystander.read(2 * MIB + index * 20_000, 10_001)
            same_bytes(got, random_bytes(10_001, index), f"write {index}")


@test(quick=True)
def requests_after_a_disconnect_are_not_served(env):
    with scene(env) as here:
        client = here.transmitting()
        write = wire.pack_request(wire.CMD_WRITE, 3 * MIB, 512) + bytes(512)
        client.send(wire.pack_request(wire.CMD_DISC) + write)
        client.expect_closed()
        here.check_content()


@test(quick=True)
def half_closed_client_still_gets_its_replies_or_is_closed(env):
    """shutdown(SHUT_WR) after the last request: everything sent was complete."""
    with scene(env) as here:
        client = here.transmitting()
        client.request(wire.CMD_READ, 4 * MIB, 4096)
        client.sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(wire.Closed):
            _, error, data = client.reply()
            equal(error, 0, "error")
            same_bytes(data, here.content[4 * MIB :][:4096], "data")
        client.sock.settimeout(CLOSE_SECONDS)
        with contextlib.suppress(wire.Closed):
            client.expect_closed()


@test(quick=True)
def dropped_connections_with_requests_in_flight_end_alone(env):
    with scene(env) as here:
        connected = here.daemon.fd_count()
        for turn in range(env.size(60, 20)):
            client = here.transmitting()
            for index in range(16):
                client.request(wire.CMD_READ, index * 4096, 256 * 1024)
                client.request(wire.CMD_WRITE, 100, 700, bytes(700))
            if turn % 2:
                # A reset instead of an orderly end.
                client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
        here.check_bystander()
        wait_until(lambda: here.daemon.fd_count() <= connected, CLOSE_SECONDS, "the connections are closed")
        here.check_content()


@test(quick=True)
def half_a_write_is_not_written(env):
    """The connection ends within the payload: nothing of it reaches the volume."""
    with scene(env) as here:
        connected = here.daemon.fd_count()
        client = here.transmitting()
        client.send(wire.pack_request(wire.CMD_WRITE, 2 * MIB, MIB) + bytes(MIB // 2))
        time.sleep(0.1)
        client.close()
        wait_until(lambda: here.daemon.fd_count() <= connected, CLOSE_SECONDS, "the connection is closed")
        here.check_content()


def lose_by_garbage(client):
    client.send(b"\xff" * 28)
    client.expect_closed()


def lose_by_half_request(client):
    client.send(wire.pack_request(wire.CMD_READ, 0, 512)[:20])
    client.close()


def lose_by_requests_in_flight(client):
    for _ in range(64):
        client.request(wire.CMD_READ, 0, MIB)
    time.sleep(0.2)  # more than the socket takes: replies are waiting when it goes
    client.close()


LOSSES = (lose_by_garbage, lose_by_half_request, lose_by_requests_in_flight)


@test(over=[(loss.__name__,) for loss in LOSSES], quick=True)
def lost_connection_leaves_one_log_line(env, loss):
    with scene(env) as here:
        client = here.transmitting()
        time.sleep(0.1)
        before = len(here.daemon.log_lines())
        globals()[loss](client)
        wait_until(lambda: len(here.daemon.log_lines()) > before, CLOSE_SECONDS, "a log line")
        time.sleep(0.2)
        lines = here.daemon.log_lines()[before:]
        equal(len(lines), 1, f"log lines about it: {lines}")


@test(quick=True)
def orderly_clients_leave_no_warning(env):
    with scene(env) as here:
        client = here.transmitting()
        here.check_works(client)
        client.disconnect()
        client.expect_closed()
        time.sleep(0.1)
        loud = [line for line in here.daemon.log_lines() if line.startswith(("warning", "error"))]
        equal(loud, [], "warnings and errors")
