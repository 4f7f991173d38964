"""One turn: one run of one row by one client against one server, or against the storage itself.

A turn's figures are in a dict; a figure that a turn cannot give is absent from it, or None where only this turn cannot.
"""

import os
import shutil
import signal
import subprocess
import time

from clients import Endpoint
from processes import Child, MemoryWatch, context_switches, cpu_ns, machine_seconds, thread_count
from storage import COLD, prepare_cache

TRACER_SECONDS = 10
ENDING_SECONDS = 10  # at most, for the threads and processes of connections
IDLE_SECONDS = 0.5  # what takes no more than IDLE_NS in so long does not end, but waits
IDLE_NS = 1_000_000
SYSCALL_TURN_SECONDS = 0.5
BEGIN_SECONDS = 10  # for one request on each connection
MANY_CONNECTIONS = 100  # what they cost to begin and end counts for something in a turn
SYSCALL_EVENT = "raw_syscalls:sys_enter"


class Bench:
    """What all turns have in common.  Directory holds logs and the clients' output."""

    def __init__(self, directory, seconds, server_cpus, tls_directory):
        self.directory = directory
        self.seconds = seconds
        self.server_cpus = server_cpus
        self.tls_directory = tls_directory

    def scratch(self, name):
        return os.path.join(self.directory, name)

    def start(self, row, server, path):
        prepare_cache(row.storage, path)
        tls = self.tls_directory if row.load.tls else None
        child, port = server.start(row.storage, path, self.directory, self.server_cpus, tls)
        return child, Endpoint(port, tls)

    def direct_turn(self, row, fio, path):
        """fio on the storage itself: what there is to be had."""
        prepare_cache(row.storage, path)
        watch = Watch()
        figures = fio.on_storage(row.load, path, self.seconds, row.storage != "cached", requests_of_a_pass(row, path))
        watch.finish(figures, 0)
        return figures

    def server_turn(self, row, client, server, path):
        """A client against a server, with the server's cost per request."""
        begun = self.beginning(row, client, server, path)
        child, endpoint = self.start(row, server, path)
        with child:
            memory = MemoryWatch(child.pid, 0.6 * self.seconds)
            watch = Watch()
            cost = Cost(child)
            try:
                figures = client.on_server(row.load, endpoint, self.seconds, requests_of_a_pass(row, path))
            finally:
                memory_bytes = memory.finish()
            cost.stop()
            watch.finish(figures, cost.cpu_ns)
            figures["memory_mib"] = memory_bytes / (1 << 20)
            end_server(child)
        requests = figures["requests"] - begun.requests
        figures["cpu_us"] = per_request(cost.cpu_ns / 1e3, begun.cpu_ns / 1e3, requests)
        figures["switches"] = per_request(cost.switches(), begun.switches(), requests)
        return figures

    def syscall_turn(self, row, client, server, path, tracer):
        """The figure of system calls, in a turn of its own, because counting slows the server."""
        begun = self.beginning(row, client, server, path, tracer)
        seconds = SYSCALL_TURN_SECONDS
        if begun.calls:  # they are to be the smaller part
            seconds = max(seconds, self.seconds)
        child, endpoint = self.start(row, server, path)
        with child:
            cost = Cost(child)
            with tracer(child.pid, self.scratch("tracer.log")) as counter:
                figures = client.on_server(row.load, endpoint, seconds, requests_of_a_pass(row, path))
                cost.stop()
                calls = counter.finish()
            end_server(child)
        return {"syscalls": per_request(calls, begun.calls, figures["requests"] - begun.requests)}

    def beginning(self, row, client, server, path, tracer=None):
        """The Cost of ROW's connections without its load, if they are many: begun, asked for one thing each, and ended, in a server
        of their own.  A thousand cost nbdkit, which starts 16 threads for each, as much as some ten thousand requests."""
        if row.load.connections < MANY_CONNECTIONS:
            return Nothing()
        child, endpoint = self.start(row, server, path)
        with child:
            cost = Cost(child)
            cost.requests = row.load.connections
            if tracer:
                with tracer(child.pid, self.scratch("tracer.log")) as counter:
                    client.begin(row.load, endpoint, BEGIN_SECONDS)
                    cost.stop()
                    cost.calls = counter.finish()
            else:
                client.begin(row.load, endpoint, BEGIN_SECONDS)
                cost.stop()
            end_server(child)
        return cost


def requests_of_a_pass(row, path):
    """How many there are at most: where PATH is read in sequence, and is not in the page cache, a second pass would find it there.
    None: any number."""
    if row.storage not in COLD or row.load.rw != "read":
        return None
    with open(path, "rb") as file:
        return file.seek(0, os.SEEK_END) // row.load.block_bytes


def per_request(amount, begun, requests):
    """What AMOUNT is without BEGUN, of each request.  None: more was taken off than is left, and how the two differ from turn to turn
    would be most of the figure."""
    rest = amount - begun
    return rest / max(1, requests) if rest > 0 and rest >= begun else None


class Nothing:
    """No Cost."""

    requests = cpu_ns = calls = 0

    def switches(self):
        return 0


