"""What a hostile client does, one kind a function: attack(target, rng, seconds).

Each goes on for about SECONDS (or to its natural end), takes every random choice from RNG, and leaves no socket open.  How the
daemon answers is not judged here: it may refuse, answer or close.
"""

import contextlib
import select
import socket
import struct
import time

import messages
import wire
from wire_replies import STYLES, SIMPLE

SESSION_SECONDS = 5  # no single session takes longer
CONNECTS = 10_000
NEVER_READERS = 40
RESET = struct.pack("ii", 1, 0)


class Target:
    """Where the daemon listens, and a count of what it was bothered with."""

    def __init__(self, addresses, kinds):
        self.addresses = addresses
        self.kinds = kinds  # what a client can prove itself by inside TLS: a certificate, a key, nothing
        self.sessions = 0

    def connect(self, rng):
        """A socket, or None if there is no place for it."""
        self.sessions += 1
        try:
            sock = rng.choice(self.addresses).connect(SESSION_SECONDS)
        except OSError:
            return None
        sock.setblocking(False)
        return sock


def end(rng, sock):
    """As an orderly client, with a reset, or half closed first."""
    way = rng.randrange(3)
    with contextlib.suppress(OSError):
        if way == 1:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        elif way == 2:
            sock.shutdown(socket.SHUT_WR)
    sock.close()


def discard(sock):
    """Read what is there; false when the daemon has closed."""
    try:
        while True:
            if not sock.recv(1 << 20):
                return False
    except BlockingIOError:
        return True
    except OSError:
        return False


def send(sock, data, reads=True, seconds=SESSION_SECONDS):
    """Send DATA, reading the answers away meanwhile if READS; false when it did not all go out."""
    deadline = time.monotonic() + seconds
    view = memoryview(data)
    while view:
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        readable, writable, _ = select.select([sock] if reads else [], [sock], [], left)
        if readable and not discard(sock):
            return False
        if writable:
            try:
                view = view[sock.send(view) :]
            except BlockingIOError:
                pass
            except OSError:
                return False
    return True


def drain(sock, seconds):
    """Read until the daemon closes or is silent for SECONDS."""
    while select.select([sock], [], [], seconds)[0]:
        if not discard(sock):
            return


def play(target, rng, parts):
    sock = target.connect(rng)
    if sock is None:
        return
    reads = rng.random() < 0.8
    for part in parts:
        if not send(sock, part, reads):
            break
    else:
        if reads:
            drain(sock, rng.choice((0, 0.01, 0.05)))
    end(rng, sock)


def until(seconds):
    """Count for SECONDS."""
    deadline, count = time.monotonic() + seconds, 0
    while time.monotonic() < deadline:
        yield count
        count += 1


# The attacks.


def valid_sessions(target, rng, seconds):
    """Nothing wrong but where the bytes are cut, and how it ends."""
    for _ in until(seconds):
        play(target, rng, messages.pieces(rng, b"".join(messages.valid_session(rng))))


def spoiled_sessions(target, rng, seconds):
    """Truncated, reordered, repeated, oversized, with bits flipped."""
    for _ in until(seconds):
        session = messages.spoil(rng, messages.valid_session(rng))
        play(target, rng, messages.pieces(rng, b"".join(session)))


def every_position(target, rng, seconds):
    """The end of the connection after each byte of a recorded session, in every style."""
    sessions = [messages.recorded_session(style) for style in STYLES]
    places = [(data, count) for data in sessions for count in range(len(data) + 1)]
    deadline = time.monotonic() + max(seconds, 20)
    for data, count in places:
        sock = target.connect(rng)
        if sock is None:
            continue
        send(sock, data[:count])
        end(rng, sock)
        if time.monotonic() > deadline:
            break


def huge_lengths(target, rng, seconds):
    """4 GiB and more announced, some of it sent."""
    for count in until(seconds):
        style = STYLES[count % len(STYLES)]
        parts = [b"".join(messages.handshake(rng, style, "disk"))]
        if rng.random() < 0.4:
            number = rng.choice(messages.OPTIONS)
            parts = [struct.pack(">I", 3), struct.pack(">QII", wire.IHAVEOPT, number, rng.choice((0xFFFFFFFF, 1 << 31, 70_000)))]
        else:
            pack = wire.pack_request if style == SIMPLE else rng.choice((wire.pack_request, wire.pack_extended_request))
            for command in rng.sample((0, 1, 1, 4, 5, 6, 7), 4):
                parts.append(pack(command, rng.choice((0, 4096, 1 << 63)), 0xFFFFFFFF, rng.choice((0, 1, 32)), rng.getrandbits(64)))
        parts.append(rng.randbytes(1000) * rng.choice((0, 1, 100, 1000)))
        play(target, rng, parts)


