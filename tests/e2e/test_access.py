"""Who may connect, to what, how often, and for how long: address ranges, views of exports, dead peers.

Every address of 127.0.0.0/8 is this machine, so one client can come from many.
"""

import json
import socket

import wire
from harness import FILE, MIB, TCP, TCP6, UNIX, Address, Skip
from harness import check, equal, has_ipv6, random_bytes, same_bytes, test, two_cores, wait_until
from test_service import hand_over, renumbered
from wire import Wire


class From:
    """An address as it is reached from SOURCE."""

    def __init__(self, address, source):
        self.address = address
        self.source = source

    def connect(self, seconds=30):
        where = (self.address.host, self.address.port)
        return socket.create_connection(where, seconds, source_address=(self.source, 0))


def serve(env, server="", exports="", transport=TCP):
    """A daemon with SERVER in its [server] section; EXPORTS: sections of their own."""
    config = env.config(
        f"[reactor]\ncores = {two_cores()}\n"
        f"[server]\nlisten = {env.listen_text(transport)}\n{server}\n{exports}\n"
    )
    return env.serve("--config", config)


def export_text(name, image, settings=""):
    return f"[export {name}]\npath = {image.path}\n{settings}\n"


def connect(env, address):
    return env.keep(Wire(address))


def lines_with(daemon, *parts):
    return [line for line in daemon.log_lines() if all(part in line for part in parts)]


@test(quick=True)
def denied_address_is_disconnected_without_a_byte(env):
    content = random_bytes(MIB)
    image = env.image(FILE, MIB, content)
    daemon = serve(env, "allow = 127.0.0.0/30\ndeny = 127.0.0.2", export_text("disk", image))
    for source in ("127.0.0.2", "127.0.0.4"):
        connect(env, From(daemon.address, source)).expect_closed()
        found = daemon.logged(f"client {source}:", "denied", "[server]")
        equal(len(found), 1, f"log lines about {source}")
    for source in ("127.0.0.1", "127.0.0.3"):
        client = connect(env, From(daemon.address, source))
        client.go("disk")
        same_bytes(client.read(5, 5000), content[5:5005], f"data for {source}")


@test(over=[(TCP6, "::1"), (UNIX, "unix")], quick=True)
def rules_hold_for_every_kind_of_address(env, transport, own_range):
    image = env.image(FILE, MIB)
    denying = serve(env, f"deny = {own_range}", export_text("disk", image), transport)
    connect(env, denying.address).expect_closed()
    denying.stop()
    allowing = serve(env, f"allow = {own_range}", export_text("disk", image), transport)
    connect(env, allowing.address).go("disk")


@test(quick=True)
def hidden_export_is_the_same_as_none(env):
    open_image, hidden_image = env.image(FILE, MIB), env.image(FILE, 2 * MIB)
    exports = export_text("open", open_image) + export_text("hidden", hidden_image, "allow = 127.0.0.2")
    daemon = serve(env, exports=exports)
    stranger = connect(env, daemon.address)
    stranger.greet()
    listed = [data for kind, data in stranger.ask(wire.OPT_LIST) if kind == wire.REP_SERVER]
    equal(listed, [b"\0\0\0\4open"], "what is listed for a stranger")
    for option in (wire.OPT_INFO, wire.OPT_GO):
        hidden = stranger.ask(option, wire.pack_info_request("hidden"))
        missing = stranger.ask(option, wire.pack_info_request("mising"))
        equal(hidden, missing, f"answer to option {option}")
        equal(hidden[-1][0], wire.REP_ERR_UNKNOWN, "its type")
    daemon.logged("client 127.0.0.1:", "hidden", "denied")
    daemon.logged("client 127.0.0.1:", "mising: there is no such export")
    stranger.ask_info(wire.OPT_GO, "open")  # on the same connection

    old = connect(env, daemon.address)
    old.greet()
    old.send(wire.pack_option(wire.OPT_EXPORT_NAME, b"hidden"))
    old.expect_closed()

    friend = connect(env, From(daemon.address, "127.0.0.2"))
    size, _ = friend.go("hidden")
    equal(size, 2 * MIB, "size of the export for a friend")


@test(quick=True)
def clients_that_may_only_read_can_not_write(env):
    content = random_bytes(MIB)
    image = env.image(FILE, MIB, content)
    daemon = serve(env, exports=export_text("disk", image, "read-only-for = 127.0.0.2, ::1"))
    writer = connect(env, daemon.address)
    _, flags = writer.go("disk")
    equal(flags & wire.TRANSMIT_READ_ONLY, 0, "READ_ONLY for a writer")
    reader = connect(env, From(daemon.address, "127.0.0.2"))
    _, flags = reader.go("disk")
    check(flags & wire.TRANSMIT_READ_ONLY, "no READ_ONLY for a reader")
    error, _ = reader.call(wire.CMD_WRITE, 4096, 4096, b"x" * 4096)
    equal(error, wire.EPERM, "error of a reader's write")
    same_bytes(reader.read(4096, 4096), content[4096:8192], "what the reader wrote")
    writer.write(4096, b"y" * 4096)
    same_bytes(reader.read(4096, 4096), b"y" * 4096, "what the writer wrote, read by the reader")
    old = connect(env, From(daemon.address, "127.0.0.2"))
    old.greet(wire.FLAG_FIXED_NEWSTYLE)
    _, flags = old.export_name("disk", True)
    check(flags & wire.TRANSMIT_READ_ONLY, "no READ_ONLY in the answer to EXPORT_NAME")


