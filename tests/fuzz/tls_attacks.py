"""What a hostile client does to TLS and inside of it, as attacks.py does without: attack(target, rng, seconds).

The sessions are real: handshakes complete or not in both versions, by certificate, by key and without either.
"""

import contextlib
import select
import struct
import time

import messages
import wire
from attacks import discard, drain, end, send, until
from tls_peer import VERSIONS, TlsError, TlsPeer, records
from wire_replies import EXTENDED, SIMPLE, STYLES

HANDSHAKE_SECONDS = 5
GREETING_BYTES = 18
ACK_BYTES = 20
FLAGS = struct.pack(">I", 3)  # the client's, which are sent once
START = FLAGS + messages.option(wire.OPT_STARTTLS)
HALF_OPEN = 200


class Session:
    """A connection that is to be inside TLS, with a peer of its own."""

    def __init__(self, target, rng, kind=None, version=None):
        self.rng = rng
        self.sock = target.connect(rng)
        self.peer = TlsPeer(kind or rng.choice(target.kinds[:2]), version or rng.choice(VERSIONS))
        self.sent_bytes = 0
        self.patience_seconds = HANDSHAKE_SECONDS

    def close(self):
        self.peer.close()
        if self.sock is not None:
            end(self.rng, self.sock)

    def receive(self):
        """What came; b"" if nothing did in time, or nothing will."""
        if not select.select([self.sock], [], [], self.patience_seconds)[0]:
            return b""
        with contextlib.suppress(OSError):
            return self.sock.recv(1 << 16)
        return b""

    def start(self):
        """As far as the ACK of STARTTLS."""
        wanted = GREETING_BYTES + ACK_BYTES
        if self.sock is None or not send(self.sock, START, reads=False):
            return False
        while wanted > 0:
            data = self.receive()
            if not data:
                return False
            wanted -= len(data)
        return True

    def shake_hands(self, change=lambda data: data):
        """The whole handshake, each flight as CHANGE makes it; returns whether it is complete."""
        done = self.peer.shake_hands()
        while True:
            flight = change(self.peer.take())
            if not send(self.sock, flight, reads=False):
                return False
            self.sent_bytes += len(flight)
            if done:
                return True
            data = self.receive()
            if not data:
                return False
            done = self.peer.shake_hands(data)

    def send(self, data, reads=True):
        return send(self.sock, data, reads)


@contextlib.contextmanager
def session(target, rng, kind=None, version=None, secure=True):
    """A Session that is inside TLS, or only about to be; None if there is no place for it.  What TLS says is nobody's concern."""
    one = Session(target, rng, kind, version)
    with contextlib.suppress(TlsError):
        ready = one.start() and (not secure or one.shake_hands())
        yield one if ready else None
    one.close()


def valid_session(rng):
    """From the first option on."""
    return messages.valid_session(rng)[1:]


def recorded_session():
    return messages.recorded_session(SIMPLE)[len(FLAGS) :]


def cut_into_records(peer, rng, data):
    """Encrypted in records of any size, down to a byte."""
    return b"".join(peer.encrypt(part) for part in messages.pieces(rng, data) if part)


# The attacks.


def tls_valid_sessions(target, rng, seconds):
    """Nothing wrong but how it is cut into records, how these are sent, and how it ends."""
    for _ in until(seconds):
        with session(target, rng) as one:
            if one is None:
                continue
            data = cut_into_records(one.peer, rng, b"".join(valid_session(rng)))
            data += one.peer.end() if rng.random() < 0.5 else b""
            if all(one.send(part) for part in messages.pieces(rng, data)):
                drain(one.sock, 0.01)


def tls_spoiled_sessions(target, rng, seconds):
    """TLS is right, what is inside is not: cut, changed, out of order, a second STARTTLS in it."""
    for _ in until(seconds):
        with session(target, rng) as one:
            if one is None:
                continue
            inside = valid_session(rng)
            if rng.random() < 0.2:
                inside.insert(1, messages.option(wire.OPT_STARTTLS))
            data = cut_into_records(one.peer, rng, b"".join(messages.spoil(rng, inside)))
            reads = rng.random() < 0.8
            if all(one.send(part, reads) for part in messages.pieces(rng, data)) and reads:
                drain(one.sock, rng.choice((0, 0.01)))


def tls_spoiled_handshakes(target, rng, seconds):
    """Flights of a real handshake with some of it wrong; also from clients that prove nothing."""

    def change(data):
        if rng.random() < 0.6:
            return b"".join(messages.spoil(rng, records(data)))
        return data

    for _ in until(seconds):
        with session(target, rng, rng.choice(target.kinds), secure=False) as one:
            if one is None:
                continue
            one.patience_seconds = 0.05  # most of these get no answer before the daemon's time is up
            if one.shake_hands(change):
                one.send(one.peer.encrypt(b"".join(valid_session(rng))))


