"""Requests that are not aligned to the volume's blocks, from several connections on two cores at once.

The volume is cut into pieces that belong to one connection each; most blocks hold pieces of several.  Every connection
rewrites its own pieces again and again and knows what they must hold, so that the whole volume has one right content
whatever the order was in which the daemon served them.
"""

import itertools
import os
import random

import nbd

from harness import FILE, LOOP512, LOOP4096, TCP
from harness import equal, same_bytes, test, two_cores
from pump import Pump

CONNECTIONS = 5
DEPTH = 16
BLOCK_BYTES = 4096
RUN_BYTES = 100
READ_SHARE = 0.2
FUA_SHARE = 0.05


def seed_of_run():
    """SEED=n in the environment repeats a run."""
    seed = int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
    print(f"     SEED={seed}", flush=True)
    return seed


class Piece:
    """A range of the volume that one connection writes; at most one request for it is in flight."""

    def __init__(self, offset, content):
        self.offset = offset
        self.content = content

    def end(self):
        return self.offset + len(self.content)


def random_length(rng, offset):
    kind = rng.random()
    if kind < 0.7:
        return RUN_BYTES
    if kind < 0.85:
        return rng.randrange(1, BLOCK_BYTES)
    if kind < 0.95:
        # Up to the next block, so that an aligned piece can follow.
        return BLOCK_BYTES - offset % BLOCK_BYTES
    return rng.randrange(1, 5 * BLOCK_BYTES)


def cut_into_pieces(rng, content):
    """Adjacent pieces over all of CONTENT; some are whole aligned blocks beside blocks that are shared."""
    pieces, offset = [], 0
    while offset < len(content):
        length = random_length(rng, offset)
        if offset % BLOCK_BYTES == 0 and rng.random() < 0.5:
            length = BLOCK_BYTES * rng.randrange(1, 3)
        piece = Piece(offset, bytes(content[offset : offset + length]))
        pieces.append(piece)
        offset = piece.end()
    return pieces


class Owner:
    """One connection with its pieces."""

    def __init__(self, rng, connection, pieces, read_share=READ_SHARE):
        self.rng = rng
        self.connection = connection
        self.idle = pieces
        self.read_share = read_share
        self.errors = []
        self.wrong = []

    def start_one(self):
        """Take a random idle piece and write it anew, or read it back."""
        index = self.rng.randrange(len(self.idle))
        self.idle[index], self.idle[-1] = self.idle[-1], self.idle[index]
        piece = self.idle.pop()
        if self.rng.random() < self.read_share:
            self.start_read(piece)
        else:
            self.start_write(piece)

    def start_write(self, piece):
        content = self.rng.randbytes(len(piece.content))

        def done(error):
            piece.content = content
            self.finish(piece, error)

        flags = nbd.CMD_FLAG_FUA if self.rng.random() < FUA_SHARE else 0
        self.connection.write(content, piece.offset, done, flags)

    def start_read(self, piece):
        def done(error, data):
            if not error and data != piece.content:
                self.wrong.append((piece.offset, len(data)))
            self.finish(piece, error)

        self.connection.read(len(piece.content), piece.offset, done)

    def finish(self, piece, error):
        if error:
            self.errors.append((piece.offset, len(piece.content), os.strerror(error)))
        self.idle.append(piece)


def make_owners(rng, pump, pieces):
    shares = [[] for _ in pump.connections]
    for piece in pieces:
        rng.choice(shares).append(piece)
    return [Owner(rng, connection, share) for connection, share in zip(pump.connections, shares)]


def keep_busy(pump, owners, request_count):
    """Start REQUEST_COUNT requests, at most DEPTH at a time on a connection, and wait for all."""
    while request_count > 0:
        for owner in owners:
            while request_count > 0 and owner.idle and owner.connection.in_flight < DEPTH:
                owner.start_one()
                request_count -= 1
        pump.turn()
    pump.drain()


def check_owners(owners):
    for owner in owners:
        equal(owner.errors, [], "requests that failed, as (offset, length, error)")
        equal(owner.wrong, [], "ranges read back with other content than was written, as (offset, length)")


@test(
    over=[(FILE, 300_003), (FILE, 40_961), (LOOP512, 300_032), (LOOP4096, 73 * 4096), (LOOP4096, 8 * 4096)],
    quick=[(FILE, 40_961), (LOOP4096, 73 * 4096)],
    seconds=100,
)
def concurrent_writers_in_shared_blocks_lose_nothing(env, medium, size_bytes):
    rng = random.Random(seed_of_run())
    content = rng.randbytes(size_bytes)
    image = env.image(medium, size_bytes, content)
    daemon = env.serve_image(image, TCP, two_cores())
    pieces = cut_into_pieces(rng, content)
    pump = Pump(daemon.uri(), CONNECTIONS)
    owners = make_owners(rng, pump, list(pieces))
    keep_busy(pump, owners, env.size(6_000, 2_000))
    check_owners(owners)
    model = b"".join(piece.content for piece in pieces)
    same_bytes(pump.connections[0].handle.pread(size_bytes, 0), model, "the volume, read back")
    pump.connections[1].handle.flush()
    pump.shutdown()
    same_bytes(image.content(), model, "the image")
    equal(os.stat(image.backing).st_size, size_bytes, "size of the image")