@test(quick=True)
def real_client_sees_its_view(env):
    image = env.image(FILE, MIB)
    exports = export_text("disk", image, "read-only-for = 127.0.0.0/8") + export_text(
        "hidden", env.image(FILE, MIB), "deny = all"
    )
    daemon = serve(env, exports=exports)
    info = json.loads(env.run(["nbdinfo", "--json", daemon.uri()]).out)
    equal(info["exports"][0]["is_read_only"], True, "is_read_only of nbdinfo")
    listed = json.loads(env.run(["nbdinfo", "--json", "--list", daemon.uri("")]).out)
    equal([export["export-name"] for export in listed["exports"]], ["disk"], "nbdinfo --list")
    refused = env.run(["nbdinfo", daemon.uri("hidden")], expect=1)
    check("hidden" in refused.err or "export" in refused.err, refused.err)


@test(quick=True)
def each_client_address_has_its_limit(env):
    content = random_bytes(MIB)
    daemon = serve(env, "max-connections-per-client = 2", export_text("disk", env.image(FILE, MIB, content)))
    first = [connect(env, daemon.address) for _ in range(2)]
    for client in first:
        client.go("disk")
    for _ in range(3):
        connect(env, daemon.address).expect_closed()
    equal(len(daemon.logged("client 127.0.0.1:", "max-connections-per-client", count=3)), 3, "log lines")
    connect(env, From(daemon.address, "127.0.0.2")).go("disk")
    first.pop().close()
    newcomer = wait_until(lambda: gets_in(env, daemon.address), 5, "there is room again")
    same_bytes(newcomer.read(10, 5000), content[10:5010], "a read of the one that came later")
    check(gets_in(env, daemon.address) is None, "a third one got in")


def gets_in(env, address):
    """A connection in transmission, or None while it is refused."""
    client = connect(env, address)
    try:
        client.go("disk")
    except (wire.Closed, ConnectionError):
        return None
    return client


@test(quick=True)
def unix_clients_have_no_limit_each(env):
    daemon = serve(env, "max-connections-per-client = 1", export_text("disk", env.image(FILE, MIB)), UNIX)
    for _ in range(3):
        connect(env, daemon.address).go("disk")


@test(over=[("garbage",), ("denied",), ("vanished",)], quick=True)
def log_of_bad_clients_is_limited_and_counted(env, kind):
    """Ten lines for a reason; the rest is a number, at the latest when the daemon stops."""
    count = 200
    daemon = serve(env, "deny = 127.0.0.9", export_text("disk", env.image(FILE, MIB)))
    reason = {"garbage": "no NBD option", "denied": "denied", "vanished": "during the handshake"}[kind]
    for _ in range(count):
        client = Wire(From(daemon.address, "127.0.0.9") if kind == "denied" else daemon.address)
        if kind == "garbage":
            client.greet()
            client.send(b"x" * 16)
        if kind == "vanished":
            client.receive_greeting()
        else:
            client.expect_closed()
        client.close()
    daemon.logged(reason, count=10)
    daemon.stop()
    found = lines_with(daemon, reason)
    equal(len([line for line in found if "client 127.0.0." in line]), 10, "lines about one client")
    equal(
        [line for line in found if "clients:" in line and f" {count - 10} more times in 60 s" in line],
        found[10:],
        "the line behind them",
    )
    equal(len(found), 11, "lines in all")


@test(quick=True)
def ipv4_client_of_a_socket_for_both_families_is_an_ipv4_client(env):
    """Our own listeners are for one family; a socket that is handed over need not be."""
    if not has_ipv6():
        raise Skip("no IPv6 on the loopback interface")
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as made:
        both = renumbered(env, made)
    rules = "[server]\nallow = 127.0.0.0/8, ::1\ndeny = 127.0.0.2\n"
    config = env.config(rules + export_text("disk", env.image(FILE, MIB), "read-only-for = 127.0.0.3"))
    daemon = hand_over(env, [both], ["--config", config])
    daemon.wait_ready()
    address = Address(f"127.0.0.1:{both.getsockname()[1]}")
    connect(env, From(address, "127.0.0.2")).expect_closed()
    equal(len(daemon.logged("127.0.0.2", "denied")), 1, "log lines about it")
    for source, read_only in (("127.0.0.1", 0), ("127.0.0.3", wire.TRANSMIT_READ_ONLY)):
        _, flags = connect(env, From(address, source)).go("disk")
        equal(flags & wire.TRANSMIT_READ_ONLY, read_only, f"READ_ONLY for {source}")
