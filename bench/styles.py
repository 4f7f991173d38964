#!/usr/bin/python3
"""What structured and extended replies cost beside simple ones: CPU time of millraced for each read.

    bench/styles.py [--daemon build/millraced] [--rounds 7] [--seconds 2] [--bytes 4096]

The volume is in memory and written in full, so that the storage is never what takes the time; the client is this
process on raw sockets, which sends DEPTH reads at once and counts the bytes that come back.  The styles take turns,
and each figure is the median of the rounds.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tests/e2e"))

import wire  # noqa: E402
from harness import Address  # noqa: E402

VOLUME_BYTES = 64 << 20
DEPTH = 32
WARM_UP_SECONDS = 0.5
REPLY_BYTES = {wire.SIMPLE: 16, wire.STRUCTURED: 20 + 8, wire.EXTENDED: 32 + 8}


def start(daemon, cores, log):
    command = [daemon, "--export", f"disk=memory:{VOLUME_BYTES}", "--listen", "127.0.0.1:0", "--cores", cores]
    process = subprocess.Popen(command, stderr=log)
    while True:
        log.seek(0)
        text = log.read().decode()
        if process.poll() is not None:
            sys.exit(f"the daemon has ended: {text}")
        if "info: ready" in text:
            line = next(line for line in text.splitlines() if "listening on" in line)
            return process, Address(line.split()[-1])
        time.sleep(0.01)


def fill(address):
    client = wire.Wire(address)
    client.go("disk")
    for offset in range(0, VOLUME_BYTES, 1 << 20):
        client.write(offset, os.urandom(1 << 20))
    client.close()


def connect(address, style, read_bytes):
    client = wire.Wire(address)
    client.go("disk", style=style)
    stream = b""
    for cookie in range(DEPTH):
        offset = cookie * 7919 % (VOLUME_BYTES // read_bytes) * read_bytes
        stream += client.pack(wire.CMD_READ, offset, read_bytes, 0, cookie)
    return client, stream, DEPTH * (REPLY_BYTES[style] + read_bytes)


def read_for(client, stream, count, seconds):
    """COUNT bytes come back for each STREAM.  Returns how many reads were answered."""
    buffer = memoryview(bytearray(count))
    end = time.monotonic() + seconds
    done = 0
    while time.monotonic() < end:
        client.send(stream)
        got = 0
        while got < count:
            got += client.sock.recv_into(buffer[got:])
        done += DEPTH
    return done


def cpu_us(pid):
    """On all its threads, in nanosecond resolution."""
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/schedstat", encoding="ascii") as file:
            total += int(file.read().split()[0])
    return total / 1000


def measure(process, client, stream, count, seconds):
    """CPU time for each read, and reads per second."""
    read_for(client, stream, count, WARM_UP_SECONDS)
    before = cpu_us(process.pid)
    done = read_for(client, stream, count, seconds)
    return (cpu_us(process.pid) - before) / done, done / seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--daemon", default="build/millraced")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--bytes", type=int, default=4096)
    options = parser.parse_args()
    cpus = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryFile() as log:
        process, address = start(options.daemon, str(cpus[0]), log)
        os.sched_setaffinity(0, {cpus[-1]})
        try:
            fill(address)
            clients = {style: connect(address, style, options.bytes) for style in wire.STYLES}
            figures = {style: [] for style in wire.STYLES}
            for _ in range(options.rounds):
                for style in wire.STYLES:
                    figures[style].append(measure(process, *clients[style], options.seconds))
        finally:
            process.terminate()
            process.wait()
    base = statistics.median(cpu for cpu, _ in figures[wire.SIMPLE])
    for style in wire.STYLES:
        cpu = statistics.median(cpu for cpu, _ in figures[style])
        rate = statistics.median(rate for _, rate in figures[style])
        print(f"{style:10}  {cpu:.3f} us CPU per read  {cpu / base:.3f} of simple  {rate:,.0f} reads/s")


if __name__ == "__main__":
    main()
