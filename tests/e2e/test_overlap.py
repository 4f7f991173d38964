"""Requests of several connections on two cores that overlap as they come: reads, writes, zeros and trims of any bytes.

Their order is the daemon's, so there is no one right content.  But whatever a byte is read as must come from a write of it that had
begun before the read ended, and that no other one has covered up: one that began when it had ended, and ended before the read began.
"""

import itertools
import os
import random

import nbd

from harness import FILE, LOOP4096, ZRAM
from harness import Skip, check, equal, same_bytes, test, two_cores
from pump import Pump

CONNECTIONS = 6
DEPTH = 16
REQUESTS = 400
# So few that they meet: that is what finds a lock that does not hold.
SIZE_BYTES = 2 * 4096
XFS, BTRFS, CACHED = "xfs", "btrfs", "cached"


def seed_of_run():
    """SEED=n in the environment repeats a run."""
    seed = int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32)
    print(f"     SEED={seed}", flush=True)
    return seed


class Span:
    """What a request reads, or leaves behind: CONTENT from START on.  begun and ended are of one clock of all connections."""

    def __init__(self, start, content, begun, optional=False):
        self.start = start
        self.end = start + len(content)
        self.content = content
        self.begun = begun
        self.ended = None
        self.optional = optional  # a trim, which need not do anything

    def part(self, start, end):
        return self.content[start - self.start : end - self.start]


def possible(read, effects, start, end):
    """What START to END, in which no effect begins or ends, may be read as."""
    covering = [effect for effect in effects if effect.start <= start and effect.end >= end]
    settled = [effect.begun for effect in covering if effect.ended < read.begun and not effect.optional]
    latest = max(settled)
    return [effect.part(start, end) for effect in covering if effect.begun < read.ended and effect.ended >= latest]


def is_possible(got, contents):
    """Is GOT one of CONTENTS, or put together of them?"""
    return got in contents or all(any(content[i] == byte for content in contents) for i, byte in enumerate(got))


def wrong_parts(read, effects):
    """Where READ has something else than any order of the EFFECTS could have left."""
    near = [effect for effect in effects if effect.start < read.end and effect.end > read.start]
    cuts = {read.start, read.end}
    for effect in near:
        cuts.update(cut for cut in (effect.start, effect.end) if read.start < cut < read.end)
    pairs = itertools.pairwise(sorted(cuts))
    return [(start, end) for start, end in pairs if not is_possible(read.part(start, end), possible(read, near, start, end))]


