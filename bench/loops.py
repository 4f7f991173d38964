#!/usr/bin/python3
"""Compares the reactor with other event loops: one small server on each, one load for all.

Rounds are interleaved: in each round every row is run against every server, in an order that
rotates from round to round, so that a slow minute of the machine hits all of them alike.
bench/README.md says how to read the result.
"""

import argparse
import contextlib
import json
import os
import platform
import resource
import shlex
import shutil
import statistics
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import storage  # noqa: E402 (the two lines above come first)
from measure import end_server  # noqa: E402
from processes import Child, ChildError, catch_ending_signals, machine_seconds  # noqa: E402
from servers import free_port  # noqa: E402

LOAD_GRACE_SECONDS = 60
FDS_BESIDE_CONNECTIONS = 64
COUNTERS_BYTES = 16
READS_BESIDE = 32
OURS = "millrace"
URING = "io_uring"


class Server:
    def __init__(self, name, program, options=(), on_epoll=False, http_only=False):
        self.name = name
        self.program = program
        self.options = list(options)
        self.on_epoll = on_epoll  # One of the loops that OURS is compared with.
        self.http_only = http_only


SERVERS = [
    Server(OURS, "millrace", ["--spin-us", "200"]),
    Server("millrace-sleep", "millrace"),
    Server("millrace-batch", "millrace", ["--spin-us", "200", "--socket-batch", "4"]),
    Server("epoll", "epoll", on_epoll=True),
    Server("epoll-edge", "epoll", ["--edge"], on_epoll=True),
    Server("libevent", "libevent", ["--edge"], on_epoll=True),
    Server("libuv", "libuv", on_epoll=True),
    Server(URING, "uring"),
    Server("evhttp", "evhttp", http_only=True),
]


class Row:
    """kind: echo, http, ready (tokens), mixed (echo beside reads) or fetch (a read per echo)."""

    def __init__(self, kind, active, many=False, disk=None):
        self.kind = kind
        self.active = active
        self.many = many  # Active ones among --connections of them.
        self.disk = disk
        self.name = f"{kind}-{disk or active}" + ("-of-many" if many else "")

    def suits(self, server):
        return self.kind == "http" or not server.http_only

    def protocol(self):
        return {"ready": "tokens", "http": "http"}.get(self.kind, "echo")


ROWS = ([Row("echo", active) for active in (1, 4, 32, 512)]
        + [Row("echo", active, many=True) for active in (1, 4, 32, 512)]
        + [Row("ready", active, many=True) for active in (1, 32, 512)]
        + [Row(kind, 32, disk=disk) for kind in ("mixed", "fetch") for disk in ("zram", "file")]
        + [Row("http", active) for active in (1, 32, 512)])


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


# ---- options


def choice(things):
    """What makes a list of THINGS from their names between commas; NAME- stands for all that
    begin so."""
    def choose(text):
        chosen = []
        for name in text.split(","):
            found = [thing for thing in things
                     if thing.name == name or name.endswith("-") and thing.name.startswith(name)]
            if not found:
                raise argparse.ArgumentTypeError(
                    f"{name}: there are " + ", ".join(thing.name for thing in things))
            chosen += found
        return [thing for thing in things if thing in chosen]
    return choose


def above_zero(kind):
    def convert(text):
        value = kind(text)
        if value <= 0:
            raise argparse.ArgumentTypeError(f"{text}: must be above 0")
        return value
    return convert


