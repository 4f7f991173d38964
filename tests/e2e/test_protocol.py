"""Structured and extended replies, and the commands that need them, on raw sockets and with the clients people use."""

import os
import random
import struct

import wire
from harness import FILE, MIB
from harness import check, equal, random_bytes, same_bytes, test, two_cores
from wire import CMD_FLAG_DF, CMD_FLAG_FUA, CMD_FLAG_PAYLOAD_LEN, CMD_FLAG_REQ_ONE
from wire import EXTENDED, SIMPLE, STRUCTURED, STYLES, Wire

ALLOCATION = "base:allocation"
PIECE_BYTES = 2 * MIB  # what the server reads at one time: a longer READ comes in parts
SIZE_BYTES = 8 * MIB + 1234
CHUNKED = (STRUCTURED, EXTENDED)


class Scene:
    """A daemon with one export of known content."""

    def __init__(self, env, size_bytes=SIZE_BYTES):
        self.env = env
        self.content = bytearray(random_bytes(size_bytes))
        self.image = env.image(FILE, size_bytes, self.content)
        self.daemon = env.serve_image(self.image, cores=two_cores())

    def connect(self, style, contexts=()):
        client = self.env.keep(Wire(self.daemon.address))
        self.size, self.flags = client.go("disk", style=style, contexts=contexts)
        return client

    def check_works(self, client):
        """CLIENT is in step: no byte too much or too little was consumed."""
        same_bytes(client.read(MIB + 1, 700), self.content[MIB + 1 :][:700], "a read afterwards")


# Requests that are fine.


@test(over=[(style,) for style in STYLES], quick=[(STRUCTURED,), (EXTENDED,)])
def reads_and_writes_of_any_size_and_place(env, style):
    here = Scene(env)
    client = here.connect(style)
    seed = random.Random(5)
    spans = [(0, 1), (0, SIZE_BYTES), (SIZE_BYTES - 1, 1), (PIECE_BYTES - 1, 2), (4096, 4096), (MIB + 77, 5 * MIB)]
    spans += [(seed.randrange(SIZE_BYTES - MIB), seed.randrange(1, MIB)) for _ in range(20)]
    for serial, (offset, length) in enumerate(spans):
        data = random_bytes(length, serial)
        client.write(offset, data, CMD_FLAG_FUA if serial % 3 == 0 else 0)
        here.content[offset : offset + length] = data
        same_bytes(client.read(offset, length), data, f"{length} bytes at {offset}")
    equal(client.call(wire.CMD_FLUSH), (0, b""), "FLUSH")
    equal(client.call(wire.CMD_CACHE, 5, MIB), (0, b""), "CACHE")
    same_bytes(client.read(0, SIZE_BYTES), here.content, "all of it")
    client.disconnect()
    client.expect_closed()


@test(over=[(style,) for style in STYLES], quick=[(EXTENDED,)])
def fua_is_accepted_on_every_command_in_every_style(env, style):
    here = Scene(env)
    client = here.connect(style, [ALLOCATION] if style != SIMPLE else [])
    for command in (wire.CMD_READ, wire.CMD_FLUSH, wire.CMD_CACHE):
        length = 0 if command == wire.CMD_FLUSH else 512
        equal(client.call(command, 0, length, flags=CMD_FLAG_FUA)[0], 0, f"error of command {command} with FUA")
    if style != SIMPLE:
        answer = client.ask_for(wire.CMD_BLOCK_STATUS, 0, SIZE_BYTES, flags=CMD_FLAG_FUA)
        equal(answer.error, 0, "error of BLOCK_STATUS with FUA")
    here.check_works(client)


@test(over=[(style,) for style in STYLES], quick=[(STRUCTURED,)])
def payloads_of_64_mib_are_served(env, style):
    """Told are 32 MiB; who asks for more gets 64, in pieces: the daemon has a memory budget of its own."""
    here = Scene(env, 72 * MIB)
    client = here.connect(style)
    data = random_bytes(64 * MIB, 9)
    client.write(4097, data)
    here.content[4097 : 4097 + 64 * MIB] = data
    same_bytes(client.read(4097, 64 * MIB), data, "64 MiB")
    error, _ = client.call(wire.CMD_READ, 0, 64 * MIB + 1)
    equal(error, wire.EINVAL, "error of a READ of more than 64 MiB")
    here.check_works(client)


