"""The servers under comparison: how each is started, and which package it comes from.

Each is started for its turn and ended after it: millraced and qemu-nbd lock the image they serve,
and a server that is not there cannot disturb another's turn.
"""

import os
import shutil
import socket
import subprocess
import time

from processes import Child

EXPORT = "bench"
START_SECONDS = 15
LISTEN_STATE = "0A"  # TCP_LISTEN in /proc/net/tcp.


class Server:
    def __init__(self, name, program, package, arguments, version_flag="--version"):
        self.name = name
        self.program = program
        self.package = package
        self.arguments = arguments
        self.version_flag = version_flag

    def missing(self):
        """What is missing for this server, or None."""
        if shutil.which(self.program):
            return None
        if self.package:
            return f"{self.name}: {self.program} is not installed: apt-get install {self.package}"
        return f"{self.name}: {self.program} does not exist: build it, or name it with --daemon"

    def argv(self, path, port):
        return [self.program] + [argument.format(path=path, port=port, export=EXPORT)
                                 for argument in self.arguments]

    def version(self):
        return version_of(self.program, self.version_flag)

    def start(self, path, log_path, cpus):
        """A Child that listens, and its port.  The listener is looked up rather than connected
        to: a client that leaves at once would cost the server work and a line in its log."""
        port = free_port()
        child = Child(self.argv(path, port), log_path, cpus)
        try:
            deadline = time.monotonic() + START_SECONDS
            while not listening(port):
                if child.ended():
                    child.fail(f"ended with status {child.status} before it listened")
                if time.monotonic() > deadline:
                    child.fail(f"does not listen after {START_SECONDS} s")
                time.sleep(0.01)
        except BaseException:
            child.stop()
            raise
        return child, port


def version_of(program, flag="--version"):
    try:
        result = subprocess.run([program, flag], stdin=subprocess.DEVNULL, capture_output=True,
                                text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown version"
    text = result.stdout.strip() if result.returncode == 0 else ""
    return text.splitlines()[0] if text else "unknown version"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listening(port):
    local = f"0100007F:{port:04X}"
    with open("/proc/net/tcp") as table:
        rows = (line.split() for line in table)
        return any(row[1] == local and row[3] == LISTEN_STATE for row in rows)


def nbdkit_has_cache_parameter():
    try:
        result = subprocess.run(["nbdkit", "file", "--help"], stdin=subprocess.DEVNULL,
                                capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "cache=" in result.stdout


def all_servers(daemon, cores):
    """Every server there is to compare, millraced first."""
    nbdkit = ["--foreground", "--ipaddr", "127.0.0.1", "--port", "{port}", "file", "{path}"]
    servers = [
        Server("millraced", os.path.abspath(daemon), None,
               ["--export", "{export}={path}", "--listen", "127.0.0.1:{port}"]
               + (["--cores", cores] if cores else [])),
        Server("qemu-nbd", "qemu-nbd", "qemu-utils",
               ["--cache=none", "--aio=native", "--shared=0", "--persistent", "-f", "raw",
                "--bind=127.0.0.1", "--port={port}", "--export-name={export}", "{path}"]),
        Server("nbdkit", "nbdkit", "nbdkit", nbdkit),
    ]
    if nbdkit_has_cache_parameter():
        servers.append(Server("nbdkit cache=none", "nbdkit", "nbdkit", nbdkit + ["cache=none"]))
    return servers