class Cost:
    """What a server does from now on, until stop: CPU time, and, once it is ended, context switches."""

    def __init__(self, child):
        self.child = child
        self.calls = 0
        self.threads = thread_count(child.pid)
        self.switches_before = context_switches(child.pid)
        self.cpu_before_ns = cpu_ns(child.pid)

    def stop(self):
        """Wait until the threads and processes of connections, which outlive the client, have ended, and add up.  Those of a pool may
        stay: nothing is to be had from them once they are idle."""
        idle_since = began = time.monotonic()
        used_ns = cpu_ns(self.child.pid)
        while thread_count(self.child.pid) > self.threads:
            now, now_ns = time.monotonic(), cpu_ns(self.child.pid)
            if now_ns - used_ns > IDLE_NS:
                idle_since, used_ns = now, now_ns
            if now - began > ENDING_SECONDS or now - idle_since > IDLE_SECONDS:
                break
            time.sleep(0.01)
        self.cpu_ns = cpu_ns(self.child.pid) - self.cpu_before_ns

    def switches(self):
        # The total at the end has the switches of threads and processes that are gone, such as those that nbdkit and
        # nbd-server start for each connection; the few of the shutdown are in it too.
        return self.child.usage.ru_nvcsw + self.child.usage.ru_nivcsw - self.switches_before


class Watch:
    """The machine's CPU time while a turn runs."""

    def __init__(self):
        self.had, self.stolen = machine_seconds()
        self.start = time.monotonic()

    def finish(self, figures, server_ns):
        """Put into FIGURES the CPUs that were busy with neither the client nor the server, and the part that the host kept of the CPU time
        that was wanted."""
        had, stolen = machine_seconds()
        had -= self.had
        stolen -= self.stolen
        client_seconds = figures["client_cpu_us"] * figures["requests"] / 1e6
        other = had - client_seconds - server_ns / 1e9
        figures["other_cpus"] = max(0.0, other / (time.monotonic() - self.start))
        figures["stolen"] = stolen / max(had + stolen, 1e-9)


def end_server(child):
    if child.ended():
        child.fail(f"ended with status {child.status} while it was measured")
    if not child.stop():
        child.fail("did not end at SIGTERM")
    if child.status not in (0, -signal.SIGTERM):
        child.fail(f"ended with status {child.status} at SIGTERM")


class PerfCounter(Child):
    """perf stat on the system call tracepoint: about 0.1 us per call, and new threads count."""

    name = "perf stat -e " + SYSCALL_EVENT

    def __init__(self, pid, log_path):
        super().__init__(["perf", "stat", "-x,", "-e", SYSCALL_EVENT, "-p", str(pid)], log_path)
        deadline = time.monotonic() + TRACER_SECONDS
        while not self.attached():
            if self.ended() or time.monotonic() > deadline:
                self.stop()
                self.fail("does not count")
            time.sleep(0.02)

    def attached(self):
        try:
            fds = os.listdir(f"/proc/{self.pid}/fd")
            links = [os.readlink(f"/proc/{self.pid}/fd/{fd}") for fd in fds]
        except OSError:
            return False
        return any("perf_event" in link for link in links)

    def finish(self):
        self.stop(signal.SIGINT)
        with open(self.log_path) as log:
            for line in log:
                fields = line.split(",")
                if SYSCALL_EVENT in line and fields[0].isdigit():
                    return int(fields[0])
        self.fail("printed no count")


class StraceCounter(Child):
    """strace -c: exact, but each call stops the server twice."""

    name = "strace -c -f"

    def __init__(self, pid, log_path):
        super().__init__(["strace", "-c", "-f", "-p", str(pid)], log_path)
        deadline = time.monotonic() + TRACER_SECONDS
        while not traced(pid):
            if self.ended() or time.monotonic() > deadline:
                self.stop()
                self.fail("does not attach")
            time.sleep(0.02)

    def finish(self):
        self.stop(signal.SIGINT)
        with open(self.log_path) as log:
            for line in log:
                fields = line.split()
                if fields and fields[-1] == "total":
                    # The columns: % time, seconds, usecs/call, calls, and errors if any.
                    return int(fields[3])
        self.fail("printed no total")


def traced(pid):
    """True when every thread of PID has a tracer."""
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status") as status:
            if "TracerPid:\t0\n" in status.read():
                return False
    return True


def perf_works():
    """perf counts system calls here: the tracepoint exists and may be used."""
    if not shutil.which("perf"):
        return False
    try:
        result = subprocess.run(["perf", "stat", "-x,", "-e", SYSCALL_EVENT, "true"],
                                stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                timeout=20)
    except subprocess.TimeoutExpired:
        return False
    return result.returncode == 0 and result.stderr.split(",")[0].isdigit()


def choose_tracer(wanted):
    """The counter of system calls to use, or None, and what to say about it."""
    if wanted in ("auto", "perf") and perf_works():
        return PerfCounter, None
    if wanted == "perf":
        return None, "perf cannot count system calls here: apt-get install linux-perf, as root"
    if wanted in ("auto", "strace") and shutil.which("strace"):
        return StraceCounter, None
    if wanted == "none":
        return None, None
    return None, "no system calls are counted: apt-get install linux-perf or strace"
