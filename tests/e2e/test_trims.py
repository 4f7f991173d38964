"""A TRIM or ZEROES of terabytes beside a client that reads: it goes in slices, between which reads have their turn."""

import os
import socket
import time

import wire
from harness import FILE, MIB
from harness import check, equal, random_bytes, same_bytes, test, two_cores
from wire import EXTENDED, Wire

MEMORY = "memory"
TIB = 1 << 40
SIZE_BYTES = 2 * TIB
DATA_BYTES = MIB  # what is read, at the beginning
EXTENTS = 1500  # of a block each, far apart: what makes a TRIM of a file long
EXTENT_GAP_BYTES = 512 << 10
MEMORY_BYTES = 256 * MIB  # written, for volumes in memory
SLOW_SECONDS = 0.05  # a slice takes some milliseconds; a machine that has other things to do makes some reads slow
SLOW_SHARE_MAX = 0.4


def fragmented_file(env, content):
    path = env.file(SIZE_BYTES, content)
    fd = os.open(path, os.O_RDWR)
    try:
        for index in range(EXTENTS):
            os.posix_fallocate(fd, 2 * MIB + index * EXTENT_GAP_BYTES, 4096)
    finally:
        os.close(fd)
    return path


def volume(env, medium, content):
    if medium == FILE:
        return f"path = {fragmented_file(env, content)}"
    return f"type = memory\nsize = {SIZE_BYTES}"


def fill(client, medium, content):
    if medium == MEMORY:
        client.write(0, content)
        for offset in range(2 * MIB, MEMORY_BYTES, MIB):
            client.write(offset, content)


class Reader:
    """Reads 4 KiB, one after the other, and knows how long each took."""

    def __init__(self, client, content):
        self.client = client
        self.content = content
        self.seconds = []

    def read(self):
        offset = len(self.seconds) * 7919 % (DATA_BYTES - 4096)
        began = time.monotonic()
        same_bytes(self.client.read(offset, 4096), self.content[offset:][:4096], "a read")
        self.seconds.append(time.monotonic() - began)

    def slow_share(self):
        return sum(took for took in self.seconds if took > SLOW_SECONDS) / sum(self.seconds)

    def p99_ms(self):
        return sorted(self.seconds)[len(self.seconds) * 99 // 100] * 1e3


@test(
    over=[(FILE, "trim"), (FILE, "zeroes"), (MEMORY, "trim"), (MEMORY, "zeroes")],
    quick=[(FILE, "trim"), (MEMORY, "zeroes")],
    alone=True,
)
def terabytes_at_once_keep_no_reader_waiting(env, medium, command):
    content = random_bytes(DATA_BYTES)
    config = f"[reactor]\ncores = {two_cores()}\n[server]\nlisten = 127.0.0.1:0\n[export disk]\n{volume(env, medium, content)}\n"
    daemon = env.serve("--config", env.config(config))
    client, trimmer = env.keep(Wire(daemon.address)), env.keep(Wire(daemon.address))
    client.go("disk")
    trimmer.go("disk", style=EXTENDED)
    fill(client, medium, content)
    before, beside = Reader(client, content), Reader(client, content)
    for _ in range(500):
        before.read()
    number = wire.CMD_TRIM if command == "trim" else wire.CMD_WRITE_ZEROES
    cookie = trimmer.request(number, 2 * MIB, SIZE_BYTES - 2 * MIB)
    trimmer.sock.setblocking(False)
    began = time.monotonic()
    while not is_answered(trimmer.sock):
        beside.read()
    took = time.monotonic() - began
    trimmer.sock.settimeout(30)
    equal(trimmer.reply(), (cookie, 0, b""), f"the answer to {command}")
    told = f"{took:.2f} s, {len(beside.seconds)} reads beside it, p99 {beside.p99_ms():.1f} ms, before {before.p99_ms():.1f} ms"
    print(f"     {medium}, {command}: {told}")
    share = beside.slow_share()
    check(share < SLOW_SHARE_MAX, f"{share:.0%} of the time went to reads of more than {SLOW_SECONDS} s")
    if command == "zeroes":
        same_bytes(client.read(2 * MIB, 4096), bytes(4096), "what was zeroed")


def is_answered(sock):
    try:
        return len(sock.recv(1, socket.MSG_PEEK)) > 0
    except BlockingIOError:
        return False
