"""Floods of TLS handshakes: what each costs is up to the server's key, how many there are is up to the clients."""

import multiprocessing
import ssl
import struct
import time

import wire
from authority import Authority, start_tls, tool
from harness import MIB, check, random_bytes, same_bytes, test
from wire import Wire

CLIENTS = 64  # at a time; each makes the server sign once
RSA_BITS = 3072  # about 5 ms of a core for one signature
SECONDS = 1.5
# All signatures, one after the other, take 300 ms; a read waits for one at most.  A machine that has other things to do makes some slow.
SLOW_SECONDS = 0.05
SLOW_SHARE_MAX = 0.3


class RsaAuthority(Authority):
    def make_key(self, name):
        tool("certtool", "--generate-privkey", "--key-type=rsa", f"--bits={RSA_BITS}", "--outfile", self.path(f"{name}-key.pem"))


def client_hello():
    """The first bytes of a TLS client, as good for the next connection as for this."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ecdh_curve("prime256v1")  # the server's first choice: for another it asks again, before it signs anything
    outgoing = ssl.MemoryBIO()
    inside = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    try:
        inside.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


def flood(address, hello, pipe):
    """Until it is ended: connections that go as far as the server's signature, and no further."""
    start = struct.pack(">I", 3) + wire.pack_option(wire.OPT_STARTTLS)
    while True:
        socks = [address.connect() for _ in range(CLIENTS)]
        for sock in socks:
            sock.sendall(start)
        for sock in socks:
            wanted = 18 + 20  # the greeting and the ACK
            while wanted > 0:
                wanted -= len(sock.recv(wanted))
        for sock in socks:
            sock.sendall(hello)
        pipe.send(len(socks))
        for sock in socks:
            sock.recv(1)
            sock.close()


def slow_share(client, content):
    """How much of the time went to reads that were slow."""
    began = now = time.monotonic()
    slow = 0
    while now - began < SECONDS:
        same_bytes(client.read(4096, 4096), content[4096:8192], "a read")
        before, now = now, time.monotonic()
        if now - before > SLOW_SECONDS:
            slow += now - before
    return slow / (now - began)


@test(quick=True, alone=True, speed=True)
def a_flood_of_handshakes_stalls_nobody_else_on_the_core(env):
    content = random_bytes(MIB)
    authority = RsaAuthority(env)
    config = env.config(
        f"[reactor]\ncores = auto\n[server]\nlisten = 127.0.0.1:0\n{authority.settings(more='verify-client = no')}\n"
        f"[export disk]\npath = {env.file(MIB, content)}\n"
    )
    daemon = env.serve("--config", config, prefix=("taskset", "-c", "0"))  # one core for all
    client = env.keep(Wire(daemon.address))
    client.go("disk")
    ours, theirs = multiprocessing.Pipe()
    flooding = multiprocessing.Process(target=flood, args=(daemon.address, client_hello(), theirs), daemon=True)
    flooding.start()
    try:
        check(ours.poll(10), "the flood has not begun within 10 s")
        slow = slow_share(client, content)
        # A client of TLS has its turn too.
        newcomer = env.keep(Wire(daemon.address))
        newcomer.greet()
        began = time.monotonic()
        start_tls(newcomer, authority.context(None))
        newcomer.ask_info(wire.OPT_GO, "disk")
        same_bytes(newcomer.read(0, 4096), content[:4096], "a read of the newcomer")
        took = time.monotonic() - began
        check(ours.poll(10), "the flood has ended")
    finally:
        flooding.kill()
        flooding.join()
    check(slow < SLOW_SHARE_MAX, f"{slow:.0%} of the time went to reads of more than {SLOW_SECONDS} s")
    check(took < 10, f"a handshake took {took:.1f} s")