@test(over=[(style,) for style in STYLES], quick=[(style,) for style in STYLES])
def many_requests_at_once_are_each_answered_whole(env, style):
    """Long reads come in parts, between which other replies may come where the style allows it; none is torn."""
    here = Scene(env)
    client = here.connect(style)
    seed = random.Random(6)
    for _ in range(env.size(10, 3)):
        spans = {}
        for serial in range(40):
            length = seed.choice((1, 512, 4096, MIB, 5 * MIB))
            offset = seed.randrange(SIZE_BYTES - length)
            df = CMD_FLAG_DF if style != SIMPLE and serial % 3 == 0 else 0
            spans[client.request(wire.CMD_READ, offset, length, flags=df)] = (offset, length)
        for _ in range(40):
            cookie, error, data = client.reply()
            offset, length = spans.pop(cookie)
            equal(error, 0, "error of a READ")
            same_bytes(data, here.content[offset : offset + length], f"{length} bytes at {offset}")


@test(over=[(style,) for style in CHUNKED], quick=[(STRUCTURED,)])
def read_in_pieces_comes_in_chunks_but_with_df_in_one(env, style):
    here = Scene(env)
    check(here.connect(style) and here.flags & wire.TRANSMIT_SEND_DF, "DF is not offered")
    client = here.connect(style)
    for offset, length in ((0, 1), (1, 65536), (0, SIZE_BYTES), (PIECE_BYTES - 1, PIECE_BYTES + 2)):
        answer = client.ask_for(wire.CMD_READ, offset, length)
        same_bytes(answer.data(), here.content[offset : offset + length], "in chunks")
        answer = client.ask_for(wire.CMD_READ, offset, length, flags=CMD_FLAG_DF)
        equal(len(answer.pieces), 1, "content chunks with DF")
        same_bytes(answer.data(), here.content[offset : offset + length], "in one chunk")
    here.connect(SIMPLE)
    check(not here.flags & wire.TRANSMIT_SEND_DF, "DF is offered with simple replies")


@test(quick=True)
def replies_to_others_come_between_the_chunks_of_a_long_read(env):
    """With structured replies nobody waits for the end of a long READ."""
    here = Scene(env, 65 * MIB)
    client = here.connect(STRUCTURED)
    long = client.request(wire.CMD_READ, 0, 64 * MIB)
    short = [client.request(wire.CMD_READ, 4096 * serial, 4096) for serial in range(10)]
    order = [client.answer()[0] for _ in range(11)]
    equal(order[-1], long, "the last to be complete")
    equal(sorted(order[:-1]), short, "the others")


# Requests that are not.

END = SIZE_BYTES
# (command, flags, offset, length, error); the payload of a WRITE is sent.
REFUSED = {
    "read past the end": (wire.CMD_READ, 0, END - 511, 512, wire.EINVAL),
    "read that wraps": (wire.CMD_READ, 0, (1 << 64) - 511, 4096, wire.EINVAL),
    "read of nothing": (wire.CMD_READ, 0, 0, 0, wire.EINVAL),
    "read with REQ_ONE": (wire.CMD_READ, CMD_FLAG_REQ_ONE, 0, 512, wire.EINVAL),
    "write past the end": (wire.CMD_WRITE, 0, END - 511, 512, wire.ENOSPC),
    "write of nothing": (wire.CMD_WRITE, 0, 0, 0, wire.EINVAL),
    "write with DF": (wire.CMD_WRITE, CMD_FLAG_DF, 0, 512, wire.EINVAL),
    "flush with NO_HOLE": (wire.CMD_FLUSH, wire.CMD_FLAG_NO_HOLE, 0, 0, wire.EINVAL),
    "cache past the end": (wire.CMD_CACHE, 0, END, 1, wire.EINVAL),
    "cache of nothing": (wire.CMD_CACHE, 0, 0, 0, wire.EINVAL),
    "status past the end": (wire.CMD_BLOCK_STATUS, 0, 0, END + 1, wire.EINVAL),
    "status of nothing": (wire.CMD_BLOCK_STATUS, 0, 0, 0, wire.EINVAL),
    "status with DF": (wire.CMD_BLOCK_STATUS, CMD_FLAG_DF, 0, 512, wire.EINVAL),
    "unknown command": (77, 0, 0, 512, wire.EINVAL),
    "unknown flag": (wire.CMD_READ, 1 << 14, 0, 512, wire.EINVAL),
}


