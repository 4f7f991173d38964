"""One turn: one run of one row by one client against one server, or against the storage itself.

A turn's figures are in a dict; a figure that a turn cannot give is absent from it.
"""

import os
import shutil
import signal
import subprocess
import time

from clients import Endpoint
from processes import Child, MemoryWatch, context_switches, cpu_ns, machine_busy_seconds, tree
from storage import prepare_cache

TRACER_SECONDS = 10
CHILDREN_END_SECONDS = 1
SYSCALL_TURN_SECONDS = 0.5
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
        figures = fio.on_storage(row.load, path, self.seconds, row.storage != "cached")
        figures["other_cpus"] = watch.other_cpus(figures, 0)
        return figures

    def server_turn(self, row, client, server, path):
        """A client against a server, with the server's cost per request."""
        child, endpoint = self.start(row, server, path)
        with child:
            processes = len(tree(child.pid))
            switches = context_switches(child.pid)
            cpu_start_ns = cpu_ns(child.pid)
            memory = MemoryWatch(child.pid, 0.6 * self.seconds)
            watch = Watch()
            try:
                figures = client.on_server(row.load, endpoint, self.seconds)
            finally:
                memory_bytes = memory.finish()
            # One that it has forked for a connection counts once it is ended and waited for.
            deadline = time.monotonic() + CHILDREN_END_SECONDS
            while len(tree(child.pid)) > processes and time.monotonic() < deadline:
                time.sleep(0.01)
            used_ns = cpu_ns(child.pid) - cpu_start_ns
            figures["other_cpus"] = watch.other_cpus(figures, used_ns)
            figures["cpu_us"] = used_ns / 1e3 / figures["requests"]
            figures["memory_mib"] = memory_bytes / (1 << 20)
            end_server(child)
        # The total at the end has the switches of threads and processes that are gone, such as those that nbdkit and
        # nbd-server start for each connection; the few of the shutdown are in it too.
        switches = child.usage.ru_nvcsw + child.usage.ru_nivcsw - switches
        figures["switches"] = switches / figures["requests"]
        return figures

    def syscall_turn(self, row, client, server, path, tracer):
        """System calls per request, in a turn of its own, because counting slows the server."""
        child, endpoint = self.start(row, server, path)
        with child:
            with tracer(child.pid, self.scratch("tracer.log")) as counter:
                figures = client.on_server(row.load, endpoint, SYSCALL_TURN_SECONDS)
                calls = counter.finish()
            end_server(child)
        return calls / figures["requests"]


class Watch:
    """The machine's CPU time while a turn runs."""

    def __init__(self):
        self.busy = machine_busy_seconds()
        self.start = time.monotonic()

    def other_cpus(self, figures, server_ns):
        """CPUs that were busy with neither the client nor the server."""
        client_seconds = figures["client_cpu_us"] * figures["requests"] / 1e6
        other = machine_busy_seconds() - self.busy - client_seconds - server_ns / 1e9
        return max(0.0, other / (time.monotonic() - self.start))


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
