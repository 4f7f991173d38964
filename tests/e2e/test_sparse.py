"""Holes, and the commands that make them: on raw sockets against a model of the volume, and with the usual clients."""

import json
import os
import random
import time

import nbd

import wire
from harness import FILE, MIB
from harness import check, equal, random_bytes, same_bytes, test, two_cores
from wire import CMD_FLAG_DF, CMD_FLAG_FAST_ZERO, CMD_FLAG_FUA, CMD_FLAG_NO_HOLE, CMD_FLAG_REQ_ONE
from wire import EXTENDED, SIMPLE, STATE_HOLE, STATE_ZERO, STRUCTURED, STYLES, Wire

MEMORY = "memory"
BOTH = (MEMORY, FILE)
ALLOCATION = "base:allocation"
CHUNKED = (STRUCTURED, EXTENDED)
PAGE = 4096
GIB = 1 << 30
TIB = 1 << 40


class Scene:
    """A daemon with a sparse volume of zeros."""

    def __init__(self, env, size_bytes, settings="", medium=MEMORY):
        self.env = env
        self.size_bytes = size_bytes
        if medium == FILE:
            volume = f"path = {env.file(size_bytes)}\n"
        else:
            volume = f"type = memory\nsize = {size_bytes}\n"
        self.daemon = env.serve(
            *("--cores", two_cores()),
            *("--config", env.config(f"[server]\nlisten = 127.0.0.1:0\n[export disk]\n{volume}{settings}")),
        )

    def connect(self, style=STRUCTURED, contexts=(ALLOCATION,)):
        client = self.env.keep(Wire(self.daemon.address))
        _, self.flags = client.go("disk", style=style, contexts=contexts if style != SIMPLE else ())
        return client

    def library(self):
        """A libnbd handle on the export."""
        handle = nbd.NBD()
        handle.set_export_name("disk")
        handle.add_meta_context(ALLOCATION)
        handle.connect_tcp(self.daemon.address.host, str(self.daemon.address.port))
        return handle


def status(client, offset, length):
    """All extents of the range, asked for until they cover it: [(offset, length, flags)]."""
    found, end = [], offset + length
    while offset < end:
        count = end - offset if client.style == EXTENDED else min(end - offset, 0xFFFFFFFF)
        answer = client.ask_for(wire.CMD_BLOCK_STATUS, offset, count)
        equal(answer.error, 0, "error of BLOCK_STATUS")
        for (_, one), (_, other) in zip(answer.extents, answer.extents[1:]):
            check(one != other, f"neighbours of the same status {one}")
        for count, flags in answer.extents:
            found.append((offset, count, flags))
            offset += count
    equal(offset, end, "end of the extents")
    return found


def hole_bytes(extents):
    return sum(length for _, length, flags in extents if flags & STATE_HOLE)


# READ.


@test(over=[(style,) for style in CHUNKED], quick=[(style,) for style in CHUNKED])
def read_of_a_hole_sends_no_zeros(env, style):
    here = Scene(env, 64 * MIB)
    client = here.connect(style)
    for offset, length in ((0, 1), (1000, 4096), (0, 64 * MIB), (64 * MIB - 7, 7)):
        answer = client.ask_for(wire.CMD_READ, offset, length)
        equal(answer.kinds, [wire.CHUNK_OFFSET_HOLE], f"chunks of {length} bytes at {offset}")
        same_bytes(answer.data(), bytes(length), "content")
        one_chunk = min(length, 32 * MIB)
        answer = client.ask_for(wire.CMD_READ, offset, one_chunk, flags=CMD_FLAG_DF)
        equal(len(answer.pieces), 1, "content chunks with DF")
        same_bytes(answer.data(), bytes(one_chunk), "content with DF")
    answer = client.ask_for(wire.CMD_READ, 0, 32 * MIB + 1, flags=CMD_FLAG_DF)
    equal((answer.error, answer.pieces), (wire.EOVERFLOW, []), "more than one chunk may hold, with DF")


