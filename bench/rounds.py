"""A whole run: what is measured, in which order, and what is kept of it.

Rounds are interleaved: in each round every row of every kind of storage is run against every server, in an order that rotates
from round to round, so that a slow minute of the machine hits all of them alike.  A row counts when all of its servers had
their turn: a run that is cut short, by --minutes or by a signal, leaves whole rows, and says which have fewer rounds.
"""

import contextlib
import os
import subprocess
import sys
import time

import clients
import loads
import measure
import report
import storage
from processes import ChildError

# A turn in which the host kept more than this part of the CPU time that was wanted is taken again, so often at most in all, and does
# not count if the same server had a better one.
STOLEN_MAX = 0.05
TURNS_MAX = 3

# The round of system calls comes behind this one: before it there is nothing to say, and later ones may find no time.
ROUNDS_BEFORE_SYSCALLS = 2

# How a turn may fail, alone: the others go on.
FAILURES = (ChildError, OSError, ValueError, LookupError, subprocess.SubprocessError)


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Run:
    """RESULTS: see report.py.  PROBLEMS: what went wrong.  DESCRIPTIONS: of what was served, by kind of storage."""

    def __init__(self, arguments, chosen, tracer, tls):
        self.arguments = arguments
        self.servers = chosen
        self.tracer = tracer
        self.bench = measure.Bench(arguments.work, arguments.seconds, arguments.server_cpu_set, tls)
        self.fio = clients.Fio(arguments.work, arguments.client_cpus)
        names = arguments.clients.split(",")
        made = {"fio": self.fio,
                "millrace-bench": clients.MillraceBench(arguments.work, arguments.client_cpus,
                                                         os.path.abspath(arguments.bench))}
        self.clients = [made[name] for name in ("millrace-bench", "fio") if name in names]
        self.rows = [row for row in arguments.rows if tls or not row.load.tls]
        self.results = {}
        self.row_seconds = {}  # that each took
        self.taken_again = 0
        self.problems = []
        self.descriptions = {}
        self.storages = {}  # by kind
        self.paths = {}  # by kind of storage; None: the servers have it in themselves
        self.written = set()  # kinds of storage that a row has written to since they were filled
        self.interrupted = False
        self.began = time.monotonic()

    # ---- one row

    def clients_of(self, row):
        found = [client for client in self.clients if client.can(row.load)]
        return found if row.name in loads.SECOND_CLIENT else found[:1]

    def turns(self, row):
        """[(table, server's name, what measures it)] of ROW.  What another client has measured is a table of its own."""
        path = self.paths[row.storage]
        found = []
        if path and row.load.connections <= clients.FIO_CONNECTIONS_MAX and not row.load.tls:
            found.append((row.name, report.DIRECT, lambda: self.bench.direct_turn(row, self.fio, path)))
        for client in self.clients_of(row):
            table = row.name if client is self.clients[0] else f"{row.name} ({client.name})"
            for server in self.servers:
                if server.can(row):
                    found.append((table, server.name, lambda client=client, server=server:
                                  self.bench.server_turn(row, client, server, path)))
        return found

    def measure_row(self, turns):
        """All TURNS of a row.  A server that fails is reported and the others go on."""
        found = []
        for table, name, turn in turns:
            try:
                found.append((table, name, self.undisturbed(turn, f"{table}, {name}")))
            except FAILURES as error:
                self.fail(f"{table}, {name}", error)
        for table, name, figures in found:
            for figure, value in figures.items():
                self.results.setdefault(table, {}).setdefault(name, {}).setdefault(figure, []).append(value)

    def fail(self, what, error):
        text = str(error) if isinstance(error, ChildError) else f"{type(error).__name__}: {error}"
        self.problems.append(f"{what}: {text}")
        say(self.problems[-1])

    def undisturbed(self, turn, what):
        """The figures of TURN; of several the one from which least was stolen."""
        best = turn()
        for _ in range(TURNS_MAX - 1):
            if best.get("stolen", 0) <= STOLEN_MAX:
                break
            self.taken_again += 1
            try:
                best = min(best, turn(), key=lambda figures: figures["stolen"])
            except FAILURES as error:
                self.fail(f"{what}, taken again", error)
                break
        return best

    def refill(self, row):
        """Before a ROW that reads: what the rows before it wrote may be unlike what is to be read.  False: that fails."""
        if row.load.writes:
            self.written.add(row.storage)
        elif row.storage in self.written:
            try:
                self.storages[row.storage].refill()
            except OSError as error:
                self.fail(f"{row.name}, to be filled again", error)
                return False
            self.written.remove(row.storage)
        return True

    def syscall_turns(self, row):
        path = self.paths[row.storage]
        return [(row.name, server.name, lambda client=client, server=server:
                 self.bench.syscall_turn(row, client, server, path, self.tracer))
                for client in self.clients_of(row)[:1] for server in self.servers if server.can(row)]

    # ---- all of them

    def is_time_for(self, row):
        minutes = self.arguments.minutes
        return not minutes or time.monotonic() + self.row_seconds.get(row.name, 0) <= self.began + minutes * 60

    def measure_round(self, rows, what, turns_of):
        """Measure TURNS_OF each row.  False: there is no time left."""
        say(f"{what}, after {(time.monotonic() - self.began) / 60:.1f} minutes")
        for row in rows:
            turns = turns_of(row)
            if not turns:
                continue
            if not self.is_time_for(row):
                say(f"no time for {row.name} and what follows")
                return False
            began = time.monotonic()
            if self.refill(row):
                self.measure_row(turns)
            self.row_seconds[row.name] = max(self.row_seconds.get(row.name, 0), time.monotonic() - began)
        return True

    def full_turns(self, row, number):
        turns = self.turns(row)
        first = number % max(1, len(turns))
        return turns[first:] + turns[:first]

    def measure_rounds(self, rows):
        count = self.arguments.rounds
        for number in range(count):
            what = f"round {number + 1} of {count}"
            if not self.measure_round(rows, what, lambda row: self.full_turns(row, number)):
                return
            if self.tracer and number + 1 == min(count, ROUNDS_BEFORE_SYSCALLS):
                what = f"counting system calls with {self.tracer.name}"
                if not self.measure_round(rows, what, self.syscall_turns):
                    return

    def open_storage(self, stack, kind):
        mib = {"file": self.arguments.file_mib, "xfs": self.arguments.file_mib, "cached": self.arguments.file_mib,
               "zram": self.arguments.zram_mib}.get(kind)
        if mib:
            say(f"writing {mib} MiB to the {kind}")
        try:
            opened = stack.enter_context(storage.KINDS[kind](self.arguments.work, mib))
        except storage.StorageError as error:
            self.problems.append(f"{kind} rows skipped: {error}")
            say(self.problems[-1])
            return
        self.storages[kind] = opened
        self.paths[kind] = opened.path
        self.descriptions[kind] = opened.description.removeprefix(f"{kind}: ")

    def measure(self):
        with contextlib.ExitStack() as stack:
            try:
                for kind in storage.KINDS:
                    if any(row.storage == kind for row in self.rows):
                        self.open_storage(stack, kind)
                self.measure_rounds([row for row in self.rows if row.storage in self.paths])
            except KeyboardInterrupt:
                self.interrupted = True
                self.problems.append(f"interrupted after {(time.monotonic() - self.began) / 60:.0f} minutes")
                say(self.problems[-1])
        self.settle()
        self.tidy()

    def settle(self):
        """Of each server's turns of a row those count from which little was stolen; if there is none, the best of them.  What they
        could not tell is left out."""
        for servers in self.results.values():
            for figures in servers.values():
                stolen = figures.get("stolen", [])
                limit = max(STOLEN_MAX, min(stolen, default=0))
                for figure, values in list(figures.items()):
                    if len(values) == len(stolen):  # system calls are counted in turns of their own
                        values = [value for value, part in zip(values, stolen) if part <= limit]
                    figures[figure] = [value for value in values if value is not None]
                    if not figures[figure]:
                        del figures[figure]

    def tidy(self):
        """Tables in the order of the storages and loads, not in that of the run; and what was not measured is a problem."""
        order = {row.name: number for number, row in enumerate(loads.BY_STORAGE)}
        self.results = dict(sorted(self.results.items(), key=lambda table: order[table[0].partition(" ")[0]]))
        missing = [row.name for row in self.rows if row.storage in self.paths and row.name not in self.results]
        if missing:
            self.problems.append("not measured: " + ", ".join(missing))

    # ---- what is said of it

    def rounds_text(self):
        """How many there were of a row, at least and at most."""
        counts = [len(figures["iops"]) for table, servers in self.results.items() for figures in servers.values()
                  if "iops" in figures]
        if not counts:
            return "no"
        return f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"

    def of_each_turn(self, figure):
        return [value for row in self.results.values() for figures in row.values() for value in figures.get(figure, [])]