class Trial:
    """Rounds of random requests on all connections, each of which is checked when its requests are answered."""

    def __init__(self, rng, pump, size_bytes):
        self.rng = rng
        self.pump = pump
        self.size_bytes = size_bytes
        self.clock = itertools.count(1)
        self.errors = []

    def choose_range(self):
        unit = self.rng.choice((1, 1, 512, 4096))
        offset = self.rng.randrange(self.size_bytes) // unit * unit
        length = self.rng.choice((1, 7, 512, 4096, 8192, self.rng.randrange(1, 5000)))
        return offset, min((length + unit - 1) // unit * unit, self.size_bytes - offset)

    def finish(self, span, error, content=None):
        span.ended = next(self.clock)
        span.content = span.content if content is None else bytes(content)
        if error:
            self.errors.append((span.start, span.end - span.start, os.strerror(error)))

    def start_one(self, connection):
        offset, length = self.choose_range()
        what = self.rng.random()
        flags = nbd.CMD_FLAG_FUA if self.rng.random() < 0.05 else 0
        span = Span(offset, bytes(length), next(self.clock), 0.7 < what < 0.75)
        if what < 0.6:
            span.content = self.rng.randbytes(length)
            connection.write(span.content, offset, lambda error: self.finish(span, error), flags)
        elif what < 0.7:
            flags |= self.rng.choice((0, nbd.CMD_FLAG_NO_HOLE))
            connection.zero(length, offset, lambda error: self.finish(span, error), flags)
        elif span.optional:
            connection.trim(length, offset, lambda error: self.finish(span, error), flags)
        else:
            connection.read(length, offset, lambda error, content: self.finish(span, error, content))
            self.reads.append(span)
            return
        self.effects.append(span)

    def read_all(self):
        span = Span(0, bytes(self.size_bytes), next(self.clock))
        self.finish(span, 0, self.rng.choice(self.pump.connections).handle.pread(self.size_bytes, 0))
        return span

    def round(self):
        before = self.read_all()
        self.effects, self.reads = [before], []
        for _ in range(REQUESTS):
            while not (free := [c for c in self.pump.connections if c.in_flight < DEPTH]):
                self.pump.turn()
            self.start_one(self.rng.choice(free))
        self.pump.drain()
        equal(self.errors, [], "requests that failed, as (offset, length, error)")
        self.reads.append(self.read_all())
        for read in self.reads:
            wrong = wrong_parts(read, self.effects)
            equal(wrong, [], f"parts of what was read from {read.start} to {read.end} that nobody wrote there, or no more")
        return self.reads[-1].content


def serve_mounted(env, kind, size_bytes):
    """A daemon in a mount namespace of its own, with an image on a new file system; and where the image is seen from here."""
    if os.geteuid() != 0 or not os.path.exists("/dev/loop-control"):
        raise Skip("mounting a file system needs root and loop devices")
    disk, folder = env.file(320 << 20, name="disk"), env.path("mounted")
    os.mkdir(folder)
    steps = [f"PATH=$PATH:/sbin:/usr/sbin mkfs.{kind} -q {disk}", f"mount -o loop {disk} {folder}",
             f"truncate -s {size_bytes} {folder}/image", 'exec "$@"']
    config = env.config(f"[server]\nlisten = 127.0.0.1:0\n[export disk]\npath = {folder}/image\n")
    prefix = ("unshare", "--mount", "sh", "-c", " >&2 && ".join(steps), "sh")
    daemon = env.serve("--config", config, "--cores", two_cores(), prefix=prefix)
    return daemon, f"/proc/{daemon.pid}/root{folder}/image"


def serve(env, medium, size_bytes):
    """A daemon with an image of MEDIUM, and where that is."""
    if medium in (XFS, BTRFS):
        return serve_mounted(env, medium, size_bytes)
    image = env.image(FILE if medium == CACHED else medium, size_bytes)
    cache = "host" if medium == CACHED else "none"
    config = f"[server]\nlisten = 127.0.0.1:0\n[export disk]\npath = {image.path}\ncache = {cache}\n"
    return env.serve("--config", env.config(config), "--cores", two_cores()), image.path


# What is odd at the end; devices end with a block.
OVER = ((FILE, 700), (XFS, 513), (BTRFS, 4095), (CACHED, 1), (LOOP4096, 0), (ZRAM, 0))


@test(over=OVER, quick=OVER[:1])
def what_overlaps_is_what_some_order_leaves(env, medium, odd_bytes):
    size_bytes = SIZE_BYTES + odd_bytes
    rng = random.Random(seed_of_run())
    daemon, path = serve(env, medium, size_bytes)
    pump = Pump(daemon.uri("disk"), CONNECTIONS)
    trial = Trial(rng, pump, size_bytes)
    for _ in range(env.size(3, 2)):
        content = trial.round()
    pump.connections[0].handle.flush()
    with open(path, "rb") as image:
        same_bytes(image.read(size_bytes), content, "the image")


@test(quick=True)
def the_model_finds_what_was_lost_and_what_came_back(env):
    """Of two writes, one after the other, only the second's content may be read, of two at a time either's; of a trim also zeros."""
    del env
    before, old, new, zeros = b"....", b"old!", b"new!", bytes(4)

    def finds(got, begun, ended, *effects):
        read, spans = Span(0, got, begun), [Span(0, before, 0)]
        read.ended, spans[0].ended = ended, 0
        for content, first, last in effects:
            spans.append(Span(0, content, first, content == zeros))
            spans[-1].ended = last
        return wrong_parts(read, spans) != []

    check(finds(old, 9, 10, (old, 1, 2), (new, 3, 4)), "what came back was not found")
    check(finds(before, 9, 10, (new, 3, 4)), "what was lost was not found")
    check(finds(new, 1, 2, (new, 3, 4)), "what was not written yet was not found")
    check(finds(b"nex!", 9, 10, (old, 1, 4), (new, 2, 3)), "what nobody wrote was not found")
    check(not finds(b"nld!", 9, 10, (old, 1, 4), (new, 2, 3)), "what two wrote at a time was refused")
    check(not finds(before, 3, 5, (new, 2, 4)), "what was there during a write was refused")
    check(not finds(zeros, 9, 10, (new, 1, 2), (zeros, 3, 4)), "what was trimmed was refused")
    check(not finds(new, 9, 10, (new, 1, 2), (zeros, 3, 4)), "what a trim left was refused")