@test(over=[(style, medium) for style in CHUNKED for medium in BOTH], quick=[(STRUCTURED, MEMORY), (EXTENDED, FILE)])
def read_of_data_and_holes_tells_them_apart(env, style, medium):
    here = Scene(env, 64 * MIB, medium=medium)
    client = here.connect(style)
    data = random_bytes(MIB)
    client.write(MIB, data)
    client.write(6 * MIB + 4096, data[:4096])
    wanted = bytearray(10 * MIB)
    wanted[MIB : 2 * MIB] = data
    wanted[6 * MIB + 4096 : 6 * MIB + 8192] = data[:4096]
    for offset, length in ((0, 10 * MIB), (MIB - 5, MIB + 10), (5, 9 * MIB)):
        answer = client.ask_for(wire.CMD_READ, offset, length)
        same_bytes(answer.data(), wanted[offset : offset + length], "content")
        sent = sum(count for _, count, piece in answer.pieces if piece is not None)
        check(sent < MIB + 256 * 1024, f"{sent} bytes were sent, of which {MIB} or a little more are data")
        answer = client.ask_for(wire.CMD_READ, offset, length, flags=CMD_FLAG_DF)
        equal(answer.kinds[0], wire.CHUNK_OFFSET_DATA, "with DF: the content")
        same_bytes(answer.data(), wanted[offset : offset + length], "with DF: content")
    # Many small holes: they are not worth a chunk each.
    for page in range(0, 256, 2):
        client.write(20 * MIB + page * PAGE, data[:PAGE])
    answer = client.ask_for(wire.CMD_READ, 20 * MIB, MIB)
    check(len(answer.kinds) < 5, f"{len(answer.kinds)} chunks for 1 MiB")
    same_bytes(answer.data(), (data[:PAGE] + bytes(PAGE)) * 128, "data and small holes")


@test(over=[(style,) for style in CHUNKED], quick=[(STRUCTURED,)])
def read_of_a_sparse_file_sends_its_data_alone(env, style):
    """Holes that were there before the server came, asked for before anything else."""
    size = 1 << 30
    data = random_bytes(MIB)
    path = env.file(size)
    spans = [(0, MIB), (100 * MIB + 65536, 65536), (size - 777, 777)]
    with open(path, "r+b") as file:
        for offset, length in spans:
            file.seek(offset)
            file.write(data[:length])
    daemon = env.serve("--export", f"disk={path}", "--listen", "127.0.0.1:0", "--cores", two_cores())
    client = env.keep(Wire(daemon.address))
    client.go("disk", style=style)
    for start, length in ((0, 32 * MIB), (90 * MIB, 30 * MIB), (size - 20 * MIB, 20 * MIB), (200 * MIB, 32 * MIB)):
        wanted = bytearray(length)
        for offset, count in spans:
            if start <= offset < start + length:
                wanted[offset - start : offset - start + count] = data[:count]
        answer = client.ask_for(wire.CMD_READ, start, length)
        same_bytes(answer.data(), wanted, f"{length} bytes at {start}")
        sent = sum(count for _, count, piece in answer.pieces if piece is not None)
        there = sum(count for offset, count in spans if start <= offset < start + length)
        check(sent <= there + 256 * 1024, f"{sent} bytes were sent of {length} at {start}, {there} of which are data")