def parse_arguments():
    parser = argparse.ArgumentParser(description="Compares the reactor with other event loops.")
    parser.add_argument("--programs", default="build/loops", help="folder of the built servers")
    parser.add_argument("--rows", type=choice(ROWS), default=ROWS, metavar="LIST",
                        help="rows to run (default: all): "
                        + ", ".join(row.name for row in ROWS) + "; echo- is all of echo")
    parser.add_argument("--servers", type=choice(SERVERS), default=SERVERS, metavar="LIST",
                        help="servers to run (default: all): "
                        + ", ".join(server.name for server in SERVERS))
    parser.add_argument("--rounds", type=above_zero(int), help="rounds (default 5)")
    parser.add_argument("--seconds", type=above_zero(float), help="seconds per turn (default 2)")
    parser.add_argument("--quick", action="store_true", help="smoke run: 1 round of 0.2 s")
    parser.add_argument("--connections", type=above_zero(int), default=10000,
                        help="connections of the rows of-many (default 10000)")
    parser.add_argument("--disk-mib", type=above_zero(int), help="size of file and zram (default 256)")
    parser.add_argument("--work", default="build/loops-work", help="folder for the file")
    parser.add_argument("--server-cpu", type=int, default=0)
    parser.add_argument("--load-cpu", type=int, default=1)
    parser.add_argument("--syscalls", action="store_true",
                        help="count system calls as well, in a round of its own")
    parser.add_argument("--markdown", metavar="FILE", help="write the tables there")
    parser.add_argument("--json", metavar="FILE", help="write every round's figures there")
    arguments = parser.parse_args()
    arguments.rounds = arguments.rounds or (1 if arguments.quick else 5)
    arguments.seconds = arguments.seconds or (0.2 if arguments.quick else 2)
    arguments.disk_mib = arguments.disk_mib or (64 if arguments.quick else 256)
    arguments.connections += arguments.connections % 2  # Tokens go round in pairs of sockets.
    return arguments


def check_machine(arguments):
    for program in sorted({server.program for server in arguments.servers} | {"load"}):
        if not shutil.which(os.path.join(arguments.programs, program)):
            sys.exit(f"bench: {arguments.programs}/{program} does not exist: "
                     "./configure --install-deps=bench && ninja loops")
    cpus = os.sched_getaffinity(0)
    for cpu in (arguments.server_cpu, arguments.load_cpu):
        if cpu not in cpus:
            sys.exit(f"bench: CPU {cpu} cannot be used here; there are {sorted(cpus)}")
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    most = limit - FDS_BESIDE_CONNECTIONS & ~1
    if arguments.connections > most:
        say(f"{most} connections instead of {arguments.connections}: ulimit -n is {limit}")
        arguments.connections = most


# ---- turns


class Bench:
    def __init__(self, arguments):
        self.arguments = arguments
        self.paths = {}  # Of each kind of storage.
        self.other_cpus = []
        self.counters = os.path.join(arguments.work, "counters")
        self.log = {name: os.path.join(arguments.work, name + ".log")
                    for name in ("server", "load")}

    def server_argv(self, row, server, port):
        total = self.arguments.connections if row.many else row.active
        argv = [os.path.join(self.arguments.programs, server.program), "--counters", self.counters,
                "--connections", str(total), f"--{row.protocol()}",
                str(row.active if row.kind == "ready" else port)]
        if row.disk:
            argv += ["--disk", self.paths[row.disk]]
            argv += ["--fetch"] if row.kind == "fetch" else ["--reads", str(READS_BESIDE)]
        return argv + server.options

    def load_argv(self, row, pid, port, seconds, syscalls):
        total = self.arguments.connections if row.many else row.active
        argv = [os.path.join(self.arguments.programs, "load"), "--counters", self.counters,
                "--server", str(pid), "--seconds", str(seconds)]
        if row.kind != "ready":
            argv += [f"--{row.protocol()}", str(port), "--connections", str(total),
                     "--active", str(row.active)]
        return argv + (["--syscalls"] if syscalls else [])

    def turn(self, row, server, seconds, syscalls=False):
        """One run of the load against a server that is started for it."""
        with open(self.counters, "wb") as counters:
            counters.truncate(COUNTERS_BYTES)
        if row.disk:
            storage.prepare_cache(row.disk, self.paths[row.disk])
        port = free_port()
        (had, _), start = machine_seconds(), time.monotonic()
        with Child(self.server_argv(row, server, port), self.log["server"],
                   {self.arguments.server_cpu}) as child:
            load = Child(self.load_argv(row, child.pid, port, seconds, syscalls),
                         self.log["load"], {self.arguments.load_cpu})
            with load:
                done = load.wait(seconds + LOAD_GRACE_SECONDS)
            if child.ended():
                child.fail(f"ended with status {child.status} while it was measured")
            if not done or load.status != 0:
                load.fail(f"status {load.status}" if done else "did not end")
            end_server(child)
        used = sum(usage.ru_utime + usage.ru_stime for usage in (child.usage, load.usage))
        other = (machine_seconds()[0] - had - used) / (time.monotonic() - start)
        self.other_cpus.append(max(0.0, other))
        with open(self.log["load"]) as output:
            return figures_of(row, json.load(output))