@test(over=[(style,) for style in CHUNKED], quick=[(style,) for style in CHUNKED])
def refused_requests_are_told_why_and_the_connection_goes_on(env, style):
    here = Scene(env)
    client = here.connect(style, [ALLOCATION])
    for name, (command, flags, offset, length, error) in REFUSED.items():
        payload = bytes(length) if command == wire.CMD_WRITE else b""
        answer = client.ask_for(command, offset, length, payload, flags)
        equal(answer.error, error, name)
        equal(answer.kinds, [wire.CHUNK_ERROR], f"{name}: chunks")
        check(answer.message, f"{name}: no message")
        here.check_works(client)
    same_bytes(client.read(0, SIZE_BYTES), here.content, "the volume")
    lines = [line for line in here.daemon.log_lines() if "refused" in line]
    equal(len(lines), 1, "lines in the log about refused requests of this client")


@test(quick=True)
def df_and_simple_replies_do_not_mix(env):
    here = Scene(env)
    client = here.connect(SIMPLE)
    equal(client.call(wire.CMD_READ, 0, 512, flags=CMD_FLAG_DF)[0], wire.EINVAL, "DF without structured replies")
    client.request(wire.CMD_READ, 0, 512, flags=CMD_FLAG_PAYLOAD_LEN)
    equal(client.reply()[1], wire.EINVAL, "PAYLOAD_LEN without extended headers")
    here.check_works(client)


@test(over=[(style,) for style in STYLES], quick=[(style,) for style in STYLES])
def read_that_fails_in_the_middle(env, style):
    """The image loses its end: what was read before is sent, and where it failed is told."""
    here = Scene(env)
    client = here.connect(style)
    here.check_works(client)
    os.truncate(here.image.backing, 3 * MIB)
    if style == SIMPLE:
        # The header has promised all of it.
        client.request(wire.CMD_READ, 0, 8 * MIB)
        client.receive(16)
        same_bytes(client.receive(PIECE_BYTES), here.content[:PIECE_BYTES], "the first piece")
        client.expect_closed()
        return
    answer = client.ask_for(wire.CMD_READ, 0, 8 * MIB)
    equal((answer.error, answer.error_offset), (wire.EIO, PIECE_BYTES), "error and where")
    check("READ" in answer.message, f"message {answer.message!r}")
    equal([(offset, length) for offset, length, _ in answer.pieces], [(0, PIECE_BYTES)], "content")
    same_bytes(answer.pieces[0][2], here.content[:PIECE_BYTES], "the first piece")
    answer = client.ask_for(wire.CMD_READ, 0, 8 * MIB, flags=CMD_FLAG_DF)
    equal((answer.error, answer.error_offset), (wire.EIO, PIECE_BYTES), "with DF: error and where")
    ((_, length, data),) = answer.pieces
    equal(length, 8 * MIB, "with DF: all that was announced")
    same_bytes(data, bytes(here.content[:PIECE_BYTES]) + bytes(6 * MIB), "with DF: padded with zeros")
    answer = client.ask_for(wire.CMD_READ, 5 * MIB, 512)
    equal((answer.error, answer.error_offset, answer.pieces), (wire.EIO, 5 * MIB, []), "a read of what is gone")
    here.check_works(client)


class FaultScene(Scene):
    """A volume of zeros in memory, of which the part from 5 to 6 MiB goes wrong as FAULT says."""

    def __init__(self, env, fault):
        self.env = env
        self.content = bytearray(SIZE_BYTES)
        volume = f"type = fault\nsize = {SIZE_BYTES}\nfault = range=5M-6M {fault}\n"
        config = env.config(f"[server]\nlisten = 127.0.0.1:0\n[export disk]\n{volume}")
        self.daemon = env.serve("--config", config, "--cores", two_cores())


@test(over=[(style,) for style in STYLES], quick=[(style,) for style in STYLES])
def write_that_fails_in_the_middle(env, style):
    """The pieces before are written, and the rest of the payload is consumed."""
    here = FaultScene(env, "write-error=1")
    client = here.connect(style)
    data = random_bytes(8 * MIB)
    if style == SIMPLE:
        equal(client.call(wire.CMD_WRITE, 0, 8 * MIB, data), (wire.EIO, b""), "the answer")
    else:
        answer = client.ask_for(wire.CMD_WRITE, 0, 8 * MIB, data)
        equal((answer.error, answer.error_offset), (wire.EIO, 4 * MIB), "error and where")
        check("WRITE" in answer.message, f"message {answer.message!r}")
    here.content[: 4 * MIB] = data[: 4 * MIB]
    same_bytes(client.read(0, SIZE_BYTES), here.content, "what was written")


