"""As a service manager sees it: what it is told, the sockets it hands over, a watchdog that is fed only by cores that work."""

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import time

from harness import LIBC, MIB, Skip
from harness import check, equal, is_sanitized, test, two_cores, wait_until, write_text

PTRACE_DETACH, PTRACE_SEIZE, PTRACE_INTERRUPT = 17, 0x4206, 0x4207
WALL = 0x40000000

# As sd_listen_fds(3) has it: the process that the sockets are for is named, and they are numbered from 3.
HAND_OVER = 'export LISTEN_PID=$$; exec "$@"'


class Manager:
    """A socket that messages of sd_notify(3) come to."""

    def __init__(self, env):
        self.socket = env.keep(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        self.path = env.socket_path()
        self.socket.bind(self.path)
        self.messages = []

    def take(self, seconds):
        """Take what comes within SECONDS; returns those lines."""
        lines = []
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            with contextlib.suppress(TimeoutError):
                lines += self.socket.recv(4096).decode().splitlines()
        self.messages += lines
        return lines

    def wait_for(self, line, seconds=30):
        wait_until(lambda: line in self.take(0.05) or line in self.messages, seconds, f"{line} is told")


def volume(env):
    return ["--export", f"disk={env.file(MIB)}", "--cores", two_cores()]


@test(quick=True)
def manager_is_told_of_the_start_and_the_stop(env):
    manager = Manager(env)
    daemon = env.launch([*volume(env), "--listen", "127.0.0.1:0"], variables={"NOTIFY_SOCKET": manager.path})
    manager.wait_for("READY=1")
    daemon.wait_ready()
    status = [line for line in manager.messages if line.startswith("STATUS=")]
    equal(len(status), 1, f"status lines: {status}")
    check("serving 1 exports" in status[0], f"what it does is not in {status[0]}")
    equal(env.run(["nbdinfo", "--size", daemon.uri()]).out.strip(), str(MIB), "size")
    check(not [line for line in manager.take(0.2) if line.startswith("WATCHDOG")], "a watchdog fed without being asked")
    daemon.stop()
    manager.wait_for("STOPPING=1")


@test(quick=True)
def manager_is_not_told_of_a_start_that_fails(env):
    manager = Manager(env)
    daemon = env.launch(["--export", "disk=/nonexistent"], variables={"NOTIFY_SOCKET": manager.path})
    daemon.judged = True
    check(daemon.wait_exit() != 0, "it starts without its image")
    equal(manager.take(0.1), [], "what the manager was told")


def trace(request, tid, what):
    LIBC.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    LIBC.ptrace.restype = ctypes.c_long
    if LIBC.ptrace(request, tid, None, None) != 0:
        raise Skip(f"ptrace can't {what} here")


@contextlib.contextmanager
def stopped_thread(tid):
    """Only this one: the others go on."""
    trace(PTRACE_SEIZE, tid, "attach")
    trace(PTRACE_INTERRUPT, tid, "stop a thread")
    os.waitpid(tid, WALL)
    try:
        yield
    finally:
        trace(PTRACE_DETACH, tid, "detach")


def core_threads(daemon):
    """The thread of each core."""
    found = []
    for tid in os.listdir(f"/proc/{daemon.pid}/task"):
        with open(f"/proc/{daemon.pid}/task/{tid}/comm", encoding="utf-8") as file:
            if file.read().startswith("core-"):
                found.append(int(tid))
    return sorted(found)


@test(quick=True)
def watchdog_is_fed_only_while_every_core_works(env):
    manager = Manager(env)
    variables = {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "400000"}
    daemon = env.launch([*volume(env), "--listen", "127.0.0.1:0"], variables=variables)
    manager.wait_for("READY=1")
    daemon.wait_ready()
    fed = manager.take(1).count("WATCHDOG=1")
    check(5 <= fed <= 11, f"fed {fed} times in a second, expected about 10")
    for tid in core_threads(daemon):
        with stopped_thread(tid):
            manager.take(0.3)  # one that was on its way, and the question that nobody answers
            equal(manager.take(0.6), [], "what is told while a core hangs")
        wait_until(lambda: "WATCHDOG=1" in manager.take(0.1), 5, "it is fed again when the core goes on")


SYNC_MS = 2500


@test()
def slow_disk_is_no_reason_to_end_it_but_a_core_that_hangs_is(env):
    """A reload takes an export away, whose last flush keeps the main thread busy for six times the manager's limit."""
    if is_sanitized(env.binary):
        raise Skip("the address sanitizer must be the first: nothing can be preloaded")
    library = os.path.join(os.path.dirname(env.binary), "release/tests/e2e/slow_sync.so")
    check(os.path.exists(library), f"no {library}; build it first")
    manager = Manager(env)
    server = f"[reactor]\ncores = {two_cores()}\n[server]\nlisten = 127.0.0.1:0\n[export disk]\npath = {env.file(MIB)}\n"
    path = env.config(f"{server}[export slow]\npath = {env.file(MIB)}\n")
    variables = {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "400000", "LD_PRELOAD": library, "SLOW_SYNC_MS": str(SYNC_MS)}
    daemon = env.launch(["--config", path], variables=variables)
    daemon.wait_ready()
    write_text(path, server)
    daemon.send_signal(signal.SIGHUP)
    wait_until(lambda: "reloaded: serving 1 exports" in daemon.log(), 10, "it has reloaded")
    daemon.send_signal(signal.SIGHUP)  # is not heard while the main thread is busy
    fed = manager.take(1).count("WATCHDOG=1")
    equal(daemon.log().count("info: reloading"), 1, "reloads while the main thread is busy")
    check(5 <= fed <= 11, f"fed {fed} times in a second of a flush, expected about 10")
    equal(env.run(["nbdinfo", "--size", daemon.uri()]).out.strip(), str(MIB), "size, meanwhile")
    with stopped_thread(core_threads(daemon)[0]):
        manager.take(0.3)
        equal(manager.take(0.4), [], "what is told while a core hangs")
        equal(daemon.log().count("info: reloading"), 1, "reloads while the main thread is busy")
    wait_until(lambda: daemon.log().count("info: reloading") == 2, 10, "the next reload")
    wait_until(lambda: "WATCHDOG=1" in manager.take(0.1), 5, "it is fed again")
    # The stop flushes, too.
    daemon.send_signal(signal.SIGTERM)
    manager.wait_for("STOPPING=1")
    fed = manager.take(1).count("WATCHDOG=1")
    check(5 <= fed <= 11, f"fed {fed} times in a second of the stop, expected about 10")
    daemon.judged = True
    wait_until(lambda: manager.take(0.1) is None or daemon.process.poll() is not None, 15, "it stops")
    equal(daemon.process.returncode, 0, "exit code")


def hand_over(env, sockets, arguments):
    """Start the daemon with the sockets."""
    first = 3
    fds = [sock.fileno() for sock in sockets]
    moves = " ".join(f"{first + index}<&{fd}" for index, fd in enumerate(fds))
    check(all(fd >= first + len(fds) for fd in fds), f"numbers that would be written over: {fds}")
    daemon = env.launch(
        arguments,
        prefix=("bash", "-c", f"exec {moves}; {HAND_OVER}", "hand-over"),
        variables={"LISTEN_FDS": str(len(fds))},
        pass_fds=fds,
    )
    return daemon


def listening(env, family, address):
    """A socket with a number that nothing else is moved to."""
    with socket.socket(family) as sock:
        sock.bind(address)
        sock.listen()
        return renumbered(env, sock)


def renumbered(env, sock):
    return env.keep(socket.socket(fileno=fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, 50)))


