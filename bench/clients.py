"""The clients that put a load on a server, or on the storage itself: fio, and millrace-bench.  For so many seconds, or with REQUESTS
until these are done, if that is earlier.

Each gives figures of the same names: iops, requests, mib (per second), p50_us, p99_us, p999_us, and client_cpu_us per
request.
"""

import json
import os

from processes import Child, ChildError
from servers import EXPORT

GRACE_SECONDS = 30
FIO_CONNECTIONS_MAX = 64  # fio has a process for each


class Client:
    def __init__(self, directory, cpus):
        self.directory = directory
        self.cpus = cpus
        self.turns = 0

    def scratch(self, name):
        return os.path.join(self.directory, name)

    def run(self, argv, output, log, seconds):
        """Run the client.  Returns what it wrote to OUTPUT, and its CPU seconds."""
        if os.path.exists(output):
            os.unlink(output)
        with Child(argv, self.scratch(log), self.cpus) as child:
            if not child.wait(seconds + GRACE_SECONDS):
                child.fail(f"did not end after {seconds} + {GRACE_SECONDS} s")
            if child.status != 0:
                child.fail(f"ended with status {child.status}")
            try:
                with open(output) as file:
                    text = file.read()
                report = json.loads(text[text.index("{"):])
            except (OSError, ValueError) as error:
                child.fail(f"wrote no result: {error}")
            return report, child.usage.ru_utime + child.usage.ru_stime


class Fio(Client):
    name = "fio"

    def can(self, load):
        # Its NBD engine has TLS only as far as the URI says, and no file of keys there.
        return load.connections <= FIO_CONNECTIONS_MAX and not load.tls

    def argv(self, load, target, seconds, requests):
        # Total latency, from the submit to the end: what libaio spends in io_submit and what the nbd engine spends in send
        # are then both inside.  The seed differs from turn to turn, so that no turn reads what the last one has warmed up.
        self.turns += 1
        argv = ["fio", f"--name={load.name}", f"--rw={load.rw}", f"--bs={load.block_bytes}", f"--iodepth={load.depth}",
                f"--numjobs={load.connections}", "--group_reporting", f"--runtime={int(seconds * 1000)}ms",
                "--norandommap", "--randrepeat=0", f"--randseed={self.turns * 7919}", "--clat_percentiles=0",
                "--lat_percentiles=1", "--percentile_list=50:99:99.9", "--output-format=json",
                f"--output={self.scratch('fio.json')}"]
        if requests is None:  # else it ends with the file, of which they are all
            argv.append("--time_based")
        if not load.writes:
            argv.append("--readonly")
        if load.flush_every:
            argv.append(f"--fsync={load.flush_every}")
        if load.read_percent is not None:
            argv.append(f"--rwmixread={load.read_percent}")
        return argv + target

    def measure(self, load, target, seconds, requests):
        report, cpu_seconds = self.run(self.argv(load, target, seconds, requests), self.scratch("fio.json"), "fio.log", seconds)
        return fio_figures(report["jobs"][0], load, cpu_seconds)

    def on_storage(self, load, path, seconds, direct=True, requests=None):
        target = ["--ioengine=libaio", f"--direct={int(direct)}", f"--invalidate={int(direct)}", f"--filename={path}"]
        return self.measure(load, target, seconds, requests)

    def on_server(self, load, endpoint, seconds, requests=None):
        return self.measure(load, ["--ioengine=nbd", f"--uri={endpoint.uri}"], seconds, requests)


def fio_figures(job, load, cpu_seconds):
    halves = [job[half] for half in ("read", "write") if job[half]["total_ios"]]
    requests = sum(half["total_ios"] for half in halves)
    if job["error"] or not requests:
        raise ChildError(f"fio: error {job['error']}, {requests} requests")
    # Of a mix, the latencies are those of its larger half.
    largest = max(halves, key=lambda half: half["total_ios"])
    percentile = largest["lat_ns"]["percentile"]
    iops = sum(half["iops"] for half in halves)
    return {"iops": iops, "requests": requests, "mib": iops * load.block_bytes / (1 << 20),
            "p50_us": percentile["50.000000"] / 1e3, "p99_us": percentile["99.000000"] / 1e3,
            "p999_us": percentile["99.900000"] / 1e3, "client_cpu_us": cpu_seconds * 1e6 / requests}


class MillraceBench(Client):
    name = "millrace-bench"

    def __init__(self, directory, cpus, program):
        super().__init__(directory, cpus)
        self.program = program

    def can(self, load):
        return True

    def argv(self, load, uri, seconds, requests=None):
        self.turns += 1
        # Simple replies are what every server has; in others a hole would be told instead of read.
        argv = [self.program, "run", uri, "--quiet", "--replies", "simple", "--rw", load.rw, "--bs",
                str(load.block_bytes), "--depth", str(load.depth), "--connections", str(load.connections), "--time",
                str(seconds), "--seed", str(self.turns * 7919), "--json", self.scratch("bench.json")]
        if load.flush_every:
            argv += ["--mix", f"write={load.flush_every},flush=1"]
        elif load.read_percent is not None:
            argv += ["--mix", f"read={load.read_percent},write={100 - load.read_percent}"]
        if requests is not None:
            argv += ["--requests", str(requests)]
        if self.cpus:  # each has a thread, and a connection at least
            argv += ["--cores", ",".join(map(str, sorted(self.cpus)[-load.connections:]))]
        return argv

    def begin(self, load, endpoint, seconds):
        """Make the connections, ask for one thing on each, and end them."""
        self.run(self.argv(load, endpoint.uri, seconds, load.connections), self.scratch("bench.json"), "bench.log", seconds)

    def on_server(self, load, endpoint, seconds, requests=None):
        argv = self.argv(load, endpoint.uri, seconds, requests)
        report, cpu_seconds = self.run(argv, self.scratch("bench.json"), "bench.log", seconds)
        return bench_figures(report, cpu_seconds)


def bench_figures(report, cpu_seconds):
    """As fio counts, so that the two can be compared: a flush is no request, and of a mix the latencies are those of its larger
    half."""
    halves = [report["kinds"][half] for half in ("read", "write") if half in report["kinds"]]
    requests = sum(half["requests"] for half in halves)
    if not requests:
        raise ChildError("millrace-bench: no requests")
    latency = max(halves, key=lambda half: half["requests"])["latency_us"]
    return {"iops": sum(half["iops"] for half in halves), "requests": requests,
            "mib": sum(half["bytes_per_second"] for half in halves) / (1 << 20), "p50_us": latency["p50"],
            "p99_us": latency["p99"], "p999_us": latency["p99.9"], "client_cpu_us": cpu_seconds * 1e6 / requests}


class Endpoint:
    """Where a server is reached."""

    def __init__(self, port, tls_directory=None):
        scheme, query = ("nbds", f"?tls-certificates={tls_directory}") if tls_directory else ("nbd", "")
        self.uri = f"{scheme}://127.0.0.1:{port}/{EXPORT}{query}"
