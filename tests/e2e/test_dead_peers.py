"""Clients that are gone without a word, and clients that are only quiet: over a network that can be unplugged."""

import os
import socket
import subprocess
import time

import wire
from harness import FILE, LIBC, MIB, Skip
from harness import check, equal, random_bytes, same_bytes, test, two_cores, wait_until
from wire import Wire

DEAD_PEER_S = 5  # the least
NOTICED_SECONDS = DEAD_PEER_S + 1.5  # a second for timers of TCP that are late, and the test's own
NOT_BEFORE_SECONDS = 3

# What follows needs a network to cut: a namespace of its own, joined to ours by a pair of interfaces.

CLONE_NEWNET = 0x40000000


class Network:
    """A machine beside ours, that can be unplugged.  Addresses are of 198.18.0.0/15, which is for tests (RFC 2544)."""

    def __init__(self, env):
        self.name = f"millrace-{os.getpid()}"
        subnet = f"198.18.{os.getpid() // 64 % 256}.{os.getpid() % 64 * 4}"
        base, last = subnet.rsplit(".", 1)
        self.ours = f"{base}.{int(last) + 1}"
        self.theirs = f"{base}.{int(last) + 2}"
        near, self.far = f"mr{os.getpid()}a", f"mr{os.getpid()}b"
        if os.geteuid() != 0:
            raise Skip("no network of our own: needs root")
        made = env.run(["ip", "netns", "add", self.name], expect=None)
        if made.code != 0:
            raise Skip(f"no network of our own: {made.err.strip()}")
        env.stack.callback(subprocess.run, ["ip", "netns", "del", self.name], check=False)
        made = env.run(["ip", "link", "add", near, "type", "veth", "peer", self.far, "netns", self.name], expect=None)
        if made.code != 0:
            raise Skip(f"no network of our own: {made.err.strip()}")
        env.stack.callback(subprocess.run, ["ip", "link", "del", near], check=False)
        env.run(["ip", "addr", "add", f"{self.ours}/30", "dev", near])
        env.run(["ip", "link", "set", near, "up"])
        self.run = lambda *words: env.run(["ip", "-n", self.name, *words])
        self.run("addr", "add", f"{self.theirs}/30", "dev", self.far)
        self.run("link", "set", self.far, "up")

    def reach(self, address):
        """An address as it is reached from the other machine."""
        return Beyond(self, address)

    def unplug(self):
        """From now on nothing arrives, and nobody says so."""
        self.run("link", "set", self.far, "down")

    def plug_in(self):
        self.run("link", "set", self.far, "up")


class Beyond:
    def __init__(self, network, address):
        self.network = network
        self.address = address

    def connect(self, seconds=30):
        """A socket stays in the namespace it was made in; only this thread moves, and comes back."""
        with open("/proc/self/ns/net", "rb") as ours, open(f"/run/netns/{self.network.name}", "rb") as theirs:
            enter_namespace(theirs)
            try:
                return socket.create_connection((self.address.host, self.address.port), seconds)
            finally:
                enter_namespace(ours)


def enter_namespace(file):
    if LIBC.setns(file.fileno(), CLONE_NEWNET) != 0:
        raise OSError("setns")


def serve(env, network, image, settings=""):
    """A daemon that listens on the loopback address, and on the network."""
    config = env.config(
        f"[reactor]\ncores = {two_cores()}\n"
        f"[server]\nlisten = {env.listen_text()}\nlisten = {network.ours}:0\ndead-peer-s = {DEAD_PEER_S}\n{settings}\n"
        f"[export disk]\npath = {image.path}\n"
    )
    return env.serve("--config", config)


def connect(env, address):
    return env.keep(Wire(address))


def gets_in(env, daemon):
    """Whether there is room for one more client."""
    client = connect(env, daemon.addresses[0])
    try:
        client.go("disk")
        return True
    except (wire.Closed, ConnectionError):
        return False
    finally:
        client.close()


def check_place_is_freed(env, daemon, network, peer):
    """After unplugging, when PEER has the only place."""
    check(not gets_in(env, daemon), "there was a place before")
    network.unplug()
    began = time.monotonic()
    wait_until(lambda: gets_in(env, daemon), NOTICED_SECONDS, "its place is free")
    took = time.monotonic() - began
    check(took > NOT_BEFORE_SECONDS, f"noticed after {took:.1f} s already")
    lines = [line for line in daemon.log_lines() if f"client {network.theirs}:" in line]
    equal(len(lines), 1, "log lines about it")
    check("Connection timed out" in lines[0] or "No route to host" in lines[0], lines[0])
    peer.close()


