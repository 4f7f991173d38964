#!/usr/bin/python3
"""Compares millraced with other NBD servers and with fio on the storage itself.

Rounds are interleaved: in each round every row is run against every server, in an order that
rotates from round to round, so that a slow minute of the machine hits all of them alike.
bench/README.md says how to read the result.
"""

import argparse
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import measure  # noqa: E402 (the two lines above come first)
import report  # noqa: E402
import servers  # noqa: E402
import storage  # noqa: E402
from processes import ChildError  # noqa: E402


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def cpu_set(text):
    """{0, 1, 2, 3, 8} of "0-3,8"."""
    cpus = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        cpus.update(range(int(first), int(last or first) + 1))
    if not cpus or not cpus <= os.sched_getaffinity(0):
        raise argparse.ArgumentTypeError(f"{text}: not all of these CPUs can be used here")
    return cpus


def row_list(text):
    """The rows named by "file-1,zram": a row's name, or a storage for all of its rows."""
    wanted = text.split(",")
    known = {row.name for row in measure.ROWS} | {row.storage for row in measure.ROWS}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]}: no such row; there are "
                                         + ", ".join(row.name for row in measure.ROWS))
    return [row for row in measure.ROWS if row.name in wanted or row.storage in wanted]


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be 1 or more")
    return value


def parse_arguments():
    parser = argparse.ArgumentParser(description="Compares millraced with its peers.")
    parser.add_argument("--daemon", default="build/millraced", help="millraced's path")
    parser.add_argument("--cores", help="passed on to millraced (default: its own choice)")
    parser.add_argument("--rounds", type=positive, help="rounds (default 5)")
    parser.add_argument("--seconds", type=positive, help="seconds per turn (default 3)")
    parser.add_argument("--rows", type=row_list, default=measure.ROWS, metavar="LIST",
                        help="rows to run: " + ", ".join(row.name for row in measure.ROWS)
                        + ", or file, zram")
    parser.add_argument("--servers", metavar="LIST", help="servers to run (default: all)")
    parser.add_argument("--quick", action="store_true",
                        help="smoke run: 1 round of 1 s on small storage")
    parser.add_argument("--file-mib", type=positive, help="size of the file (default 1024)")
    parser.add_argument("--zram-mib", type=positive, help="size of the zram (default 512)")
    parser.add_argument("--work", default="build/bench-work",
                        help="folder for the file, on the disk to be measured")
    parser.add_argument("--syscalls", choices=("auto", "perf", "strace", "none"), default="auto",
                        help="what counts system calls (default: perf, else strace)")
    parser.add_argument("--client-cpus", type=cpu_set, metavar="LIST", help="fio's CPUs")
    parser.add_argument("--server-cpus", metavar="LIST",
                        help="the servers' CPUs; also millraced's --cores if that is not given")
    parser.add_argument("--markdown", metavar="FILE", help="write the table there")
    parser.add_argument("--json", metavar="FILE", help="write every round's figures there")
    arguments = parser.parse_args()
    small = arguments.quick
    arguments.rounds = arguments.rounds or (1 if small else 5)
    arguments.seconds = arguments.seconds or (1 if small else 3)
    arguments.file_mib = arguments.file_mib or (128 if small else 1024)
    arguments.zram_mib = arguments.zram_mib or (64 if small else 512)
    arguments.server_cpu_set = None
    if arguments.server_cpus:
        try:
            arguments.server_cpu_set = cpu_set(arguments.server_cpus)
        except (ValueError, argparse.ArgumentTypeError) as error:
            parser.error(f"--server-cpus: {error}")
        arguments.cores = arguments.cores or arguments.server_cpus
    return arguments


def check_fio():
    """fio is the client of every turn: nothing can be measured without it."""
    if not shutil.which("fio"):
        sys.exit("bench: fio is not installed: apt-get install fio")
    engines = subprocess.run(["fio", "--enghelp"], capture_output=True, text=True, timeout=10)
    for engine in ("nbd", "libaio"):
        if engine not in engines.stdout.split():
            sys.exit(f"bench: this fio has no {engine} engine: apt-get install fio")


def choose_servers(arguments):
    """The servers that are wanted and here; says what is missing."""
    everything = servers.all_servers(arguments.daemon, arguments.cores)
    if arguments.servers:
        wanted = arguments.servers.split(",")
        names = [server.name for server in everything]
        for name in wanted:
            if name not in names:
                sys.exit(f"bench: no server {name}; there are {', '.join(names)}")
        everything = [server for server in everything if server.name in wanted]
    for server in everything:
        if server.missing():
            say(f"without {server.missing()}")
    return [server for server in everything if not server.missing()]


def open_storage(kind, arguments):
    mib = {"file": arguments.file_mib, "zram": arguments.zram_mib}[kind]
    say(f"writing {mib} MiB to the {kind}")
    return storage.KINDS[kind](arguments.work, mib)