ERRORS = (("EIO", wire.EIO), ("ENOSPC", wire.ENOSPC), ("EDQUOT", wire.ENOSPC), ("EPERM", wire.EPERM), ("ENOMEM", wire.EIO))


@test(over=[(name,) for name, _ in ERRORS], quick=[("EDQUOT",), ("ENOMEM",)])
def errors_of_the_volume_become_those_of_the_protocol(env, name):
    fault = " ".join(f"{kind}-error=1" for kind in ("read", "write", "trim", "zeroes"))
    here = FaultScene(env, f"{fault} error={name}")
    client, simple = here.connect(EXTENDED), here.connect(SIMPLE)
    for command in (wire.CMD_READ, wire.CMD_WRITE, wire.CMD_TRIM, wire.CMD_WRITE_ZEROES):
        payload = bytes(4096) if command == wire.CMD_WRITE else b""
        # A READ of a hole fails, too, if its data has to be read.
        flags = CMD_FLAG_DF if command == wire.CMD_READ else 0
        answer = client.ask_for(command, 5 * MIB, 4096, payload, flags)
        equal(answer.error, dict(ERRORS)[name], f"error of command {command}")
        check(answer.message, f"no message for command {command}")
        equal(simple.call(command, 5 * MIB, 4096, payload)[0], dict(ERRORS)[name], f"simple error of command {command}")
        here.check_works(client)
        here.check_works(simple)


@test(over=[(style,) for style in CHUNKED], quick=[(STRUCTURED,)])
def sparse_read_that_fails_tells_what_came_before(env, style):
    here = FaultScene(env, "read-error=1")
    client = here.connect(style)
    data = random_bytes(MIB)
    client.write(0, data)
    client.write(5 * MIB, data)
    answer = client.ask_for(wire.CMD_READ, 0, SIZE_BYTES)
    equal((answer.error, answer.error_offset), (wire.EIO, 5 * MIB), "error and where")
    equal([(offset, length) for offset, length, _ in answer.pieces], [(0, MIB), (MIB, 4 * MIB)], "content before")
    same_bytes(answer.pieces[0][2], data, "data before")
    equal(answer.pieces[1][2], None, "hole before")


@test(quick=True)
def volume_that_cannot_tell_its_holes_is_read(env):
    here = FaultScene(env, "query-error=1")
    client = here.connect(STRUCTURED, [ALLOCATION])
    data = random_bytes(MIB)
    client.write(4 * MIB + 65536, data)
    here.content[4 * MIB + 65536 : 5 * MIB + 65536] = data
    same_bytes(client.read(0, SIZE_BYTES), here.content, "the volume")
    answer = client.ask_for(wire.CMD_BLOCK_STATUS, 5 * MIB, 4096)
    equal(answer.error, wire.EIO, "error of BLOCK_STATUS")
    equal(client.ask_for(wire.CMD_BLOCK_STATUS, 0, MIB).error, 0, "BLOCK_STATUS of the rest")
    here.check_works(client)


# Extended headers.


