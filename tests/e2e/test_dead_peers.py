"""Clients that are gone without a word, and clients that are only quiet: over a network that can be unplugged."""

import contextlib
import os
import socket
import struct
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

    @contextlib.contextmanager
    def inside(self):
        """This thread is on the other machine meanwhile.  A socket stays in the namespace it was made in."""
        with open("/proc/self/ns/net", "rb") as ours, open(f"/run/netns/{self.name}", "rb") as theirs:
            enter_namespace(theirs)
            try:
                yield
            finally:
                enter_namespace(ours)

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
        with self.network.inside():
            return socket.create_connection((self.address.host, self.address.port), seconds)


def enter_namespace(file):
    if LIBC.setns(file.fileno(), CLONE_NEWNET) != 0:
        raise OSError("setns")


def serve(env, network, image, settings="", export=""):
    """A daemon that listens on the loopback address, and on the network."""
    config = env.config(
        f"[reactor]\ncores = {two_cores()}\n"
        f"[server]\nlisten = {env.listen_text()}\nlisten = {network.ours}:0\ndead-peer-s = {DEAD_PEER_S}\n{settings}\n"
        f"[export disk]\npath = {image.path}\n{export}\n"
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


def check_place_is_freed(env, daemon, network, peer, whys=("Connection timed out", "No route to host")):
    """After unplugging, when PEER has the only place.  WHYS: what the log may say."""
    check(not gets_in(env, daemon), "there was a place before")
    network.unplug()
    began = time.monotonic()
    wait_until(lambda: gets_in(env, daemon), NOTICED_SECONDS, "its place is free")
    took = time.monotonic() - began
    check(took > NOT_BEFORE_SECONDS, f"noticed after {took:.1f} s already")
    lines = [line for line in daemon.log_lines() if f"client {network.theirs}:" in line]
    equal(len(lines), 1, "log lines about it")
    check(any(why in lines[0] for why in whys), lines[0])
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


@test(quick=True)
def peer_that_complained_of_a_packet_before_it_died_frees_its_place(env):
    """That makes the kernel's error another: the one that TLS has for mistakes of its own."""
    network = Network(env)
    daemon = serve(env, network, env.image(FILE, MIB), "max-connections = 1")
    peer = connect(env, network.reach(daemon.addresses[1]))
    peer.go("disk")
    peer.read(0, 4096)
    with network.inside():
        complain(peer.sock)
    check_place_is_freed(env, daemon, network, peer, ["Software caused connection abort"])


def complain(sock):
    """ICMP: there is a problem with a parameter of the packet that is to come next on SOCK.  Source: RFC 792, icmp(7)."""
    repair, queue, queue_seq, receive_queue, off_without_probe = 19, 20, 21, 1, -1  # linux/tcp.h
    sock.setsockopt(socket.IPPROTO_TCP, repair, 1)
    sock.setsockopt(socket.IPPROTO_TCP, queue, receive_queue)
    next_byte = sock.getsockopt(socket.IPPROTO_TCP, queue_seq) & 0xFFFFFFFF
    sock.setsockopt(socket.IPPROTO_TCP, repair, off_without_probe)
    (our_host, our_port), (its_host, its_port) = sock.getsockname(), sock.getpeername()
    hosts = socket.inet_aton(its_host) + socket.inet_aton(our_host)
    packet = struct.pack("!BBHHHBBH", 0x45, 0, 40, 0, 0, 64, socket.IPPROTO_TCP, 0) + hosts
    packet += struct.pack("!HHI", its_port, our_port, next_byte)
    message = struct.pack("!BBHI", 12, 0, 0, 0) + packet
    total = sum(struct.unpack(f"!{len(message) // 2}H", message))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw:
        raw.sendto(message[:2] + struct.pack("!H", total ^ 0xFFFF) + message[4:], (its_host, 0))


@test()
def peer_that_died_while_it_waited_for_its_turn_frees_its_place(env):
    """Nothing is received from it meanwhile."""
    network = Network(env)
    daemon = serve(env, network, env.image(FILE, 64 * MIB), "max-connections = 1", "limit-bytes = 1M\nburst-ms = 1")
    peer = connect(env, network.reach(daemon.addresses[1]))
    peer.go("disk")
    peer.read(0, 32 * MIB)
    peer.request(wire.CMD_READ, 0, 32 * MIB)
    peer.request(wire.CMD_READ, 0, 32 * MIB)
    time.sleep(0.2)
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
def client_that_asks_about_each_export_has_more_time_for_its_handshake(env):
    """As nbdinfo --list does, with 0.2 s for each by TCP.  But not for ever: a second for each export that there is."""
    exports = "".join(f"[export {name}]\ntype = null\nsize = 1M\n" for name in ("one", "two"))
    config = env.config(f"[server]\nlisten = {env.listen_text()}\nhandshake-s = 1\n{exports}")
    daemon = env.serve("--config", config)
    refused, asking = connect(env, daemon.address), connect(env, daemon.address)
    began = time.monotonic()
    for client in (refused, asking):
        client.greet()
    for name in ("one", "two", "one", "two"):
        asking.ask_info(wire.OPT_INFO, name)
        refused.answer_kind(wire.OPT_INFO, wire.pack_info_request("none"))
    refused.expect_closed()
    took = time.monotonic() - began
    check(0.9 < took < 2.5, f"who asked for what is not there was closed after {took:.1f} s")
    asking.ask_info(wire.OPT_INFO, "two")
    asking.expect_closed()
    took = time.monotonic() - began
    check(2.9 < took < 4.5, f"who asked about each of two was closed after {took:.1f} s")
    listing = connect(env, daemon.address)
    listing.greet()
    time.sleep(0.8)
    listing.ask_info(wire.OPT_INFO, "one")
    time.sleep(0.7)
    listing.ask_info(wire.OPT_GO, "two")


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
