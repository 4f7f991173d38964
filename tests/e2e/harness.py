"""What every end-to-end test stands on: a scratch directory, images and loop devices, a daemon with its log, clients.

A test is a function marked with @test that takes an Env.  Everything it makes through the Env (processes, sockets,
devices, files) is undone when it ends, however it ends; processes are ended by their pid.  A test that passes also
has its daemons stopped with SIGTERM, which must exit 0 and leave no sanitizer report in the log.
"""

import contextlib
import ctypes
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse

MIB = 1 << 20
STOP_SECONDS = 15  # a daemon told to stop has exited by then
READY_SECONDS = 30
UNIX_PATH_BYTES = 100  # sun_path holds 108; leave room
SANITIZER = re.compile(r"AddressSanitizer|LeakSanitizer|ThreadSanitizer|runtime error:")
BROKEN = re.compile(SANITIZER.pattern + "|check failed")
STOLEN_TICKS = 5  # with so much taken during it or less, a failure is the daemon's or the test's

FILE = "file"
LOOP512 = "loop512"
LOOP4096 = "loop4096"
ZRAM = "zram"
TCP = "tcp"
TCP6 = "tcp6"
UNIX = "unix"

PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


class Failure(Exception):
    """The daemon did not do what the test asked of it."""


class WrongData(Failure):
    """Bytes are not what they must be: however slow this machine is."""


class Skip(Exception):
    """The test can't run here; says why."""


class TimeLimit(BaseException):
    """Raised in the main thread by the timer; not an Exception, so that no test swallows it."""


def check(condition, what):
    if not condition:
        raise Failure(what)


def equal(got, wanted, what):
    if got != wanted:
        raise Failure(f"{what}: got {got!r}, expected {wanted!r}")


def wait_until(condition, seconds, what):
    """Poll CONDITION until it is true; returns its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        check(time.monotonic() < deadline, f"not within {seconds} s: {what}")
        time.sleep(0.01)


def wait_for_listener(path, who):
    """Until WHO takes connections at the Unix socket PATH, which is there a moment before."""

    def accepts():
        with socket.socket(socket.AF_UNIX) as sock:
            return sock.connect_ex(path) == 0

    wait_until(accepts, 30, f"{who} listens")


def first_difference(left, right):
    """The offset of the first byte that differs, or the shorter length."""
    count = min(len(left), len(right))
    step = 65536
    for start in range(0, count, step):
        if left[start : start + step] != right[start : start + step]:
            for offset in range(start, min(start + step, count)):
                if left[offset] != right[offset]:
                    return offset
    return count


def random_bytes(count, seed=1):
    """The same content for the same SEED."""
    return random.Random(seed).randbytes(count)


def same_bytes(got, wanted, what):
    if got != wanted:
        offset = first_difference(got, wanted)
        raise WrongData(
            f"{what}: {len(got)} and {len(wanted)} bytes, first difference at {offset}: "
            f"got {bytes(got[offset:offset + 16]).hex()}, expected {bytes(wanted[offset:offset + 16]).hex()}"
        )


# The tests, in the order of their definition.

ALL_TESTS = []
SPEED_TRIES = 3


class Case:
    """One line of the run: a test function with its parameters."""

    def __init__(self, function, parameters, seconds, quick, alone, speed):
        self.function = function
        self.parameters = parameters
        self.seconds = seconds
        self.quick = quick
        self.alone = alone
        self.tries = SPEED_TRIES if speed else 1
        module = function.__module__.removeprefix("test_")
        suffix = "[" + ",".join(str(value) for value in parameters) + "]" if parameters else ""
        self.name = f"{module}.{function.__name__}{suffix}"


def test(over=((),), quick=(), seconds=60, alone=False, speed=False):
    """Run the function once with each tuple of parameters in OVER; those also in QUICK are in --quick too.
    A test without parameters says quick=True.  ALONE: nothing else may run meanwhile, because it measures how long
    something takes beside something else, or changes what all processes share.  SPEED: its verdict is how fast the daemon
    is, which others on this machine can make worse but not better: one try of SPEED_TRIES must do, those behind the first alone."""

    def mark(function):
        for parameters in over:
            is_quick = quick if isinstance(quick, bool) else parameters in quick
            ALL_TESTS.append(Case(function, parameters, seconds, is_quick, alone, speed))
        return function

    return mark


# Addresses.


class Address:
    """Where a daemon listens, as it says itself: HOST:PORT, [V6]:PORT or unix:PATH."""

    def __init__(self, text):
        self.text = text
        self.path = text.removeprefix("unix:") if text.startswith("unix:") else None
        if not self.path:
            host, port = text.rsplit(":", 1)
            self.host = host.strip("[]")
            self.port = int(port)

    def uri(self, export):
        name = urllib.parse.quote(export)
        if self.path:
            return f"nbd+unix:///{name}?socket={urllib.parse.quote(self.path)}"
        return f"nbd://{self.text}/{name}"

    def connect(self, seconds=30):
        if self.path:
            sock = socket.socket(socket.AF_UNIX)
            sock.settimeout(seconds)
            sock.connect(self.path)
        else:
            sock = socket.create_connection((self.host, self.port), seconds)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
        return True
    except OSError:
        return False


# Images.


class Image:
    """A volume: PATH is what the daemon opens, BACKING the file that must hold the bytes in the end."""

    def __init__(self, path, backing, size_bytes):
        self.path = path
        self.backing = backing
        self.bytes = size_bytes

    def content(self):
        with open(self.backing, "rb") as file:
            return file.read(self.bytes)

    def pread(self, count, offset):
        with open(self.backing, "rb") as file:
            file.seek(offset)
            return file.read(count)


# Processes.


def before_exec():
    """In the child: end with the runner, even if that is killed."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def start_process(command, **options):
    return subprocess.Popen(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=before_exec,
        **options,
    )


