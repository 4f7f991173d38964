"""Rules 19 to 29, 33 to 35 and 37 of the protocol: requests, kept and broken, in every style of replies.

What peers (RULES_PEER) fail here is theirs: QEMU 7.2 answers what is past the end with EINVAL, also a WRITE; ends the connection
after a payload over 32 MiB.
"""

import ctypes
import os
import re
import socket
import struct
import time

import wire
from harness import MIB, Skip, check, equal, random_bytes, same_bytes, test
from rules import ALLOCATION, EVERY_STYLE, HOLE_BYTES, PATTERN_AT, PEER, SIZE_BYTES, need_ours, need_style, served
from wire import CMD_BLOCK_STATUS, CMD_CACHE, CMD_FLUSH, CMD_READ, CMD_TRIM, CMD_WRITE, CMD_WRITE_ZEROES
from wire import CMD_FLAG_DF, CMD_FLAG_FAST_ZERO, CMD_FLAG_FUA, CMD_FLAG_NO_HOLE, CMD_FLAG_PAYLOAD_LEN, CMD_FLAG_REQ_ONE
from wire import EINVAL, ENOSPC, ENOTSUP, EPERM, EXTENDED, SIMPLE, STRUCTURED

END = SIZE_BYTES
U64_MAX = (1 << 64) - 1
NEARLY_4_GIB = 0xFFFFFE00  # the longest TRIM of the kernel's client in 512 byte blocks
QUICK_STYLES = [(SIMPLE,), (EXTENDED,)]


def session(here, style):
    """In transmission, with the context where the style has any."""
    need_style(style)
    return here.transmitting(style, () if style == SIMPLE else (ALLOCATION,))


