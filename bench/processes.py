"""Child processes and what they cost.

A Child is ended by its own id when its `with` block is left, whatever happened inside. Its cost
counts everything it did: threads that have ended, child processes that run, and those that have ended.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time

POLL_SECONDS = 0.01
PR_SET_CHILD_SUBREAPER = 36
CLOCK_OF_PROCESS = 2  # CPUCLOCK_SCHED in the kernel's posix-timers.h: nanoseconds, all threads.


ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupt(signal_number, frame):
    """The first of these signals ends the run; a second must not end the cleaning up."""
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def catch_ending_signals():
    for number in ENDING_SIGNALS:
        signal.signal(number, interrupt)


class ChildError(Exception):
    """A child that did not start, did not end, or failed; the text says what it printed."""


class Child:
    def __init__(self, argv, log_path, cpus=None):
        self.argv = argv
        self.log_path = log_path
        self.usage = None
        self.status = None
        set_affinity = (lambda: os.sched_setaffinity(0, cpus)) if cpus else None
        with open(log_path, "wb") as log:
            # A session of its own, so that Ctrl-C reaches this script alone and it ends the rest.
            self.popen = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          start_new_session=True, preexec_fn=set_affinity)
        self.pid = self.popen.pid

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.stop()

    def ended(self):
        """Reap the child if it has ended.  usage is then its whole resource use."""
        if self.status is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
                self.usage = usage
                self.popen.returncode = self.status
        return self.status is not None

    def wait(self, timeout_seconds):
        """True when the child ended in time."""
        deadline = time.monotonic() + timeout_seconds
        while not self.ended():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def stop(self, signal_number=signal.SIGTERM, timeout_seconds=10):
        """End the child.  True when it went by itself or at the signal, in time."""
        if self.ended():
            return True
        os.kill(self.pid, signal_number)
        if self.wait(timeout_seconds):
            return True
        # The group is the child's own session: it takes the jobs that fio forked along.
        os.killpg(self.pid, signal.SIGKILL)
        self.wait(timeout_seconds)
        return False

    def fail(self, what):
        """Raise ChildError with the end of what the child printed."""
        with open(self.log_path, errors="replace") as log:
            tail = " | ".join(log.read().strip().splitlines()[-5:])
        name = os.path.basename(self.argv[0])
        raise ChildError(f"{name}: {what}: {tail or 'it printed nothing'}")


class Daemon(Child):
    """A program that goes to the background: its parent ends, and it becomes this process's child (prctl(2),
    PR_SET_CHILD_SUBREAPER)."""

    def __init__(self, argv, log_path, cpus, pid_path):
        if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise ChildError("cannot adopt a daemon")
        if os.path.exists(pid_path):
            os.unlink(pid_path)
        before = tree(os.getpid())
        super().__init__(argv, log_path, cpus)
        try:
            if not self.wait(10) or self.status != 0:
                self.fail(f"ended with status {self.status} before it was in the background")
            self.status = None
            self.pid = self.read_pid(pid_path)
        except BaseException:
            for pid in set(tree(os.getpid())) - set(before):  # it may be in the background already, with any id
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise

    def read_pid(self, pid_path):
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                with open(pid_path) as file:
                    return int(file.read())
            except (OSError, ValueError):
                time.sleep(POLL_SECONDS)
        self.fail("did not write its process id")


def tree(pid):
    """PID and all its descendants that are alive."""
    pids = [pid]
    for parent in pids:  # The list grows while it is walked: children of children follow.
        try:
            for task in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{task}/children") as children:
                    pids += [int(child) for child in children.read().split()]
        except OSError:
            continue  # The task has ended since it was listed.
    return pids


def thread_count(pid):
    """Threads alive in PID's tree, the first of each process included."""
    total = 0
    for member in tree(pid):
        try:
            total += len(os.listdir(f"/proc/{member}/task"))
        except OSError:
            continue
    return total


def cpu_ns(pid):
    """CPU time of PID's tree so far: of each process that is alive its CPU clock, which keeps the time of threads that have
    ended (clock_getcpuclockid(3); the id is ~pid << 3 | clock), and what its children had that it has waited for, which the
    kernel tells in ticks."""
    total_ns = 0
    for member in tree(pid):
        try:
            total_ns += time.clock_gettime_ns((~member << 3) | CLOCK_OF_PROCESS)
            total_ns += waited_for_ticks(member) * (1_000_000_000 // os.sysconf("SC_CLK_TCK"))
        except OSError:
            continue
    return total_ns


def waited_for_ticks(pid):
    """cutime + cstime of proc_pid_stat(5), fields 16 and 17: the name, the second, may have spaces."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return int(fields[13]) + int(fields[14])


def context_switches(pid):
    """Voluntary and involuntary switches of the threads alive in PID's tree."""
    total = 0
    for member in tree(pid):
        try:
            for task in os.listdir(f"/proc/{member}/task"):
                with open(f"/proc/{member}/task/{task}/status") as status:
                    total += sum(int(line.split()[1]) for line in status if "ctxt_switches" in line)
        except OSError:
            continue
    return total


def memory_bytes(pid):
    """What PID takes: its largest resident size so far (VmHWM of proc(5)); of a tree of processes, which share much, the sum of
    what each has for itself and its part of what is shared (Pss) at this moment."""
    members = tree(pid)
    name, field = ("status", "VmHWM:") if len(members) == 1 else ("smaps_rollup", "Pss:")
    total = 0
    for member in members:
        try:
            with open(f"/proc/{member}/{name}") as file:
                total += sum(int(line.split()[1]) << 10 for line in file if line.startswith(field))
        except OSError:
            continue
    return total


class MemoryWatch:
    """The most that PID's tree took: looked at every SECONDS, and at the end, when it may have ended its children."""

    def __init__(self, pid, seconds):
        self.pid = pid
        self.seconds = seconds
        self.most = 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()

    def watch(self):
        while not self.over.wait(self.seconds):
            self.look()

    def look(self):
        self.most = max(self.most, memory_bytes(self.pid))

    def finish(self):
        self.over.set()
        self.thread.join()
        self.look()
        return self.most


def machine_seconds():
    """CPU time of the whole machine since boot: (had: user, nice, system, irq and softirq; stolen: wanted, but the host gave it to
    others)."""
    with open("/proc/stat") as stat:
        ticks = [int(field) for field in stat.readline().split()[1:9]]
    stolen = ticks.pop()
    hertz = os.sysconf("SC_CLK_TCK")
    return (sum(ticks) - ticks[3] - ticks[4]) / hertz, stolen / hertz