@test(
    over=[(style, medium) for style in STYLES for medium in BOTH],
    quick=[(STRUCTURED, MEMORY), (STRUCTURED, FILE), (EXTENDED, FILE)],
)
def any_mixture_of_commands_reads_back_as_it_should(env, style, medium):
    size = 24 * MIB + 333
    here = Scene(env, size, medium=medium)
    client, other = here.connect(style), here.connect(STRUCTURED)
    model = bytearray(size)
    seed = random.Random(4711)
    for serial in range(env.size(400, 120)):
        length = seed.choice((1, 100, PAGE, 65536, 3 * MIB, seed.randrange(1, MIB)))
        offset = seed.randrange(size - length)
        flags = CMD_FLAG_FUA if seed.random() < 0.2 else 0
        action = seed.randrange(4)
        if action == 0:
            model[offset : offset + length] = random_bytes(length, serial)
            client.write(offset, model[offset : offset + length], flags)
        elif action == 1:
            flags |= CMD_FLAG_NO_HOLE if seed.random() < 0.3 else 0
            equal(client.call(wire.CMD_WRITE_ZEROES, offset, length, flags=flags), (0, b""), "WRITE_ZEROES")
            model[offset : offset + length] = bytes(length)
        elif action == 2:
            equal(client.call(wire.CMD_TRIM, offset, length, flags=flags), (0, b""), "TRIM")
            model[offset : offset + length] = random_bytes(length, serial)  # it may be anything until it is written
            client.write(offset, model[offset : offset + length])
        else:
            equal(client.call(wire.CMD_CACHE, offset, length, flags=flags), (0, b""), "CACHE")
        start = seed.randrange(size)
        end = min(size, start + seed.choice((1, PAGE, 5 * MIB)))
        reader = client if seed.random() < 0.7 else other
        same_bytes(reader.read(start, end - start), model[start:end], f"step {serial}: {end - start} bytes at {start}")
    same_bytes(client.read(0, size), model, "all of it")
    for offset, length, flags in status(other, 0, size):
        if flags & STATE_ZERO:
            same_bytes(model[offset : offset + length], bytes(length), f"what is said to be zeros at {offset}")


# TRIM and WRITE_ZEROES.


@test(over=[(SIMPLE,), (EXTENDED,)], quick=[(SIMPLE,), (EXTENDED,)])
def trims_and_zeroes_may_be_very_long(env, style):
    """nbd-client sends nearly 4 GiB; with extended headers any length there is."""
    here = Scene(env, 10 * TIB)
    client, other = here.connect(style), here.connect(EXTENDED)
    lengths = (GIB, (1 << 32) - PAGE) if style == SIMPLE else (GIB, (1 << 32) + 1, TIB, 9 * TIB)
    for command in (wire.CMD_TRIM, wire.CMD_WRITE_ZEROES):
        for length in lengths:
            client.write(MIB - 3, b"something")
            client.write(length - 5, b"more, up to behind the end")
            began = time.monotonic()
            equal(client.call(command, MIB, length - MIB), (0, b""), f"command {command} of {length} bytes")
            check(time.monotonic() - began < 20, "it took too long")
            equal(client.read(MIB - 3, 3), b"som", "what is before")
            equal(client.read(length, 21), b" up to behind the end", "what is behind")
            if command == wire.CMD_WRITE_ZEROES:
                same_bytes(client.read(MIB, MIB), bytes(MIB), "the beginning")
                same_bytes(client.read(length - MIB, MIB), bytes(MIB), "the end")
    check(hole_bytes(status(other, 0, 10 * TIB)) > 9 * TIB, "the room was not given back")


@test(over=[(style,) for style in CHUNKED], quick=[(EXTENDED,)])
def zeroes_keep_their_promises(env, style):
    here = Scene(env, 16 * MIB)
    client = here.connect(style)
    for flag in (wire.TRANSMIT_SEND_TRIM, wire.TRANSMIT_SEND_WRITE_ZEROES, wire.TRANSMIT_SEND_FAST_ZERO):
        check(here.flags & flag, f"transmission flag {flag} is missing")
    data = random_bytes(4 * MIB)
    client.write(0, data)
    equal(client.call(wire.CMD_WRITE_ZEROES, MIB, MIB)[0], 0, "WRITE_ZEROES")
    equal(hole_bytes(status(client, MIB, MIB)), MIB, "bytes of the hole")
    equal(client.call(wire.CMD_WRITE_ZEROES, 2 * MIB, MIB, flags=CMD_FLAG_NO_HOLE)[0], 0, "WRITE_ZEROES with NO_HOLE")
    equal(hole_bytes(status(client, 2 * MIB, MIB)), 0, "bytes of holes with NO_HOLE")
    same_bytes(client.read(0, 4 * MIB), data[:MIB] + bytes(2 * MIB) + data[3 * MIB :], "the content")
    # Fast, or not at all.
    before = client.read(0, 4 * MIB)
    error, _ = client.call(wire.CMD_WRITE_ZEROES, 3 * MIB, 5000, flags=CMD_FLAG_FAST_ZERO)
    check(error in (0, wire.ENOTSUP), f"error of FAST_ZERO: {error}")
    after = bytes(before) if error else before[: 3 * MIB] + bytes(5000) + before[3 * MIB + 5000 :]
    same_bytes(client.read(0, 4 * MIB), after, "the content after FAST_ZERO")


