"""The servers under comparison: how each is started, and which package it comes from.

Each is started for its turn and ended after it: most lock the image they serve, and a server that is not there cannot
disturb another's turn.
"""

import os
import shutil
import socket
import subprocess
import time

from processes import Child, Daemon

EXPORT = "bench"
START_SECONDS = 15
LISTEN_STATE = "0A"  # TCP_LISTEN in /proc/net/tcp.
MEMORY_BYTES = 1 << 30  # of a volume without a file
CACHE_HOST = "[server]\nlisten = 127.0.0.1:{port}\n[export {export}]\npath = {path}\ncache = host\n"  # for millraced


class Server:
    """DAEMON: it goes to the background by itself, and leaves its id in {pid_file}.  ARGUMENTS: by kind of storage, with {path}, {port}, {export}, {config} and {with_tls}
    in them; xfs is served as a file.  TLS: what is added for it, with {tls}, a directory of certificates; None: not compared with
    TLS; WITH_TLS: what {with_tls} stands for then.  CONFIG: the text of a file that it wants; TLS_CONFIG: what is added to that for
    TLS, or the text of {tls_config}.  IF_CACHE_MATTERS: only compared where the load writes, or reads in sequence."""

    def __init__(self, name, program, package, arguments, tls=None, config=None, tls_config=None, daemon=False, with_tls="",
                 version_flag="--version", if_cache_matters=False):
        self.name = name
        self.program = program
        self.package = package
        self.arguments = arguments
        self.tls = tls
        self.config = config
        self.tls_config = tls_config
        self.with_tls = with_tls
        self.daemon = daemon
        self.version_flag = version_flag
        self.if_cache_matters = if_cache_matters

    def can(self, row):
        return (served_as(row.storage) in self.arguments and (self.tls is not None or not row.load.tls)
                and (row.load.cache_matters or not self.if_cache_matters))

    def missing(self):
        """What is missing for this server, or None."""
        if shutil.which(self.program):
            return None
        if self.package:
            return f"{self.name}: {self.program} is not installed: apt-get install {self.package}"
        return f"{self.name}: {self.program} does not exist: build it, or name it with --daemon"

    def argv(self, storage, path, port, directory="WORK", tls_directory=None):
        arguments = self.arguments[served_as(storage)]
        if tls_directory and not self.has_one_file(storage):
            arguments = self.tls + arguments
        words = dict(path=path, port=port, export=EXPORT, tls=tls_directory,
                     with_tls=self.with_tls if tls_directory else "",
                     config=os.path.join(directory, "server.conf"), tls_config=os.path.join(directory, "tls.conf"),
                     pid_file=os.path.join(directory, "server.pid"), bytes=MEMORY_BYTES)
        return [self.program] + [argument.format(**words) for argument in arguments]

    def has_one_file(self, storage):
        """CONFIG is read for STORAGE, and TLS_CONFIG stands in it: one file is all that may be named."""
        return bool(self.tls_config) and "{config}" in self.arguments[served_as(storage)]

    def version(self):
        return version_of(self.program, self.version_flag)

    def start(self, storage, path, directory, cpus, tls_directory=None):
        """A Child that listens, and its port.  The listener is looked up rather than connected to: a client that leaves at
        once would cost the server work and a line in its log."""
        port = free_port()
        directory = os.path.abspath(directory)  # a daemon has another working directory
        path = path and os.path.abspath(path)
        if self.config:
            with open(os.path.join(directory, "server.conf"), "w") as file:
                file.write(self.config.format(path=path, port=port, export=EXPORT))
                if tls_directory and self.has_one_file(storage):
                    file.write(self.tls_config.format(tls=os.path.abspath(tls_directory)))
        if self.tls_config and tls_directory:
            with open(os.path.join(directory, "tls.conf"), "w") as file:
                file.write(self.tls_config.format(tls=os.path.abspath(tls_directory)))
        argv = self.argv(storage, path, port, directory, tls_directory)
        log_path = os.path.join(directory, "server.log")
        if self.daemon:
            child = Daemon(argv, log_path, cpus, os.path.join(directory, "server.pid"))
        else:
            child = Child(argv, log_path, cpus)
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


def served_as(storage):
    return "file" if storage == "xfs" else storage