def figures_of(row, raw):
    requests = raw["tokens"] if row.kind == "ready" else raw["replies"]
    if row.kind == "mixed":
        requests += raw["reads"]
    seconds = raw["seconds"]
    figures = {"rate": requests / seconds, "cpu_ns": raw["server_cpu_ns"] / requests,
               "busy": raw["server_cpu_ns"] / 1e9 / seconds,
               "load_busy": raw["client_cpu_ns"] / 1e9 / seconds}
    if row.disk:
        figures["replies"] = raw["replies"] / seconds
        figures["reads"] = raw["reads"] / seconds
        if not raw["reads"]:
            raise ChildError("load: no block was read")
    for name in ("p50", "p99"):
        if name + "_ns" in raw:
            figures[name + "_us"] = raw[name + "_ns"] / 1e3
    if "syscalls" in raw:
        return {"syscalls": raw["syscalls"] / requests}  # Counting has slowed the rest.
    return figures


class Run:
    def __init__(self, arguments):
        self.arguments = arguments
        self.bench = Bench(arguments)
        self.results = {row.name: {} for row in arguments.rows}
        self.problems = []
        self.descriptions = []

    def attempt(self, row, server, **options):
        """One turn; a server that fails is reported and the others go on."""
        try:
            figures = self.bench.turn(row, server, **options)
        except ChildError as error:
            self.problems.append(f"{row.name}, {server.name}: {error}")
            say(self.problems[-1])
            return
        kept = self.results[row.name].setdefault(server.name, {})
        for name, value in figures.items():
            kept.setdefault(name, []).append(value)

    def open_storage(self, stack):
        """The kinds of storage that rows want; without one, its rows are dropped."""
        for kind in storage.KINDS:
            if not any(row.disk == kind for row in self.arguments.rows):
                continue
            say(f"writing {self.arguments.disk_mib} MiB to the {kind}")
            try:
                opened = stack.enter_context(
                    storage.KINDS[kind](self.arguments.work, self.arguments.disk_mib))
            except storage.StorageError as error:
                self.problems.append(f"{kind} rows skipped: {error}")
                say(self.problems[-1])
                continue
            self.bench.paths[kind] = opened.path
            self.descriptions.append(opened.description)

    def measure(self):
        arguments = self.arguments
        with contextlib.ExitStack() as stack:
            self.open_storage(stack)
            rows = [row for row in arguments.rows if not row.disk or row.disk in self.bench.paths]
            for number in range(arguments.rounds):
                say(f"round {number + 1} of {arguments.rounds}")
                self.round(rows, number, seconds=arguments.seconds)
            if arguments.syscalls:
                say("counting system calls")
                self.round(rows, 0, seconds=min(arguments.seconds, 0.5), syscalls=True)

    def round(self, rows, number, **options):
        for row in rows:
            servers = [server for server in self.arguments.servers if row.suits(server)]
            first = number % len(servers) if servers else 0
            for server in servers[first:] + servers[:first]:
                self.attempt(row, server, **options)


# ---- report


TABLES = [  # Title, figure, format; whether less is better; None: no ratio of it is of use.
    ("server CPU, ns per request", "cpu_ns", "{:,.0f}", True),
    ("requests per second", "rate", "{:,.0f}", False),
    ("latency p50, us", "p50_us", "{:,.1f}", None),
    ("latency p99, us", "p99_us", "{:,.1f}", None),
    ("server busy, of one CPU", "busy", "{:.0%}", None),
    ("replies per second, rows with a disk", "replies", "{:,.0f}", None),
    ("disk reads per second, rows with a disk", "reads", "{:,.0f}", None),
    ("system calls per request", "syscalls", "{:.2f}", None),
]


def median(figures, figure):
    values = figures.get(figure)
    return statistics.median(values) if values else None


def cell(figures, figure, form):
    """The median, and how far the farthest round was from it."""
    value = median(figures, figure)
    if value is None:
        return "-"
    values = figures[figure]
    off = max(max(values) - value, value - min(values)) / value if value else 0
    return form.format(value) + (f" ±{off:.0%}" if len(values) > 1 else "")