class Run:
    def __init__(self, arguments, chosen, tracer):
        self.arguments = arguments
        self.servers = chosen
        self.tracer = tracer
        self.bench = measure.Bench(arguments.work, arguments.seconds, arguments.client_cpus,
                                   arguments.server_cpu_set)
        names = [report.DIRECT] + [server.name for server in chosen]
        self.results = {row.name: {name: {} for name in names} for row in arguments.rows}
        self.problems = []
        self.descriptions = {}

    def record(self, row, name, figures):
        for figure, value in figures.items():
            self.results[row.name][name].setdefault(figure, []).append(value)

    def attempt(self, row, name, turn):
        """One turn; a server that fails is reported and the others go on."""
        try:
            self.record(row, name, turn())
        except ChildError as error:
            self.problems.append(f"{row.name}, {name}: {error}")
            say(self.problems[-1])

    def turns(self, row, path):
        """[(server's name, what measures it)] of one row."""
        found = [(report.DIRECT, lambda: self.bench.direct_turn(row, path))]
        for server in self.servers:
            found.append((server.name,
                          lambda server=server: self.bench.server_turn(row, server, path)))
        return found

    def measure_storage(self, kind):
        """All rounds of KIND's rows, then one round that counts system calls."""
        rows = [row for row in self.arguments.rows if row.storage == kind]
        with open_storage(kind, self.arguments) as opened:
            self.descriptions[kind] = opened.description
            for number in range(self.arguments.rounds):
                say(f"{kind}: round {number + 1} of {self.arguments.rounds}")
                for row in rows:
                    turns = self.turns(row, opened.path)
                    first = number % len(turns)
                    for name, turn in turns[first:] + turns[:first]:
                        self.attempt(row, name, turn)
            if self.tracer:
                self.count_syscalls(rows, opened.path)

    def count_syscalls(self, rows, path):
        say(f"counting system calls with {self.tracer.name}")
        for row in rows:
            for server in self.servers:
                self.attempt(row, server.name, lambda: {
                    "syscalls": self.bench.syscall_turn(row, server, path, self.tracer)})

    def measure(self):
        for kind in storage.KINDS:
            if any(row.storage == kind for row in self.arguments.rows):
                try:
                    self.measure_storage(kind)
                except storage.StorageError as error:
                    self.problems.append(f"{kind} rows skipped: {error}")
                    say(self.problems[-1])

    def other_cpus(self):
        """The machine's CPU time that was neither fio's nor the server's, per turn."""
        return [value for row in self.results.values() for figures in row.values()
                for value in figures.get("other_cpus", [])]


def cpu_model():
    with open("/proc/cpuinfo") as info:
        for line in info:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def facts(run):
    """[(name, value)] of everything that a reader needs to repeat the run."""
    arguments = run.arguments
    placement = (f"fio on CPUs {sorted(arguments.client_cpus)}" if arguments.client_cpus
                 else "fio not pinned")
    placement += (f", servers on CPUs {arguments.server_cpus}" if arguments.server_cpus
                  else ", servers not pinned by the bench")
    programs = [servers.version_of("fio")]
    programs += dict.fromkeys(server.version() for server in run.servers)
    found = [
        ("machine", f"{cpu_model()}, {os.cpu_count()} CPUs, Linux {platform.release()}"),
        ("date", time.strftime("%Y-%m-%d", time.gmtime())),
        ("storage", "; ".join(run.descriptions.values())),
        ("versions", "; ".join(programs)),
        ("command", "`" + shlex.join(["bench/peers.py"] + sys.argv[1:]) + "`"),
        ("method", f"4 KiB random reads, medians of {arguments.rounds} interleaved rounds of "
         f"{arguments.seconds} s; {placement}"),
        ("system calls", run.tracer.name if run.tracer else "not counted"),
    ]
    for server in run.servers:
        path = "IMAGE"
        argv = server.argv(path, "PORT")
        found.append((server.name, "`" + shlex.join([os.path.basename(argv[0])] + argv[1:]) + "`"))
    others = run.other_cpus()
    if others:
        found.append(("other load", f"{sum(others) / len(others):.2f} CPUs on average, at most "
                      f"{max(others):.2f}, were busy with neither fio nor the server (the kernel's "
                      "own threads included)"))
    return found


def write_json(path, run):
    with open(path, "w") as target:
        json.dump({"facts": dict(facts(run)), "results": run.results, "problems": run.problems},
                  target, indent=1)
        target.write("\n")


def print_results(run):
    for row in run.results:
        print(report.text_table(run.results, row) + "\n")
    for met, sentence in report.aims(run.results):
        print(f"aim {'met' if met else 'MISSED'}: {sentence}")
    for name, value in facts(run):
        print(f"{name}: {value}")
    for problem in run.problems:
        print(f"problem: {problem}")


ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupt(signal_number, frame):
    """The first of these signals ends the run; a second must not end the cleaning up."""
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def remove_work(path):
    """Remove the bench's own files; a folder that holds something else stays."""
    for name in ("fio.json", "fio.log", "server.log", "tracer.log"):
        if os.path.exists(os.path.join(path, name)):
            os.unlink(os.path.join(path, name))
    try:
        os.rmdir(path)
    except OSError:
        pass


def main():
    arguments = parse_arguments()
    check_fio()
    chosen = choose_servers(arguments)
    tracer, remark = measure.choose_tracer(arguments.syscalls)
    if remark:
        say(remark)
    for number in ENDING_SIGNALS:
        signal.signal(number, interrupt)
    os.makedirs(arguments.work, exist_ok=True)
    run = Run(arguments, chosen, tracer)
    try:
        run.measure()
    except KeyboardInterrupt:
        say("interrupted; everything it started is ended and removed")
        return 130
    finally:
        remove_work(arguments.work)
    print_results(run)
    if arguments.markdown:
        with open(arguments.markdown, "w") as target:
            target.write(report.markdown(run.results, facts(run)))
    if arguments.json:
        write_json(arguments.json, run)
    return 1 if run.problems else 0


if __name__ == "__main__":
    sys.exit(main())