REFUSED = (
    (wire.CMD_TRIM, 16 * MIB, 1, 0, wire.EINVAL),
    (wire.CMD_TRIM, 0, 16 * MIB + 1, 0, wire.EINVAL),
    (wire.CMD_TRIM, 0, 0, 0, wire.EINVAL),
    (wire.CMD_TRIM, 0, 512, CMD_FLAG_NO_HOLE, wire.EINVAL),
    (wire.CMD_WRITE_ZEROES, 16 * MIB, 1, 0, wire.ENOSPC),
    (wire.CMD_WRITE_ZEROES, 0, 0xFFFFFFFF, 0, wire.ENOSPC),
    (wire.CMD_WRITE_ZEROES, 0, 0, 0, wire.EINVAL),
    (wire.CMD_WRITE_ZEROES, 0, 512, CMD_FLAG_REQ_ONE, wire.EINVAL),
    (wire.CMD_WRITE_ZEROES, (1 << 64) - 512, 4096, 0, wire.ENOSPC),
)


@test(over=[(style, medium) for style in STYLES for medium in BOTH], quick=[(SIMPLE, FILE)])
def trims_and_zeroes_that_are_refused(env, style, medium):
    here = Scene(env, 16 * MIB, medium=medium)
    client = here.connect(style)
    client.write(0, b"kept")
    for command, offset, length, flags, error in REFUSED:
        got, _ = client.call(command, offset, length, flags=flags)
        equal(got, error, f"error of command {command}, {length} bytes at {offset}, flags {flags}")
    equal(client.read(0, 8), b"kept\0\0\0\0", "the content")


@test(quick=True)
def read_only_exports_refuse_to_trim_and_zero(env):
    here = Scene(env, 16 * MIB, "read-only = yes\n")
    client = here.connect(STRUCTURED)
    equal(here.flags & wire.TRANSMIT_CHANGES, 0, "flags of commands that write")
    for command in (wire.CMD_TRIM, wire.CMD_WRITE_ZEROES):
        equal(client.call(command, 0, 512)[0], wire.EPERM, f"error of command {command}")
    equal(client.call(wire.CMD_CACHE, 0, 512)[0], 0, "CACHE")


# BLOCK_STATUS.


@test(over=[(style,) for style in CHUNKED], quick=[(style,) for style in CHUNKED])
def status_says_where_the_holes_are(env, style):
    here = Scene(env, 64 * MIB)
    client = here.connect(style)
    client.write(8 * MIB, random_bytes(MIB))
    hole, data = STATE_HOLE | STATE_ZERO, 0
    wanted = [(0, 8 * MIB, hole), (8 * MIB, MIB, data), (9 * MIB, 55 * MIB, hole)]
    equal(status(client, 0, 64 * MIB), wanted, "all extents")
    equal(status(client, 8 * MIB - 5, 10), [(8 * MIB - 5, 5, hole), (8 * MIB, 5, data)], "a few bytes")
    for offset, flags in ((0, hole), (8 * MIB, data)):
        answer = client.ask_for(wire.CMD_BLOCK_STATUS, offset, 64 * MIB - offset, flags=CMD_FLAG_REQ_ONE)
        equal(len(answer.extents), 1, "extents with REQ_ONE")
        equal(answer.extents[0][1], flags, "their status")