@test(over=[(0.2,), (3,)], quick=[(0.2,)])
def idle_peer_that_died_frees_its_place(env, idle_seconds):
    """3 s: it is parked by then."""
    network = Network(env)
    daemon = serve(env, network, env.image(FILE, MIB), "max-connections = 1")
    peer = connect(env, network.reach(daemon.addresses[1]))
    peer.go("disk")
    peer.read(0, 4096)
    time.sleep(idle_seconds)
    check_place_is_freed(env, daemon, network, peer)


@test()
def peer_that_died_before_its_replies_came_frees_its_place(env):
    network = Network(env)
    daemon = serve(env, network, env.image(FILE, 64 * MIB), "max-connections = 1")
    peer = connect(env, network.reach(daemon.addresses[1]))
    peer.go("disk")
    peer.sock.settimeout(0.3)
    peer.request(wire.CMD_READ, 0, 32 * MIB)
    peer.receive(16)
    check_place_is_freed(env, daemon, network, peer)


@test()
def peer_that_died_while_it_sent_frees_its_place(env):
    network = Network(env)
    daemon = serve(env, network, env.image(FILE, MIB), "max-connections = 1")
    peer = connect(env, network.reach(daemon.addresses[1]))
    peer.go("disk")
    peer.send(wire.pack_request(wire.CMD_WRITE, 0, MIB) + b"x" * 5000)
    time.sleep(0.2)
    check_place_is_freed(env, daemon, network, peer)


@test(quick=True)
def client_that_is_only_idle_is_kept(env):
    """Three times as long as a dead one."""
    content = random_bytes(MIB)
    network = Network(env)
    daemon = serve(env, network, env.image(FILE, MIB, content))
    client = connect(env, network.reach(daemon.addresses[1]))
    client.go("disk")
    time.sleep(env.size(3 * DEAD_PEER_S, DEAD_PEER_S + 2))
    same_bytes(client.read(1000, 5000), content[1000:6000], "a read after it")
    equal([line for line in daemon.log_lines() if "client" in line], [], "log lines about clients")


@test()
def network_that_comes_back_in_time_costs_nothing(env):
    content = random_bytes(MIB)
    network = Network(env)
    daemon = serve(env, network, env.image(FILE, MIB, content))
    client = connect(env, network.reach(daemon.addresses[1]))
    client.go("disk")
    network.unplug()
    time.sleep(DEAD_PEER_S - 3)
    network.plug_in()
    same_bytes(client.read(1000, 5000), content[1000:6000], "a read after it")
    time.sleep(2 * DEAD_PEER_S)
    same_bytes(client.read(1000, 5000), content[1000:6000], "a read long after it")


@test(quick=True)
def handshake_must_end_in_time(env):
    """However slowly the client goes on; and those that are done may take their time."""
    image = env.image(FILE, MIB)
    config = env.config(
        f"[server]\nlisten = {env.listen_text()}\nhandshake-s = 2\n[export disk]\npath = {image.path}\n"
    )
    daemon = env.serve("--config", config)
    done = connect(env, daemon.address)
    done.go("disk")
    silent, dripping = connect(env, daemon.address), connect(env, daemon.address)
    dripping.greet()
    began = time.monotonic()
    option = wire.pack_option(wire.OPT_LIST) * 10
    try:
        for byte in option:
            dripping.send(bytes([byte]))
            time.sleep(0.1)
    except OSError:
        pass
    took = time.monotonic() - began
    check(1.5 < took < 3.5, f"it could go on for {took:.1f} s")
    silent.receive_greeting()
    silent.expect_closed()
    equal(len([line for line in daemon.log_lines() if "handshake in 2 s (handshake-s)" in line]), 2, "log lines")
    done.read(0, 4096)


@test()
def client_that_reads_nothing_for_as_long_is_taken_for_dead(env):
    """Its kernel answers, but TCP_USER_TIMEOUT does not care: as the manual says.  And not sooner."""
    image = env.image(FILE, 4 * MIB)
    config = env.config(
        f"[server]\nlisten = {env.listen_text()}\ndead-peer-s = {DEAD_PEER_S}\nmax-connections = 1\n"
        f"[export disk]\npath = {image.path}\n"
    )
    daemon = env.serve("--config", config)
    client = connect(env, daemon.address)
    client.go("disk")
    client.send(wire.pack_request(wire.CMD_READ, 0, MIB) * 50)
    began = time.monotonic()
    wait_until(lambda: gets_in(env, daemon), 2 * DEAD_PEER_S, "its place is free")
    took = time.monotonic() - began
    check(took > NOT_BEFORE_SECONDS, f"dropped after {took:.1f} s already")
