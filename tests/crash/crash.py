#!/usr/bin/python3
"""Kills the daemon at random moments, and looks for acknowledged writes that are gone.

    tests/crash/crash.py --daemon build/millraced --rounds 20 [--seed N] [--counts FILE]

A round: four connections write to an image for a moment, some writes with FUA and a flush now and then; the daemon is killed with
SIGKILL and started again; the whole image is read through it and compared with what was acknowledged.  Slots of the image are
rewritten again and again, each by one request at a time: blocks, runs of blocks, and pieces that begin and end anywhere, also in the
last part of a block.  In every other round they are written through the page cache (cache = host) and read with direct I/O after the
kill, in the others it is the other way round.  A slot must hold the bytes of the last write that was acknowledged; if another was on
its way, each of its sectors must hold those of the one or of the other.

Beside writes there are zeros and trims, also of all slots that share a cell of the daemon's map of extents, reads, and questions for
extents; these must fit to what a slot holds, too.  In half of the rounds the image becomes larger meanwhile, by a reload, and a
connection that came after that writes to its new part.

That is more than FUA and FLUSH promise, since the machine goes on: what the kernel has taken is not lost with the process.  What is
lost with the power is looked for by tests/sim/sim_storage.c.
"""

import argparse
import errno
import os
import random
import signal
import struct
import sys
import time

sys.dont_write_bytecode = True
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "e2e"))

import nbd  # noqa: E402

from harness import Env, Failure, check, two_cores  # noqa: E402
from pump import Pump  # noqa: E402

CONNECTIONS = 4
DEPTH = 12
SECTOR_BYTES = 512
IMAGE_BYTES = (1 << 20) + 3001  # at first
GROWTH_BYTES_MAX = 9000
CELL_BYTES = 65536
CONTEXT = "base:allocation"
STATE_ZERO = 2
STAMP = struct.Struct(">QQ")
EXPORT = "disk"
DEAD_SECONDS = 15


def slots():
    """(offset, length) of each: whole blocks, runs of them, and pieces of any alignment up to the last byte."""
    yield from ((offset, 4096) for offset in range(0, 512 << 10, 4096))
    yield from ((offset, 64 << 10) for offset in range(512 << 10, 768 << 10, 64 << 10))
    yield from pieces(768 << 10, IMAGE_BYTES)


def pieces(start, end):
    yield from ((offset, min(1111, end - offset)) for offset in range(start, end, 1111))