def option_floods(target, rng, seconds):
    """Options as fast as they go, the answers read or not."""
    batch = messages.option(wire.OPT_LIST) + messages.option(wire.OPT_INFO, wire.pack_info_request("disk", (1, 2, 3) * 50))
    batch += messages.option(0x7777, b"x" * 100)
    for count in until(seconds):
        sock = target.connect(rng)
        if sock is None:
            continue
        send(sock, struct.pack(">I", 3) + batch * 3000, reads=count % 2 == 0, seconds=0.5)
        end(rng, sock)


def tls_garbage(target, rng, seconds):
    """What is no TLS after STARTTLS, and TLS where none is."""
    for count in until(seconds):
        start = struct.pack(">I", 3) + messages.option(wire.OPT_STARTTLS, b"x" if count % 7 == 6 else b"")
        garbage = [messages.CLIENT_HELLO, rng.randbytes(300), b"\x16\x03\x03\xff\xff" + rng.randbytes(2000), b"\x15\x03\x03\x00\x02\x02\x28"]
        garbage += [messages.spoil(rng, [messages.CLIENT_HELLO])]
        chosen = rng.choice(garbage)
        chosen = b"".join(chosen) if isinstance(chosen, list) else chosen
        play(target, rng, messages.pieces(rng, chosen if count % 5 == 4 else start + chosen))


def never_reads(target, rng, seconds):
    """Clients that ask for more than any socket holds and take nothing."""
    held = []
    for count in until(seconds):
        sock = target.connect(rng)
        if sock is not None:
            style = STYLES[count % 3]
            parts = messages.handshake(rng, style, "disk")
            pack = wire.pack_extended_request if count % 3 == 2 else wire.pack_request
            parts += [pack(wire.CMD_READ, 0, 4 << 20, 0, cookie) for cookie in range(200)]
            send(sock, b"".join(parts), reads=False, seconds=0.2)
            held.append(sock)
        if len(held) > NEVER_READERS:
            end(rng, held.pop(0))
        time.sleep(0.01)
    for sock in held:
        end(rng, sock)


def slow_drips(target, rng, seconds):
    """Many clients that send a byte now and then."""
    data = messages.recorded_session(SIMPLE)
    socks = [[sock, 0] for sock in (target.connect(rng) for _ in range(200)) if sock]
    for _ in until(seconds):
        for pair in socks:
            with contextlib.suppress(OSError):
                pair[0].send(data[pair[1] : pair[1] + 1])
                pair[1] += 1
        time.sleep(0.02)
    for sock, _ in socks:
        end(rng, sock)


def half_open(target, rng, seconds):
    """Clients that stop anywhere, or close one direction, and stay."""
    data = messages.recorded_session(SIMPLE)
    socks = []
    for _ in range(300):
        sock = target.connect(rng)
        if sock is None:
            continue
        send(sock, data[: rng.randrange(len(data))])
        with contextlib.suppress(OSError):
            if rng.random() < 0.5:
                sock.shutdown(rng.choice((socket.SHUT_WR, socket.SHUT_RD)))
        socks.append(sock)
    time.sleep(min(seconds, 3))
    for sock in socks:
        end(rng, sock)


def ten_thousand_connects(target, rng, seconds):
    """As fast as they go, most of them gone at once, 1500 held at a time: more than there are places."""
    del seconds
    held = []
    for _ in range(CONNECTS):
        sock = target.connect(rng)
        if sock is None:
            continue
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)  # leaves no port in TIME_WAIT
        held.append(sock)
        if len(held) > 1500:
            for old in held[:500]:
                old.close()
            del held[:500]
    for sock in held:
        sock.close()


ATTACKS = (
    valid_sessions,
    spoiled_sessions,
    every_position,
    huge_lengths,
    option_floods,
    tls_garbage,
    never_reads,
    slow_drips,
    half_open,
    ten_thousand_connects,
)
