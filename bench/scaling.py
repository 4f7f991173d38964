#!/usr/bin/python3
"""What a request and a connection cost millraced as connections, exports and cores become many, and what larger machines would do.

Writes the Markdown tables of doc/scaling.md to standard output.  The measured part takes about a minute; the model is
arithmetic on it, with the figures of a network and of drives that are named in its table.
"""

import argparse
import json
import os
import resource
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from processes import Child, ChildError, catch_ending_signals, cpu_ns  # noqa: E402 (the two lines above come first)
from servers import free_port  # noqa: E402

CONNECTIONS = (1, 10, 100, 1000, 10000)
EXPORTS = (1, 10, 100, 1000)
CORES = (1, 2)
UNDER_WAY = 128  # requests, over all connections; one for each if those are more
SIZES = (4096, 65536)  # bytes of a request, for what a byte costs
START_SECONDS = 30

# What is not measured here.  A frame of 1,500 bytes carries 1,448 and is 1,538 on the wire (TCP with timestamps over IPv4, preamble and
# gap included).  Drives: what data sheets of PCIe 4.0 NVMe drives promise.
NETWORK_BYTES_PER_S = 100e9 / 8 * 1448 / 1538
DRIVE_IOPS, DRIVE_BYTES_PER_S = 1e6, 7e9
MACHINES = ((8, 1), (32, 4), (64, 8))  # cores, drives


def say(text):
    print(f"scaling: {text}", file=sys.stderr, flush=True)


def resident_bytes(pid):
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def watch_peak(pid):
    """From now on peak_bytes looks."""
    with open(f"/proc/{pid}/clear_refs", "w") as clear_refs:
        clear_refs.write("5")