def payload_of(command, length):
    """Of a WRITE: bytes that look like requests, which would be answered if they were not consumed."""
    if command != CMD_WRITE:
        return b""
    return (wire.pack_request(CMD_FLUSH, cookie=1) * (length // 28 + 1))[:length]


# 19. What is unaligned or past the end where sizes were negotiated is EINVAL, never corruption.


@test(over=EVERY_STYLE, quick=QUICK_STYLES)
def rule_19_must_not_corrupt_by_unaligned_requests(env, style):
    need_style(style)
    with served(env) as here:
        client = here.greeted(style)
        infos = client.ask_info(wire.OPT_GO, "disk", (wire.INFO_BLOCK_SIZE,))
        least = struct.unpack_from(">I", infos[wire.INFO_BLOCK_SIZE])[0] if wire.INFO_BLOCK_SIZE in infos else 1
        wanted = bytearray(here.content)
        for offset, length in ((PATTERN_AT + 1, 1), (PATTERN_AT + 511, 2), (PATTERN_AT + 4095, 8193), (END - 3, 3)):
            data = random_bytes(length, offset)
            error, _ = client.call(CMD_WRITE, offset, length, data)
            check(error == 0 or (error == EINVAL and least > 1), f"error {error} of {length} bytes at {offset}")
            if error == 0:
                wanted[offset : offset + length] = data
        same_bytes(here.bystander.read(PATTERN_AT, END - PATTERN_AT), bytes(wanted[PATTERN_AT:]), "the volume")


# 20. A payload up to 32 MiB is no attack; we serve up to 64.


@test(over=EVERY_STYLE, quick=[(EXTENDED,)])
def rule_20_should_serve_payloads_of_32_mib(env, style):
    with served(env, size_bytes=80 * MIB) as here:
        client = session(here, style)
        for length in (32 * MIB, *(() if PEER else (64 * MIB,))):
            data = random_bytes(length, length)
            client.write(PATTERN_AT, data)
            same_bytes(client.read(PATTERN_AT, length), data, f"{length} bytes")


# 21. TRIM and WRITE_ZEROES may exceed the payload's limit.


@test(over=EVERY_STYLE, quick=QUICK_STYLES)
def rule_21_should_serve_nearly_4_gib_of_trim_and_zeroes(env, style):
    with served(env, size_bytes=5 << 30) as here:
        client = session(here, style)
        client.write(4 << 30, b"within")
        client.write((5 << 30) - 6, b"behind")
        for command in (CMD_TRIM, CMD_WRITE_ZEROES):
            client.must(command, PATTERN_AT, NEARLY_4_GIB)
            same_bytes(client.read((5 << 30) - 6, 6), b"behind", "what is behind the range")
        same_bytes(client.read(4 << 30, 6), bytes(6), "what is within")
        same_bytes(client.read(PATTERN_AT, MIB), bytes(MIB), "where it begins")


@test(quick=True)
def rule_21_the_kernels_client_works(env):
    """nbd-client asks for no information; then the kernel sends 512 byte requests and whole-device trims, simple replies."""
    with served(env, size_bytes=5 << 30) as here:
        client = here.greeted()
        client.ask_info(wire.OPT_GO, "disk", ())
        data = random_bytes(64 * 512)
        for index in range(64):
            client.request(CMD_WRITE, PATTERN_AT + index * 512, 512, data[index * 512 :][:512])
        client.request(CMD_TRIM, 1 << 30, NEARLY_4_GIB)
        for _ in range(65):
            equal(client.reply()[1], 0, "error")
        equal(client.call(CMD_FLUSH), (0, b""), "flush")
        same_bytes(b"".join(client.read(PATTERN_AT + index * 512, 512) for index in range(64)), data, "the sectors")


# 22. Cookies are echoed, in any order.


@test(over=EVERY_STYLE, quick=QUICK_STYLES)
def rule_22_must_echo_cookies(env, style):
    with served(env) as here:
        client = session(here, style)
        cookies = {0: 1, 1: 2, U64_MAX: 3, 1 << 63: 70000, 0x0123456789ABCDEF: 5, 0x2560951325609513: 6}
        for cookie, length in cookies.items():
            client.expect(cookie, CMD_READ, PATTERN_AT + length, length)
            client.send(client.pack(CMD_READ, PATTERN_AT + length, length, cookie=cookie))
        for _ in range(len(cookies)):
            answer = client.next_answer()
            length = cookies.pop(answer.cookie)
            same_bytes(answer.data(), here.content[PATTERN_AT + length :][:length], f"of cookie {answer.cookie:#x}")


# 23 and 24. A FLUSH covers all that was replied to before, a reply to FUA comes after its data.  What a kill shows is in
# test_durability; here it is the order of the system calls.

SYNCED = re.compile(r"(fdatasync|fsync|sync_file_range)(\(| resumed)|IOCB_CMD_F?D?SYNC|RWF_DSYNC")
CHANGED = re.compile(r"fallocate\(|IOCB_CMD_PWRITE|pwrite|BLKDISCARD|BLKZEROOUT")
REPLIED = re.compile(r"sendmsg\(|sendto\(|writev\(")


def traced(env, commands):
    """What the daemon asked of the kernel for COMMANDS [(command, flags, length)], one after the other: a letter for each
    call, (c)hange, (s)ync, (r)eply, in order.  A change that is durable by itself is "cs"."""
    need_ours("the system calls are ours")
    if env.run(["strace", "-V"], expect=None).code != 0:
        raise Skip("no strace")
    path = env.file(SIZE_BYTES, random_bytes(SIZE_BYTES))
    trace = env.path("strace")
    calls = "io_submit,fdatasync,fsync,sync_file_range,fallocate,pwritev2,pwrite64,sendmsg,sendto,writev"
    daemon = env.launch(
        ["--export", f"disk={path}", "--listen", "127.0.0.1:0", "--cores", "0"],
        prefix=["strace", "-f", "-qq", "-s64", "-e", f"trace={calls}", "-o", trace],
    )
    daemon.judged = True  # the signal to stop would go to strace
    daemon.wait_ready()
    client = env.keep(wire.Wire(daemon.address))
    client.go("disk")
    time.sleep(0.2)
    position = os.path.getsize(trace)
    for command, flags, length in commands:
        client.must(command, MIB if length else 0, length, bytes(length) if command == CMD_WRITE else b"", flags)
    time.sleep(0.2)
    with open(trace, encoding="utf-8") as file:
        file.seek(position)
        lines = file.read().splitlines()
    letters = ""
    for line in lines:
        letters += "c" if CHANGED.search(line) and "resumed" not in line else ""
        begun = "unfinished" in line and "io_submit" not in line
        letters += "s" if SYNCED.search(line) and not begun else ""
        letters += "r" if REPLIED.search(line) else ""
    return letters


@test(over=[("write",), ("trim",), ("zeroes",)])
def rule_23_must_sync_before_a_flush_is_answered(env, what):
    command = {"write": CMD_WRITE, "trim": CMD_TRIM, "zeroes": CMD_WRITE_ZEROES}[what]
    letters = traced(env, [(command, 0, 65536), (CMD_FLUSH, 0, 0)])
    check(re.fullmatch(r"[cs]+rs+r", letters), f"order of changes, syncs and replies: {letters}")


@test(over=[("write",), ("trim",), ("zeroes",)])
def rule_24_must_not_answer_fua_before_it_is_durable(env, what):
    command = {"write": CMD_WRITE, "trim": CMD_TRIM, "zeroes": CMD_WRITE_ZEROES}[what]
    letters = traced(env, [(command, CMD_FLAG_FUA, 65536)])
    check(re.fullmatch(r"c[cs]*sr", letters), f"order of changes, syncs and replies: {letters}")


@test(over=EVERY_STYLE, quick=QUICK_STYLES)
def rule_24_must_accept_fua_on_every_command(env, style):
    with served(env) as here:
        client = session(here, style)
        flags = here.flags(style)
        check(flags & wire.TRANSMIT_SEND_FUA, "SEND_FUA")
        client.write(PATTERN_AT, b"durable", CMD_FLAG_FUA)
        equal(client.must(CMD_READ, PATTERN_AT, 7, flags=CMD_FLAG_FUA).data(), b"durable", "data")
        client.must(CMD_FLUSH, flags=CMD_FLAG_FUA)
        client.must(CMD_TRIM, PATTERN_AT, 65536, flags=CMD_FLAG_FUA)
        client.must(CMD_WRITE_ZEROES, PATTERN_AT, 65536, flags=CMD_FLAG_FUA)
        if flags & wire.TRANSMIT_SEND_CACHE:
            client.must(CMD_CACHE, PATTERN_AT, 65536, flags=CMD_FLAG_FUA)
        if style != SIMPLE:
            client.must(CMD_BLOCK_STATUS, PATTERN_AT, 65536, flags=CMD_FLAG_FUA)


# 25. The right error, out of range and on a read-only export.

BEYOND = ((END - 511, 512), (END, 1), (1 << 62, 4096), (U64_MAX - 511, 4096), (U64_MAX, 1), (0, END + 1))


@test(over=EVERY_STYLE, quick=QUICK_STYLES)
def rule_25_should_name_the_error_of_a_range(env, style):
    with served(env) as here:
        client = session(here, style)
        wanted = {CMD_READ: EINVAL, CMD_TRIM: EINVAL, CMD_WRITE: ENOSPC, CMD_WRITE_ZEROES: ENOSPC}
        if PEER == "qemu-nbd":
            wanted[CMD_READ] = wanted[CMD_TRIM] = EINVAL
        if style != SIMPLE:
            wanted[CMD_BLOCK_STATUS] = EINVAL
        if here.flags(style) & wire.TRANSMIT_SEND_CACHE:
            wanted[CMD_CACHE] = EINVAL
        for command, error in wanted.items():
            for offset, length in BEYOND:
                answer = client.ask_for(command, offset, length, payload_of(command, length))
                equal(answer.error, error, f"{answer}: error")
                check(style == SIMPLE or PEER or answer.message, f"{answer}: no message")
        here.check_in_step(client)
        here.check_unchanged()


@test(over=[(EXTENDED,)], quick=True)
def rule_25_should_name_the_error_of_a_64_bit_range(env, style):
    with served(env) as here:
        client = session(here, style)
        for command, error in ((CMD_TRIM, EINVAL), (CMD_WRITE_ZEROES, ENOSPC), (CMD_BLOCK_STATUS, EINVAL)):
            for offset, length in ((0, 1 << 32), (0, U64_MAX), (U64_MAX, U64_MAX), (1 << 63, 1 << 63), (4096, U64_MAX - 4095)):
                answer = client.ask_for(command, offset, length)
                equal(answer.error, error, f"{answer}: error")
        here.check_in_step(client)
        here.check_unchanged()


@test(over=EVERY_STYLE, quick=QUICK_STYLES)
def rule_25_should_refuse_changes_of_a_read_only_export(env, style):
    with served(env, read_only=True) as here:
        client = session(here, style)
        flags = here.flags(style)
        check(flags & wire.TRANSMIT_READ_ONLY, "READ_ONLY")
        for command in (CMD_WRITE, CMD_TRIM, CMD_WRITE_ZEROES):
            for fua in (0, CMD_FLAG_FUA if flags & wire.TRANSMIT_SEND_FUA else 0):
                answer = client.ask_for(command, PATTERN_AT, 5000, payload_of(command, 5000), fua)
                equal(answer.error, EPERM, f"{answer}: error")
        here.check_in_step(client)
        here.check_unchanged()


# 26. Unknown commands, and flags that are not the command's, are EINVAL.

UNKNOWN_COMMANDS = (8, 9, 77, 0x7FFF, 0xFFFF)


def valid_flags(command, style):
    flags = {
        CMD_WRITE_ZEROES: CMD_FLAG_NO_HOLE | CMD_FLAG_FAST_ZERO,
        CMD_BLOCK_STATUS: CMD_FLAG_REQ_ONE,
        CMD_READ: CMD_FLAG_DF if style != SIMPLE else 0,
        CMD_WRITE: CMD_FLAG_PAYLOAD_LEN if style == EXTENDED else 0,
    }
    return flags.get(command, 0) | CMD_FLAG_FUA


@test(over=EVERY_STYLE, quick=QUICK_STYLES)
def rule_26_should_refuse_unknown_commands(env, style):
    with served(env) as here:
        client = session(here, style)
        for command in UNKNOWN_COMMANDS:
            for length in (0, 512, 0xFFFFFFFF):
                answer = client.ask_for(command, PATTERN_AT, length)
                equal(answer.error, EINVAL, f"{answer}: error")
        here.check_in_step(client)


@test(over=EVERY_STYLE, quick=QUICK_STYLES)
def rule_26_should_refuse_flags_that_are_not_the_commands(env, style):
    """Each command with each bit it may not have; all at once, so that a byte too much or too little would show."""
    with served(env) as here:
        client = session(here, style)
        commands = [CMD_READ, CMD_WRITE, CMD_FLUSH, CMD_TRIM, CMD_WRITE_ZEROES]
        commands += [] if style == SIMPLE else [CMD_BLOCK_STATUS]
        commands += [CMD_CACHE] if here.flags(style) & wire.TRANSMIT_SEND_CACHE else []
        count = 0
        for command in commands:
            for bit in range(16):
                if 1 << bit & (valid_flags(command, style) | CMD_FLAG_PAYLOAD_LEN * (style == EXTENDED)):
                    continue  # in extended headers a payload would follow: rule 36
                length = 0 if command == CMD_FLUSH else 4096
                client.request(command, PATTERN_AT if length else 0, length, payload_of(command, length), 1 << bit)
                count += 1
        for _ in range(count):
            answer = client.next_answer()
            equal(answer.error, EINVAL, f"{answer}: error")
        here.check_in_step(client)
        here.check_unchanged()


@test(over=EVERY_STYLE, quick=QUICK_STYLES)
def rule_26_must_not_offer_df_without_structured_replies(env, style):
    need_style(style)
    with served(env) as here:
        flags = here.flags(style)
        equal(bool(flags & wire.TRANSMIT_SEND_DF), style != SIMPLE, "SEND_DF")
        check(flags & wire.TRANSMIT_HAS_FLAGS, "HAS_FLAGS")


# 27. EOVERFLOW only for DF or an oversize request without payload, ENOTSUP only for FAST_ZERO, ENOMEM never.


@test(over=EVERY_STYLE, quick=QUICK_STYLES)
def rule_27_should_not_answer_with_errors_of_other_cases(env, style):
    with served(env) as here:
        client = session(here, style)
        for length in (64 * MIB + 1, 1 << 30, 0xFFFFFFFF):
            for flags in (0, *(() if style == SIMPLE else (CMD_FLAG_DF,))):
                answer = client.ask_for(CMD_READ, 0, length, flags=flags)
                check(answer.error in (EINVAL, wire.EOVERFLOW) or PEER, f"{answer}: error {answer.error}")
        for command in (CMD_TRIM, CMD_WRITE_ZEROES):
            answer = client.ask_for(command, 0, 0xFFFFFFFF)
            check(answer.error in (EINVAL, ENOSPC), f"{answer}: error {answer.error}")
        here.check_in_step(client)


# 28. A length of zero does not end the connection.


@test(over=EVERY_STYLE, quick=QUICK_STYLES)
def rule_28_should_survive_requests_of_nothing(env, style):
    with served(env) as here:
        client = session(here, style)
        commands = [CMD_READ, CMD_WRITE, CMD_TRIM, CMD_WRITE_ZEROES] + [CMD_BLOCK_STATUS] * (style != SIMPLE)
        for command in commands:
            for offset in (0, PATTERN_AT, END, U64_MAX):
                answer = client.ask_for(command, offset, 0)
                check(answer.error in (EINVAL, ENOSPC) or PEER, f"{answer}: error {answer.error}")
        here.check_in_step(client)
        here.check_unchanged()


# 33. WRITE_ZEROES reads back as zeros; with NO_HOLE the space is provisioned.


@test(over=EVERY_STYLE, quick=QUICK_STYLES)
def rule_33_must_read_zeros_after_write_zeroes(env, style):
    """Aligned or not, over data and over the hole."""
    with served(env) as here:
        client = session(here, style)
        wanted = bytearray(here.content)
        ranges = ((PATTERN_AT, MIB), (2 * MIB + 1, 1), (2 * MIB + 4095, 2), (2 * MIB + 9000, 70_001), (HOLE_BYTES[0] - 700, 5000))
        for flags in (0, CMD_FLAG_NO_HOLE, CMD_FLAG_FUA):
            for offset, length in (*ranges, (END - 777, 777)):
                client.write(offset, random_bytes(length, offset + 1))
                client.must(CMD_WRITE_ZEROES, offset, length, flags=flags)
                wanted[offset : offset + length] = bytes(length)
        same_bytes(here.bystander.read(PATTERN_AT, END - PATTERN_AT), bytes(wanted[PATTERN_AT:]), "the volume")


@test(quick=True)
def rule_33_must_provision_with_no_hole(env):
    with served(env) as here:
        client = here.transmitting()
        start, end = HOLE_BYTES
        before = os.stat(here.path).st_blocks * 512
        client.must(CMD_WRITE_ZEROES, start, end - start, flags=CMD_FLAG_NO_HOLE)
        client.must(CMD_FLUSH)
        grown = os.stat(here.path).st_blocks * 512 - before
        check(grown >= end - start, f"provisioned {grown} bytes of {end - start}")
        same_bytes(client.read(start, end - start), bytes(end - start), "what it reads")


@test(quick=True)
def rule_33_may_leave_a_hole_without_no_hole(env):
    """Not a rule, but what users want: space comes back."""
    with served(env) as here:
        client = here.transmitting()
        for command in (CMD_WRITE_ZEROES, CMD_TRIM):
            client.write(PATTERN_AT, random_bytes(2 * MIB), CMD_FLAG_FUA)
            before = os.stat(here.path).st_blocks * 512
            client.must(command, PATTERN_AT, 2 * MIB)
            client.must(CMD_FLUSH)
            freed = before - os.stat(here.path).st_blocks * 512
            check(freed >= 2 * MIB - 65536, f"command {command} freed {freed} bytes of {2 * MIB}")


# 34. FAST_ZERO fails fast where it would be no faster than writing.


@test(over=EVERY_STYLE, quick=QUICK_STYLES, speed=True)
def rule_34_must_be_fast_or_not_supported(env, style):
    need_style(style)
    with served(env, size_bytes=3 << 30) as here:
        client = session(here, style)
        flags = here.flags(style)
        check(flags & wire.TRANSMIT_SEND_WRITE_ZEROES, "SEND_WRITE_ZEROES")
        if not flags & wire.TRANSMIT_SEND_FAST_ZERO:
            equal(client.call(CMD_WRITE_ZEROES, PATTERN_AT, MIB, flags=CMD_FLAG_FAST_ZERO)[0], EINVAL, "not offered")
            return
        for more in (0, CMD_FLAG_NO_HOLE):
            began = time.monotonic()
            answer = client.ask_for(CMD_WRITE_ZEROES, PATTERN_AT, 2 << 30, flags=CMD_FLAG_FAST_ZERO | more)
            took = time.monotonic() - began
            check(answer.error in (0, ENOTSUP), f"{answer}: error {answer.error}")
            check(took < 2, f"{answer}: took {took:.1f} s")
            if answer.error == ENOTSUP:
                here.check_unchanged()
            else:
                same_bytes(client.read(PATTERN_AT, MIB), bytes(MIB), "what it reads")
                client.write(PATTERN_AT, here.content[PATTERN_AT:])


# 35. DISC finishes what is outstanding, then closes, without a reply.


@test(over=EVERY_STYLE, quick=QUICK_STYLES)
def rule_35_must_finish_what_is_outstanding_at_disc(env, style):
    with served(env) as here:
        client = session(here, style)
        parts = {}
        for index in range(48):
            offset = PATTERN_AT + index * 20_000
            parts[client.request(CMD_WRITE, offset, 10_001, random_bytes(10_001, index))] = index
        client.request(CMD_READ, 6 * MIB, MIB)
        client.disconnect()
        for _ in range(49):
            equal(client.next_answer().error, 0, "error of a request before DISC")
        client.expect_closed()
        for index in range(48):
            got = here.bystander.read(PATTERN_AT + index * 20_000, 10_001)
            same_bytes(got, random_bytes(10_001, index), f"write {index}")


@test(over=EVERY_STYLE, quick=QUICK_STYLES)
def rule_35_must_not_answer_disc(env, style):
    with served(env) as here:
        client = session(here, style)
        client.disconnect()
        client.expect_closed()


# 37. TCP_NODELAY on the server's end.


@test(quick=True)
def rule_37_should_set_tcp_nodelay(env):
    need_ours("serves a Unix socket here")
    with served(env) as here:
        client = here.transmitting()
        found = server_sockets(here.daemon.pid, client.sock.getsockname())
        equal(len(found), 1, "sockets of the daemon with that peer")
        for sock in found:
            check(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY), "TCP_NODELAY")


def server_sockets(pid, peer):
    """Process PID's sockets that are connected to PEER, duplicated.  Source: pidfd_getfd(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    process = os.pidfd_open(pid)
    found = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        duplicate = libc.syscall(438, process, int(name), 0)
        if duplicate < 0:
            if ctypes.get_errno() in (1, 38):
                os.close(process)
                raise Skip("pidfd_getfd is not allowed")
            continue
        try:
            sock = socket.socket(fileno=duplicate)
        except OSError:  # it is none
            os.close(duplicate)
            continue
        try:
            if sock.getpeername() == peer:
                found.append(sock)
                continue
        except OSError:
            pass  # it has no peer
        sock.close()
    os.close(process)
    return found
