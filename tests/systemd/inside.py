"""Runs in the container that tests/systemd/run.sh boots: what an administrator does with millrace.service and millrace.socket.

Output goes to /share/output, the last line to /share/counts.
"""

import contextlib
import ctypes
import json
import os
import socket
import subprocess
import time
import traceback

import nbd

MIB = 1 << 20
IMAGE = "/var/lib/millrace/disk.img"
SYSCONFDIR = os.environ["SYSCONFDIR"]
DROP_IN = "/run/systemd/system/millrace.service.d"
TCP = "nbd://127.0.0.1:10809/disk"
UNIX = "nbd+unix:///disk?socket=/run/millrace.sock"
PTRACE_SEIZE, PTRACE_INTERRUPT = 0x4206, 0x4207
WALL = 0x40000000

STEPS = []


def step(function):
    STEPS.append(function)
    return function


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def run(*command, expect=0, seconds=60):
    result = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
    said = result.stdout + result.stderr
    if expect is not None and result.returncode != expect:
        raise AssertionError(f"{' '.join(command)}: exit {result.returncode}: {said}")
    return said


def shown(name, unit="millrace.service"):
    return run("systemctl", "show", "--value", "-p", name, unit).strip()


def wait_until(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        check(time.monotonic() < deadline, f"not within {seconds} s: {what}")
        time.sleep(0.05)


def size_at(uri):
    return int(run("nbdinfo", "--size", uri))


def write_text(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


@step
def units_and_manual_pages_are_accepted():
    run("systemd-sysusers")
    said = run("systemd-analyze", "verify", "millrace.service", "millrace.socket")
    check("millrace" not in said, said)


@step
def nothing_runs_or_is_enabled_by_itself():
    for unit in ("millrace.service", "millrace.socket"):
        check(shown("ActiveState", unit) == "inactive", f"{unit} runs")
        check(shown("UnitFileState", unit) == "disabled", f"{unit} is enabled")


@step
def start_without_an_export_says_what_to_do():
    run("systemctl", "start", "millrace", expect=1)
    run("systemctl", "stop", "millrace")
    run("journalctl", "--sync")
    log = run("journalctl", "-u", "millrace", "-o", "cat")
    check("no export: add [export NAME]" in log, f"the journal: {log}")


@step
def start_is_over_when_it_serves():
    with open(IMAGE, "wb") as file:
        file.truncate(MIB)
    run("chown", "millrace:", IMAGE)
    write_text(f"{SYSCONFDIR}/millrace/exports.d/disk.conf", f"[export disk]\npath = {IMAGE}\n")
    run("systemctl", "start", "millrace")
    check(size_at(TCP) == MIB, "the size")
    check("serving 1 exports" in shown("StatusText"), f"status: {shown('StatusText')}")


def pipes_of_the_daemon():
    directory = f"/proc/{shown('MainPID')}/fd"
    return sum(os.readlink(f"{directory}/{name}").startswith("pipe:") for name in os.listdir(directory))


@step
def large_cached_reads_are_not_copied():
    """They need what its sandbox could forbid."""
    image, data = "/var/lib/millrace/cached.img", os.urandom(MIB)
    with open(image, "wb") as file:
        file.write(data)
    run("chown", "millrace:", image)
    export = f"{SYSCONFDIR}/millrace/exports.d/cached.conf"
    write_text(export, f"[export cached]\npath = {image}\ncache = host\n")
    run("systemctl", "reload", "millrace")
    before = pipes_of_the_daemon()
    handle = nbd.NBD()
    handle.connect_uri(TCP.replace("/disk", "/cached"))
    for _ in range(2):  # the first one looks for holes
        check(handle.pread(MIB // 4, 4096) == data[4096 : 4096 + MIB // 4], "what was read")
    check(pipes_of_the_daemon() == before + 2, f"{before} ends of pipes, then {pipes_of_the_daemon()}")
    handle.shutdown()
    os.unlink(export)
    run("systemctl", "reload", "millrace")


@step
def it_has_no_rights_to_lose():
    with open(f"/proc/{shown('MainPID')}/status", encoding="utf-8") as file:
        status = dict(line.split(":", 1) for line in file.read().splitlines())
    check("0" not in status["Uid"].split(), f"uid {status['Uid']}")
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        check(int(status[name], 16) == 0, f"{name} {status[name]}")
    check(status["NoNewPrivs"].strip() == "1", "it may gain rights")
    check(status["Seccomp"].strip() == "2", "no filter of system calls")


def journal(*matches):
    """The entries of the service that match, as journalctl gives them to programs."""
    run("journalctl", "--sync")
    lines = run("journalctl", "-u", "millrace", "-o", "json", *matches).splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


@step
def the_journal_knows_export_client_and_core():
    handle = nbd.NBD()
    handle.set_strict_mode(0)
    handle.connect_uri(TCP)
    with contextlib.suppress(nbd.Error):
        handle.pwrite(bytes(512), MIB)
    handle.shutdown()
    wait_until(lambda: journal("EXPORT=disk"), 10, "an entry about the export")
    entry = journal("EXPORT=disk")[-1]
    check("refused" in entry["MESSAGE"] and not entry["MESSAGE"].startswith("warning"), f"MESSAGE={entry['MESSAGE']}")
    check(entry["PRIORITY"] == "4", f"PRIORITY={entry['PRIORITY']}")
    check(entry["CLIENT"].startswith("127.0.0.1:"), f"CLIENT={entry['CLIENT']}")
    check(int(entry["CORE"]) in os.sched_getaffinity(0), f"CORE={entry['CORE']}")
    check(entry["SYSLOG_IDENTIFIER"] == "millraced" and entry["_TRANSPORT"] == "journal", f"{entry}")
    check(journal(f"CLIENT={entry['CLIENT']}") and journal(f"CORE={entry['CORE']}"), "it is found by its fields")
    check(not journal("EXPORT=other"), "an entry about another export")
    ready = [entry for entry in journal() if entry["MESSAGE"] == "ready"]
    check(ready and "EXPORT" not in ready[0] and ready[0]["PRIORITY"] == "6", f"{ready}")


@step
def stop_answers_what_is_in_flight():
    handle = nbd.NBD()
    handle.connect_uri(TCP)
    pieces = [nbd.Buffer.from_bytearray(bytearray([number]) * 4096) for number in range(64)]
    cookies = [handle.aio_pwrite(piece, 4096 * number) for number, piece in enumerate(pieces)]
    # What the server has read before it was told to stop it answers: let it read all.
    wait_until(lambda: handle.poll(0) == 0 and handle.aio_in_flight() < 64, 10, "the first answer")
    run("systemctl", "stop", "millrace")
    with contextlib.suppress(nbd.Error):
        while handle.aio_in_flight() > 0 and handle.poll(1000) > 0:
            pass
    done = 0
    for number, cookie in enumerate(cookies):
        with contextlib.suppress(nbd.Error):
            if handle.aio_command_completed(cookie):
                done += 1
                with open(IMAGE, "rb") as file:
                    file.seek(4096 * number)
                    check(file.read(4096) == bytes([number]) * 4096, f"write {number} was acknowledged and is lost")
    check(done > 0, "nothing was answered")
    check((shown("Result"), shown("ExecMainStatus")) == ("success", "0"), f"result {shown('Result')}")


@step
def a_client_starts_it_through_its_socket():
    run("systemctl", "start", "millrace.socket")
    check(shown("ActiveState") == "inactive", "it runs already")
    check(size_at(UNIX) == MIB, "the size, through the Unix socket")
    check(shown("ActiveState") == "active", "it does not run")
    check(size_at(TCP) == MIB, "the size, through TCP")
    run("systemctl", "stop", "millrace.service")
    check(shown("ActiveState", "millrace.socket") == "active", "the socket stopped with it")
    check(size_at(TCP) == MIB, "the size, after it was stopped")


def freeze_a_core(pid):
    """Stop one thread of it, for good: the others go on.  Returns the thread, which must be waited for when it is killed."""
    for tid in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{tid}/comm", encoding="utf-8") as file:
            if not file.read().startswith("core-"):
                continue
        libc = ctypes.CDLL(None, use_errno=True)
        libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        check(libc.ptrace(PTRACE_SEIZE, int(tid), None, None) == 0, "ptrace can't attach")
        check(libc.ptrace(PTRACE_INTERRUPT, int(tid), None, None) == 0, "ptrace can't stop the thread")
        return int(tid)
    raise AssertionError("no core's thread")


def reap(tid):
    """A thread that we trace stays until we have heard of its end."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(tid, os.WNOHANG | WALL)
    return True


@step
def a_core_that_hangs_has_it_started_again():
    """Its clients connect to the socket all the time, which stays."""
    write_text(f"{DROP_IN}/watchdog.conf", "[Service]\nWatchdogSec=1\nRestartSec=100ms\n")
    run("systemctl", "daemon-reload")
    run("systemctl", "restart", "millrace.service")
    time.sleep(3)
    check(shown("NRestarts") == "0", "it is not fed while all is well")
    before = shown("MainPID")
    frozen = freeze_a_core(before)
    with socket.create_connection(("127.0.0.1", 10809), 10) as first:
        wait_until(lambda: reap(frozen) and shown("NRestarts") == "1", 15, "systemd starts it again")
        check(shown("ActiveState", "millrace.socket") == "active", "the socket is gone")
        first.settimeout(10)
    wait_until(lambda: shown("ActiveState") == "active", 15, "it runs again")
    check(shown("MainPID") not in ("0", before), "it is the same process")
    check(size_at(TCP) == MIB, "the size, after the restart")
    run("journalctl", "--sync")
    check("Watchdog timeout" in run("journalctl", "-u", "millrace.service"), "it was not the watchdog")


def cores_with(setting):
    """How many cores it runs on with SETTING in its unit."""
    write_text(f"{DROP_IN}/watchdog.conf", f"[Service]\n{setting}\n")
    run("systemctl", "daemon-reload")
    run("systemctl", "restart", "millrace.service")
    return shown("StatusText").split(" on ")[1]


@step
def the_units_affinity_and_quota_limit_the_cores():
    cpu = min(os.sched_getaffinity(0))
    check(cores_with("") == f"{len(os.sched_getaffinity(0))} cores", f"status: {shown('StatusText')}")
    check(cores_with(f"CPUAffinity={cpu}") == "1 cores", f"status: {shown('StatusText')}")
    with open("/sys/fs/cgroup/cgroup.controllers", encoding="utf-8") as file:
        controllers = file.read().split()
    if "cpu" in controllers:  # a host that has them in version 1 keeps them there
        check(cores_with("CPUQuota=100%") == "1 cores", f"status: {shown('StatusText')}")


def run_all(out):
    failed = 0
    for function in STEPS:
        began = time.monotonic()
        try:
            function()
            out.write(f"ok   {function.__name__} ({time.monotonic() - began:.1f} s)\n")
        except Exception:  # whatever it was, the next step is tried
            failed += 1
            out.write(f"FAIL {function.__name__}\n{traceback.format_exc()}")
    if failed:
        out.write(run("journalctl", "-u", "millrace.service", "-n", "60", expect=None))
    line = f"{len(STEPS) - failed} passed, {failed} failed\n"
    out.write(line)
    write_text("/share/counts", line)


with open("/share/output", "w", encoding="utf-8") as output:
    run_all(output)
