"""One turn: one fio run of one row against one server, or against the storage itself.

A turn's figures are in a dict; a figure that a turn cannot give is absent from it.
"""

import json
import os
import shutil
import signal
import subprocess
import time

from processes import Child, ChildError, context_switches, cpu_ns, machine_busy_seconds
from servers import EXPORT
from storage import drop_cache

FIO_GRACE_SECONDS = 30
TRACER_SECONDS = 10
SYSCALL_EVENT = "raw_syscalls:sys_enter"


class Row:
    def __init__(self, storage, depth, connections):
        self.storage = storage
        self.depth = depth
        self.connections = connections
        self.name = f"{storage}-{depth}" + (f"x{connections}" if connections > 1 else "")


ROWS = [Row(storage, depth, connections) for storage in ("file", "zram")
        for depth, connections in ((1, 1), (32, 1), (32, 4))]


class Bench:
    """What all turns have in common.  Directory holds logs and fio's output."""

    def __init__(self, directory, seconds, client_cpus, server_cpus):
        self.directory = directory
        self.seconds = seconds
        self.client_cpus = client_cpus
        self.server_cpus = server_cpus
        self.turns = 0

    def scratch(self, name):
        return os.path.join(self.directory, name)

    def fio_argv(self, row, target, seconds):
        # Total latency, from the submit to the end: what libaio spends in io_submit and what
        # the nbd engine spends in send are then both inside. The seed differs from turn to
        # turn, so that no turn reads blocks which the one before it has just warmed up.
        self.turns += 1
        return ["fio", f"--name={row.name}", "--rw=randread", "--bs=4k", "--readonly",
                f"--iodepth={row.depth}", f"--numjobs={row.connections}", "--group_reporting",
                "--time_based", f"--runtime={seconds}", "--norandommap", "--randrepeat=0",
                f"--randseed={self.turns * 7919}", "--clat_percentiles=0", "--lat_percentiles=1",
                "--percentile_list=50:99", "--output-format=json",
                f"--output={self.scratch('fio.json')}"] + target

    def run_fio(self, row, target, seconds):
        """Run fio.  Returns its figures and its own CPU seconds."""
        output = self.scratch("fio.json")
        if os.path.exists(output):
            os.unlink(output)
        argv = self.fio_argv(row, target, seconds)
        with Child(argv, self.scratch("fio.log"), self.client_cpus) as fio:
            if not fio.wait(seconds + FIO_GRACE_SECONDS):
                fio.fail(f"did not end after {seconds} + {FIO_GRACE_SECONDS} s")
            if fio.status != 0:
                fio.fail(f"ended with status {fio.status}")
            client_seconds = fio.usage.ru_utime + fio.usage.ru_stime
            figures = fio_figures(output)
            figures["client_cpu_us"] = client_seconds * 1e6 / figures["requests"]
            return figures, client_seconds

    def direct_turn(self, row, path):
        """fio on the storage itself: what there is to be had."""
        drop_cache(path)
        busy = machine_busy_seconds()
        start = time.monotonic()
        figures, client_seconds = self.run_fio(
            row, ["--ioengine=libaio", "--direct=1", f"--filename={path}"], self.seconds)
        other = machine_busy_seconds() - busy - client_seconds
        figures["other_cpus"] = max(0.0, other / (time.monotonic() - start))
        return figures

    def server_turn(self, row, server, path):
        """fio against a server, with the server's cost per request."""
        drop_cache(path)
        child, port = server.start(path, self.scratch("server.log"), self.server_cpus)
        with child:
            switches = context_switches(child.pid)
            busy = machine_busy_seconds()
            start = time.monotonic()
            cpu_start_ns = cpu_ns(child.pid)
            figures, client_seconds = self.run_fio(row, nbd_target(port), self.seconds)
            used_ns = cpu_ns(child.pid) - cpu_start_ns
            other = machine_busy_seconds() - busy - client_seconds - used_ns / 1e9
            figures["other_cpus"] = max(0.0, other / (time.monotonic() - start))
            figures["cpu_us"] = used_ns / 1e3 / figures["requests"]
            end_server(child)
        # The total at the end has the switches of threads that are gone, such as the ones
        # that nbdkit starts for each connection; the few of the shutdown are in it too.
        switches = child.usage.ru_nvcsw + child.usage.ru_nivcsw - switches
        figures["switches"] = switches / figures["requests"]
        return figures

    def syscall_turn(self, row, server, path, tracer):
        """System calls per request, in a turn of its own, because counting slows the server."""
        drop_cache(path)
        child, port = server.start(path, self.scratch("server.log"), self.server_cpus)
        with child:
            with tracer(child.pid, self.scratch("tracer.log")) as counter:
                figures, _ = self.run_fio(row, nbd_target(port), min(self.seconds, 1))
                calls = counter.finish()
            end_server(child)
        return calls / figures["requests"]


def nbd_target(port):
    return ["--ioengine=nbd", f"--uri=nbd://127.0.0.1:{port}/{EXPORT}"]


def end_server(child):
    if child.ended():
        child.fail(f"ended with status {child.status} while it was measured")
    if not child.stop():
        child.fail("did not end at SIGTERM")
    if child.status not in (0, -signal.SIGTERM):
        child.fail(f"ended with status {child.status} at SIGTERM")


def fio_figures(output):
    with open(output) as report:
        text = report.read()
    job = json.loads(text[text.index("{"):])["jobs"][0]
    if job["error"] or not job["read"]["total_ios"]:
        raise ChildError(f"fio: error {job['error']}, {job['read']['total_ios']} requests")
    read = job["read"]
    percentile = read["lat_ns"]["percentile"]
    return {"iops": read["iops"], "requests": read["total_ios"],
            "mean_us": read["lat_ns"]["mean"] / 1e3,
            "p50_us": percentile["50.000000"] / 1e3, "p99_us": percentile["99.000000"] / 1e3}


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