def ratio_cells(row_results, figure, less_is_better):
    """OURS divided by the best of the loops on epoll, and by io_uring."""
    ours = median(row_results.get(OURS, {}), figure)
    others = [(median(row_results.get(server.name, {}), figure), server.name)
              for server in SERVERS if server.on_epoll]
    others = [pair for pair in others if pair[0]]
    uring = median(row_results.get(URING, {}), figure)
    cells = ["-", "-"]
    if ours and others:
        best, name = (min if less_is_better else max)(others)
        cells[0] = f"{ours / best:.2f} ({name})"
    if ours and uring:
        cells[1] = f"{ours / uring:.2f}"
    return cells


def table(results, servers, title, figure, form, less_is_better):
    """[[cell]] with the titles first; empty if no row has that figure."""
    lines = []
    for row, row_results in results.items():
        cells = [cell(row_results.get(server.name, {}), figure, form) for server in servers]
        if all(text == "-" for text in cells):
            continue
        if less_is_better is not None:
            cells += ratio_cells(row_results, figure, less_is_better)
        lines.append([row] + cells)
    titles = [title] + [server.name for server in servers]
    if less_is_better is not None:
        titles += [f"{OURS} / best epoll loop", f"/ {URING}"]
    return [titles] + lines if lines else []


def text_of(lines):
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join([line[0].ljust(widths[0])]
                               + [text.rjust(width) for text, width in zip(line[1:], widths[1:])])
                     for line in lines)


def markdown_of(lines):
    rule = ["---"] + ["---:"] * (len(lines[0]) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule] + lines[1:])


def facts(run):
    """[(name, value)] of what a reader needs to repeat the run and to judge it."""
    arguments = run.arguments
    found = [
        ("machine", f"{os.cpu_count()} CPUs, Linux {platform.release()}"),
        ("date", time.strftime("%Y-%m-%d", time.gmtime())),
        ("command", "`" + shlex.join(["bench/loops.py"] + sys.argv[1:]) + "`"),
        ("method", f"medians of {arguments.rounds} interleaved rounds of {arguments.seconds:g} s, "
         f"± the farthest round; servers on CPU {arguments.server_cpu}, the load on CPU "
         f"{arguments.load_cpu}; of-many: {arguments.connections:,} connections"),
    ]
    if run.descriptions:
        found.append(("storage", "; ".join(run.descriptions)))
    others = run.bench.other_cpus
    if others:
        found.append(("other load", f"{statistics.mean(others):.2f} CPUs on average, at most "
                      f"{max(others):.2f}, were busy with neither load nor server"))
    below = sorted({row for row, servers in run.results.items() for figures in servers.values()
                    if (median(figures, "busy") or 1) < 0.97}, key=list(run.results).index)
    if below:
        found.append(("not saturated", "in " + ", ".join(below) + " a server waited for the load "
                      "or the disk: its CPU per request holds, its rate is not its limit"))
    return found


def tables_of(run):
    lines = [table(run.results, run.arguments.servers, *kind) for kind in TABLES]
    return [found for found in lines if found]


def report(run):
    tables = tables_of(run)
    print("\n\n".join(text_of(lines) for lines in tables) + "\n")
    for name, value in facts(run) + [("problem", problem) for problem in run.problems]:
        print(f"{name}: {value}")
    if run.arguments.markdown:
        with open(run.arguments.markdown, "w") as target:
            target.write("\n\n".join(markdown_of(lines) for lines in tables) + "\n\n")
            target.writelines(f"- {name}: {value}\n" for name, value in facts(run))
    if run.arguments.json:
        with open(run.arguments.json, "w") as target:
            json.dump({"facts": dict(facts(run)), "results": run.results,
                       "problems": run.problems}, target, indent=1)
            target.write("\n")


# ---- main


def remove_work(bench):
    """Remove the bench's own files; a folder that holds something else stays."""
    for path in [bench.counters] + list(bench.log.values()):
        if os.path.exists(path):
            os.unlink(path)
    with contextlib.suppress(OSError):
        os.rmdir(bench.arguments.work)


def main():
    arguments = parse_arguments()
    check_machine(arguments)
    catch_ending_signals()
    os.makedirs(arguments.work, exist_ok=True)
    run = Run(arguments)
    try:
        run.measure()
    except KeyboardInterrupt:
        say("interrupted; everything it started is ended and removed")
        return 130
    finally:
        remove_work(run.bench)
    report(run)
    return 1 if run.problems else 0


if __name__ == "__main__":
    sys.exit(main())
