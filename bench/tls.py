#!/usr/bin/python3
"""What TLS costs millraced beside plain, and how fast it is in it beside nbdkit and qemu-nbd.

    bench/tls.py [--daemon build/millraced] [--bench build/millrace-bench] [--rounds 5] [--seconds 1]

All serve nothing but zeros, and take turns in rotating order: 4 KiB reads at depth 32 from millraced, plain and inside TLS; 256 KiB
reads at depth 8 inside TLS from each.  The servers have the first CPU, the client the last.  Certificates, simple replies.

Then nbdcopy copies a file from each inside TLS, as a user would: nobody is bound to a CPU.  The file is in the page cache, and read
from there (cache = host, --cache=writeback).

Figures are medians of the rounds, ratios those of the rounds' own ratios.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import clients  # noqa: E402
import peers  # noqa: E402
import processes  # noqa: E402
import servers  # noqa: E402
import storage  # noqa: E402
from loads import KIB, Load  # noqa: E402

SMALL = Load("read-32", depth=32)
LARGE = Load("seqread", "read", 256 * KIB, depth=8, tls=True)
TURNS = [("millraced", SMALL, False), ("millraced", SMALL, True), ("millraced", LARGE, True), ("nbdkit", LARGE, True),
         ("qemu-nbd native", LARGE, True)]
COPIED_FROM = ["millraced", "nbdkit", "qemu-nbd io_uring"]
WARM_UP_SECONDS = 0.2


def take_turn(server, load, tls_directory, client, cpus, directory, seconds):
    """Requests and MiB per second, and the server's CPU time for each request."""
    child, port = server.start("null", None, directory, cpus, tls_directory)
    with child:
        endpoint = clients.Endpoint(port, tls_directory)
        client.on_server(load, endpoint, WARM_UP_SECONDS)
        before = processes.cpu_ns(child.pid)
        figures = client.on_server(load, endpoint, seconds)
        cpu_us = (processes.cpu_ns(child.pid) - before) / 1000
    return figures["iops"], figures["mib"], cpu_us / figures["requests"]


def copy(server, image, tls_directory, directory):
    """How many MiB of IMAGE nbdcopy takes a second."""
    storage.prepare_cache("cached", image.path)
    child, port = server.start("cached", image.path, directory, None, tls_directory)
    with child:
        uri = clients.Endpoint(port, tls_directory).uri
        begun = time.monotonic()
        argv = ["nbdcopy", f"--requests={LARGE.depth}", f"--request-size={LARGE.block_bytes}", uri, "null:"]
        with processes.Child(argv, os.path.join(directory, "nbdcopy.log")) as copier:
            if not copier.wait(60) or copier.status != 0:
                copier.fail(f"copying from {server.name}")
        return image.mib / (time.monotonic() - begun)


def show_copies(rounds):
    for name in COPIED_FROM:
        mib = statistics.median(copies[name] for copies in rounds)
        ratios = [copies[COPIED_FROM[0]] / copies[name] for copies in rounds]
        text = f"; millraced has {statistics.median(ratios):.2f} ({min(ratios):.2f}..{max(ratios):.2f}) of it" if name != COPIED_FROM[0] else ""
        print(f"nbdcopy     TLS   {name:16} {mib:6,.0f} MiB/s{text}")


def show(rounds, index, text):
    """What the turn INDEX came to, and TEXT, which compares it."""
    name, load, tls = TURNS[index]
    iops, mib, cpu_us = (statistics.median(turns[index][i] for turns in rounds) for i in range(3))
    print(f"{load.block_bytes // KIB:4} KiB x {load.depth:2} {'TLS' if tls else 'plain':5} {name:16} {iops:9,.0f} /s {mib:6,.0f} MiB/s "
          f"{cpu_us:7.2f} us CPU each{text}")


def ratio(rounds, index, other, column):
    """How many times OTHER's column that of INDEX is."""
    found = [turns[index][column] / turns[other][column] for turns in rounds]
    return f"{statistics.median(found):.2f} ({min(found):.2f}..{max(found):.2f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--daemon", default="build/millraced")
    parser.add_argument("--bench", default="build/millrace-bench")
    parser.add_argument("--work", default="build", help="folder for the file that is copied")
    parser.add_argument("--file-mib", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1)
    options = parser.parse_args()
    processes.catch_ending_signals()
    cpus = sorted(os.sched_getaffinity(0))
    on_first = {server.name: server for server in servers.all_servers(options.daemon, str(cpus[0]))}
    on_all = {server.name: server for server in servers.all_servers(options.daemon, None)}
    rounds, copies = [], []
    with tempfile.TemporaryDirectory(prefix="millrace-tls-") as directory:
        tls_directory = peers.make_certificates(directory)
        if tls_directory is None:
            sys.exit(1)
        client = clients.MillraceBench(directory, {cpus[-1]}, os.path.abspath(options.bench))
        for number in range(options.rounds):
            turns = {}
            for step in range(len(TURNS)):
                index = (step + number) % len(TURNS)
                name, load, tls = TURNS[index]
                turns[index] = take_turn(on_first[name], load, tls_directory if tls else None, client, {cpus[0]}, directory,
                                         options.seconds)
            rounds.append(turns)
        with storage.FileStorage(os.path.abspath(options.work), options.file_mib, "tls.raw") as image:
            for number in range(options.rounds):
                names = COPIED_FROM[number % 3:] + COPIED_FROM[:number % 3]
                copies.append({name: copy(on_all[name], image, tls_directory, directory) for name in names})
    show(rounds, 0, "")
    show(rounds, 1, f"; its CPU is {ratio(rounds, 1, 0, 2)} of plain")
    show(rounds, 2, "")
    for index in (3, 4):
        show(rounds, index, f"; millraced has {ratio(rounds, 2, index, 1)} of its rate")
    show_copies(copies)


if __name__ == "__main__":
    main()