@test(quick=True)
def payload_that_is_not_wanted_is_consumed(env):
    here = Scene(env)
    client = here.connect(EXTENDED, [ALLOCATION])
    for command in (wire.CMD_READ, wire.CMD_FLUSH, wire.CMD_TRIM, wire.CMD_CACHE, wire.CMD_BLOCK_STATUS, 77):
        for count in (0, 1, 32, MIB):
            payload = (client.pack(wire.CMD_FLUSH, 0, 0, 0, 1) * (count // 32 + 1))[:count]
            answer = client.ask_for(command, 0, count, payload, CMD_FLAG_PAYLOAD_LEN)
            equal(answer.error, wire.EINVAL, f"error of command {command} with {count} bytes of payload")
            here.check_works(client)


@test(quick=True)
def extended_write_without_its_flag_has_its_payload_all_the_same(env):
    """Whatever the payload looks like; and if the write is refused, too."""
    here = Scene(env)
    client = here.connect(EXTENDED)
    trap = (wire.pack_extended_request(wire.CMD_WRITE_ZEROES, 0, 4096, cookie=99) * 128)[:4096]
    for offset, error in ((0, 0), (-1, wire.ENOSPC)):
        client.cookie += 1
        client.expect(client.cookie, wire.CMD_WRITE, offset % (1 << 64), 4096)
        client.send(wire.pack_extended_request(wire.CMD_WRITE, offset % (1 << 64), 4096, cookie=client.cookie) + trap)
        equal(client.answer()[1].error, error, "error")
    same_bytes(client.read(0, 4096), trap, "what was written")
    client = here.connect(EXTENDED)
    client.send(wire.pack_extended_request(wire.CMD_WRITE, 0, 64 * MIB + 1))
    client.expect_closed()


@test(quick=True)
def extended_payload_over_64_mib_ends_the_connection(env):
    here = Scene(env)
    other = here.connect(EXTENDED)
    for length in (64 * MIB + 1, 1 << 40, (1 << 64) - 1):
        client = here.connect(EXTENDED)
        client.send(wire.pack_extended_request(wire.CMD_WRITE, 0, length, CMD_FLAG_PAYLOAD_LEN))
        client.expect_closed()
    here.check_works(other)


@test(over=[(style,) for style in CHUNKED], quick=[(EXTENDED,)])
def compact_and_extended_requests_do_not_mix(env, style):
    here = Scene(env)
    client = here.connect(style)
    pack = wire.pack_request if style == EXTENDED else wire.pack_extended_request
    client.send(pack(wire.CMD_FLUSH) + bytes(8))
    client.expect_closed()


@test(quick=True)
def lengths_of_64_bits_are_compared_with_the_size(env):
    here = Scene(env)
    client = here.connect(EXTENDED, [ALLOCATION])
    for length in (1 << 32, (1 << 32) + 512, 1 << 63, (1 << 64) - 1):
        for command in (wire.CMD_READ, wire.CMD_CACHE, wire.CMD_BLOCK_STATUS):
            equal(client.ask_for(command, 512, length).error, wire.EINVAL, f"command {command} of {length} bytes")
    here.check_works(client)


# BLOCK_STATUS.


@test(over=[(style,) for style in CHUNKED], quick=[(STRUCTURED,), (EXTENDED,)])
def status_covers_what_was_asked_with_extents_that_are_true(env, style):
    here = Scene(env)
    client = here.connect(style, [ALLOCATION])
    for offset, length in ((0, SIZE_BYTES), (0, 1), (777, MIB), (SIZE_BYTES - 1, 1)):
        for flags in (0, CMD_FLAG_REQ_ONE):
            answer = client.ask_for(wire.CMD_BLOCK_STATUS, offset, length, flags=flags)
            equal((answer.error, answer.context), (0, 1), "error and context")
            # It is all data, which no two neighbours say differently.
            equal(answer.extents, [(length, 0)], f"extents of {length} bytes at {offset}")
    here.check_works(client)


@test(over=[("none",), ("other",), ("nothing",), ("replaced",)], quick=[("none",), ("other",)])
def status_needs_a_context_of_this_export(env, how):
    here = Scene(env)
    client = env.keep(Wire(here.daemon.address))
    client.greet()
    client.negotiate(STRUCTURED)
    if how == "other":
        kind = client.answer_kind(wire.OPT_SET_META_CONTEXT, wire.pack_queries("else", [ALLOCATION]))
        equal(kind, wire.REP_ERR_UNKNOWN, "answer to SET_META_CONTEXT")
    elif how == "nothing":
        equal(client.ask_contexts(wire.OPT_SET_META_CONTEXT, "disk", ["base:", "qemu:x"]), {}, "contexts")
    elif how == "replaced":
        equal(client.ask_contexts(wire.OPT_SET_META_CONTEXT, "disk", [ALLOCATION]), {ALLOCATION: 1}, "contexts")
        equal(client.ask_contexts(wire.OPT_SET_META_CONTEXT, "disk", []), {}, "contexts")
    client.ask_info(wire.OPT_GO, "disk")
    equal(client.ask_for(wire.CMD_BLOCK_STATUS, 0, 512).error, wire.EINVAL, "BLOCK_STATUS")
    here.check_works(client)


@test(quick=True)
def status_with_a_payload_asks_for_chosen_contexts(env):
    here = Scene(env)
    client = here.connect(EXTENDED, [ALLOCATION])
    check(here.flags & wire.TRANSMIT_BLOCK_STATUS_PAYLOAD, "it is not offered")
    here.connect(EXTENDED)
    check(not here.flags & wire.TRANSMIT_BLOCK_STATUS_PAYLOAD, "it is offered to who has chosen no context")

    def ask(payload):
        cookie = client.request(wire.CMD_BLOCK_STATUS, 512, len(payload), payload, CMD_FLAG_PAYLOAD_LEN)
        # What it is about is in the payload.
        client.answers[cookie].length = struct.unpack_from(">Q", payload)[0] if len(payload) >= 8 else 0
        return client.answer()[1]

    equal(ask(struct.pack(">QI", MIB, 1)).extents, [(MIB, 0)], "extents")
    for payload in (
        struct.pack(">Q", MIB),
        struct.pack(">QI", MIB, 0),
        struct.pack(">QI", MIB, 2),
        struct.pack(">QII", MIB, 1, 1),
        struct.pack(">QI", SIZE_BYTES, 1),
        struct.pack(">QI", 0, 1),
        bytes(11),
        bytes(1000),
    ):
        answer = ask(payload)
        equal(answer.error, wire.EINVAL, f"error with payload {payload[:20].hex()}")
        if len(payload) != 12:
            equal(answer.message, "a payload that is not a length and one context", "message")
        here.check_works(client)
    plain = here.connect(EXTENDED)
    payload = struct.pack(">QI", MIB, 1)
    answer = plain.ask_for(wire.CMD_BLOCK_STATUS, 0, len(payload), payload, CMD_FLAG_PAYLOAD_LEN)
    equal(answer.error, wire.EINVAL, "error without a context")
    here.check_works(plain)


@test(quick=True)
def status_payload_byte_by_byte_works(env):
    here = Scene(env)
    client = here.connect(EXTENDED, [ALLOCATION])
    payload = struct.pack(">QI", MIB, 1)
    client.expect(7, wire.CMD_BLOCK_STATUS, 0, MIB)
    for byte in client.pack(wire.CMD_BLOCK_STATUS, 0, len(payload), CMD_FLAG_PAYLOAD_LEN, 7) + payload:
        client.send(bytes([byte]))
    equal(client.answer()[1].extents, [(MIB, 0)], "extents")
    here.check_works(client)


# The handshake's part.


@test(quick=True)
def structured_replies_also_come_after_export_name(env):
    here = Scene(env)
    client = env.keep(Wire(here.daemon.address))
    client.greet()
    client.negotiate(STRUCTURED)
    _, flags = client.export_name("disk", zeroes=False)
    check(flags & wire.TRANSMIT_SEND_DF, "DF is not offered")
    here.check_works(client)


@test(quick=True)
def export_name_after_extended_headers_ends_the_connection(env):
    here = Scene(env)
    client = env.keep(Wire(here.daemon.address))
    client.greet()
    client.negotiate(EXTENDED)
    equal(client.answer_kind(wire.OPT_STRUCTURED_REPLY), wire.REP_ERR_EXT_HEADER_REQD, "STRUCTURED_REPLY afterwards")
    client.send(wire.pack_option(wire.OPT_EXPORT_NAME, b"disk"))
    client.expect_closed()


@test(quick=True)
def option_while_the_server_stops_is_answered_with_shutdown(env):
    here = Scene(env)
    asking, silent = env.keep(Wire(here.daemon.address)), env.keep(Wire(here.daemon.address))
    asking.greet()
    silent.greet()
    equal(asking.answer_kind(wire.OPT_LIST), wire.REP_ACK, "LIST before")
    here.daemon.send_signal(15)
    kind = asking.answer_kind(wire.OPT_INFO, wire.pack_info_request("disk"))
    while kind == wire.REP_ACK:  # it has not seen the signal yet
        kind = asking.answer_kind(wire.OPT_INFO, wire.pack_info_request("disk"))
    equal(kind, wire.REP_ERR_SHUTDOWN, "INFO while stopping")
    asking.expect_closed()
    silent.expect_closed()
    equal(here.daemon.wait_exit(5), 0, "exit code")
    here.daemon.judged = True


# Bounds.


@test(over=[(style,) for style in CHUNKED], quick=[(EXTENDED,)])
def client_that_does_not_read_stalls_itself_alone(env, style):
    here = Scene(env)
    greedy, other = here.connect(style), here.connect(style)
    stream = b""
    for cookie in range(1, 400):
        greedy.expect(cookie, wire.CMD_READ, 0, SIZE_BYTES)
        stream += greedy.pack(wire.CMD_READ, 0, SIZE_BYTES, 0, cookie)
    greedy.send(stream)
    before = here.daemon.rss_bytes()
    for _ in range(50):
        here.check_works(other)
    check(env.quick or here.daemon.rss_bytes() - before < 160 * MIB, "memory grew")
    for _ in range(3):
        same_bytes(greedy.answer()[1].data(), here.content, "what it asked for")