def end_process(process):
    """End the process and the group it leads, which is ours: it began its own session."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Daemon:
    """A running millraced."""

    def __init__(self, process, log_path):
        self.process = process
        self.log_path = log_path
        self.addresses = []
        self.judged = False

    @property
    def pid(self):
        return self.process.pid

    @property
    def address(self):
        return self.addresses[0]

    def uri(self, export="disk", index=0):
        return self.addresses[index].uri(export)

    def log(self):
        """All lines that are in the log by now, those included that its thread was about to write."""
        self.wait_log_written()
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def wait_log_written(self):
        """Until the thread that writes the log sleeps: it has nothing to write then."""
        deadline = time.monotonic() + 2
        while self.log_thread_state() not in (None, "S") and time.monotonic() < deadline:
            time.sleep(0.001)

    def log_thread_state(self):
        """As /proc has it, or None: there is no such thread."""
        with contextlib.suppress(OSError):
            for tid in os.listdir(f"/proc/{self.pid}/task"):
                stat = read_text(f"/proc/{self.pid}/task/{tid}/stat")
                if " (log) " in stat:
                    return stat.rsplit(")", 1)[1].split()[0]
        return None

    def log_lines(self):
        return self.log().splitlines()

    def logged(self, *parts, count=1):
        """The lines with all of PARTS, of which COUNT or more must be there soon: a client may see what the daemon
        did before the line about it is written."""

        def lines():
            found = [line for line in self.log_lines() if all(part in line for part in parts)]
            return found if len(found) >= count else None

        return wait_until(lines, 30, f"{count} log lines with {' and '.join(parts)}")

    def wait_ready(self):
        def ready():
            if self.process.poll() is not None:
                raise Failure(f"the daemon ended with {self.process.returncode} before it was ready")
            return re.search(r"info: ready\s*$", self.log(), re.MULTILINE)

        wait_until(ready, READY_SECONDS, "the daemon says that it is ready")
        found = re.findall(r"info: listening on (\S+)(?: \(.*\))?\s*$", self.log(), re.MULTILINE)
        self.addresses = [Address(text) for text in found]

    def send_signal(self, number):
        self.process.send_signal(number)

    def wait_exit(self, seconds=STOP_SECONDS):
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"the daemon has not exited within {seconds} s") from None

    def stop(self, number=signal.SIGTERM, code=0):
        """Stop it as an administrator does, and judge how it went: it must exit with CODE.  Only the first call does anything."""
        if self.judged:
            return
        self.judged = True
        check(self.process.poll() is None, f"the daemon had already ended with {self.process.returncode}")
        self.send_signal(number)
        ended = self.wait_exit()
        self.check_log()
        equal(ended, code, f"exit code after {signal.Signals(number).name}")

    def kill(self):
        """As a crash would."""
        self.judged = True
        self.process.kill()
        self.process.wait()
        self.check_log()

    def check_log(self):
        found = SANITIZER.search(self.log())
        check(not found, "a sanitizer report in the daemon's log")

    # What /proc says.

    def cpu_ticks(self):
        with open(f"/proc/{self.pid}/stat", encoding="ascii") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return int(fields[11]) + int(fields[12])  # utime and stime are the 14th and 15th of proc(5)

    def check_idle(self, seconds=1, ticks=1):
        """It takes no more than TICKS in SECONDS, in one of five tries: what a host takes from a virtual machine while
        the daemon runs is counted as the daemon's, and a daemon that is not idle is so in none."""
        used = []
        for _ in range(5):
            before = self.cpu_ticks()
            time.sleep(seconds)
            used.append(self.cpu_ticks() - before)
            if used[-1] <= ticks:
                return
        raise Failure(f"{used} ticks of CPU time, in {seconds} s each, of a daemon that is idle")

    def rss_bytes(self):
        with open(f"/proc/{self.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def open_files(self):
        """What its descriptors are of, as /proc has it."""
        directory = f"/proc/{self.pid}/fd"
        found = []
        for name in os.listdir(directory):
            with contextlib.suppress(FileNotFoundError):
                found.append(os.readlink(f"{directory}/{name}"))
        return found

    def fd_count(self):
        """Without those of pipes, which the cores keep."""
        return sum(not file.startswith("pipe:") for file in self.open_files())

    def pipe_count(self):
        return len({file for file in self.open_files() if file.startswith("pipe:")})


class Result:
    """How a command ended."""

    def __init__(self, code, out, err):
        self.code = code
        self.out = out
        self.err = err


def is_sanitized(binary):
    with open(binary, "rb") as file:
        return b"__asan_init" in file.read()


def two_cores():
    """The first two cores we may use, as --cores takes them (one, if that is all there is)."""
    return ",".join(str(core) for core in sorted(os.sched_getaffinity(0))[:2])


class Env:
    """One test's surroundings."""

    def __init__(self, binary, directory, quick):
        self.binary = binary
        self.directory = directory
        self.quick = quick
        self.daemons = []
        self.processes = []
        self.stack = contextlib.ExitStack()
        self.serial = 0
        self.running = True
        os.makedirs(directory)
        self.stack.callback(shutil.rmtree, directory, ignore_errors=True)

    # Life.

    def finish(self):
        """After the body passed: every daemon still up stops properly."""
        for daemon in self.daemons:
            daemon.stop()

    def kill_processes(self):
        """Whatever the test waits for now ends.  Safe from another thread."""
        for process in list(self.processes):
            with contextlib.suppress(ProcessLookupError):
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)

    def close(self):
        for process in self.processes:
            end_process(process)
        self.stack.close()

    def size(self, full, quick):
        """A size or count: FULL, or QUICK in a quick run."""
        return quick if self.quick else full

    def path(self, name):
        self.serial += 1
        return os.path.join(self.directory, f"{self.serial}-{name}")

    # Storage.

    def file(self, size_bytes, content=None, name="image"):
        """A sparse file of SIZE_BYTES, or with CONTENT."""
        path = self.path(name)
        with open(path, "wb") as file:
            if content is not None:
                file.write(content)
            file.truncate(size_bytes)
        return path

    def image(self, medium, size_bytes, content=None):
        if medium == ZRAM:
            return self.zram(size_bytes)
        path = self.file(size_bytes, content)
        if medium == FILE:
            return Image(path, path, size_bytes)
        return self.loop(path, size_bytes, 4096 if medium == LOOP4096 else 512)

    def loop(self, backing, size_bytes, block_bytes):
        if os.geteuid() != 0 or not os.path.exists("/dev/loop-control"):
            raise Skip("no loop devices: needs root and /dev/loop-control")
        assert size_bytes % block_bytes == 0
        command = ["losetup", "--find", "--show", "--sector-size", block_bytes, backing]
        result = self.run(command, 20, expect=None)
        if result.code != 0:
            raise Skip(f"losetup: {result.err.strip()}")
        device = result.out.strip()
        self.stack.callback(subprocess.run, ["losetup", "--detach", device], check=False)
        return Image(device, backing, size_bytes)

    def zram(self, size_bytes):
        """A zram device of our own: those that exist may be somebody's."""
        control = "/sys/class/zram-control"
        try:
            with open(f"{control}/hot_add", encoding="ascii") as file:
                number = file.read().strip()
        except OSError as error:
            raise Skip(f"no zram device: {error}") from None
        self.stack.callback(write_text, f"{control}/hot_remove", number)
        write_text(f"/sys/block/zram{number}/disksize", str(size_bytes))
        self.stack.callback(write_text, f"/sys/block/zram{number}/reset", "1")
        device = f"/dev/zram{number}"
        wait_until(lambda: os.path.exists(device), 5, device)
        return Image(device, device, size_bytes)

    # The daemon.

    def listen_text(self, transport=TCP):
        if transport == TCP6:
            if not has_ipv6():
                raise Skip("no IPv6 on the loopback interface")
            return "[::1]:0"
        if transport == UNIX:
            return "unix:" + self.socket_path()
        return "127.0.0.1:0"

    def socket_path(self):
        path = self.path("sock")
        if len(os.fsencode(path)) > UNIX_PATH_BYTES:
            directory = tempfile.mkdtemp(prefix="millrace-e2e-")
            self.stack.callback(shutil.rmtree, directory, ignore_errors=True)
            path = os.path.join(directory, "sock")
        return path

    def config(self, text):
        path = self.path("millrace.conf")
        write_text(path, text)
        return path

    def launch(self, arguments, prefix=(), variables=(), pass_fds=()):
        """Start the daemon with more VARIABLES in its environment and PASS_FDS open, don't wait for anything."""
        log_path = self.path("daemon.log")
        environment = dict(os.environ)
        environment.setdefault("UBSAN_OPTIONS", "print_stacktrace=1")
        environment.update(variables)
        with open(log_path, "wb") as log:
            process = start_process(
                [*prefix, self.binary, *arguments], stdout=log, stderr=log, env=environment, pass_fds=pass_fds
            )
        self.processes.append(process)
        daemon = Daemon(process, log_path)
        self.daemons.append(daemon)
        return daemon

    def serve(self, *arguments, prefix=()):
        """Start the daemon with ARGUMENTS, by the command PREFIX if there is one, and wait until it is ready."""
        daemon = self.launch(arguments, prefix)
        daemon.wait_ready()
        return daemon

    def serve_image(self, image, transport=TCP, cores=None):
        """Start the daemon with IMAGE as the export "disk"."""
        return self.serve(
            *("--export", f"disk={image.path}"),
            *("--listen", self.listen_text(transport)),
            *("--cores", cores or two_cores()),
        )

    # Clients.

    def run(self, command, seconds=60, expect=0):
        """Run a client; it must exit with EXPECT (None: with anything)."""
        process = start_process(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
        )
        self.processes.append(process)
        words = " ".join(str(word) for word in command)
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            end_process(process)
            raise Failure(f"not done within {seconds} s: {words}") from None
        if expect is not None and process.returncode != expect:
            raise Failure(f"{words}: exit {process.returncode}, expected {expect}:\n{out}{err}")
        return Result(process.returncode, out, err)

    def keep(self, resource):
        """Close RESOURCE when the test ends."""
        self.stack.callback(resource.close)
        return resource