class Slot:
    """A part of the image: what it holds for sure, and what may be on its way there."""

    def __init__(self, index, offset, length):
        self.index = index
        self.offset = offset
        self.length = length
        self.number = 0
        self.held = [bytes(length)]  # a sector may hold any of these: more than one after a trim
        self.coming = None

    def next_write(self):
        self.number += 1
        stamp = STAMP.pack(self.index, self.number)
        self.coming = (stamp * (self.length // len(stamp) + 1))[: self.length]
        return self.coming

    def next_zeros(self):
        self.coming = bytes(self.length)

    def acknowledged(self):
        self.held, self.coming = [self.coming], None

    def trimmed(self):
        """It may hold zeros now, or what it held."""
        if self.coming not in self.held:
            self.held.append(self.coming)
        self.coming = None

    def sectors(self):
        """The slot's part of each sector, from and to."""
        start = 0
        while start < self.length:
            end = min(start + SECTOR_BYTES - (self.offset + start) % SECTOR_BYTES, self.length)
            yield start, end
            start = end

    def allowed(self, start, end):
        contents = [*self.held, self.coming] if self.coming else self.held
        return {content[start:end] for content in contents}

    def check_content(self, found):
        for start, end in self.sectors():
            allowed = self.allowed(start, end)
            check(
                found[start:end] in allowed,
                f"the sector at {self.offset + start} holds {found[start:start + 16].hex()} instead of "
                f"{' or '.join(sorted(part[:16].hex() for part in allowed))}, what slot {self.index} "
                f"was acknowledged to hold{' or the write on its way' if self.coming else ''}",
            )

    def check_extents(self, entries):
        """What is called zeros may be zeros."""
        at = 0
        for length, flags in entries:
            for start, end in self.sectors() if flags & STATE_ZERO else ():
                low, high = max(start, at), min(end, at + length)
                check(
                    low >= high or bytes(high - low) in self.allowed(low, high),
                    f"{self.offset + low} is called zeros, but slot {self.index} has data there",
                )
            at += length

    def verify(self, found):
        """FOUND is what it holds after the crash."""
        self.check_content(found)
        self.held, self.coming = [found], None


class Checker:
    def __init__(self, rng, path):
        self.rng = rng
        self.path = path
        self.size = IMAGE_BYTES
        self.slots = [Slot(index, *place) for index, place in enumerate(slots())]
        self.writes = self.durable = self.flushes = self.cut_off = self.zeros = self.looks = self.growths = 0
        self.errors = []

    def write_and_kill(self, daemon, seconds, grows):
        """Write as fast as it goes until SECONDS after the first reply; then the daemon is killed.  GROWS: after half of that the image
        becomes larger."""
        pump = Pump(daemon.uri(EXPORT), CONNECTIONS, CONTEXT)
        idle = list(self.slots)
        before, deadline = self.writes, None
        while deadline is None or time.monotonic() < deadline:
            for connection in pump.alive():
                while idle and connection.in_flight < DEPTH:
                    self.start(connection, idle)
            pump.turn()
            if deadline is None and self.writes > before:
                deadline = time.monotonic() + seconds
            if grows and deadline and time.monotonic() > deadline - seconds / 2:
                idle += self.grow(daemon, pump)
                grows = False
        daemon.process.send_signal(signal.SIGKILL)
        self.take_last_replies(pump)
        daemon.kill()
        check(not self.errors, self.errors[:5])
        self.cut_off += sum(slot.coming is not None for slot in self.slots)

    def grow(self, daemon, pump):
        """Make the image larger, and connect once more when the daemon knows.  Returns the slots of the new part."""
        before = self.size
        self.size += self.rng.randrange(1, GROWTH_BYTES_MAX)
        os.truncate(self.path, self.size)
        daemon.send_signal(signal.SIGHUP)
        while "reloaded: " not in daemon.log():
            pump.turn()
        pump.add()
        check(pump.connections[-1].handle.get_size() == self.size, "the new size is not told")
        added = [Slot(len(self.slots) + index, *place) for index, place in enumerate(pieces(before, self.size))]
        self.slots += added
        self.growths += 1
        return added

    def take_last_replies(self, pump):
        """What the daemon had sent when it died counts as acknowledged."""
        deadline = time.monotonic() + DEAD_SECONDS
        while pump.alive():
            check(time.monotonic() < deadline, "a connection outlived the daemon")
            pump.turn()

    def start(self, connection, idle):
        if self.rng.random() < 0.1:
            self.start_flush(connection)
        place = self.rng.randrange(len(idle))
        idle[place], idle[-1] = idle[-1], idle[place]
        slot = idle.pop()
        choice = self.rng.random()
        if slot.offset + slot.length > connection.handle.get_size():
            # It does not know of it: another one does, which has its turn, too.
            idle.insert(0, slot)
            self.start_flush(connection)
        elif choice < 0.7:
            self.start_write(connection, slot, idle)
        elif choice < 0.85:
            self.start_zeros(connection, self.share_of_cell(slot, idle), idle)
        else:
            self.start_look(connection, slot, idle)

    def share_of_cell(self, slot, idle):
        """SLOT; or, if nobody is at work on the others in its cell, those that make up the cell."""
        start = slot.offset // CELL_BYTES * CELL_BYTES
        cell = [other for other in self.slots if start <= other.offset < start + CELL_BYTES]
        if self.rng.random() < 0.5 or cell[0].offset != start or cell[-1].offset + cell[-1].length != start + CELL_BYTES:
            return [slot]
        others = [other for other in cell if other is not slot]
        if any(other not in idle for other in others):
            return [slot]
        for other in others:
            idle.remove(other)
        return cell

    def start_write(self, connection, slot, idle):
        durable = self.rng.random() < 0.2

        def answered(error):
            if error == 0:
                slot.acknowledged()
                self.writes += 1
                self.durable += durable
                idle.append(slot)
            elif error != errno.ENOTCONN:
                self.errors.append(f"a write of slot {slot.index} failed with {error}")

        connection.write(slot.next_write(), slot.offset, answered, nbd.CMD_FLAG_FUA if durable else 0)

    def start_zeros(self, connection, group, idle):
        """Zeros, or a trim, of the slots in GROUP, which are neighbours."""
        trim = self.rng.random() < 0.4

        def answered(error):
            if error not in (0, errno.ENOTCONN):
                self.errors.append(f"zeros of slot {group[0].index} failed with {error}")
            if error != 0:
                return
            self.zeros += 1
            for slot in group:
                slot.trimmed() if trim else slot.acknowledged()
            idle.extend(group)

        for slot in group:
            slot.next_zeros()
        flags = nbd.CMD_FLAG_FUA if self.rng.random() < 0.2 else 0
        if not trim and self.rng.random() < 0.3:
            flags |= nbd.CMD_FLAG_NO_HOLE
        count = group[-1].offset + group[-1].length - group[0].offset
        (connection.trim if trim else connection.zero)(count, group[0].offset, answered, flags)

    def start_look(self, connection, slot, idle):
        """Read it, or ask for its extents."""

        def answered(error, found):
            if error not in (0, errno.ENOTCONN):
                self.errors.append(f"a look at slot {slot.index} failed with {error}")
            if error != 0:
                return
            self.looks += 1
            try:
                slot.check_content(bytes(found)) if reads else slot.check_extents(found)
            except Failure as failure:
                self.errors.append(str(failure))
            idle.append(slot)

        reads = self.rng.random() < 0.5
        (connection.read if reads else connection.status)(slot.length, slot.offset, answered)

    def start_flush(self, connection):
        def answered(error):
            connection.in_flight -= 1
            self.flushes += error.value == 0
            if error.value not in (0, errno.ENOTCONN):
                self.errors.append(f"a flush failed with {error.value}")
            return 1

        connection.in_flight += 1
        try:
            connection.handle.aio_flush(completion=answered)
        except nbd.Error:
            connection.in_flight -= 1

    def verify(self, daemon):
        handle = nbd.NBD()
        handle.connect_uri(daemon.uri(EXPORT))
        image = handle.pread(self.size, 0)
        handle.shutdown()
        for slot in self.slots:
            slot.verify(bytes(image[slot.offset : slot.offset + slot.length]))


def serve(env, path, cache):
    text = f"[server]\nlisten = 127.0.0.1:0\n[export {EXPORT}]\npath = {path}\ncache = {cache}\n"
    return env.serve("--config", env.config(text), "--cores", two_cores())


def run_rounds(arguments, directory):
    path = os.path.join(directory, "image")
    checker = Checker(random.Random(arguments.seed), path)
    with open(path, "wb") as image:
        image.truncate(IMAGE_BYTES)
    for number in range(arguments.rounds):
        env = Env(os.path.abspath(arguments.daemon), os.path.join(directory, str(number)), False)
        first, second = ("none", "host") if number % 2 == 0 else ("host", "none")
        try:
            checker.write_and_kill(serve(env, path, first), checker.rng.uniform(0.0, 0.15), number // 2 % 2 == 1)
            daemon = serve(env, path, second)
            checker.verify(daemon)
            daemon.kill()
        except Failure as failure:
            raise Failure(f"round {number}: {failure}\n{env.daemons[-1].log()}") from None
        finally:
            env.close()
    return checker


def parse_arguments():
    parser = argparse.ArgumentParser(description="Kills millraced and looks for acknowledged writes that are gone.")
    parser.add_argument("--daemon", required=True, help="the millraced to test")
    parser.add_argument("--rounds", type=int, default=200, metavar="N", help="kills (default %(default)s)")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1000000, metavar="N", help="of its choices")
    parser.add_argument("--counts", metavar="FILE", help="write the last line to this file too")
    parser.add_argument(
        "--work",
        default="build/crash-work",
        metavar="DIR",
        help="scratch, on a disk file system: O_DIRECT is needed (default %(default)s)",
    )
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    print(f"seed {arguments.seed}", flush=True)
    os.makedirs(arguments.work, exist_ok=True)
    # An Env to end everything, whatever happens.
    whole = Env(arguments.daemon, os.path.join(os.path.abspath(arguments.work), str(os.getpid())), False)
    began = time.monotonic()
    failed = 0
    try:
        checker = run_rounds(arguments, whole.directory)
        print(
            f"{arguments.rounds} kills in {time.monotonic() - began:.0f} s: {checker.writes} writes acknowledged, "
            f"{checker.durable} of them with FUA, {checker.zeros} zeros and trims, {checker.looks} looks, {checker.flushes} flushes, "
            f"{checker.growths} times larger, {checker.cut_off} cut off on their way; "
            "none that was acknowledged is lost"
        )
    except Failure as failure:
        failed = 1
        print(f"FAIL {failure}")
    finally:
        whole.close()
    counts = f"{1 - failed} passed, {failed} failed"
    print(counts)
    if arguments.counts:
        with open(arguments.counts, "w", encoding="utf-8") as file:
            file.write(counts + "\n")
    return failed


if __name__ == "__main__":
    sys.exit(main())
