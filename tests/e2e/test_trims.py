"""A TRIM or ZEROES of terabytes beside a client that reads: it goes in slices, between which reads have their turn.

Turns with it and without it follow each other on the same connections, so that whatever else the machine does is in both; the
client has a CPU of its own, or it would measure whom the kernel lets run.  doc/decisions/0013-trims.md has figures."""

import os
import socket
import statistics
import sys
import time

import wire
from harness import FILE, MIB, ZRAM, Skip
from harness import check, equal, random_bytes, same_bytes, start_process, test
from wire import EXTENDED, Wire

MEMORY = "memory"
TIB = 1 << 40
SIZE_BYTES = {FILE: 2 * TIB, MEMORY: 2 * TIB, ZRAM: 256 * MIB}
READ_BYTES, REPLY_BYTES = 4096, 16  # simple replies
DATA_BYTES = MIB  # what is read, at the beginning; behind it, what is trimmed
START_BYTES = 2 * MIB
EXTENTS = 300  # of a block each, far apart: what makes a TRIM of a file long
EXTENT_GAP_BYTES = 512 << 10
WRITTEN_BYTES = {MEMORY: 128 * MIB, ZRAM: 256 * MIB}
PAIRS = 7  # and as many again, twice, if those are not enough to see it
PAIRS_MIN = 3  # of those together that count
PAIR_READS_MIN = 30  # of fewer the p99 says nothing
WITHOUT_SECONDS = 0.2
PERCENTILES = (90, 99)  # the p99 is what must not double; the p90 is told better on a machine that does other things
RATIO_MAX = 2
# Keeps a CPU awake and gives way to everything.  To wake one takes a virtual machine 50 us and more, beside which a slice is little; of
# what a TRIM costs others, nothing may be hidden.
SPINNER = """
import os, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
if os.path.exists("/proc/self/autogroup"):  # of the session, in which it is alone: sched(7)
    open("/proc/self/autogroup", "w").write("19")
while True:
    pass
"""
SLOW_SECONDS = 0.05  # a read took so long beside other work on this machine, perhaps for the CPU or the file system's journal
SLOW_SHARE_MAX = 0.4  # of the time; a pair with more does not count


class Volume:
    """Can be filled again with something that a TRIM takes time for."""

    def __init__(self, env, medium, content):
        self.medium = medium
        self.bytes = SIZE_BYTES[medium]
        self.content = content
        if medium == MEMORY:
            self.settings = f"type = memory\nsize = {self.bytes}"
        else:
            self.path = env.image(medium, self.bytes).path
            self.settings = f"path = {self.path}"

    def fill(self, client):
        if self.medium == FILE:
            fd = os.open(self.path, os.O_RDWR)
            try:
                for index in range(EXTENTS):
                    os.posix_fallocate(fd, START_BYTES + index * EXTENT_GAP_BYTES, 4096)
                os.fsync(fd)
            finally:
                os.close(fd)
            return
        for offset in range(START_BYTES, WRITTEN_BYTES[self.medium], MIB):
            client.write(offset, self.content)