@test(over=[(style,) for style in CHUNKED], quick=[(EXTENDED,)])
def status_of_many_extents_is_given_in_parts(env, style):
    here = Scene(env, 64 * MIB)
    client = here.connect(style)
    count = 3000
    for first in range(0, count, 100):
        cookies = [client.request(wire.CMD_WRITE, 2 * page * PAGE, 1, b"x") for page in range(first, first + 100)]
        equal(sorted(client.reply()[0] for _ in cookies), cookies, "writes")
    extents = status(client, 0, 2 * count * PAGE)
    equal(len(extents), 2 * count, "extents")
    for serial, (offset, length, flags) in enumerate(extents):
        wanted = (serial * PAGE, PAGE, STATE_HOLE | STATE_ZERO if serial % 2 else 0)
        equal((offset, length, flags), wanted, f"extent {serial}")


# The clients people use.


def read_file(path):
    with open(path, "rb") as file:
        return file.read()


def sparse_file(env, size_bytes, spans):
    """A file that has data in SPANS (offset, length), and its content."""
    path = env.file(size_bytes, name="sparse")
    with open(path, "r+b") as file:
        for offset, length in spans:
            file.seek(offset)
            file.write(random_bytes(length, offset))
    return path, read_file(path)


def allocated_bytes(path):
    return os.stat(path).st_blocks * 512


SPANS = [(0, 64 * 1024), (10 * MIB, MIB), (40 * MIB + 65536, 2 * MIB), (100 * MIB - 4096, 4096)]
IMAGE_BYTES = 100 * MIB
DATA_BYTES = sum(length for _, length in SPANS)


def data_bytes(env, uri):
    """What nbdinfo's map calls data."""
    extents = json.loads(env.run(["nbdinfo", "--map", "--json", uri]).out)
    return sum(extent["length"] for extent in extents if extent["type"] == 0)


@test(quick=True)
def nbdcopy_keeps_holes_both_ways(env):
    here = Scene(env, IMAGE_BYTES)
    source, content = sparse_file(env, IMAGE_BYTES, SPANS)
    here.library().pwrite(random_bytes(MIB, 77), 60 * MIB)  # where the source has a hole
    env.run(["nbdcopy", "--flush", source, here.daemon.uri()])
    check(data_bytes(env, here.daemon.uri()) < DATA_BYTES + 2 * MIB, "the holes were filled on the way up")
    copy = env.path("copy")
    env.run(["nbdcopy", here.daemon.uri(), copy])
    same_bytes(read_file(copy), content, "the copy down")
    check(allocated_bytes(copy) < DATA_BYTES + 2 * MIB, f"the copy down takes {allocated_bytes(copy)} bytes")


@test(quick=True)
def nbdinfo_maps_the_extents(env):
    here = Scene(env, IMAGE_BYTES)
    handle = here.library()
    handle.pwrite(random_bytes(MIB), 10 * MIB)
    extents = json.loads(env.run(["nbdinfo", "--map", "--json", here.daemon.uri()]).out)
    found = [(extent["offset"], extent["length"], extent["type"]) for extent in extents]
    equal(found, [(0, 10 * MIB, 3), (10 * MIB, MIB, 0), (11 * MIB, 89 * MIB, 3)], "the map")
    export = json.loads(env.run(["nbdinfo", "--json", here.daemon.uri()]).out)["exports"][0]
    equal(export["can_cache"], False, "can_cache of what is read directly")
    for flag in ("can_df", "can_fast_zero", "can_trim", "can_zero", "can_fua", "can_multi_conn"):
        equal(export[flag], True, flag)
    equal(export["contexts"], [ALLOCATION], "contexts")