def peak_bytes(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM:"))


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        os.makedirs(arguments.work, exist_ok=True)

    def scratch(self, name):
        return os.path.join(self.arguments.work, name)

    def serve(self, cores, volumes):
        """A daemon on the first CORES CPUs that does not spin, with each of VOLUMES, the settings of an export, as e0, e1..."""
        port = free_port()
        with open(self.scratch("server.conf"), "w") as file:
            file.write(f"[reactor]\ncores = {','.join(map(str, sorted(os.sched_getaffinity(0))[:cores]))}\npoll-us = 0\n"
                       f"[server]\nlisten = 127.0.0.1:{port}\nmax-connections = {max(CONNECTIONS)}\n")
            for index, volume in enumerate(volumes):
                file.write(f"[export e{index}]\n{volume}\n")
        log_path = self.scratch("server.log")
        child = Child([os.path.abspath(self.arguments.daemon), "--config", self.scratch("server.conf")], log_path)
        began = time.monotonic()
        while True:
            with open(log_path) as log:
                if "info: ready" in log.read():
                    return child, port
            if child.ended() or time.monotonic() - began > START_SECONDS:
                child.stop()
                child.fail("is not ready")
            time.sleep(0.02)

    def load(self, port, export, connections, block_bytes=4096, rw="randread", requests=None):
        depth = max(1, UNDER_WAY // connections)
        output = self.scratch("bench.json")
        argv = [os.path.abspath(self.arguments.bench), "run", f"nbd://127.0.0.1:{port}/{export}", "--quiet", "--replies",
                "simple", "--connections", str(connections), "--depth", str(depth), "--bs", str(block_bytes), "--rw", rw,
                "--time", str(self.arguments.seconds), "--json", output]
        argv += ["--requests", str(requests)] if requests else []
        with Child(argv, self.scratch("bench.log")) as client:
            if not client.wait(self.arguments.seconds + 60) or client.status != 0:
                client.fail("failed")
        with open(output) as file:
            return json.load(file)["all"]

    def measure(self, child, port, export, connections, **keywords):
        """A load's figures, with the server's CPU us for a request and for a connection, which is begun, asks for one thing and
        ends, and the bytes that each added to it: of its largest size, as what was freed may have been given back."""
        watch_peak(child.pid)
        before_bytes, before_ns = resident_bytes(child.pid), cpu_ns(child.pid)
        few = self.load(port, export, connections, requests=connections, **keywords)["requests"]
        between_ns = cpu_ns(child.pid)
        figures = self.load(port, export, connections, **keywords)
        few_us, many_us = (between_ns - before_ns) / 1e3, (cpu_ns(child.pid) - between_ns) / 1e3
        figures["cost_us"] = (many_us - few_us) / max(1, figures["requests"] - few)
        figures["connect_us"] = few_us / connections
        figures["connection_bytes"] = max(0, peak_bytes(child.pid) - before_bytes) / connections
        return figures


def table(heads, rows):
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join("---:" for _ in heads) + " |"]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def connections_table(bench, cores):
    rows = []
    for connections in CONNECTIONS:
        say(f"{cores} cores, {connections} connections")
        child, port = bench.serve(cores, ["type = null\nsize = 1G"])
        with child:
            found = bench.measure(child, port, "e0", connections)
        latency = found["latency_us"]
        rows.append([f"{connections:,}", f"{max(1, UNDER_WAY // connections)}", f"{found['iops']:,.0f}",
                     f"{found['cost_us']:.2f}", f"{latency['p50']:,.0f}", f"{latency['p99']:,.0f}",
                     f"{found['connect_us']:,.0f}", f"{found['connection_bytes'] / 1024:,.1f}"])
    return table(["connections", "depth", "requests/s", "CPU us/request", "p50 us", "p99 us", "CPU us/connection",
                  "KiB/connection"], rows)


def exports_table(bench, cores):
    rows, empty_bytes = [], 0
    for exports in EXPORTS:
        say(f"{cores} cores, {exports} exports")
        began = time.monotonic()
        child, port = bench.serve(cores, ["type = null\nsize = 1G"] * exports)
        with child:
            start_ms = (time.monotonic() - began) * 1e3
            there = resident_bytes(child.pid)
            empty_bytes = empty_bytes or there
            found = bench.measure(child, port, f"e{exports - 1}", 100)
        more = max(0, there - empty_bytes) / (exports - 1) / 1024 if exports > 1 else 0
        rows.append([f"{exports:,}", f"{found['iops']:,.0f}", f"{found['cost_us']:.2f}",
                     f"{found['latency_us']['p50']:,.0f}", f"{start_ms:.0f}", f"{more:,.1f}" if exports > 1 else "-"])
    return table(["exports", "requests/s", "CPU us/request", "p50 us", "start ms", "KiB/export"], rows)


def parts(bench):
    """CPU us of one core for a request on memory and on a file, both written in full, at both sizes."""
    found = {}
    path = bench.scratch("image")
    with open(path, "wb") as file:
        for _ in range(bench.arguments.file_mib):
            file.write(os.urandom(1 << 20))
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    for name, volume in (("memory", "type = memory\nsize = 256M"), ("file", f"path = {path}")):
        child, port = bench.serve(1, [volume])
        with child:
            if name == "memory":
                bench.load(port, "e0", 4, block_bytes=1 << 20, rw="write")
            for size in SIZES:
                say(f"1 core, {name}, {size} bytes")
                found[name, size] = bench.measure(child, port, "e0", 4, block_bytes=size)["cost_us"]
    os.unlink(path)
    return found


def human(rate):
    return f"{rate / 1e6:.2f} M" if rate >= 1e6 else f"{rate / 1e3:.0f} k"


def model_table(costs):
    """What each part allows by itself; the smallest is met first."""
    rows = []
    for size in SIZES:
        for cores, drives in MACHINES:
            limits = {"cores": cores * 1e6 / costs["file", size],
                      "network": NETWORK_BYTES_PER_S / (size + 16),
                      "drives": min(drives * DRIVE_IOPS, drives * DRIVE_BYTES_PER_S / size)}
            first = min(limits, key=limits.get)
            busy = limits[first] * costs["file", size] / 1e6
            rows.append([f"{size // 1024} KiB", str(cores), str(drives), human(limits["cores"]), human(limits["network"]),
                         human(limits["drives"]), first, human(limits[first]), f"{busy:.1f}"])
    return table(["request", "cores", "drives", "cores allow", "network allows", "drives allow", "first limit", "requests/s",
                  "cores busy"], rows)


def parse_arguments():
    parser = argparse.ArgumentParser(description="Measures how millraced scales, and models larger machines.")
    parser.add_argument("--daemon", default="build/millraced")
    parser.add_argument("--bench", default="build/millrace-bench")
    parser.add_argument("--seconds", type=float, default=1, help="of each load (default 1)")
    parser.add_argument("--file-mib", type=int, default=128, help="size of the file (default 128)")
    parser.add_argument("--work", default="build/scaling-work", help="folder for the file, on the disk to be measured")
    return parser.parse_args()


def main():
    arguments = parse_arguments()
    # Ten thousand connections are as many files, in the daemon and in the load generator.
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    catch_ending_signals()
    bench = Bench(arguments)
    try:
        for cores in CORES[: len(os.sched_getaffinity(0))]:
            print(f"{cores} core{'s' if cores > 1 else ''}, connections:\n\n{connections_table(bench, cores)}", flush=True)
            print(f"{cores} core{'s' if cores > 1 else ''}, exports:\n\n{exports_table(bench, cores)}", flush=True)
        costs = parts(bench)
        print("One core, 4 connections of depth 32:\n")
        print(table(["storage", "request", "CPU us/request"],
                    [[name, f"{size // 1024} KiB", f"{cost_us:.2f}"] for (name, size), cost_us in costs.items()]))
        print(f"The model:\n\n{model_table(costs)}")
    except ChildError as error:
        sys.exit(f"scaling: {error}")
    finally:
        for name in ("server.conf", "server.log", "bench.json", "bench.log", "image"):
            if os.path.exists(bench.scratch(name)):
                os.unlink(bench.scratch(name))
        os.rmdir(arguments.work)


if __name__ == "__main__":
    main()