def read_text(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def write_text(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


# Running.


class Outcome:
    """How a case ended; goes from one process to another."""

    def __init__(self, name, word, reason, seconds, logs, disturbed):
        self.name = name
        self.word = word
        self.reason = reason
        self.seconds = seconds
        self.logs = logs
        self.disturbed = disturbed  # it failed, and that the host took CPU time meanwhile may be why


class Runner:
    """Runs cases, each with its time limit, in the main thread of its process."""

    def __init__(self, binary, work, quick):
        self.binary = binary
        self.work = work
        self.quick = quick

    def run(self, index):
        """Run the case at INDEX of ALL_TESTS."""
        case = ALL_TESTS[index]
        env = Env(self.binary, os.path.join(self.work, str(index)), self.quick)
        began, stolen = time.monotonic(), stolen_ticks()
        word, reason, logs, broken = "ok", "", [], False
        try:
            word, reason, broken = self.run_body(case, env)
            if word == "FAIL":
                logs = [daemon.log() for daemon in env.daemons]
                broken = broken or any(map(is_broken, env.daemons))
        finally:
            left = close_env(env)
        if left and word == "ok":
            word, reason, broken = "FAIL", f"cleaning up: {left}", True
        disturbed = not broken and stolen_ticks() - stolen > STOLEN_TICKS
        return Outcome(case.name, word, reason, time.monotonic() - began, logs, disturbed)

    def run_body(self, case, env):
        """Returns the outcome's word and reason, and whether it would be so on any machine."""
        timer = threading.Timer(case.seconds, on_time_limit, [env])
        timer.daemon = True
        try:
            try:
                timer.start()
                case.function(env, *case.parameters)
                env.finish()
            finally:
                env.running = False
                timer.cancel()
            return "ok", "", False
        except Skip as skip:
            return "skip", str(skip), False
        except TimeLimit:
            return "FAIL", f"not done within {case.seconds} s", False
        except Failure as failure:
            return "FAIL", str(failure), isinstance(failure, WrongData)
        except Exception as error:  # a client library's or the test's own: the reader needs where it was
            return "FAIL", describe(error), False


def is_broken(daemon):
    """Whether DAEMON ended by a mistake of its own: not because we killed it, and not for want of time."""
    code = daemon.process.poll()
    ours = (-signal.SIGKILL, -signal.SIGTERM)
    return bool(BROKEN.search(daemon.log())) or (code is not None and code < 0 and code not in ours)


def stolen_ticks():
    """What the host of a virtual machine has taken from its CPUs since it booted, in ticks of 10 ms.  Source: proc_stat(5)."""
    with open("/proc/stat", encoding="ascii") as file:
        return int(file.readline().split()[8])


def close_env(env):
    """Returns what could not be undone, or None."""
    try:
        env.close()
    except OSError as error:
        return error
    return None


def describe(error):
    frames = []
    trace = error.__traceback__
    while trace:
        code = trace.tb_frame.f_code
        frames.append(f"{os.path.basename(code.co_filename)}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(error).__name__}: {error} (at {' > '.join(frames[1:])})"


def on_time_limit(env):
    """In the timer's thread.  The main thread may wait inside a C library, where no Python signal handler runs:
    so end what it waits for; the handler runs as soon as it is back."""
    if env.running:
        signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)
        env.kill_processes()


def raise_time_limit(_number, _frame):
    raise TimeLimit


def raise_interrupt(_number, _frame):
    raise KeyboardInterrupt


def end_with_parent():
    """This process is told to stop when the one that made it ends, however it ends."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def install_handlers():
    signal.signal(signal.SIGALRM, raise_time_limit)
    for number in STOP_SIGNALS:
        signal.signal(number, raise_interrupt)


def remove_handlers():
    """From now on this process has nothing to undo when it is told to stop."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