@test(quick=True)
def qemu_img_maps_and_converts_with_holes(env):
    here = Scene(env, IMAGE_BYTES)
    source, content = sparse_file(env, IMAGE_BYTES, SPANS)
    env.run(["qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", source, here.daemon.uri()])
    extents = json.loads(env.run(["qemu-img", "map", "-f", "raw", "--output=json", here.daemon.uri()]).out)
    data = sum(extent["length"] for extent in extents if extent["data"])
    check(data < DATA_BYTES + 2 * MIB, f"{data} bytes of data on the map")
    equal(sum(extent["length"] for extent in extents), IMAGE_BYTES, "bytes of the map")
    copy = env.path("copy")
    env.run(["qemu-img", "convert", "-f", "raw", "-O", "raw", here.daemon.uri(), copy])
    same_bytes(read_file(copy), content, "the copy down")
    check(allocated_bytes(copy) < DATA_BYTES + 2 * MIB, f"the copy down takes {allocated_bytes(copy)} bytes")
    env.run(["qemu-img", "compare", "-f", "raw", "-F", "raw", source, here.daemon.uri()])


@test(quick=True)
def qemu_io_discards_and_writes_zeroes(env):
    here = Scene(env, IMAGE_BYTES)
    client = here.connect()
    client.write(0, b"x" * 8 * MIB)
    commands = ["discard 0 1M", "write -z 2M 1M", "write -z -u 4M 1M", "write -z -f 6M 64k"]
    commands += ["read -P 0 2M 1M", "read -P 0 4M 1M"]
    commands += ["read -P 120 7M 1M", "discard 512 1k", "write -z 7168k 3", "flush"]
    words = [word for command in commands for word in ("-c", command)]
    out = env.run(["qemu-io", "-f", "raw", "-d", "unmap", here.daemon.uri(), *words]).out
    check("error" not in out.lower() and "failed" not in out.lower(), out)
    equal(hole_bytes(status(client, 0, MIB)), MIB, "what was discarded")
    equal(hole_bytes(status(client, 4 * MIB, MIB)), MIB, "what was zeroed with -u")
    equal(hole_bytes(status(client, 2 * MIB, MIB)), 0, "what was zeroed without (NO_HOLE)")
    equal(client.read(7 * MIB, 4), b"\0\0\0x", "a few zeros")


@test(quick=True)
def libnbd_uses_every_command(env):
    here = Scene(env, IMAGE_BYTES)
    handle = here.library()
    for able in (handle.can_df, handle.can_trim, handle.can_zero, handle.can_fast_zero):
        check(able(), f"not {able.__name__}")
    data = random_bytes(3 * MIB)
    handle.pwrite(data, MIB, nbd.CMD_FLAG_FUA)
    handle.trim(MIB, MIB, nbd.CMD_FLAG_FUA)
    handle.zero(MIB, 2 * MIB, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
    handle.zero(MIB, 8 * MIB, nbd.CMD_FLAG_FAST_ZERO)
    chunks = []
    got = handle.pread_structured(5 * MIB, 0, lambda piece, offset, kind, error: chunks.append((offset, kind)))
    same_bytes(got, bytes(3 * MIB) + data[2 * MIB :] + bytes(MIB), "the content")
    check(any(kind == nbd.READ_HOLE for _, kind in chunks), f"no hole among {chunks}")
    entries = []
    handle.block_status(IMAGE_BYTES, 0, lambda context, offset, found, error: entries.extend(found) and 0)
    equal(sum(entries[::2]), IMAGE_BYTES, "bytes of the extents")
    handle.set_strict_mode(0)
    for action in (
        lambda: handle.pread(512, IMAGE_BYTES),
        lambda: handle.pwrite(b"x", IMAGE_BYTES),
        lambda: handle.pread(512, 0, nbd.CMD_FLAG_REQ_ONE),
        lambda: handle.zero(512, IMAGE_BYTES),
        lambda: handle.trim(512, IMAGE_BYTES),
        lambda: handle.pread(0, 0),
    ):
        try:
            action()
        except nbd.Error as error:
            check(error.errnum in (wire.EINVAL, wire.ENOSPC), f"{error}")
            continue
        check(False, "a bad request was answered well")
    same_bytes(handle.pread(MIB, 3 * MIB), data[2 * MIB :], "a read afterwards")
    handle.shutdown()