def tls_spoiled_records(target, rng, seconds):
    """Records behind the handshake: changed, cut, lengthened, out of order, repeated."""
    for _ in until(seconds):
        with session(target, rng) as one:
            if one is None:
                continue
            data = cut_into_records(one.peer, rng, b"".join(valid_session(rng)))
            spoiled = b"".join(messages.spoil(rng, records(data)))
            if all(one.send(part) for part in messages.pieces(rng, spoiled)):
                drain(one.sock, 0.01)


def tls_every_position(target, rng, seconds):
    """The end of the connection after each byte of STARTTLS, the handshake and a session inside, in any order."""
    places = []
    for kind in target.kinds[:2]:
        for version in VERSIONS:
            with session(target, rng, kind, version) as one:
                if one is not None:
                    inside = len(one.peer.encrypt(recorded_session()))
                    places += [(kind, version, count) for count in range(len(START) + one.sent_bytes + inside + 1)]
    rng.shuffle(places)
    for count in until(seconds):
        if count < len(places):
            end_at(target, rng, *places[count])


def end_at(target, rng, kind, version, count):
    if count <= len(START):
        sock = target.connect(rng)
        if sock is not None:
            send(sock, START[:count])
            end(rng, sock)
        return
    left = count - len(START)

    def change(data):
        nonlocal left
        data = data[:left]
        left -= len(data)
        if left == 0 and data:
            one.send(data, reads=False)
            raise TlsError("here it ends")
        return data

    with session(target, rng, kind, version, secure=False) as one:
        if one is not None and one.shake_hands(change):
            one.send(one.peer.encrypt(recorded_session())[:left])


def tls_option_floods(target, rng, seconds):
    """Options as fast as they go, STARTTLS among them, the answers read or not."""
    batch = messages.option(wire.OPT_LIST) + messages.option(wire.OPT_INFO, wire.pack_info_request("disk", (1, 2, 3) * 50))
    batch += messages.option(wire.OPT_STARTTLS) + messages.option(0x7777, b"x" * 100)
    for count in until(seconds):
        with session(target, rng) as one:
            if one is not None:
                data = one.peer.encrypt(batch * 1000)
                send(one.sock, data, reads=count % 2 == 0, seconds=0.5)


def tls_never_reads(target, rng, seconds):
    """Clients that ask for more than any socket holds and take nothing, some of them with updates of keys between."""
    for count in until(seconds):
        with session(target, rng) as one:
            if one is None:
                continue
            style = STYLES[count % 3]
            pack = wire.pack_extended_request if style == EXTENDED else wire.pack_request
            parts = b"".join(messages.handshake(rng, style, "disk")[1:])
            parts += b"".join(pack(wire.CMD_READ, 0, 4 << 20, 0, cookie) for cookie in range(100))
            send(one.sock, one.peer.encrypt(parts), reads=False, seconds=0.2)
            with contextlib.suppress(TlsError):
                for _ in range(count % 2 * 50):
                    if not send(one.sock, one.peer.update_keys(), reads=False, seconds=0.1):
                        break
            time.sleep(0.05)


def tls_key_updates(target, rng, seconds):
    """Nothing but new keys, which the daemon has to answer with its own."""
    for count in until(seconds):
        with session(target, rng, version="TLS1.3") as one:
            if one is not None:
                data = b"".join(one.peer.update_keys() for _ in range(rng.choice((1, 7, 8, 9, 300))))
                if send(one.sock, data, reads=count % 2 == 0, seconds=0.5):
                    drain(one.sock, 0.01)


def tls_half_handshakes(target, rng, seconds):
    """Many clients that stop anywhere in the handshake, and stay."""
    held = []
    for _ in until(seconds):
        one = Session(target, rng)
        with contextlib.suppress(TlsError):
            if one.start():
                one.peer.shake_hands()
                flight = one.peer.take()
                one.send(flight[: rng.choice((1, 5, len(flight) - 1, len(flight)))], reads=False)
        held.append(one)
        if len(held) > HALF_OPEN:
            held.pop(0).close()
    for one in held:
        if one.sock is not None:
            discard(one.sock)
        one.close()


TLS_ATTACKS = (
    tls_valid_sessions,
    tls_spoiled_sessions,
    tls_spoiled_handshakes,
    tls_spoiled_records,
    tls_every_position,
    tls_option_floods,
    tls_never_reads,
    tls_key_updates,
    tls_half_handshakes,
)