@test(quick=True)
def sockets_that_are_handed_over_are_served(env):
    path = env.socket_path()
    tcp = listening(env, socket.AF_INET, ("127.0.0.1", 0))
    local = listening(env, socket.AF_UNIX, path)
    daemon = hand_over(env, [tcp, local], volume(env))
    daemon.wait_ready()
    port = tcp.getsockname()[1]
    equal([a.text for a in daemon.addresses], [f"127.0.0.1:{port}", f"unix:{path}"], "where it listens")
    for index in range(2):
        equal(env.run(["nbdinfo", "--size", daemon.uri(index=index)]).out.strip(), str(MIB), "size")
    daemon.stop()
    check(os.path.exists(path), "it removed a socket that is not its own")


@test(quick=True)
def sockets_outlive_the_daemon(env):
    """Who connects between two daemons waits for the second one."""
    tcp = listening(env, socket.AF_INET, ("127.0.0.1", 0))
    hand_over(env, [tcp], volume(env)).wait_ready()
    env.daemons[0].kill()
    with socket.create_connection(tcp.getsockname(), 10) as client:
        hand_over(env, [tcp], volume(env)).wait_ready()
        client.settimeout(10)
        equal(client.recv(8), b"NBDMAGIC", "what the client gets from the second daemon")


@test()
def configured_listener_is_taken_from_the_manager_or_opened(env):
    """No address twice: that would fail with 'in use'."""
    tcp = listening(env, socket.AF_INET, ("127.0.0.1", 0))
    port = tcp.getsockname()[1]
    arguments = ["--listen", f"127.0.0.1:{port}", "--listen", "127.0.0.1:0"]
    daemon = hand_over(env, [tcp], [*volume(env), *arguments])
    daemon.wait_ready()
    equal(daemon.addresses[0].port, port, "the first port")
    equal(len(daemon.addresses), 2, "addresses")
    for index in range(2):
        equal(env.run(["nbdinfo", "--size", daemon.uri(index=index)]).out.strip(), str(MIB), "size")


@test()
def socket_of_another_kind_is_refused(env):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(("127.0.0.1", 0))
        daemon = hand_over(env, [renumbered(env, datagrams)], volume(env))
    daemon.judged = True
    check(daemon.wait_exit() != 0, "it starts")
    check("not a listening stream socket" in daemon.log(), f"it does not say why: {daemon.log()}")
    daemon.check_log()
