"""Rules 29 to 32 and 36 of the protocol: structured and extended replies, block status, failures in the middle of a reply.

Most of what a reply must not do is checked by wire_replies.py as it arrives: here is what provokes it.
"""

import os
import random
import struct

import wire
from harness import MIB, Failure, check, equal, random_bytes, same_bytes, test
from rules import ALLOCATION, HOLE_BYTES, PATTERN_AT, SIZE_BYTES, need_ours, need_style, served
from wire import CMD_BLOCK_STATUS, CMD_CACHE, CMD_FLUSH, CMD_READ, CMD_TRIM, CMD_WRITE, CMD_WRITE_ZEROES
from wire import CMD_FLAG_DF, CMD_FLAG_FUA, CMD_FLAG_PAYLOAD_LEN, CMD_FLAG_REQ_ONE
from wire import EINVAL, EIO, STATE_HOLE, STATE_ZERO, EXTENDED, STRUCTURED

CHUNK_STYLES = [(STRUCTURED,), (EXTENDED,)]
CUT = 3 * MIB  # images that lose their end lose it here


def session(here, style, contexts=(ALLOCATION,)):
    need_style(style)
    return here.transmitting(style, contexts)


# 29. A READ that fails after its simple header was sent ends the connection at once.


@test(over=[(64 * 1024,), (MIB,), (7 * MIB,)], quick=[(7 * MIB,)])
def rule_29_must_not_send_false_data_in_a_simple_reply(env, length):
    """The image loses its end, so that a READ across it fails: its error, or the end of the connection within the data."""
    need_ours("QEMU and nbdkit read zeros, or less than they promised, from an image cut short")
    with served(env) as here:
        client = here.transmitting()
        os.truncate(here.path, CUT)
        offset = max(CUT - length // 2, 0)
        client.request(CMD_READ, offset, length)
        magic, error, _ = struct.unpack(">IIQ", client.receive(16))
        equal(magic, wire.SIMPLE_REPLY_MAGIC, "magic")
        if error:
            equal(error, EIO, "error")
            same_bytes(client.read(PATTERN_AT, 4096), here.content[PATTERN_AT:][:4096], "a read afterwards")
            return
        got = bytearray()
        while client.has_more():
            got += client.sock.recv(65536)
        check(len(got) < length, "success of a read past the end of the image")
        same_bytes(bytes(got), here.content[offset:][: len(got)], "what came before the end")


# 30. With structured replies a READ has chunks, DONE is the last, an error is told in one.


@test(over=CHUNK_STYLES, quick=True)
def rule_30_must_tell_errors_of_read_in_chunks(env, style):
    need_ours("reads zeros from an image cut short")
    with served(env) as here:
        client = session(here, style)
        os.truncate(here.path, CUT)
        for offset, length in ((CUT, 4096), (CUT - 4096, 8192), (PATTERN_AT, 6 * MIB), (CUT + 1, 4 * MIB)):
            for flags in (0, CMD_FLAG_DF):
                answer = client.ask_for(CMD_READ, offset, length, flags=flags)
                equal(answer.error, EIO, f"{answer}: error")
                check(answer.message, f"{answer}: no message")
        same_bytes(client.read(PATTERN_AT, MIB), here.content[PATTERN_AT:][:MIB], "what is left")


@test(over=CHUNK_STYLES, quick=True)
def rule_30_must_read_right_however_it_is_cut(env, style):
    """Data, hole and data, aligned and not."""
    with served(env) as here:
        client = session(here, style)
        start, end = HOLE_BYTES
        edges = (start, end, start - 4096, start + 1, end - 1, start + 70_000, end + 513)
        ranges = [(edge - back, back + ahead) for edge in edges for back, ahead in ((1, 1), (4096, 4096), (70_000, 90_001))]
        for offset, length in (*ranges, (start, end - start), (PATTERN_AT, SIZE_BYTES - PATTERN_AT), (0, 1)):
            for flags in (0, CMD_FLAG_DF, CMD_FLAG_FUA):
                answer = client.must(CMD_READ, offset, length, flags=flags)
                if offset >= PATTERN_AT:
                    same_bytes(answer.data(), here.content[offset : offset + length], f"{answer}")


@test(over=CHUNK_STYLES, quick=True)
def rule_30_should_send_holes_as_holes(env, style):
    """MAY, in the specification; what nbdcopy and qemu-img are fast by."""
    need_ours("nbdkit and QEMU may send them as data")
    with served(env) as here:
        client = session(here, style)
        start, end = HOLE_BYTES
        answer = client.must(CMD_READ, start - MIB, end - start + 2 * MIB)
        holes = sum(length for _, length, data in answer.pieces if data is None)
        check(holes >= (end - start) - 2 * 65536, f"{holes} bytes of a hole of {end - start} came as holes")


@test(over=CHUNK_STYLES, quick=True)
def rule_30_must_keep_answers_apart_when_many_are_in_flight(env, style):
    with served(env) as here:
        client = session(here, style)
        numbers = random.Random(30)
        for _ in range(12):
            for _ in range(16):
                offset = numbers.randrange(PATTERN_AT, SIZE_BYTES - 300_000)
                choice = numbers.randrange(4)
                if choice == 0:
                    client.request(CMD_READ, SIZE_BYTES - 10, 11)
                elif choice == 1:
                    client.request(CMD_BLOCK_STATUS, offset, 300_000)
                else:
                    client.request(CMD_READ, offset, numbers.randrange(1, 300_000))
            for _ in range(16):
                check_read(here, client.next_answer())


def check_read(here, answer):
    equal(answer.error, EINVAL if answer.offset == SIZE_BYTES - 10 else 0, f"{answer}: error")
    if answer.command == CMD_READ and not answer.error:
        same_bytes(answer.data(), here.content[answer.offset :][: answer.length], f"{answer}")


# 31. DF: one content chunk; up to 64 KiB must work.


@test(over=CHUNK_STYLES, quick=True)
def rule_31_must_not_fragment_with_df(env, style):
    with served(env) as here:
        client = session(here, style)
        for length in (1, 512, 4096, 65535, 65536):
            for offset in (PATTERN_AT, HOLE_BYTES[0] - length // 2, HOLE_BYTES[1] - length // 2 - 1, HOLE_BYTES[0] + 77):
                answer = client.must(CMD_READ, offset, length, flags=CMD_FLAG_DF)
                same_bytes(answer.data(), here.content[offset:][:length], f"{answer}")
        for length in (MIB, 2 * MIB + 1, 7 * MIB):
            answer = client.ask_for(CMD_READ, PATTERN_AT, length, flags=CMD_FLAG_DF)
            check(answer.error in (0, wire.EOVERFLOW), f"{answer}: error {answer.error}")
            if answer.error:
                equal(answer.pieces, [], f"{answer}: content beside EOVERFLOW")
            else:
                same_bytes(answer.data(), here.content[PATTERN_AT:][:length], f"{answer}")


# 32. BLOCK_STATUS.


@test(over=CHUNK_STYLES, quick=True)
def rule_32_must_describe_what_is_there(env, style):
    """From anywhere, extents lead to the end; where one says ZERO, zeros are read; the hole is told."""
    with served(env) as here:
        client = session(here, style)
        zeros = 0
        for start, stop in ((0, SIZE_BYTES), (PATTERN_AT + 5, 7 * MIB + 3), HOLE_BYTES, (HOLE_BYTES[0] - 1, HOLE_BYTES[0] + 1)):
            offset = start
            while offset < stop:
                extents = client.status(offset, stop - offset)
                for extent in extents:
                    zeros += check_extent(here, extent)
                offset = extents[-1].end
        check(zeros >= HOLE_BYTES[1] - HOLE_BYTES[0] - 65536, f"{zeros} bytes told as zeros")


def check_extent(here, extent):
    """What it says is true; returns how many bytes it says are zero."""
    check(extent.end <= SIZE_BYTES, f"extent {extent} ends past the export")
    equal(extent.flags & ~(STATE_HOLE | STATE_ZERO), 0, f"flags of {extent}")
    if not extent.flags & STATE_ZERO:
        return 0
    same_bytes(here.content[max(extent.offset, PATTERN_AT) : extent.end], bytes(extent.end - max(extent.offset, PATTERN_AT)),
               f"{extent} reads")
    return extent.length


@test(over=CHUNK_STYLES, quick=True)
def rule_32_must_send_one_extent_with_req_one(env, style):
    with served(env) as here:
        client = session(here, style)
        for offset, length in ((0, SIZE_BYTES), (HOLE_BYTES[0] - 3, 7), (HOLE_BYTES[0], 4096), (SIZE_BYTES - 1, 1)):
            client.status(offset, length, CMD_FLAG_REQ_ONE)


@test(over=CHUNK_STYLES, quick=True)
def rule_32_must_not_be_moved_by_writes_and_trims(env, style):
    """What was written is not told as zeros any more, what was trimmed or zeroed may be."""
    with served(env) as here:
        client = session(here, style)
        start = HOLE_BYTES[0] + 65536
        client.write(start, random_bytes(8192))
        check(not client.status(start, 8192)[0].flags & STATE_ZERO, "data told as zeros")
        client.must(CMD_WRITE_ZEROES, start, 8192)
        for extent in client.status(start, 8192):
            check(extent.flags in (0, STATE_ZERO, STATE_ZERO | STATE_HOLE), f"{extent}")
        same_bytes(client.read(start, 8192), bytes(8192), "zeroed")


@test(over=CHUNK_STYLES, quick=True)
def rule_32_should_refuse_status_that_was_not_negotiated(env, style):
    with served(env) as here:
        client = session(here, style, contexts=())
        equal(client.ask_for(CMD_BLOCK_STATUS, 0, 4096).error, EINVAL, "error without a context")
        here.check_in_step(client)


@test(quick=True)
def rule_32_should_refuse_status_without_structured_replies(env):
    with served(env) as here:
        client = here.transmitting()
        equal(client.ask_for(CMD_BLOCK_STATUS, 0, 4096).error, EINVAL, "error")
        here.check_in_step(client)


@test(over=[(EXTENDED,)], seconds=120)
def rule_32_should_bound_the_number_of_extents(env, style):
    """An image of 40,000 holes between as many blocks: the answer may be short, but is one, and leads on."""
    need_ours("takes minutes")
    with served(env, size_bytes=320 * MIB) as here:
        with open(here.path, "r+b") as file:
            for offset in range(16 * MIB, 320 * MIB, env.size(8192, 65536)):
                os.pwrite(file.fileno(), b"x" * 4096, offset)
        client = session(here, style)
        offset, rounds = 16 * MIB, 0
        while offset < 320 * MIB:
            extents = client.status(offset, 320 * MIB - offset)
            offset, rounds = extents[-1].end, rounds + 1
            check(rounds < 2000, f"{rounds} requests lead no farther than {offset}")


# 36. Extended headers.


@test(quick=True)
def rule_36_must_answer_in_extended_replies_only(env):
    """Every command, right and wrong; the client refuses any other magic and a wrong offset."""
    with served(env) as here:
        client = session(here, EXTENDED)
        for command in (CMD_READ, CMD_WRITE, CMD_TRIM, CMD_CACHE, CMD_WRITE_ZEROES, CMD_BLOCK_STATUS, 99):
            for offset in (PATTERN_AT, SIZE_BYTES - 5, 1 << 63):
                client.ask_for(command, offset, 4096, bytes(4096) if command == CMD_WRITE else b"")
        client.must(CMD_FLUSH)


@test(quick=True)
def rule_36_must_end_after_export_name(env):
    need_style(EXTENDED)
    with served(env) as here:
        client = here.greeted(EXTENDED)
        client.send(wire.pack_option(wire.OPT_EXPORT_NAME, b"disk"))
        client.expect_closed()


@test(quick=True)
def rule_36_must_consume_unwanted_payloads(env):
    """PAYLOAD_LEN on a command that takes none: EINVAL, and the next request is found."""
    with served(env) as here:
        client = session(here, EXTENDED)
        trap = wire.pack_extended_request(CMD_FLUSH, cookie=1)
        for command in (CMD_READ, CMD_FLUSH, CMD_TRIM, CMD_CACHE, CMD_WRITE_ZEROES, CMD_BLOCK_STATUS, 8, 77):
            for length in (1, 16, 4096, 3 * MIB + 1):
                payload = (trap * (length // len(trap) + 1))[:length]
                answer = client.ask_for(command, PATTERN_AT, length, payload, CMD_FLAG_PAYLOAD_LEN)
                equal(answer.error, EINVAL, f"{answer}: error")
        here.check_in_step(client)
        here.check_unchanged()


@test(quick=True)
def rule_36_must_not_mistake_a_write_without_payload_len(env):
    """The client broke a rule, but a write always has its payload: no byte of it is a request."""
    with served(env) as here:
        client = session(here, EXTENDED)
        trap = wire.pack_extended_request(CMD_WRITE_ZEROES, PATTERN_AT, 4096, cookie=1) * 128
        client.expect(7, CMD_WRITE, PATTERN_AT, 4096)
        client.send(wire.pack_extended_request(CMD_WRITE, PATTERN_AT, 4096, cookie=7) + trap)
        equal(client.next_answer().error, 0, "error")
        here.check_in_step(client)
        same_bytes(client.read(PATTERN_AT, 4096), trap, "what was written")


@test(quick=True)
def rule_36_must_refuse_compact_requests(env):
    with served(env) as here:
        client = session(here, EXTENDED)
        client.send(wire.pack_request(CMD_READ, PATTERN_AT, 512, cookie=5) + bytes(64))
        client.expect_closed()


@test(quick=True)
def rule_36_must_refuse_extended_requests_elsewhere(env):
    with served(env) as here:
        client = session(here, STRUCTURED)
        client.send(wire.pack_extended_request(CMD_READ, PATTERN_AT, 512, cookie=5))
        client.expect_closed()


@test(quick=True)
def rule_36_must_take_64_bit_lengths(env):
    size = 9 << 30
    with served(env, size_bytes=size) as here:
        client = session(here, EXTENDED)
        client.write(size - 6, b"behind")
        client.write(5 << 30, b"within")
        offset, total = 0, size
        while offset < total:
            extents = client.status(offset, total - offset)
            offset = extents[-1].end
        equal(offset, size, "end of the last extent")
        equal(client.must(CMD_TRIM, PATTERN_AT, size - PATTERN_AT - 6).error, 0, "a TRIM of 9 GiB")
        client.must(CMD_WRITE_ZEROES, PATTERN_AT, size - PATTERN_AT - 6)
        same_bytes(client.read(5 << 30, 6), bytes(6), "within")
        same_bytes(client.read(size - 6, 6), b"behind", "behind")


@test(quick=True)
def rule_36_may_be_asked_for_before_and_after_structured_replies(env):
    """Whichever way round, the better one holds, or the second is refused."""
    need_style(EXTENDED)
    with served(env) as here:
        for first, second in ((wire.OPT_STRUCTURED_REPLY, wire.OPT_EXTENDED_HEADERS), (wire.OPT_EXTENDED_HEADERS, wire.OPT_STRUCTURED_REPLY)):
            client = here.greeted()
            equal(client.answer_kind(first), wire.REP_ACK, f"option {first}")
            kind = client.answer_kind(second)
            check(kind in (wire.REP_ACK, wire.REP_ERR_INVALID, wire.REP_ERR_EXT_HEADER_REQD), f"option {second}: {kind:#x}")
            client.style = EXTENDED
            if first == wire.OPT_STRUCTURED_REPLY and kind != wire.REP_ACK:
                raise Failure("EXTENDED_HEADERS after STRUCTURED_REPLY is legal")
            client.ask_info(wire.OPT_GO, "disk")
            here.check_in_step(client)
