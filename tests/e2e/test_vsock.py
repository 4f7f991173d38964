"""Listeners on vsock.  Clients on this machine reach them only where the kernel has the loopback transport; elsewhere
what can be tested is that the daemon listens."""

import errno
import os
import socket

from harness import FILE, MIB, Address, Skip
from harness import check, equal, random_bytes, same_bytes, test, two_cores
from wire import Wire

CID_LOCAL = 1  # VMADDR_CID_LOCAL, which Python 3.11 lacks


def vsock_socket():
    try:
        return socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    except OSError as error:
        raise Skip(f"no vsock: {error.strerror}") from None


def bind_error(cid, port=socket.VMADDR_PORT_ANY):
    """The errno of binding there, or 0."""
    with vsock_socket() as sock:
        try:
            sock.bind((cid, port))
        except OSError as error:
            return error.errno
    return 0


class VsockAddress(Address):
    """vsock:CID:PORT as the daemon says it."""

    def __init__(self, text):
        self.text = text
        self.path = None
        _, cid, port = text.split(":")
        self.cid = CID_LOCAL if cid == "any" else int(cid)
        self.port = int(port)

    def uri(self, export):
        return f"nbd+vsock://{self.cid}:{self.port}/{export}"

    def connect(self, seconds=30):
        sock = vsock_socket()
        sock.settimeout(seconds)
        sock.connect((self.cid, self.port))
        return sock


def free_port():
    """One that libnbd takes in a URI: those that the kernel chooses have too many digits for it."""
    return next(port for port in range(10809, 65536) if bind_error(socket.VMADDR_CID_ANY, port) == 0)


def serve(env, image, where):
    daemon = env.serve("--export", f"disk={image.path}", "--listen", where, "--cores", two_cores())
    lines = [line for line in daemon.log_lines() if "listening on vsock:" in line]
    equal(len(lines), 1, "log lines about it")
    return daemon, VsockAddress(lines[0].split()[-1])


@test(quick=True)
def port_that_the_kernel_chose_is_bound_and_listens(env):
    bind_error(socket.VMADDR_CID_ANY)
    daemon, address = serve(env, env.image(FILE, MIB), "vsock:any:0")
    check(address.port not in (0, socket.VMADDR_PORT_ANY), f"port {address.port}")
    equal(bind_error(socket.VMADDR_CID_ANY, address.port), errno.EADDRINUSE, "binding its port")
    daemon.stop()
    equal(bind_error(socket.VMADDR_CID_ANY, address.port), 0, "binding its port when it has stopped")


@test(quick=True)
def wrong_places_are_named(env):
    with vsock_socket() as taken:
        taken.bind((socket.VMADDR_CID_ANY, socket.VMADDR_PORT_ANY))
        taken.listen()
        port = taken.getsockname()[1]
        image = env.image(FILE, MIB)
        for where, why in ((f"vsock:any:{port}", "Address already in use"), ("vsock:4000000000:0", "no such address")):
            daemon = env.launch(["--export", f"disk={image.path}", "--listen", where])
            equal(daemon.wait_exit(), 1, "exit code")
            daemon.judged = True
            check(any(f"listen {where}:" in line and why in line for line in daemon.log_lines()), daemon.log())


@test(over=[("any",), ("local",)], quick=True)
def clients_are_served_over_loopback(env, cid):
    if bind_error(CID_LOCAL):
        raise Skip("this kernel has no vsock loopback (module vsock_loopback)")
    content = random_bytes(MIB)
    daemon, address = serve(env, env.image(FILE, MIB, content), f"vsock:{cid}:{free_port()}")
    client = env.keep(Wire(address))
    client.go("disk")
    same_bytes(client.read(5, 100_000), content[5:100_005], "data")
    client.write(5, b"x" * 5000)
    same_bytes(client.read(0, 6000), content[:5] + b"x" * 5000 + content[5005:6000], "what was written")
    env.run(["nbdinfo", address.uri("disk")])
    env.run(["nbdcopy", address.uri("disk"), "null:"])
    bench = os.path.join(os.path.dirname(env.binary), "millrace-bench")
    env.run([bench, "run", address.uri("disk"), "--rw", "read", "--requests", "100", "--quiet"])
    check("client vsock:" not in daemon.log(), "a log line about a good client")