def version_of(program, flag="--version"):
    try:
        result = subprocess.run([program, flag], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown version"
    text = result.stdout.strip() if result.returncode == 0 else ""
    return text.splitlines()[0] if text else "unknown version"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listening(port):
    """On any address: nbd-server and millraced listen on 127.0.0.1, some on all."""
    wanted = f":{port:04X}"
    for path in ("/proc/net/tcp", "/proc/net/tcp6"):
        with open(path) as table:
            rows = (line.split() for line in table)
            if any(row[1].endswith(wanted) and row[3] == LISTEN_STATE for row in rows):
                return True
    return False


def nbdkit_has_cache_parameter():
    try:
        result = subprocess.run(["nbdkit", "file", "--help"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "cache=" in result.stdout


def millraced(daemon, cores):
    common = ["--listen", "127.0.0.1:{port}"] + (["--cores", cores] if cores else [])
    return Server("millraced", os.path.abspath(daemon), None,
                  {"cached": ["--config", "{config}"] + common[2:], "file": ["--export", "{export}={path}"] + common,
                   "zram": ["--export", "{export}={path}"] + common,
                   "memory": ["--export", "{export}=memory:{bytes}"] + common,
                   "null": ["--export", "{export}=null:{bytes}"] + common}, config=CACHE_HOST,
                  tls=["--config", "{tls_config}"],
                  tls_config="[tls]\nmode = required\ncertificate = {tls}/server-cert.pem\nkey = {tls}/server-key.pem\n"
                  "verify-client = no\n")


def millraced_cache_host(daemon, cores):
    """It answers a write when the page cache has it, and reads ahead, as nbdkit and nbd-server do."""
    arguments = ["--config", "{config}"] + (["--cores", cores] if cores else [])
    return Server("millraced cache=host", os.path.abspath(daemon), None, {"file": arguments, "zram": arguments}, config=CACHE_HOST,
                  if_cache_matters=True)


def qemu_nbd(aio):
    listen = ["--shared=0", "--persistent", "--bind=127.0.0.1", "--port={port}", "--export-name={export}"]
    image = ["--cache=none", f"--aio={aio}", "-f", "raw", "{path}"]
    cached = listen + ["--cache=writeback", f"--aio={aio}", "-f", "raw", "{path}"]
    arguments = {"file": listen + image, "zram": listen + image, "cached": cached}
    if aio == "threads":
        arguments = {"cached": cached}
    if aio == "native":
        del arguments["cached"]
        arguments["null"] = listen + ["--image-opts", "driver=null-co,size={bytes},read-zeroes=on"]
    return Server(f"qemu-nbd {aio}", "qemu-nbd", "qemu-utils", arguments,
                  tls=["--object", "tls-creds-x509,id=tls,endpoint=server,dir={tls},verify-peer=no", "--tls-creds=tls"])


def qemu_storage_daemon():
    def serve(blockdev):
        return ["--blockdev", blockdev + ",node-name=disk", "--nbd-server",
                "addr.type=inet,addr.host=127.0.0.1,addr.port={port},max-connections=0{with_tls}", "--export",
                "type=nbd,id=export,node-name=disk,name={export},writable=on"]

    return Server("qemu-storage-daemon", "qemu-storage-daemon", "qemu-system-common",
                  {"file": serve("driver=file,filename={path},cache.direct=on,aio=native"),
                   "zram": serve("driver=host_device,filename={path},cache.direct=on,aio=native"),
                   "null": serve("driver=null-co,size={bytes},read-zeroes=on")},
                  tls=["--object", "tls-creds-x509,id=tls,endpoint=server,dir={tls},verify-peer=no"], with_tls=",tls-creds=tls")


def nbdkit(cache_none):
    listen = ["--foreground", "--ipaddr", "127.0.0.1", "--port", "{port}"]
    more = ["cache=none"] if cache_none else []
    arguments = {"file": listen + ["file", "{path}"] + more, "zram": listen + ["file", "{path}"] + more}
    if not cache_none:
        arguments["cached"] = arguments["file"]
        arguments["memory"] = listen + ["memory", "{bytes}"]
        arguments["null"] = listen + ["null", "{bytes}"]
    return Server("nbdkit cache=none" if cache_none else "nbdkit", "nbdkit", "nbdkit", arguments,
                  tls=["--tls=require", "--tls-certificates={tls}"])


def nbd_server():
    # It writes through the page cache, as it is configured out of the box.
    arguments = ["-C", "{config}", "-p", "{pid_file}"]
    config = ("[generic]\n\tlistenaddr = 127.0.0.1\n\tport = {port}\n\tmax_threads = 16\n"
              "[{export}]\n\texportname = {path}\n\tflush = true\n\tfua = true\n")
    return Server("nbd-server", "nbd-server", "nbd-server", {"file": arguments, "cached": arguments, "zram": arguments}, config=config,
                  daemon=True)


def all_servers(daemon, cores):
    """Every server there is to compare, millraced first."""
    found = [millraced(daemon, cores), millraced_cache_host(daemon, cores), qemu_nbd("native"), qemu_nbd("io_uring"), qemu_nbd("threads"),
             qemu_storage_daemon(), nbdkit(False)]
    if nbdkit_has_cache_parameter():
        found.append(nbdkit(True))
    return found + [nbd_server()]