class Reader:
    """Reads 4 KiB, one after the other, and knows how long each took.  Does no more than it must on the way."""

    def __init__(self, client, content):
        self.sock = client.sock
        self.sock.settimeout(None)
        self.content = content
        self.answer = memoryview(bytearray(REPLY_BYTES + READ_BYTES))
        self.seconds = []

    def read(self):
        offset = len(self.seconds) * 7919 % (DATA_BYTES - READ_BYTES)
        request = wire.pack_request(wire.CMD_READ, offset, READ_BYTES)
        got, began = 0, time.monotonic()
        self.sock.sendall(request)
        while got < len(self.answer):
            count = self.sock.recv_into(self.answer[got:])
            check(count > 0, "the server has closed the connection")
            got += count
        self.seconds.append(time.monotonic() - began)
        same_bytes(self.answer[REPLY_BYTES:], self.content[offset:][:READ_BYTES], "a read")

    def slow_share(self):
        return sum(took for took in self.seconds if took > SLOW_SECONDS) / sum(self.seconds)

    def percentile(self, percent):
        return sorted(self.seconds)[len(self.seconds) * percent // 100]


class Trial:
    """Pairs of turns, without and with a COMMAND of all that is behind the data."""

    def __init__(self, env, daemon, volume, command):
        self.client, self.trimmer = env.keep(Wire(daemon.address)), env.keep(Wire(daemon.address))
        self.client.go("disk")
        self.trimmer.go("disk", style=EXTENDED)
        self.volume = volume
        self.command = command
        self.number = wire.CMD_TRIM if command == "trim" else wire.CMD_WRITE_ZEROES
        self.client.write(0, volume.content)
        self.pairs = []  # (p90 and p99 without, p90 and p99 with)
        self.slow_shares = []  # of pairs that do not count

    def pair(self):
        """Returns how many seconds the command took."""
        self.volume.fill(self.client)
        without, beside = Reader(self.client, self.volume.content), Reader(self.client, self.volume.content)
        end = time.monotonic() + WITHOUT_SECONDS
        while time.monotonic() < end:
            without.read()
        began = time.monotonic()
        cookie = self.trimmer.request(self.number, START_BYTES, self.volume.bytes - START_BYTES)
        self.trimmer.sock.setblocking(False)
        while not is_answered(self.trimmer.sock):
            beside.read()
        took = time.monotonic() - began
        self.trimmer.sock.settimeout(30)
        equal(self.trimmer.reply(), (cookie, 0, b""), "the answer")
        if beside.slow_share() > SLOW_SHARE_MAX:
            self.slow_shares.append(beside.slow_share())
        elif len(beside.seconds) >= PAIR_READS_MIN:
            self.pairs.append([reader.percentile(percent) for reader in (without, beside) for percent in PERCENTILES])
        return took

    def ratios(self):
        """How many times the p90 and the p99 without it those with it are, in the median pair."""
        return [statistics.median(pair[index + 2] / pair[index] for pair in self.pairs) for index in range(2)]

    def must_count(self, count):
        slow = ", ".join(f"{share:.0%}" for share in self.slow_shares) or "none"
        check(len(self.pairs) >= count, f"only {len(self.pairs)} pairs had {PAIR_READS_MIN} reads beside the {self.command}, most of "
              f"them within {SLOW_SECONDS} s; in others so much of the time went to slower ones: {slow}")

    def told(self):
        medians = [statistics.median(pair[index] for pair in self.pairs) * 1e6 for index in range(4)]
        without, beside = (f"p90 {p90:.0f} us and p99 {p99:.0f} us" for p90, p99 in (medians[:2], medians[2:]))
        times = " and ".join(f"{ratio:.2f}" for ratio in self.ratios())
        return f"{len(self.pairs)} pairs, without it {without}, with it {beside}; in the median pair {times} times"


def is_answered(sock):
    try:
        return len(sock.recv(1, socket.MSG_PEEK)) > 0
    except BlockingIOError:
        return False


def keep_awake(env, cpus):
    for cpu in cpus:
        env.processes.append(start_process([sys.executable, "-c", SPINNER, cpu]))


@test(
    over=[(FILE, "trim"), (FILE, "zeroes"), (MEMORY, "trim"), (MEMORY, "zeroes"), (ZRAM, "trim")],
    quick=[(FILE, "trim"), (MEMORY, "zeroes")],
    seconds=120,
    alone=True,
)
def terabytes_at_once_double_no_readers_p99(env, medium, command):
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2 and not env.quick:
        raise Skip("needs two CPUs")
    volume = Volume(env, medium, random_bytes(DATA_BYTES))
    daemon = env.serve("--config", env.config(
        f"[reactor]\ncores = {cpus[0]}\n[server]\nlisten = 127.0.0.1:0\n[export disk]\n{volume.settings}\n"
    ))
    trial = Trial(env, daemon, volume, command)
    if medium != FILE and not env.quick:  # a virtual machine's disk may want the CPUs that it sees idle
        keep_awake(env, {cpus[0], cpus[-1]})
    os.sched_setaffinity(0, {cpus[-1]})
    env.stack.callback(os.sched_setaffinity, 0, set(cpus))
    for _ in range(1 if env.quick else 3):
        for _ in range(PAIRS):
            trial.pair()
            if env.quick and trial.pairs:
                break
        if len(trial.pairs) >= PAIRS_MIN and max(trial.ratios()) <= RATIO_MAX:
            break
    trial.must_count(env.size(PAIRS_MIN, 1))
    if not env.quick:  # nor is there a figure under the sanitizers
        print(f"     {medium}, {command}: {trial.told()}")
        check(max(trial.ratios()) <= RATIO_MAX, trial.told())
    if command == "zeroes":
        same_bytes(trial.client.read(START_BYTES, 4096), bytes(4096), "what was zeroed")


@test(seconds=60, alone=True, speed=True)
def trims_with_nobody_beside_them_take_no_pauses(env):
    volume = Volume(env, FILE, random_bytes(DATA_BYTES))
    daemon = env.serve("--config", env.config(f"[server]\nlisten = 127.0.0.1:0\n[export disk]\n{volume.settings}\n"))
    trial = Trial(env, daemon, volume, "trim")
    alone, beside = [], []
    for _ in range(env.size(5, 1)):
        volume.fill(trial.client)
        time.sleep(0.2)  # so that its use before is forgotten
        began = time.monotonic()
        error, _ = trial.trimmer.call(trial.number, START_BYTES, volume.bytes - START_BYTES)
        alone.append(time.monotonic() - began)
        equal(error, 0, "error of a TRIM")
        beside.append(trial.pair())
    times = statistics.median(beside) / statistics.median(alone)
    if not env.quick:  # nor is there a figure under the sanitizers
        print(f"     a TRIM beside reads takes {times:.1f} times as long as one alone, {statistics.median(alone) * 1e3:.0f} ms")
        check(times > 1.3, f"beside reads {times:.2f} times as long")


@test(quick=True)
def trims_of_a_client_that_has_gone_hold_nobody_up(env):
    """Not the daemon's end either: what is left of them is not done."""
    path = env.file(14 * TIB)
    daemon = env.serve("--config", env.config(f"[server]\nlisten = 127.0.0.1:0\n[export disk]\npath = {path}\n"))
    client = env.keep(Wire(daemon.address))
    client.go("disk", style=EXTENDED)
    client.send(b"".join(wire.pack_extended_request(wire.CMD_TRIM, 0, 14 * TIB, cookie=index) for index in range(128)))
    time.sleep(0.1)
    client.close()
    began = time.monotonic()
    daemon.stop()
    seconds = time.monotonic() - began
    check(seconds < 12, f"{seconds:.1f} s to stop")