def runs_inside(rng, block_offset):
    """Three runs with gaps between them in the block at BLOCK_OFFSET."""
    starts = [rng.randrange(1, 1200) + third * 1365 for third in range(3)]
    return [Piece(block_offset + start, b"") for start in starts]


def check_block(image_block, block, runs):
    """All of the block is as its last whole write left it, but for runs that may have been written after that."""
    wanted = bytearray(block.content)
    for run in runs:
        start = run.offset - block.offset
        if image_block[start : start + RUN_BYTES] == run.content:
            wanted[start : start + RUN_BYTES] = run.content
    same_bytes(image_block, bytes(wanted), f"the block at {block.offset}")


@test(over=[(FILE, 8 * 4096), (FILE, 8 * 4096 + 700), (LOOP4096, 8 * 4096)], quick=[(FILE, 8 * 4096 + 700)])
def whole_block_writes_survive_small_ones_inside_them(env, medium, size_bytes):
    """Whole blocks and runs within them are written at the same time.  Their order is the daemon's, but a small write
    must not bring back what was around it before."""
    rng = random.Random(seed_of_run())
    image = env.image(medium, size_bytes)
    daemon = env.serve_image(image, TCP, two_cores())
    blocks = [Piece(offset, bytes(BLOCK_BYTES)) for offset in range(0, 8 * BLOCK_BYTES, BLOCK_BYTES)]
    runs = [runs_inside(rng, block.offset) for block in blocks]
    for run in itertools.chain(*runs):
        run.content = bytes(RUN_BYTES)
    pump = Pump(daemon.uri(), CONNECTIONS)
    thirds = [[block_runs[i] for block_runs in runs] for i in range(3)]
    shares = [blocks[:4], blocks[4:], *thirds]
    owners = [Owner(rng, connection, list(share), 0) for connection, share in zip(pump.connections, shares)]
    # In rounds: what one loses, the next round's writes would cover up.
    for _ in range(env.size(60, 15)):
        keep_busy(pump, owners, 100)
        check_owners(owners)
        content = pump.connections[0].handle.pread(len(blocks) * BLOCK_BYTES, 0)
        for block, block_runs in zip(blocks, runs):
            check_block(content[block.offset : block.end()], block, block_runs)
    pump.shutdown()


@test(over=[(FILE, 4 * 4096 + 1), (LOOP4096, 4 * 4096)], quick=[(FILE, 4 * 4096 + 1)])
def few_bytes_each_from_all_connections_lose_nothing(env, medium, size_bytes):
    """Seven bytes a request: nothing but read-modify-write, again and again on the same few blocks."""
    image = env.image(medium, size_bytes)
    daemon = env.serve_image(image, TCP, two_cores())
    rng = random.Random(seed_of_run())
    content = rng.randbytes(size_bytes)
    offsets = list(range(0, size_bytes, 7))
    rng.shuffle(offsets)
    pump = Pump(daemon.uri(), CONNECTIONS)
    errors = []
    while offsets:
        for connection in pump.connections:
            while offsets and connection.in_flight < DEPTH:
                offset = offsets.pop()
                connection.write(content[offset : offset + 7], offset, errors.append)
        pump.turn()
    pump.drain()
    equal(sum(error != 0 for error in errors), 0, "writes that failed")
    pump.connections[-1].handle.flush()
    pump.shutdown()
    same_bytes(image.content(), content, "the image")


@test(over=[(FILE, 9 * 512 + 77), (LOOP512, 10 * 512), (LOOP4096, 3 * 4096)], quick=[(LOOP4096, 3 * 4096)])
def every_small_range_reads_and_writes_exactly(env, medium, size_bytes):
    """One connection, each request checked on its own: what is around it must not change."""
    rng = random.Random(seed_of_run())
    model = bytearray(rng.randbytes(size_bytes))
    image = env.image(medium, size_bytes, bytes(model))
    daemon = env.serve_image(image)
    handle = Pump(daemon.uri(), 1).connections[0].handle
    for _ in range(env.size(400, 100)):
        offset = rng.randrange(size_bytes)
        length = rng.randrange(1, size_bytes - offset + 1)
        same_bytes(handle.pread(length, offset), bytes(model[offset : offset + length]), f"{length} at {offset}")
        length = min(length, rng.choice((1, 2, 511, 512, 513, 4095, 4096, 4097, length)))
        model[offset : offset + length] = rng.randbytes(length)
        handle.pwrite(bytes(model[offset : offset + length]), offset)
    same_bytes(handle.pread(size_bytes, 0), bytes(model), "the volume")
    handle.flush()
    handle.shutdown()
    same_bytes(image.content(), bytes(model), "the image")
